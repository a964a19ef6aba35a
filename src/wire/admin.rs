//! What owners, admins and members change of a mesh: its policy, its members,
//! its invites, its API keys.
//!
//! Each request is signed over its canonical JSON, so it may come over the link
//! or as the body of `POST /v1/meshes/<id>/admin`, and needs no connection of
//! the signer. The signature covers everything but `auth` and `_reqId`.

use serde::{Deserialize, Serialize};

use super::features::{ConcurrencyPolicy, DedupeMode};
use super::frame::ClientFrame;

/// Who asks, and the proof.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminAuth {
    /// The owner's key, or a member's current one, 64 lower-case hex digits.
    pub signer: String,
    /// When it was signed, Unix ms.
    pub ts: i64,
    /// 128 hex digits.
    pub signature: String,
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// The mesh by id.
            pub mesh_id: String,
            $($(#[$field_doc])* pub $field: $type,)*
            /// Who asks.
            pub auth: AdminAuth,
            /// Correlation id.
            #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
            pub req_id: Option<String>,
        }
    )*};
}

requests! {
    /// `member_revoke`: ends a membership; by the owner or an admin.
    MemberRevoke {
        /// The member by id.
        member_id: String,
    }
    /// `members_get`: who is a member, for programs without a connection.
    MembersGet {
        /// As in `member_list`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
        /// Only the member with this id, and those whose current key begins like this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        named: Option<String>,
    }
    /// `mesh_policy_get`: what the owner has set; for every member.
    MeshPolicyGet {}
    /// `mesh_policy_set`: changes it; by the owner. What is left out stays.
    MeshPolicySet {
        /// What happens on a second connection of a member.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        concurrency_policy: Option<ConcurrencyPolicy>,
        /// How long ids are remembered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dedupe_mode: Option<DedupeMode>,
    }
    /// `invite_create`: stores an invite that the owner has signed.
    InviteCreate {
        /// The text of the link.
        token: String,
        /// How many may join with it.
        max_uses: u32,
    }
    /// `invite_list`: the invites; by the owner or an admin.
    InviteList {}
    /// `invite_revoke`: takes an invite back; by the owner or an admin.
    InviteRevoke {
        /// The invite by id.
        invite_id: String,
    }
    /// `api_key_create`: a key with which the signing member sends over HTTP.
    ApiKeyCreate {
        /// What it is for.
        name: String,
        /// Whether it may send to targets that are not encrypted.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        allow_unencrypted: bool,
    }
    /// `api_key_list`: the own keys; all of the mesh for the owner or an admin.
    ApiKeyList {}
    /// `api_key_revoke`: ends a key; one's own, any for the owner or an admin.
    ApiKeyRevoke {
        /// The key by id.
        key_id: String,
    }
}

/// `mesh_policy`: what the owner has set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshPolicy {
    /// What happens on a second connection of a member.
    pub concurrency_policy: ConcurrencyPolicy,
    /// How long ids are remembered.
    pub dedupe_mode: DedupeMode,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// One invite in [`InvitesList`], without its link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InviteRow {
    /// The invite by id.
    pub invite_id: String,
    /// `admin` or `member`.
    pub role: String,
    /// How many may join with it.
    pub max_uses: u64,
    /// How many have.
    pub used_count: u64,
    /// Unix ms.
    pub created_at: i64,
    /// Unix ms.
    pub expires_at: i64,
    /// Unix ms; absent for an invite that stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<i64>,
}

/// `invites_list`: the answer to `invite_list`, and to `invite_create` with the
/// one that was stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitesList {
    /// Newest first.
    pub invites: Vec<InviteRow>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// One key in [`ApiKeysList`], without its secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyRow {
    /// The key by id.
    pub key_id: String,
    /// The member that sends with it.
    pub member_id: String,
    /// What it is for.
    pub name: String,
    /// Whether it may send to targets that are not encrypted.
    pub allow_unencrypted: bool,
    /// Unix ms.
    pub created_at: i64,
    /// Unix ms; absent for a key that was never used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<i64>,
    /// Unix ms; absent for a key that stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<i64>,
}

/// `api_keys_list`: the answer to `api_key_list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeysList {
    /// Newest first.
    pub keys: Vec<ApiKeyRow>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `api_key_created`: the only time that the key itself is told.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyCreated {
    /// The key by id.
    pub key_id: String,
    /// The bearer token. Kept nowhere at the broker.
    pub key: String,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

// === impl ApiKeyCreated ===

impl std::fmt::Debug for ApiKeyCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKeyCreated").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

// === impl ClientFrame ===

macro_rules! signed {
    ($self:ident, $request:ident => $use:expr) => {
        match $self {
            ClientFrame::MemberRevoke($request) => Some($use),
            ClientFrame::MembersGet($request) => Some($use),
            ClientFrame::MeshPolicyGet($request) => Some($use),
            ClientFrame::MeshPolicySet($request) => Some($use),
            ClientFrame::InviteCreate($request) => Some($use),
            ClientFrame::InviteList($request) => Some($use),
            ClientFrame::InviteRevoke($request) => Some($use),
            ClientFrame::ApiKeyCreate($request) => Some($use),
            ClientFrame::ApiKeyList($request) => Some($use),
            ClientFrame::ApiKeyRevoke($request) => Some($use),
            _ => None,
        }
    };
}

impl ClientFrame {
    /// Mesh, proof and correlation id of a signed request; `None` for any other
    /// frame.
    pub fn admin(&self) -> Option<(&str, &AdminAuth, Option<&str>)> {
        signed!(self, request => (request.mesh_id.as_str(), &request.auth, request.req_id.as_deref()))
    }

    /// Puts the proof into a signed request.
    pub fn set_admin_auth(&mut self, auth: AdminAuth) {
        signed!(self, request => request.auth = auth);
    }

    /// What a signed request's signature covers; `None` for any other frame.
    pub fn admin_text(&self) -> Option<String> {
        self.admin()?;
        let mut value = serde_json::to_value(self).ok()?;
        let object = value.as_object_mut()?;
        object.remove("auth");
        object.remove("_reqId");
        serde_jcs::to_string(object).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_covers_all_but_itself_and_the_correlation_id() {
        let request = |signature: &str, req_id: Option<&str>, member: &str| {
            ClientFrame::MemberRevoke(MemberRevoke {
                mesh_id: "m".to_owned(),
                member_id: member.to_owned(),
                auth: AdminAuth { signature: signature.to_owned(), ..AdminAuth::default() },
                req_id: req_id.map(str::to_owned),
            })
        };
        let text = request("aa", None, "x").admin_text();
        assert_eq!(text.as_deref(), Some(r#"{"memberId":"x","meshId":"m","type":"member_revoke"}"#));
        assert_eq!(request("bb", Some("r"), "x").admin_text(), text);
        assert_ne!(request("aa", None, "y").admin_text(), text);
        assert_eq!(ClientFrame::ListPeers(Default::default()).admin_text(), None);
        let made = ApiKeyCreated { key: "secret".to_owned(), ..ApiKeyCreated::default() };
        assert!(!format!("{made:?}").contains("secret"));
    }
}
