//! What members show of themselves: kept, and told on.
//!
//! What a daemon's connection shows is its member's and outlives the connection;
//! what an older client or a session shows ends with it. Changes take effect at once
//! and are told at the next tick, the last one of each kind, so that who changes
//! something all the time costs everybody one event of it a tick.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use sea_orm::DbErr;

use super::peer::Peer;
use super::presence;
use super::terms::Kind;
use crate::broker::fanout::Audience;
use crate::broker::roster::Member;
use crate::broker::shared::Shared;
use crate::broker::store::members;
use crate::domain::profile::{MAX_SUMMARY_BYTES, Status};
use crate::wire::event::SystemEvent;
use crate::wire::presence::Shown;
use crate::wire::refusal::Refusal;

/// What is still to be told, by presence id.
#[derive(Debug, Default)]
pub struct Changes(Mutex<BTreeMap<String, Change>>);

/// What one connection has changed since the last tick.
#[derive(Debug)]
struct Change {
    peer: Arc<Peer>,
    /// Its status or summary.
    text: bool,
    /// Whether others saw it before, if it was asked to show or hide itself.
    was_visible: Option<bool>,
}

// === impl Changes ===

impl Changes {
    fn note(&self, peer: &Arc<Peer>, change: impl FnOnce(&mut Change)) {
        let none = || Change { peer: Arc::clone(peer), text: false, was_visible: None };
        change(self.lock().entry(peer.presence_id.clone()).or_insert_with(none));
    }

    fn take(&self) -> Vec<Change> {
        std::mem::take(&mut *self.lock()).into_values().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Change>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a hello shows, within bounds.
pub fn checked(shown: Shown) -> Shown {
    let status = Status::parse(&shown.status).unwrap_or_default().name().to_owned();
    Shown { status, summary: summary(shown.summary), visible: shown.visible }
}

/// A new status. One that is none is ignored, as old brokers do.
pub fn set_status(shared: &Shared, peer: &Arc<Peer>, status: &str) {
    let Some(status) = Status::parse(status) else { return };
    let before = std::mem::replace(&mut peer.profile().status, status.name().to_owned());
    if before != status.name() {
        shared.changes.note(peer, |change| change.text = true);
    }
}

/// A new summary.
pub fn set_summary(shared: &Shared, peer: &Arc<Peer>, text: String) {
    let text = Some(summary(text));
    let before = std::mem::replace(&mut peer.profile().summary, text.clone());
    if before != text {
        shared.changes.note(peer, |change| change.text = true);
    }
}

/// Shows or hides the connection, and with a daemon's its member.
pub async fn set_visible(shared: &Shared, peer: &Arc<Peer>, visible: bool) -> Result<(), Refusal> {
    let was_visible = peer.is_visible();
    let before = std::mem::replace(&mut peer.profile().visible, visible);
    let now = shared.clock.monotonic();
    if news(peer, Some(visible)).is_some() && shared.shown_limiter.take(&peer.member_id, None, now).is_err() {
        peer.profile().visible = before;
        return Err(Refusal::RateLimit);
    }
    if let Err(error) = keep(shared, std::slice::from_ref(peer), Some(visible)).await {
        tracing::warn!(error = %error, "Cannot store whether a member shows itself: {error}");
        peer.profile().visible = before;
        return Err(Refusal::Internal);
    }
    if was_visible != peer.is_visible() {
        shared.changes.note(peer, |change| _ = change.was_visible.get_or_insert(was_visible));
    }
    Ok(())
}

/// Tells what has changed since the last tick.
pub async fn tell_changes(shared: &Shared) {
    let mut peers = Vec::new();
    for Change { peer, text, was_visible } in shared.changes.take() {
        // What was replaced meanwhile has no say any more: its successor's hello came later.
        let current = shared.registry.current(&peer);
        let is_there = current.is_some();
        let peer = current.unwrap_or(peer);
        let is_visible = peer.is_visible();
        // Who hid itself and went was not told of when it went.
        if was_visible.is_some_and(|was_visible| was_visible != is_visible) && (is_there || !is_visible) {
            presence::visibility(shared, &peer, is_visible);
        }
        if text && is_there {
            peers.push(peer);
        }
    }
    if peers.is_empty() {
        return;
    }
    if let Err(error) = keep(shared, &peers, None).await {
        // Members of this broker see it from its memory all the same, and the
        // daemon says it again with its next hello.
        tracing::warn!(error = %error, "Cannot store what a member shows of itself: {error}");
    }
    let meshes: BTreeSet<&str> = peers.iter().map(|peer| peer.mesh.id.as_str()).collect();
    meshes.into_iter().for_each(|mesh_id| tell(shared, mesh_id));
}

/// Tells the members of a mesh to look at the list again.
pub fn tell(shared: &Shared, mesh_id: &str) {
    if presence::is_told(shared, mesh_id) {
        presence::send_event(shared, mesh_id, &Audience::Negotiating, SystemEvent::PeersChanged);
    }
}

/// Writes down what the connections of daemons show, where it is news. `visible` is
/// what one of them has just said about that.
async fn keep(shared: &Shared, peers: &[Arc<Peer>], visible: Option<bool>) -> Result<(), DbErr> {
    if peers.iter().all(|peer| news(peer, visible).is_none()) {
        return Ok(());
    }
    let changing = shared.roster.changing().await;
    let news: Vec<(&Arc<Peer>, Arc<Member>, Shown)> =
        peers.iter().filter_map(|peer| news(peer, visible).map(|(member, shown)| (peer, member, shown))).collect();
    let now = shared.store.now().0;
    let transaction = shared.store.begin().await?;
    for (_, member, shown) in &news {
        members::set_shown(&transaction, &member.id, &json(shown), now).await?;
    }
    transaction.commit().await?;
    for (peer, member, shown) in news {
        peer.mesh.put(&changing, Member { shown, ..(*member).clone() });
    }
    Ok(())
}

/// As the database keeps it.
pub fn json(shown: &Shown) -> String {
    // Texts and a truth value: it can be written.
    serde_json::to_string(shown).unwrap_or_default()
}

/// What a daemon's connection shows, where it is not what is known of its member.
/// Whether the member hides stays as it is known unless `visible` says otherwise:
/// another device may have hidden it.
fn news(peer: &Peer, visible: Option<bool>) -> Option<(Arc<Member>, Shown)> {
    if peer.kind != Kind::Member || peer.facts.instance_id.is_none() {
        return None;
    }
    let member = peer.mesh.member(&peer.member_id)?;
    let profile = peer.profile();
    let shown = Shown {
        status: profile.status.clone(),
        summary: profile.summary.clone().unwrap_or_default(),
        visible: visible.unwrap_or(member.shown.visible),
    };
    (member.shown != shown).then_some((member, shown))
}

fn summary(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_SUMMARY_BYTES));
    text
}
