//! Requests about a mesh that exists: its policy, members, invites and API keys.
//!
//! Each is signed here and needs no daemon. The owner's key signs where this
//! user has it, else the member key of `config.json`; the broker decides whether
//! that is enough.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::config_json::{self, ConfigJson, MeshEntry};
use super::http::Broker;
use super::{Env, Error, certificate, owner};
use crate::crypto::keys::MemberSecret;
use crate::crypto::sign::Statement;
use crate::domain::ids::MemberId;
use crate::wire::admin::{
    AdminAuth, ApiKeyCreate, ApiKeyList, ApiKeyRevoke, MemberRevoke, MembersGet, MeshPolicyGet, MeshPolicySet,
};
use crate::wire::frame::ClientFrame;

/// Members that are asked for at most.
const MOST_MEMBERS: usize = 100_000;

/// Whose key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signer {
    /// The owner's key if this user has it, else the member's.
    OwnerOrMember,
    /// The member's key: for what belongs to a member.
    Member,
}

/// A mesh as this user can speak about it.
struct Standing {
    mesh_id: String,
    broker_url: String,
    secret: MemberSecret,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Who is a member: a page, after the member with this id.
    Members(String),
    /// The member with this id, or those whose key begins like this.
    Member(String),
    /// The end of a membership, by the member's id.
    RevokeMember(String),
    /// What holds in the mesh.
    Policy,
    /// Another policy. What is `None` stays; names as in `mesh_policy_set`.
    SetPolicy {
        /// What happens on a second connection.
        concurrency_policy: Option<&'static str>,
        /// How long ids are remembered.
        dedupe_mode: Option<&'static str>,
    },
    /// A new API key of the member.
    CreateKey {
        /// What it is for.
        name: String,
        /// Whether it may send to targets that are not encrypted.
        allow_unencrypted: bool,
    },
    /// The API keys.
    Keys,
    /// The end of an API key, by its id.
    RevokeKey(String),
}

/// Sends a request about the mesh with this slug; the broker's answer.
pub fn request(env: &Env, slug: &str, request: Request) -> Result<Value, Error> {
    let signer = match request {
        Request::CreateKey { .. } => Signer::Member,
        _ => Signer::OwnerOrMember,
    };
    let standing = standing(env, slug, signer)?;
    let broker = Broker::new(env, &standing.broker_url)?;
    let mut frame = request.frame(standing.mesh_id.clone());
    let key = standing.secret.public();
    let now = env.clock.now();
    let text = frame.admin_text().unwrap_or_default();
    let statement = Statement::admin(&standing.mesh_id, key, &text, now)?;
    frame.set_admin_auth(AdminAuth {
        signer: key.to_hex(),
        ts: now.0,
        signature: hex::encode(statement.sign(&standing.secret)),
    });
    post(&broker, &format!("/v1/meshes/{}/admin", standing.mesh_id), &frame)
}

/// All members of the mesh with this slug, page by page.
pub fn members(env: &Env, slug: &str) -> Result<Vec<Value>, Error> {
    let mut all: Vec<Value> = Vec::new();
    let mut after = Some(String::new());
    while let Some(place) = after.take() {
        let mut page = request(env, slug, Request::Members(place))?;
        let members = page["members"].as_array_mut().map(std::mem::take).unwrap_or_default();
        let more = !members.is_empty() && all.len() < MOST_MEMBERS;
        after = page["next"].as_str().map(str::to_owned).filter(|_| more);
        all.extend(members);
    }
    Ok(all)
}

impl Request {
    fn frame(self, mesh_id: String) -> ClientFrame {
        match self {
            Self::Members(after) => {
                ClientFrame::MembersGet(MembersGet { mesh_id, after: Some(after), ..MembersGet::default() })
            }
            Self::Member(named) => {
                ClientFrame::MembersGet(MembersGet { mesh_id, named: Some(named), ..MembersGet::default() })
            }
            Self::RevokeMember(member_id) => {
                ClientFrame::MemberRevoke(MemberRevoke { mesh_id, member_id, ..MemberRevoke::default() })
            }
            Self::Policy => ClientFrame::MeshPolicyGet(MeshPolicyGet { mesh_id, ..MeshPolicyGet::default() }),
            Self::SetPolicy { concurrency_policy, dedupe_mode } => ClientFrame::MeshPolicySet(MeshPolicySet {
                mesh_id,
                concurrency_policy: concurrency_policy.and_then(named),
                dedupe_mode: dedupe_mode.and_then(named),
                ..MeshPolicySet::default()
            }),
            Self::CreateKey { name, allow_unencrypted } => {
                ClientFrame::ApiKeyCreate(ApiKeyCreate { mesh_id, name, allow_unencrypted, ..ApiKeyCreate::default() })
            }
            Self::Keys => ClientFrame::ApiKeyList(ApiKeyList { mesh_id, ..ApiKeyList::default() }),
            Self::RevokeKey(key_id) => {
                ClientFrame::ApiKeyRevoke(ApiKeyRevoke { mesh_id, key_id, ..ApiKeyRevoke::default() })
            }
        }
    }
}

/// The value of that name in frames.
fn named<T: DeserializeOwned>(name: &'static str) -> Option<T> {
    serde_json::from_value(Value::from(name)).ok()
}

/// Leaves the mesh: the broker ends the membership, then the entry goes from
/// `config.json`. Doing it again after a cut finishes it.
pub fn leave(env: &Env, slug: &str) -> Result<MeshEntry, Error> {
    let entry = entry(env, slug)?;
    let secret = entry.secret()?;
    let broker = Broker::new(env, &entry.broker_url)?;
    let key = secret.public();
    let now = env.clock.now();
    let member_id = MemberId::parse(&entry.member_id).map_err(|_| Error::Id("member id in config.json"))?;
    let statement = Statement::hello(&entry.mesh_id, member_id.as_str(), key, now)?;
    let body = json!({
        "meshId": entry.mesh_id,
        "memberId": entry.member_id,
        "timestamp": now.0,
        "signature": hex::encode(statement.sign(&secret)),
    });
    post(&broker, &format!("/v1/me/members/{key}/leave"), &body)?;
    config_json::remove(&env.root, &entry.mesh_id)?;
    certificate::remove(&env.root, &entry.mesh_id)?;
    Ok(entry)
}

fn post(broker: &Broker, path: &str, body: &impl serde::Serialize) -> Result<Value, Error> {
    let answer = broker.post(path, None, body)?;
    match answer.json::<Value>() {
        Some(value) if answer.is_success() => Ok(value),
        Some(value) if (400..=499).contains(&answer.status) && value.get("code").is_some() => {
            Err(Error::RequestRefused { address: broker.address().to_owned(), reason: answer.reason() })
        }
        _ => Err(answer.unexpected()),
    }
}

fn standing(env: &Env, slug: &str, signer: Signer) -> Result<Standing, Error> {
    if signer == Signer::OwnerOrMember
        && let Some(owner) = owner::find(&env.root, slug)?
    {
        let mesh_id = owner.mesh_id.to_string();
        return Ok(Standing { mesh_id, broker_url: owner.broker_url, secret: owner.secret });
    }
    let entry = entry(env, slug)?;
    let secret = entry.secret()?;
    Ok(Standing { mesh_id: entry.mesh_id, broker_url: entry.broker_url, secret })
}

/// The joined mesh with this slug.
pub fn entry(env: &Env, slug: &str) -> Result<MeshEntry, Error> {
    let entry = ConfigJson::load(&env.root)?.mesh(slug)?;
    entry.ok_or_else(|| Error::NotJoined { slug: slug.to_owned(), path: env.root.config_json() })
}
