//! Who is there: checks a hello and says how it is refused.
//!
//! The order of the checks is part of the protocol: old clients act on the
//! first code. Nothing is looked up before the signature holds, so a stranger
//! learns nothing about members.

use std::sync::Arc;

use super::shown;
use super::terms::{Facts, Kind, Profile};
use crate::broker::holdings::MEMBER_CONNECTIONS;
use crate::broker::nodes;
use crate::broker::roster::{Member, Mesh};
use crate::broker::shared::Shared;
use crate::crypto::sign::Statement;
use crate::domain::ids::MemberKey;
use crate::domain::time::UnixMillis;
use crate::wire::close;
use crate::wire::hello::{
    CapabilityStatement, Group, Hello, HelloCapabilities, MAX_ATTESTATION_MS, MAX_HELLO_SKEW_MS, SessionHello,
};
use crate::wire::presence::Shown;
use crate::wire::text;

/// Longest text of a hello that is kept, in bytes.
const MAX_FACT_BYTES: usize = 256;
/// Most groups of a connection.
const MAX_GROUPS: usize = 64;
/// Bytes that the groups of a connection fill, as JSON.
const GROUPS_BYTES: usize = 8 * 1024;
/// Longest name of an ability.
const MAX_CAPABILITY_BYTES: usize = 64;

/// A hello that holds.
#[derive(Debug)]
pub struct Authenticated {
    /// The mesh.
    pub mesh: Arc<Mesh>,
    /// The member.
    pub member: Arc<Member>,
    /// Which hello.
    pub kind: Kind,
    /// What it said.
    pub facts: Facts,
    /// What it said that may change.
    pub profile: Profile,
    /// Its capability statement, if it carries a valid signature.
    pub capabilities: Option<CapabilityStatement>,
    /// What a daemon says that its member shows of itself.
    pub shown: Option<Shown>,
}

/// Why a hello is refused: the error frame's code, and the close that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloRefused {
    /// The error code, which is also the close reason unless another is given.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// The close code.
    pub close: u16,
    /// The close reason.
    pub reason: &'static str,
    /// The broker's clock, where the client's is the reason.
    pub broker_time: Option<i64>,
}

type Result<T> = std::result::Result<T, HelloRefused>;

fn refuse<T>(code: &'static str, message: impl Into<String>) -> Result<T> {
    Err(HelloRefused { code, message: message.into(), close: close::POLICY, reason: code, broker_time: None })
}

/// Checks a `hello`.
pub async fn member(shared: &Arc<Shared>, hello: Hello) -> Result<Authenticated> {
    let session_pubkey = hello.session_pubkey.filter(|key| !key.is_empty());
    if session_pubkey.as_deref().is_some_and(|key| !is_lower_hex_key(key)) {
        return refuse("bad_session_pubkey", "sessionPubkey must be 64 lower-case hex digits");
    }
    check_skew(shared, hello.timestamp)?;
    let (Ok(key), Some(signature)) = (MemberKey::parse(&hello.pubkey), text::signature_from_hex(&hello.signature))
    else {
        return refuse("malformed", "pubkey must be 64 and signature 128 hex digits");
    };
    let statement = Statement::hello(&hello.mesh_id, &hello.member_id, key, UnixMillis(hello.timestamp));
    if !statement.is_ok_and(|statement| statement.verify(key, &signature)) {
        return refuse("bad_signature", "the hello is not signed by its pubkey");
    }
    let (mesh, member) = look_up(shared, &hello.mesh_id, &hello.pubkey, hello.instance_id.is_some()).await?;
    if member.id != hello.member_id {
        return refuse("unauthorized", "memberId is not the id of the member with this pubkey");
    }
    check_capacity(shared, &mesh, &member)?;
    let capabilities = match hello.capabilities {
        Some(HelloCapabilities::Signed(statement)) if is_signed(&mesh.id, key, &statement) => Some(statement),
        _ => None,
    };
    let facts = Facts {
        session_id: short(hello.session_id),
        session_pubkey,
        instance_id: hello.instance_id.map(short).filter(|id| !id.is_empty()),
        boot_id: hello.boot_id.map(short),
        yields: hello.yield_to_other.unwrap_or(false),
        second_host: false,
        cwd: short(hello.cwd),
        hostname: hello.hostname.map(short),
        peer_type: hello.peer_type.map(short),
        channel: hello.channel.map(short),
        model: hello.model.map(short),
    };
    let profile = profile(hello.display_name, hello.groups);
    let shown = hello.shown.filter(|_| facts.instance_id.is_some()).map(shown::checked);
    Ok(Authenticated { mesh, member, kind: Kind::Member, facts, profile, capabilities, shown })
}

/// Checks a `session_hello`.
pub async fn session(shared: &Arc<Shared>, hello: SessionHello) -> Result<Authenticated> {
    if !is_lower_hex_key(&hello.session_pubkey) {
        return refuse("bad_session_pubkey", "sessionPubkey must be 64 lower-case hex digits");
    }
    if !is_lower_hex_key(&hello.parent_member_pubkey) {
        return refuse("bad_parent_pubkey", "parentMemberPubkey must be 64 lower-case hex digits");
    }
    let attestation = &hello.parent_attestation;
    if attestation.session_pubkey != hello.session_pubkey
        || attestation.parent_member_pubkey != hello.parent_member_pubkey
    {
        return refuse("attestation_mismatch", "the attestation names other keys than the hello");
    }
    let (Ok(session), Ok(parent)) =
        (MemberKey::parse(&hello.session_pubkey), MemberKey::parse(&hello.parent_member_pubkey))
    else {
        return refuse("malformed", "the keys must be 64 hex digits");
    };

    let now = shared.clock.now();
    if attestation.expires_at <= now.0 {
        return refuse("expired", "the attestation has expired; make a new one");
    }
    if UnixMillis(attestation.expires_at).distance_ms(now) > MAX_ATTESTATION_MS {
        return refuse("ttl_too_long", "the attestation may last 24 hours at most");
    }
    let Some(signature) = text::signature_from_hex(&attestation.signature) else {
        return refuse("malformed", "the attestation's signature must be 128 hex digits");
    };
    let statement = Statement::attestation(parent, session, UnixMillis(attestation.expires_at));
    if !statement.verify(parent, &signature) {
        return refuse("bad_signature", "the attestation is not signed by the member");
    }

    check_skew(shared, hello.timestamp)?;
    let Some(signature) = text::signature_from_hex(&hello.signature) else {
        return refuse("malformed", "signature must be 128 hex digits");
    };
    let statement = Statement::session_hello(&hello.mesh_id, parent, session, UnixMillis(hello.timestamp));
    if !statement.is_ok_and(|statement| statement.verify(session, &signature)) {
        return refuse("bad_signature", "the hello is not signed by the session key");
    }
    let (mesh, member) = look_up(shared, &hello.mesh_id, &hello.parent_member_pubkey, false).await?;
    if hello.parent_member_id.as_deref().is_some_and(|id| !id.is_empty() && id != member.id) {
        return refuse("parent_member_id_mismatch", "parentMemberId is not the id of the member with this key");
    }
    check_capacity(shared, &mesh, &member)?;
    let facts = Facts {
        session_id: short(hello.session_id),
        session_pubkey: Some(hello.session_pubkey),
        cwd: short(hello.cwd),
        hostname: hello.hostname.map(short),
        peer_type: hello.peer_type.map(short),
        channel: hello.channel.map(short),
        model: hello.model.map(short),
        ..Facts::default()
    };
    let profile = profile(hello.display_name, hello.groups);
    Ok(Authenticated { mesh, member, kind: Kind::Session, facts, profile, capabilities: None, shown: None })
}

/// Cuts a text to what is kept of it: one line.
pub fn short(mut text: String) -> String {
    text.retain(|c| !c.is_control());
    text.truncate(text.floor_char_boundary(MAX_FACT_BYTES));
    text
}

/// Cuts a list of groups to what is kept of it.
pub fn short_groups(groups: Vec<Group>) -> Vec<Group> {
    let short = |group: Group| Group { name: short(group.name), role: group.role.map(short) };
    let mut bytes = 0;
    let fits = |group: &Group| {
        bytes += serde_json::to_string(group).map_or(GROUPS_BYTES, |text| text.len());
        bytes <= GROUPS_BYTES
    };
    groups.into_iter().take(MAX_GROUPS).map(short).take_while(fits).collect()
}

fn profile(display_name: Option<String>, groups: Option<Vec<Group>>) -> Profile {
    Profile {
        display_name: display_name.map(short).filter(|name| !name.is_empty()),
        status: "idle".to_owned(),
        visible: true,
        groups: short_groups(groups.unwrap_or_default()),
        ..Profile::default()
    }
}

fn check_capacity(shared: &Shared, mesh: &Mesh, member: &Member) -> Result<()> {
    if shared.registry.online_count(&mesh.id) >= shared.config.connections_per_mesh as usize {
        return refuse("capacity", "the mesh has as many connections as this broker allows");
    }
    if shared.registry.of_member(&mesh.id, &member.id).len() >= MEMBER_CONNECTIONS {
        return refuse("capacity", "the member has as many connections and leases as one may have");
    }
    Ok(())
}

fn check_skew(shared: &Shared, timestamp: i64) -> Result<()> {
    let now = shared.clock.now();
    if UnixMillis(timestamp).distance_ms(now) > MAX_HELLO_SKEW_MS {
        return Err(HelloRefused {
            code: "timestamp_skew",
            message: format!("timestamp is more than 60 s from the broker's clock, {now}"),
            close: close::POLICY,
            reason: "timestamp_skew",
            broker_time: Some(now.0),
        });
    }
    Ok(())
}

/// The member with that key. `ours` says that the client knows the close codes
/// that legacy clients do not.
async fn look_up(shared: &Arc<Shared>, mesh_id: &str, pubkey: &str, ours: bool) -> Result<(Arc<Mesh>, Arc<Member>)> {
    let mesh = match shared.roster.mesh(mesh_id).await {
        Ok(mesh) => mesh,
        Err(error) => {
            tracing::error!(error = %error, "Cannot read a mesh: {error}");
            return refuse("internal", "the broker failed, try again later");
        }
    };
    let Some(mesh) = mesh else {
        return refuse("unauthorized", "no member of this mesh has this key");
    };
    let mut member = mesh.member_by_current_key(pubkey);
    if member.is_none() && shared.store.is_shared() {
        // Perhaps it has just joined at another broker.
        if let Err(error) = nodes::catch_up(shared).await {
            tracing::warn!(error = %error, "Cannot learn from the other brokers: {error}");
        }
        member = mesh.member_by_current_key(pubkey);
    }
    let Some(member) = member else {
        return refuse("unauthorized", "no member of this mesh has this key");
    };
    if member.revoked_at.is_some() {
        let close = if ours { close::REVOKED } else { close::BANNED };
        return Err(HelloRefused {
            code: "revoked",
            message: "this member was revoked".to_owned(),
            close,
            reason: close::reason(close),
            broker_time: None,
        });
    }
    Ok((mesh, member))
}

/// Whether the member has signed its capability statement.
pub fn is_signed(mesh_id: &str, key: MemberKey, statement: &CapabilityStatement) -> bool {
    let names = statement.capabilities.iter().map(String::as_str);
    let Some(signature) = text::signature_from_hex(&statement.signature) else { return false };
    statement.capabilities.len() <= MAX_GROUPS
        && statement.capabilities.iter().all(|name| name.len() <= MAX_CAPABILITY_BYTES)
        && Statement::capabilities(mesh_id, key, names, UnixMillis(statement.ts))
            .is_ok_and(|text| text.verify(key, &signature))
}

fn is_lower_hex_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
