//! Keeping up with one topic: its epochs, this member's keys, and the keys of
//! others.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::table::Topic;
use super::{Error, Handle};
use crate::crypto::direct::NONCE_BYTES;
use crate::crypto::keys::BoxPublic;
use crate::crypto::sign;
use crate::crypto::topic::TopicKey;
use crate::domain::ids::{MemberId, MemberKey, TopicId};
use crate::domain::roster::PinnedMember;
use crate::domain::topics::{Distrust, Signer, Standing, may_follow, may_found};
use crate::wire::frame::{ClientFrame, ServerFrame};
use crate::wire::text;
use crate::wire::topics::{
    EpochStatement, MAX_SEALED_KEYS, OwnSealedKey, SealedKey, TopicEpochNew, TopicKeyGet, TopicKeyPut, TopicKeys,
};

/// How long the broker may take.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// Pages of statements of one topic that are read at most.
const MAX_PAGES: usize = 1_000;

// === impl Handle ===

impl Handle {
    /// Reads what the broker has of a topic, and does what this member owes to the
    /// others: keys for who waits, and a new key when somebody has gone.
    pub(super) async fn sync(&self, id: &TopicId) -> Result<(), Error> {
        for _ in 0..MAX_PAGES {
            let after_epoch = self.read().get(id).map_or(0, Topic::epoch);
            let keys = self.ask(id, after_epoch, None).await?;
            let more = keys.more;
            let stuck = self.adopt(id, keys).await?;
            if !more || stuck {
                break;
            }
        }
        self.give_keys(id).await?;
        self.renew_if_lost(id).await
    }

    async fn ask(&self, id: &TopicId, after_epoch: u32, broken: Option<u32>) -> Result<TopicKeys, Error> {
        let name = self.read().get(id).map(|topic| topic.name.clone()).unwrap_or_default();
        let get = |req_id| {
            let get = TopicKeyGet { topic_id: id.to_string(), after_epoch, broken, req_id: Some(req_id) };
            ClientFrame::TopicKeyGet(get)
        };
        match self.request(&name, get).await? {
            ServerFrame::TopicKeys(keys) if keys.topic_id == id.as_str() => Ok(keys),
            _ => Err(Error::Refused("it answered something else".to_owned())),
        }
    }

    /// Takes over epochs that count and keys that fit. True when an epoch does not
    /// count, so that what follows it cannot either.
    async fn adopt(&self, id: &TopicId, shown: TopicKeys) -> Result<bool, Error> {
        let Some(mut topic) = self.read().get(id).cloned() else { return Ok(true) };
        let before = (topic.epoch(), topic.keys.len());
        topic.distrust = None;
        topic.members = shown.members.into_iter().collect();
        topic.holders = shown.holders.into_iter().collect();
        topic.member_count = u32::try_from(topic.members.len()).unwrap_or(u32::MAX);
        for statement in shown.epochs {
            topic.shown_epoch = topic.shown_epoch.max(statement.epoch);
            if topic.distrust.is_none()
                && let Err(distrust) = self.adopt_epoch(&mut topic, statement)
            {
                tracing::warn!(topic = topic.name, reason = %distrust, "An epoch of a topic's key does not count here");
                topic.distrust = Some(distrust);
            }
        }
        let mut broken = Vec::new();
        for copy in shown.keys {
            match self.open_copy(&topic, &copy) {
                Some(Ok(key)) => {
                    topic.keys.insert(copy.epoch, key);
                }
                Some(Err(())) => broken.push(copy.epoch),
                None => {}
            }
        }
        let stuck = topic.distrust.is_some();
        // A key that lost its race is no key of this topic.
        let lost = |epoch: &u32| topic.commitments.contains_key(epoch) && topic.key(*epoch).is_none();
        let lost: Vec<u32> = topic.keys.keys().copied().filter(lost).collect();
        for epoch in lost {
            topic.keys.remove(&epoch);
        }
        if (topic.epoch(), topic.keys.len()) == before {
            self.note(|table| table.put(topic));
        } else {
            self.change(|table| table.put(topic))?;
        }
        for epoch in broken {
            tracing::warn!(
                topic_id = id.as_str(),
                epoch,
                "The copy of a topic's key does not hold it; another one is asked for"
            );
            self.ask(id, u32::MAX, Some(epoch)).await?;
        }
        Ok(stuck)
    }

    fn adopt_epoch(&self, topic: &mut Topic, statement: EpochStatement) -> Result<(), Distrust> {
        let mesh = self.0.deps.identity.mesh_id().as_str();
        if statement.topic_id != topic.id.as_str() || statement.name != topic.name {
            return Err(Distrust::OtherName);
        }
        let predecessor = topic.head.as_ref().and_then(|head| head.hash(mesh));
        let commitment = hex::decode(&statement.commitment).ok().and_then(|bytes| bytes.try_into().ok());
        let commitment: [u8; 32] = commitment.ok_or(Distrust::NotASuccessor)?;
        if statement.epoch != topic.epoch() + 1 || statement.predecessor != predecessor {
            return Err(Distrust::NotASuccessor);
        }
        let signer = MemberId::parse(statement.signer.as_str()).map_err(|_| Distrust::UnknownSigner)?;
        let key = MemberKey::parse(&statement.signer_key).map_err(|_| Distrust::UnknownSigner)?;
        let standing = self.standing(topic, &signer, Some(key));
        let signed = match (statement.signed_text(mesh), text::signature_from_hex(&statement.signature)) {
            (Some(text), Some(signature)) => sign::verify(key, text.as_bytes(), &signature),
            _ => false,
        };
        if !signed {
            return Err(Distrust::NotASuccessor);
        }
        if topic.head.is_none() {
            may_found(standing)?;
            topic.lead = Some(signer);
        } else {
            let is_lead = topic.lead.as_ref() == Some(&signer);
            let was_in = topic.head.as_ref().is_some_and(|head| head.members.contains(&statement.signer));
            let lead_is_there = topic.lead.as_ref().is_some_and(|lead| self.is_there(topic, lead));
            may_follow(Signer { standing, is_lead, was_in }, lead_is_there)?;
        }
        topic.commitments.insert(statement.epoch, commitment);
        topic.encrypted = true;
        topic.head = Some(statement);
        Ok(())
    }

    /// This member's copy of a key; `None` when it is not needed, `Err` when it
    /// does not hold the key of its epoch.
    fn open_copy(&self, topic: &Topic, copy: &OwnSealedKey) -> Option<Result<TopicKey, ()>> {
        if topic.key(copy.epoch).is_some() || !topic.commitments.contains_key(&copy.epoch) {
            return None;
        }
        let sealed = text::from_base64(&copy.sealed).unwrap_or_default();
        let nonce = text::nonce_from_base64(&copy.nonce).unwrap_or_default();
        let fits =
            |key: &TopicKey| topic.commitments.get(&copy.epoch) == Some(&key.commitment(topic.id.as_str(), copy.epoch));
        let own = self.0.deps.identity.opening_keys();
        let opened = own.iter().find_map(|own| own.open_topic_key(&sealed, &nonce).ok().filter(fits));
        Some(opened.ok_or(()))
    }

    /// What is known of a member; with a key, whether it is or was that member's.
    pub(super) fn standing(&self, topic: &Topic, id: &MemberId, key: Option<MemberKey>) -> Option<Standing> {
        let deps = &self.0.deps;
        if id == deps.identity.member_id() {
            let own = [deps.identity.key()];
            let members = deps.peers.members();
            let pinned = members.iter().find(|member| member.member_id == *id);
            let is_own = |key: MemberKey| own.contains(&key) || pinned.is_some_and(|member| member.is_known_by(key));
            return key.is_none_or(is_own).then(|| Standing {
                is_own: true,
                certified: deps.peers.certified(id),
                ..Standing::default()
            });
        }
        let members = deps.peers.members();
        let member = members.iter().find(|member| member.member_id == *id)?;
        if !key.is_none_or(|key| member.is_known_by(key)) {
            return None;
        }
        Some(Standing {
            is_own: false,
            certified: deps.peers.certified(id),
            admitted: member.is_verified() || topic.admitted.contains(id),
            is_out: member.revoked || member.changed_key.is_some(),
        })
    }

    /// Whether a member is still in mesh and topic.
    fn is_there(&self, topic: &Topic, id: &MemberId) -> bool {
        let members = self.0.deps.peers.members();
        let revoked = members.iter().any(|member| member.member_id == *id && member.revoked);
        !revoked && topic.members.contains(id.as_str())
    }

    /// Whom the topic's key may be given to: who is in it and vouched for, or was
    /// named by the signer of the epoch before.
    fn admissible(&self, topic: &Topic) -> Vec<PinnedMember> {
        let members = self.0.deps.peers.members();
        let signed: BTreeSet<&str> =
            topic.head.iter().flat_map(|head| head.members.iter()).map(String::as_str).collect();
        let may = |member: &&PinnedMember| {
            let in_topic = topic.members.contains(member.member_id.as_str());
            let standing = self.standing(topic, &member.member_id, None).unwrap_or_default();
            in_topic && !standing.is_out && (standing.is_trusted() || signed.contains(member.member_id.as_str()))
        };
        members.iter().filter(may).cloned().collect()
    }

    /// Seals the newest key for members who wait for it and may have it.
    async fn give_keys(&self, id: &TopicId) -> Result<(), Error> {
        let Some(topic) = self.read().get(id).cloned() else { return Ok(()) };
        let epoch = topic.epoch();
        let Some(key) = topic.key(epoch).cloned() else { return Ok(()) };
        if topic.shown_epoch > epoch || !topic.holders.contains(self.0.deps.identity.member_id().as_str()) {
            return Ok(());
        }
        let waiting: Vec<PinnedMember> = self
            .admissible(&topic)
            .into_iter()
            .filter(|member| !topic.holders.contains(member.member_id.as_str()))
            .collect();
        for chunk in waiting.chunks(MAX_SEALED_KEYS) {
            let keys = self.seal_for(&key, chunk);
            self.put_keys(&topic, epoch, keys).await?;
            tracing::info!(topic = topic.name, epoch, members = chunk.len(), "A topic's key was given to members");
        }
        Ok(())
    }

    /// Hands sealed copies over, and notes who has one now.
    pub(super) async fn put_keys(&self, topic: &Topic, epoch: u32, keys: Vec<SealedKey>) -> Result<(), Error> {
        let given: Vec<String> = keys.iter().map(|key| key.member_id.clone()).collect();
        let put = |req_id| {
            let put = TopicKeyPut { topic_id: topic.id.to_string(), epoch, keys, req_id: Some(req_id) };
            ClientFrame::TopicKeyPut(put)
        };
        self.request(&topic.name, put).await?;
        if epoch == topic.epoch() {
            self.note(|table| {
                if let Some(topic) = table.get_mut(&topic.id) {
                    topic.holders.extend(given);
                }
            });
        }
        Ok(())
    }

    /// Renews the key when somebody who has it left the topic or the mesh, if that
    /// is this member's to do.
    async fn renew_if_lost(&self, id: &TopicId) -> Result<(), Error> {
        let Some(topic) = self.read().get(id).cloned() else { return Ok(()) };
        if topic.shown_epoch > topic.epoch() || topic.key(topic.epoch()).is_none() {
            return Ok(());
        }
        let lost = topic
            .readers()
            .into_iter()
            .any(|reader| MemberId::parse(reader).is_ok_and(|reader| !self.is_there(&topic, &reader)));
        if lost && self.may_renew(&topic) {
            match Box::pin(self.renew(id)).await {
                // Another one may was faster; its epoch comes with the next look.
                Ok(_) | Err(Error::TooSoon { .. } | Error::NotAllowed(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether this member may begin an epoch.
    pub(super) fn may_renew(&self, topic: &Topic) -> bool {
        let own = self.0.deps.identity.member_id();
        let standing = self.standing(topic, own, None);
        let is_lead = topic.lead.as_ref() == Some(own);
        let was_in = topic.readers().contains(own.as_str());
        let lead_is_there = topic.lead.as_ref().is_some_and(|lead| self.is_there(topic, lead));
        may_follow(Signer { standing, is_lead, was_in }, lead_is_there).is_ok()
    }

    /// Begins a new epoch. Its number, and for how many the key was sealed.
    pub(super) async fn renew(&self, id: &TopicId) -> Result<(u32, u32), Error> {
        let topic = self.read().get(id).cloned().ok_or_else(|| Error::NotFound(id.to_string()))?;
        let readers = self.admissible(&topic);
        let key = self.new_key()?;
        let epoch = topic.epoch() + 1;
        let members = readers.iter().map(|member| member.member_id.to_string());
        let statement = self.statement(&topic, epoch, &key, members)?;
        // On disk before anybody hears of it.
        self.change(|table| {
            if let Some(topic) = table.get_mut(id) {
                topic.keys.insert(epoch, key.clone());
            }
        })?;
        let keys = self.seal_for(&key, readers.get(..MAX_SEALED_KEYS).unwrap_or(&readers));
        let sealed_for = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let sent = statement.clone();
        let new = |req_id| {
            ClientFrame::TopicEpochNew(Box::new(TopicEpochNew { statement: sent, keys, req_id: Some(req_id) }))
        };
        let answer = match self.request(&topic.name, new).await? {
            ServerFrame::TopicEpoch(answer) => answer,
            _ => return Err(Error::Refused("it answered something else".to_owned())),
        };
        if !answer.accepted {
            // The winner's epoch is adopted in place of this one.
            return Err(Error::TooSoon { topic: format!("#{}", topic.name), after_ms: 1_000 });
        }
        tracing::info!(topic = topic.name, epoch, members = sealed_for, "A topic has a new key");
        let holders: BTreeSet<String> = readers.iter().map(|member| member.member_id.to_string()).collect();
        let commitment = key.commitment(id.as_str(), epoch);
        self.change(|table| {
            if let Some(topic) = table.get_mut(id) {
                topic.commitments.insert(epoch, commitment);
                topic.head = Some(statement);
                topic.shown_epoch = topic.shown_epoch.max(epoch);
                topic.holders = holders;
            }
        })?;
        Ok((epoch, sealed_for))
    }

    /// 32 random bytes.
    pub(super) fn new_key(&self) -> Result<TopicKey, Error> {
        let random = self.0.deps.ids.random().map_err(|error| Error::Crypto(error.to_string()))?;
        Ok(TopicKey::from_bytes(random))
    }

    /// The signed beginning of an epoch.
    pub(super) fn statement(
        &self,
        topic: &Topic,
        epoch: u32,
        key: &TopicKey,
        members: impl Iterator<Item = String>,
    ) -> Result<EpochStatement, Error> {
        let deps = &self.0.deps;
        let (mesh, own) = (deps.identity.mesh_id().as_str(), deps.identity.current());
        let mut members: BTreeSet<String> = members.collect();
        members.insert(deps.identity.member_id().to_string());
        let mut statement = EpochStatement {
            topic_id: topic.id.to_string(),
            name: topic.name.clone(),
            epoch,
            predecessor: topic.head.as_ref().and_then(|head| head.hash(mesh)),
            commitment: hex::encode(key.commitment(topic.id.as_str(), epoch)),
            members: members.into_iter().collect(),
            signer: deps.identity.member_id().to_string(),
            signer_key: own.public().to_hex(),
            ts: deps.clock.now().0,
            signature: String::new(),
        };
        let text = statement.signed_text(mesh).ok_or_else(|| Error::Crypto("the statement has no text".to_owned()))?;
        statement.signature = hex::encode(sign::sign(own.secret(), text.as_bytes()));
        Ok(statement)
    }

    /// A copy of a key for each of these members.
    pub(super) fn seal_for(&self, key: &TopicKey, members: &[PinnedMember]) -> Vec<SealedKey> {
        let own = self.0.deps.identity.current();
        let seal = |member: &PinnedMember| -> Result<SealedKey, String> {
            let nonce: [u8; NONCE_BYTES] = self.0.deps.ids.random().map_err(|error| error.to_string())?;
            let public = BoxPublic::of(member.key).map_err(|error| error.to_string())?;
            let sealed = key.seal_copy(own.secret(), &public, &nonce).map_err(|error| error.to_string())?;
            Ok(SealedKey {
                member_id: member.member_id.to_string(),
                sealed: BASE64_STANDARD.encode(sealed),
                nonce: BASE64_STANDARD.encode(nonce),
            })
        };
        let keep = |member: &PinnedMember| match seal(member) {
            Ok(copy) => Some(copy),
            // It goes on waiting; the others do not wait for it.
            Err(error) => {
                tracing::warn!(member = member.member_id.as_str(), error, "A topic's key could not be sealed: {error}");
                None
            }
        };
        members.iter().filter_map(keep).collect()
    }
}
