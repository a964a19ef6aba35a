//! From a hello that holds to a connection that others see, and its end.

use std::sync::Arc;

use super::handshake::{self, Authenticated, HelloRefused};
use super::negotiate;
use super::peer::Peer;
use super::terms::{End, Facts, Identity, Kind, Profile, Queues};
use super::{presence, shown};
use crate::broker::nodes;
use crate::broker::roster::{Changing, Member, policy_name};
use crate::broker::shared::Shared;
use crate::broker::store::entity::presence as row;
use crate::broker::store::{members, presence as store};
use crate::wire::close;
use crate::wire::features::ConcurrencyPolicy;
use crate::wire::hello::{CapabilityStatement, ErrorFrame, Hello, HelloAck, MemberProfile, SessionHello};
use crate::wire::presence::Shown;

/// Why a connection is not admitted: a frame, if the protocol has one for it,
/// and the close.
#[derive(Debug)]
pub struct Refused {
    /// The error frame.
    pub error: Option<ErrorFrame>,
    /// The close.
    pub end: End,
}

/// A connection, the ends of its queues, and what to tell the client.
pub type Opened = (Arc<Peer>, Queues, HelloAck);

impl From<HelloRefused> for Refused {
    fn from(refused: HelloRefused) -> Self {
        let error = ErrorFrame {
            code: refused.code.to_owned(),
            message: refused.message,
            broker_time: refused.broker_time,
            ..ErrorFrame::default()
        };
        Self { error: Some(error), end: End::close(refused.close, refused.reason) }
    }
}

/// Admits a `hello`.
pub async fn member(shared: &Arc<Shared>, hello: Hello) -> Result<Opened, Refused> {
    let authenticated = handshake::member(shared, hello).await?;
    admit(shared, authenticated).await
}

/// Admits a `session_hello`.
pub async fn session(shared: &Arc<Shared>, hello: SessionHello) -> Result<Opened, Refused> {
    let authenticated = handshake::session(shared, hello).await?;
    admit(shared, authenticated).await
}

/// Writes down that a connection of one of our daemons was lost.
pub async fn note_lost(shared: &Arc<Shared>, peer: &Arc<Peer>) {
    let Some(instance_id) = peer.facts.instance_id.clone() else { return };
    let now = shared.store.now().0;
    let written = async {
        let transaction = shared.store.begin().await?;
        let (mesh, member) = (&peer.mesh.id, &peer.member_id);
        store::disconnected(&transaction, mesh, member, &instance_id, peer.generation, now).await?;
        members::touch(&transaction, member, now).await?;
        transaction.commit().await
    };
    if let Err(error) = written.await {
        tracing::warn!(error = %error, "Cannot note the end of a connection: {error}");
    }
}

/// Takes back the hello of a connection that the mesh's policy refuses: other brokers
/// would show it for ever.
pub async fn note_refused(shared: &Arc<Shared>, peer: &Arc<Peer>) {
    let Some(instance_id) = peer.facts.instance_id.as_deref() else { return };
    let written = async {
        let transaction = shared.store.begin().await?;
        let (mesh, member) = (&peer.mesh.id, &peer.member_id);
        store::refused(&transaction, mesh, member, instance_id, peer.generation).await?;
        transaction.commit().await
    };
    if let Err(error) = written.await {
        tracing::warn!(error = %error, "Cannot take back a hello: {error}");
    }
}

async fn admit(shared: &Arc<Shared>, authenticated: Authenticated) -> Result<Opened, Refused> {
    let Authenticated { mesh, member, kind, mut facts, mut profile, capabilities, shown } = authenticated;
    let mut predecessor = shared.registry.predecessor(&mesh.id, &member.id, kind, &facts);
    if let Some(older) = &predecessor
        && older.is_online()
        && kind == Kind::Member
        && facts.instance_id.is_some()
        && older.facts.boot_id != facts.boot_id
    {
        // The same state directory in another process while the first one is
        // there: a restart whose old socket is half-open, or a copied directory.
        match negotiate::decide(shared, facts.yields, older).await {
            Ok(()) => facts.second_host = mesh.policy() == ConcurrencyPolicy::AllowConcurrent && older.is_online(),
            Err(end) => return Err(Refused { error: None, end }),
        }
        if facts.second_host {
            predecessor = None;
        }
    }
    if kind == Kind::Member && facts.instance_id.is_some() {
        nodes::contest(shared, &mesh, &member.id, &facts, true).await.map_err(|end| Refused { error: None, end })?;
    }
    let is_news = shown.as_ref().is_some_and(|shown| *shown != member.shown);
    let generation = match remember(shared, &member, &mesh.id, &facts, capabilities, shown.as_ref()).await {
        Ok(generation) => generation,
        Err(error) => {
            tracing::error!(error = %error, "Cannot note a hello: {error}");
            let refused = HelloRefused {
                code: "internal",
                message: "the broker failed, try again later".to_owned(),
                close: close::POLICY,
                reason: "internal",
                broker_time: None,
            };
            return Err(refused.into());
        }
    };
    let reattached = predecessor.is_some();
    let (presence_id, connected_at) = match &predecessor {
        Some(older) => {
            keep(&mut profile, &older.profile());
            (older.presence_id.clone(), older.connected_at)
        }
        None => (shared.ids.ulid(), shared.clock.now()),
    };
    let says = shown.is_some();
    if let Some(shown) = shown.or_else(|| facts.instance_id.is_some().then(|| member.shown.clone())) {
        profile.visible = shown.visible;
        // Without a word on it a reattached connection keeps also what is not stored yet.
        if says || !reattached {
            profile.status = shown.status;
            profile.summary = Some(shown.summary).filter(|summary| !summary.is_empty());
        }
    }
    let identity = Identity {
        presence_id,
        mesh: Arc::clone(&mesh),
        member_id: member.id.clone(),
        member_pubkey: member.pubkey.clone(),
        kind,
        facts,
        connected_at,
        generation,
        profile,
    };
    let (peer, queues) = Peer::new(identity, shared.clock.monotonic());
    let admitted = shared.registry.admit(&peer);
    if let Err(error) = nodes::look_at(shared, &mesh.id).await {
        // The next round looks again.
        tracing::warn!(error = %error, "Cannot read who is connected elsewhere: {error}");
    }
    for older in admitted.replaced {
        older.finish(End::close(close::NORMAL, "session_replaced"));
    }
    if let Some(sibling) = admitted.siblings.first().filter(|_| kind == Kind::Member && !reattached) {
        // Our daemons are audited when the policy is applied; here it is an old
        // client beside another connection.
        if peer.facts.instance_id.is_none() {
            presence::audit_concurrent(shared, sibling, policy_name(ConcurrencyPolicy::AllowConcurrent)).await;
        }
    }
    if !reattached {
        presence::joined(shared, &peer);
    }
    if is_news {
        shown::tell(shared, &mesh.id);
    }
    shared.metrics.hellos.inc();
    let ack = ack(shared, &peer, &member, reattached);
    Ok((peer, queues, ack))
}

/// What a reattached connection keeps of what it said about itself. The new
/// hello's name and groups win where it has some.
fn keep(profile: &mut Profile, old: &Profile) {
    profile.status.clone_from(&old.status);
    profile.summary.clone_from(&old.summary);
    profile.visible = old.visible;
    profile.stats.clone_from(&old.stats);
    profile.profile.clone_from(&old.profile);
    if profile.groups.is_empty() {
        profile.groups.clone_from(&old.groups);
    }
}

/// Writes what outlives the connection: its generation, the member's newest
/// capability statement, and what it shows of itself. Old clients have neither and
/// cost no write.
async fn remember(
    shared: &Shared,
    member: &Arc<Member>,
    mesh_id: &str,
    facts: &Facts,
    capabilities: Option<CapabilityStatement>,
    shown: Option<&Shown>,
) -> Result<i64, sea_orm::DbErr> {
    let Some(instance_id) = facts.instance_id.as_deref() else { return Ok(0) };
    let known = member.capabilities.as_ref().map(|statement| statement.ts);
    let newer = capabilities.filter(|statement| known.is_none_or(|known| statement.ts > known));
    let shown = shown.filter(|shown| member.shown != **shown);
    let is_changed = newer.is_some() || shown.is_some();
    let changing: Option<Changing<'_>> = if is_changed { Some(shared.roster.changing().await) } else { None };
    let now = shared.store.now().0;
    let first = row::Model {
        mesh_id: mesh_id.to_owned(),
        member_id: member.id.clone(),
        instance_id: instance_id.to_owned(),
        boot_id: facts.boot_id.clone(),
        generation: 1,
        node_id: shared.node_id.clone(),
        connected_at: now,
        last_seen_at: now,
        disconnected_at: None,
    };
    let transaction = shared.store.begin().await?;
    let generation = store::next_generation(&transaction, first).await?;
    members::touch(&transaction, &member.id, now).await?;
    if let Some(statement) = &newer {
        let json = serde_json::to_string(statement).unwrap_or_default();
        members::set_capabilities(&transaction, &member.id, &json, now).await?;
    }
    if let Some(shown) = shown {
        members::set_shown(&transaction, &member.id, &shown::json(shown), now).await?;
    }
    transaction.commit().await?;
    if let (Some(changing), Some(mesh)) = (changing, shared.roster.cached(mesh_id))
        && let Some(current) = mesh.member(&member.id)
    {
        let mut changed = (*current).clone();
        changed.capabilities = newer.or(changed.capabilities);
        changed.shown = shown.cloned().unwrap_or(changed.shown);
        mesh.put(&changing, changed);
    }
    Ok(generation)
}

fn ack(shared: &Shared, peer: &Peer, member: &Member, reattached: bool) -> HelloAck {
    let profile = MemberProfile { message_mode: "push".to_owned(), ..MemberProfile::default() };
    HelloAck {
        presence_id: peer.presence_id.clone(),
        member_display_name: member.display_name.clone(),
        member_profile: (peer.kind == Kind::Member || !reattached).then_some(profile),
        services: (peer.kind == Kind::Member).then(Vec::new),
        broker_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        broker_time: Some(shared.clock.now().0),
        member_id: Some(peer.member_id.clone()),
        generation: u64::try_from(peer.generation).ok().filter(|generation| *generation > 0),
        ..HelloAck::default()
    }
}
