//! Several brokers over one database.
//!
//! What it is for: each broker has the connections of some members and knows
//! the others from the database alone. Every scan it says that it is there,
//! sees which features all of them have, takes over what the others changed in
//! the roster, and closes what was replaced elsewhere.
//! What runs here: one task, on a database that brokers can share.
//! What it guarantees: of two connections of one state directory only the one
//! with the higher generation goes on; a member that was revoked anywhere is
//! closed everywhere within one scan, and a new key is told everywhere.
//! What it must not do: talk to another broker. The database is the truth.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use sea_orm::DbErr;
use tokio_util::sync::CancellationToken;

use super::departures;
use super::fanout::Audience;
use super::roster::{Mesh, policy_name};
use super::session::peer::Peer;
use super::session::terms::{End, Facts};
use super::session::{negotiate, presence as shown, shown as profiles};
use super::shared::Shared;
use super::store::entity::{node, presence as row};
use super::store::notices::Notice;
use super::store::presence::Elsewhere;
use super::store::{nodes, presence};
use super::topics;
use crate::domain::time::UnixMillis;
use crate::wire::close;
use crate::wire::event::SystemEvent;
use crate::wire::features::{ConcurrencyPolicy, Feature};

/// Scans that a broker may miss before it counts as gone.
const MISSED_SCANS: u32 = 6;
/// How far back each round reads again, in milliseconds: a row bears the time of
/// its statement and is seen from its commit on.
const OVERLAP_MS: i64 = 60_000;

/// What a broker knows of the others.
#[derive(Debug, Default)]
pub struct Nodes {
    /// Features that some live broker lacks.
    lacking: RwLock<BTreeSet<Feature>>,
    /// Daemons that the others have, for each mesh that has connections here.
    elsewhere: RwLock<HashMap<String, Arc<Vec<Elsewhere>>>>,
    /// Held while they are read, so that an older answer never replaces a newer one.
    looking: tokio::sync::Mutex<()>,
    /// Until when the others' changes were read. Held during the reading.
    read_until: tokio::sync::Mutex<Option<UnixMillis>>,
    /// This broker is in the list of brokers.
    is_known: AtomicBool,
    /// Up to which change the members of a topic were told. Held for a look-up.
    told_topics: Mutex<HashMap<String, i64>>,
}

// === impl Nodes ===

impl Nodes {
    /// Whether every live broker has the feature: a daemon that comes back to
    /// another one must find what it was promised.
    pub fn all_have(&self, feature: Feature) -> bool {
        !self.lacking.read().unwrap_or_else(PoisonError::into_inner).contains(&feature)
    }

    /// The daemons of a mesh that other brokers have, as of the last round.
    pub fn elsewhere(&self, mesh_id: &str) -> Arc<Vec<Elsewhere>> {
        self.elsewhere.read().unwrap_or_else(PoisonError::into_inner).get(mesh_id).cloned().unwrap_or_default()
    }

    /// Takes out one that was replaced, before the next round finds it gone.
    fn forget(&self, gone: &row::Model) {
        let mut elsewhere = self.elsewhere.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(rows) = elsewhere.get_mut(&gone.mesh_id) {
            Arc::make_mut(rows).retain(|row| of_directory(row) != (&gone.member_id, &gone.instance_id));
        }
    }
}

/// Goes around until `stop`, then takes this broker out of the list.
pub async fn follow(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        if let Err(error) = round(&shared).await {
            tracing::warn!(error = %error, "Cannot learn from the other brokers: {error}");
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(shared.config.timers.scan) => {}
        }
    }
    let gone = async {
        let transaction = shared.store.begin().await?;
        nodes::remove(&transaction, &shared.node_id).await?;
        transaction.commit().await
    };
    if let Err(error) = gone.await {
        tracing::warn!(error = %error, "Cannot take this broker out of the list: {error}");
    }
}

/// One round. Also done once before the first connection.
pub async fn round(shared: &Arc<Shared>) -> Result<(), DbErr> {
    if !shared.store.is_shared() {
        return Ok(());
    }
    let now = shared.store.now().0;
    let own: Vec<&str> = negotiate::OWN_FEATURES.iter().map(|feature| feature.as_str()).collect();
    let beat = node::Model {
        id: shared.node_id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        features: own.join(","),
        started_at: now,
        last_seen_at: now,
    };
    if !shared.nodes.is_known.load(Ordering::Acquire) {
        shared.store.tell_others(Some(&shared.node_id));
    }
    let transaction = shared.store.begin().await?;
    nodes::beat(&transaction, beat).await?;
    // Of a newcomer the others have to know; of any other beat nobody.
    let is_new = !shared.nodes.is_known.swap(true, Ordering::AcqRel);
    transaction.commit_telling(&Notice { changed: is_new, ..Notice::default() }).await?;

    let live = nodes::live(shared.store.readers(), live_since(shared)).await?;
    let lacks =
        |feature: &&Feature| live.iter().any(|node| node.features.split(',').all(|own| own != feature.as_str()));
    let lacking: BTreeSet<Feature> = negotiate::OWN_FEATURES.iter().filter(lacks).copied().collect();
    shared.store.tell_others((live.len() > 1).then_some(shared.node_id.as_str()));
    *shared.nodes.lacking.write().unwrap_or_else(PoisonError::into_inner) = lacking;
    look(shared).await
}

/// Takes over what other brokers have written.
pub async fn look(shared: &Arc<Shared>) -> Result<(), DbErr> {
    catch_up(shared).await?;
    look_elsewhere(shared).await
}

/// Sees who is connected to the other brokers, and tells those who are here.
async fn look_elsewhere(shared: &Arc<Shared>) -> Result<(), DbErr> {
    let _looking = shared.nodes.looking.lock().await;
    let now = read_elsewhere(shared, shared.registry.mesh_ids()).await?;
    let before = {
        let mut elsewhere = shared.nodes.elsewhere.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *elsewhere, now.clone());
        // A mesh whose first connection came during the reading.
        let came = before.iter().filter(|(id, _)| !now.contains_key(*id) && shared.registry.online_count(id) > 0);
        elsewhere.extend(came.map(|(id, rows)| (id.clone(), Arc::clone(rows))));
        before
    };
    for (mesh_id, new) in &now {
        // Who has just come reads the list by itself.
        let (Some(mesh), Some(old)) = (shared.roster.cached(mesh_id), before.get(mesh_id)) else { continue };
        for (from, to, came) in [(old, new, true), (new, old, false)] {
            let known: HashSet<(&str, &str)> = from.iter().map(of_directory).collect();
            for row in to.iter().filter(|row| !known.contains(&of_directory(row))) {
                let here = shared.registry.of_member(mesh_id, &row.member_id);
                if here.iter().all(|peer| peer.facts.instance_id.as_deref() != Some(&row.instance_id)) {
                    shown::moved_elsewhere(shared, &mesh, &row.member_id, came);
                }
            }
        }
    }
    Ok(())
}

/// Sees who is connected to the other brokers in a mesh whose first connection here has
/// just come: no round has looked at it, or one before the last connection went.
pub async fn look_at(shared: &Shared, mesh_id: &str) -> Result<(), DbErr> {
    let is_known = || {
        let elsewhere = shared.nodes.elsewhere.read().unwrap_or_else(PoisonError::into_inner);
        elsewhere.contains_key(mesh_id) && shared.registry.online_count(mesh_id) > 1
    };
    if !shared.store.is_shared() || is_known() {
        return Ok(());
    }
    let found = read_elsewhere(shared, vec![mesh_id.to_owned()]).await?;
    shared.nodes.elsewhere.write().unwrap_or_else(PoisonError::into_inner).extend(found);
    Ok(())
}

async fn read_elsewhere(shared: &Shared, mesh_ids: Vec<String>) -> Result<HashMap<String, Arc<Vec<Elsewhere>>>, DbErr> {
    let lost_since = shared.store.now().minus(shared.config.timers.grace).0;
    let db = shared.store.readers();
    let rows = presence::of_others(db, &mesh_ids, &shared.node_id, live_since(shared), lost_since).await?;
    let mut found: HashMap<String, Vec<Elsewhere>> = mesh_ids.into_iter().map(|id| (id, Vec::new())).collect();
    for row in rows {
        found.entry(row.mesh_id.clone()).or_default().push(row);
    }
    Ok(found.into_iter().map(|(id, rows)| (id, Arc::new(rows))).collect())
}

fn of_directory(row: &Elsewhere) -> (&str, &str) {
    (&row.member_id, &row.instance_id)
}

/// Takes over what other brokers have written since the last time.
pub async fn catch_up(shared: &Arc<Shared>) -> Result<(), DbErr> {
    if !shared.store.is_shared() {
        return Ok(());
    }
    let mut read_until = shared.nodes.read_until.lock().await;
    let now = shared.store.now();
    // At first nothing is in memory that could be old.
    let since = read_until.unwrap_or(now).0.saturating_sub(OVERLAP_MS);
    let news = shared.roster.refresh(since).await?;
    for (mesh, member) in news.revoked {
        departures::close(shared, &mesh, &member);
    }
    for mesh_id in &news.shown {
        profiles::tell(shared, mesh_id);
    }
    for (mesh_id, statement) in news.rotated {
        // The broker that registered it has told its own.
        let audience = Audience::OtherMembers(statement.member_id.clone());
        shown::send_event(shared, &mesh_id, &audience, SystemEvent::MemberKeypairRotated(statement));
    }
    topics::tell_changed(shared, since, |topic| {
        let mut told = shared.nodes.told_topics.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| *at >= since);
        told.insert(topic.id.clone(), topic.changed_at) == Some(topic.changed_at)
    })
    .await?;
    for (mesh_id, member_id, instance_id, generation) in
        presence::moved(shared.store.readers(), since, &shared.node_id).await?
    {
        for peer in shared.registry.of_member(&mesh_id, &member_id) {
            if peer.facts.instance_id.as_deref() == Some(&instance_id) && peer.generation < generation {
                supersede(shared, &peer);
            }
        }
    }
    *read_until = Some(now);
    Ok(())
}

/// Ends a connection whose state directory is connected elsewhere by now.
pub fn supersede(shared: &Shared, peer: &Arc<Peer>) {
    if shared.registry.remove(peer) {
        let detail = "a newer connection of this member took over at another broker";
        peer.finish(End::explained(close::REPLACED, "replaced_by_newer_connection", detail, false));
    }
}

/// Which connections of the member other brokers hold, as far as a newcomer has
/// to contend with them: other state directories, and its own in another process.
async fn elsewhere(
    shared: &Shared,
    mesh: &Mesh,
    member_id: &str,
    newcomer: &Facts,
    own: bool,
) -> Result<Vec<row::Model>, DbErr> {
    if !shared.store.is_shared() {
        return Ok(Vec::new());
    }
    let since = live_since(shared);
    let mut rows = presence::elsewhere(shared.store.readers(), &mesh.id, member_id, &shared.node_id, since).await?;
    rows.retain(|row| match newcomer.instance_id.as_deref() {
        Some(instance) if instance == row.instance_id => own && row.boot_id != newcomer.boot_id,
        _ => !own,
    });
    Ok(rows)
}

/// Applies the mesh's policy between a newcomer and what other brokers hold of
/// the member. `own`: only connections of the same state directory, before the
/// hello takes its place; else those of others, once the policy was negotiated.
/// Another broker's socket cannot be asked for a sign of life: it counts until
/// that broker has noted its end, after its limit of silence at the latest.
pub async fn contest(
    shared: &Arc<Shared>,
    mesh: &Arc<Mesh>,
    member_id: &str,
    newcomer: &Facts,
    own: bool,
) -> Result<(), End> {
    let rows = match elsewhere(shared, mesh, member_id, newcomer, own).await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::error!(error = %error, "Cannot read who is connected elsewhere: {error}");
            return Err(End::close(close::POLICY, "internal"));
        }
    };
    let policy = mesh.policy();
    for row in rows {
        shown::tell_concurrent_elsewhere(shared, mesh, &row, policy_name(policy)).await;
        if newcomer.yields || policy == ConcurrencyPolicy::PreferOldest {
            let detail = "another live connection holds this member";
            return Err(End::explained(close::ALREADY_CONNECTED, "member_already_connected", detail, false));
        }
        if policy == ConcurrencyPolicy::PreferNewest && !own {
            let now = shared.store.now().0;
            let taken = async {
                let transaction = shared.store.begin().await?;
                presence::supersede(&transaction, &row, &shared.node_id, now).await?;
                transaction.commit().await
            };
            if let Err(error) = taken.await {
                tracing::error!(error = %error, "Cannot replace a connection elsewhere: {error}");
                return Err(End::close(close::POLICY, "internal"));
            }
            shared.nodes.forget(&row);
        }
    }
    Ok(())
}

fn live_since(shared: &Shared) -> i64 {
    shared.store.now().minus(shared.config.timers.scan * MISSED_SCANS).0
}
