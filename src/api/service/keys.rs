//! `KeysService`: this member's keys, and whom this daemon trusts.

use super::Services;
use crate::api::convert;
use crate::api::convert::timestamp;
use crate::api::page::{Encoding, Page};
use crate::api::status::Failure;
use crate::domain::error_code::ErrorCode;
use crate::domain::ids::{MemberId, MemberKey};
use crate::domain::message::Destination;
use crate::domain::provenance::PinState;
use crate::domain::roster::{self, PinnedMember, meant_by};
use crate::peers::Change;
use crate::proto::admin;

// === impl Services ===

impl Services {
    /// A new key for this member (R373).
    pub async fn rotate_keypair(&self) -> Result<admin::RotateKeypairResponse, Failure> {
        (self.0.deps.rotate)().await
    }

    /// A page of pinned members.
    pub fn list_pinned_members(
        &self,
        mut request: admin::ListPinnedMembersRequest,
        encoding: Encoding,
    ) -> Result<admin::ListPinnedMembersResponse, Failure> {
        let page = Page::of(&mut request, encoding)?;
        let members = self.0.deps.peers.members();
        let mut pinned: Vec<admin::PinnedMember> = members
            .iter()
            .map(|member| self.pinned_member(member, &members))
            .filter(|member| {
                !request.pending_only || !member.shown_pubkey.is_empty() || !member.name_bound_to.is_empty()
            })
            .filter(|member| page.takes(&place(member)))
            .collect();
        pinned.sort_by_cached_key(place);
        let items = pinned.into_iter().map(|member| (place(&member), member));
        let (members, next_page_token) = page.fill(items, false);
        Ok(admin::ListPinnedMembersResponse { members, next_page_token })
    }

    /// Pins the key that the broker shows.
    pub async fn accept_member_key(
        &self,
        request: admin::AcceptMemberKeyRequest,
    ) -> Result<admin::AcceptMemberKeyResponse, Failure> {
        let member_id = self.member("member", &request.member)?.member_id;
        let key = MemberKey::parse(&request.pubkey).map_err(|error| Failure::field("pubkey", error.to_string()))?;
        let member = self.change(Change::AcceptKey { member_id, key }).await?;
        Ok(admin::AcceptMemberKeyResponse { member: Some(member) })
    }

    /// Gives a name to the member that claims it.
    pub async fn accept_name_binding(
        &self,
        request: admin::AcceptNameBindingRequest,
    ) -> Result<admin::AcceptNameBindingResponse, Failure> {
        let member_id =
            MemberId::parse(request.member_id).map_err(|error| Failure::field("member_id", error.to_string()))?;
        let member = self.change(Change::AcceptName { member_id, name: request.name }).await?;
        Ok(admin::AcceptNameBindingResponse { member: Some(member) })
    }

    /// The safety number of this member and a peer; with the peer's number, a
    /// mark that they agree.
    pub async fn verify_peer(&self, request: admin::VerifyPeerRequest) -> Result<admin::VerifyPeerResponse, Failure> {
        let deps = &self.0.deps;
        let peer = self.member("peer", &request.peer)?;
        if peer.member_id == *deps.identity.member_id() {
            return Err(Failure::field("peer", "it is this member itself"));
        }
        let safety_number = deps.identity.safety_number(peer.key);
        let shown = peer.changed_key.map(|key| deps.identity.safety_number(key)).unwrap_or_default();
        let members = deps.peers.members();
        let mut member = self.pinned_member(&peer, &members);
        let given: String = request.safety_number.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
        if !given.is_empty() {
            if given != safety_number.replace(' ', "") {
                let text = format!(
                    "the safety number is not the one of {} and this member; read both numbers again, and if they \
                     differ do not trust this key",
                    peer.display_name
                );
                return Err(Failure::new(ErrorCode::SafetyNumberMismatch, text));
            }
            member = self.change(Change::Verify { member_id: peer.member_id.clone(), key: peer.key }).await?;
        }
        Ok(admin::VerifyPeerResponse { safety_number, member: Some(member), shown_safety_number: shown })
    }

    async fn change(&self, change: Change) -> Result<admin::PinnedMember, Failure> {
        let peers = &self.0.deps.peers;
        let changed = peers.change(change).await?;
        Ok(self.pinned_member(&changed, &peers.members()))
    }

    pub(super) fn pinned_member(&self, member: &PinnedMember, members: &[PinnedMember]) -> admin::PinnedMember {
        let holders = |name: &String| members.iter().filter(|one| one.holds_name(name)).collect();
        let meant = member.name_key.as_ref().map(|name| meant_by(name, holders(name))).unwrap_or_default();
        let other = meant.iter().find(|one| one.member_id != member.member_id);
        admin::PinnedMember {
            member_id: member.member_id.to_string(),
            pubkey: member.key.to_hex(),
            display_name: member.display_name.clone(),
            bound_name: member.name_key.clone().filter(|_| other.is_none()).unwrap_or_default(),
            pin_state: convert::pin_state(PinState::of(member)).into(),
            shown_pubkey: member.changed_key.map(MemberKey::to_hex).unwrap_or_default(),
            name_bound_to: other.map(|other| other.member_id.to_string()).unwrap_or_default(),
            certified: self.0.deps.peers.certified(&member.member_id).is_some(),
            capabilities: member.capabilities.clone(),
            rotated_out_pubkeys: member.previous.iter().map(|old| old.key.to_hex()).collect(),
            first_seen_at: Some(timestamp(member.first_seen_at)),
            verified_at: member.verified_at.filter(|_| member.is_verified()).map(timestamp),
            verified_pubkey: member.verified_key.map(MemberKey::to_hex).unwrap_or_default(),
        }
    }

    /// The member that an operator names: by key, name, prefix or id. What was
    /// removed or is in question is found too.
    pub(super) fn member(&self, field: &'static str, text: &str) -> Result<PinnedMember, Failure> {
        let members = self.0.deps.peers.members();
        if let Some(member) = members.iter().find(|member| member.member_id.as_str() == text) {
            return Ok(member.clone());
        }
        let destination = Destination::parse(text).map_err(|error| Failure::field(field, error.to_string()))?;
        if let Destination::Key(key) = &destination
            && let Some(member) = members.iter().find(|member| member.is_known_by(*key))
        {
            return Ok(member.clone());
        }
        Ok(roster::find(&destination, &members)?.clone())
    }
}

/// Where a member stands in the list: by name, then by id.
fn place(member: &admin::PinnedMember) -> String {
    format!("{}\0{}", member.display_name, member.member_id)
}
