//! Follows the link's news and keeps the roster.
//!
//! What it is for: after each connect, and when someone comes or goes, the
//! roster is read from the broker and brought into the pinned list.
//! What runs here: one task.
//! What it guarantees: a change is on disk before anyone sees it.
//! What it must not do: follow a changed key or a taken name.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{Certificates, Change, Error, Presence, Request, Sightings, repo, shown};
use crate::broker_client::{self, News};
use crate::db::connect::Sqlite;
use crate::db::tx;
use crate::domain::event::{MeshEvent, PeerChange};
use crate::domain::ids::{MemberId, MemberKey};
use crate::domain::pinning::{self, PinNews, ShownMember};
use crate::domain::profile::shown_summary;
use crate::domain::roster::PinnedMember;
use crate::domain::time::UnixMillis;
use crate::domain::trust;
use crate::events::Hub;
use crate::identity::Identity;
use crate::runtime::clock::Clock;
use crate::telemetry::names::target;
use crate::wire::certificate::MemberCertificatePut;
use crate::wire::event::{PeerEvent, SystemEvent};
use crate::wire::features::Feature;
use crate::wire::frame::{ClientFrame, ServerFrame};
use crate::wire::roster::{Bare, MemberRow, PeerRow};

/// How long the broker may take for a list.
const LIMIT: Duration = Duration::from_secs(5);
/// Changes that come together are read together.
const SETTLE: Duration = Duration::from_millis(50);
/// The roster is read again so often, whatever was heard.
const PERIOD: Duration = Duration::from_secs(60);
/// Members that are pinned at most: what a broker may make this host keep.
const MAX_MEMBERS: usize = 50_000;

/// Newcomers that wait for the next list at most.
const MAX_NEWCOMERS: usize = 1000;

/// The task's belongings.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) db: Sqlite,
    pub(super) identity: Identity,
    pub(super) link: broker_client::Handle,
    pub(super) hub: Hub,
    pub(super) clock: Clock,
    pub(super) members: watch::Sender<Arc<Vec<PinnedMember>>>,
    pub(super) presence: watch::Sender<Arc<Vec<Presence>>>,
    pub(super) sightings: watch::Sender<Arc<Sightings>>,
    pub(super) certificates: Certificates,
    pub(super) requests: mpsc::Receiver<Request>,
    /// Whether the last roster could not be kept for want of room.
    pub(super) disk_full: Arc<AtomicBool>,
    /// Who came and is in no list that was read yet; told after the next one.
    pub(super) newcomers: Vec<PeerEvent>,
    pub(super) stop: CancellationToken,
}

// === impl Follower ===

impl Follower {
    pub(super) async fn run(mut self, mut news: mpsc::Receiver<News>) {
        let mut down_since: Option<UnixMillis> = None;
        let mut due = None;
        let mut waiting = Vec::new();
        loop {
            let pause = due.unwrap_or(PERIOD);
            tokio::select! {
                () = self.stop.cancelled() => return,
                item = news.recv() => match item {
                    None => return,
                    Some(item) => if self.hear(item, &mut down_since) { due = Some(SETTLE) },
                },
                request = self.requests.recv() => match request {
                    None => {}
                    Some(Request::Refresh(reply)) => {
                        waiting.push(reply);
                        due = Some(Duration::ZERO);
                    }
                    Some(Request::Change(change, reply)) => {
                        // Whoever asked may have gone; the change stands.
                        let _ = reply.send(self.change(change).await);
                    }
                },
                () = tokio::time::sleep(pause) => {
                    due = None;
                    let is_read = self.read_lists().await;
                    for peer in std::mem::take(&mut self.newcomers) {
                        self.publish_join(&peer);
                    }
                    if is_read {
                        for reply in waiting.drain(..) {
                            let reply: oneshot::Sender<()> = reply;
                            // Whoever asked may have gone.
                            let _ = reply.send(());
                        }
                    }
                    // A dropped reply tells its caller that nothing came.
                    waiting.clear();
                }
            }
        }
    }

    /// Takes one piece of news; true when the lists have to be read again.
    fn hear(&mut self, news: News, down_since: &mut Option<UnixMillis>) -> bool {
        let now = self.clock.now();
        match news {
            News::Up(_) => {
                self.certificates.link_is_up();
                if let Some(since) = down_since.take() {
                    let away_ms = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
                    self.hub.publish(now, MeshEvent::DaemonReconnect { away_ms });
                }
                true
            }
            News::Down { reason, close_code } => {
                *down_since = Some(now);
                // Tried again with the next link; until then nobody knows.
                self.disk_full.store(false, Ordering::Relaxed);
                self.hub.publish(now, MeshEvent::DaemonDisconnect { reason, close_code });
                false
            }
            News::NegotiationFailed { feature, detail, missing } => {
                self.hub.publish(now, MeshEvent::FeatureNegotiationFailed { feature, detail, missing });
                false
            }
            News::Ending(told) => {
                drop(told);
                false
            }
            News::System(event) => self.hear_system(event, now),
        }
    }

    /// Another member's coming or going, with its id when a list has it.
    fn seen(&self, peer: &PeerEvent) -> Option<PeerChange> {
        let key = MemberKey::parse(&peer.pubkey).ok().filter(|key| *key != self.identity.key())?;
        let members = self.members.borrow();
        // A session goes by a key of its own; whose it is stands in the list, once
        // that has been read.
        let session = self.presence.borrow().iter().find(|one| one.key == key).map(|one| one.member_key);
        let member = members.iter().find(|member| member.key == session.unwrap_or(key));
        let member_id = member.map(|member| member.member_id.clone());
        Some(PeerChange { member_id, key, display_name: peer.name.clone() })
    }

    fn publish_join(&self, peer: &PeerEvent) {
        if let Some(change) = self.seen(peer) {
            self.hub.publish(self.clock.now(), MeshEvent::PeerJoin(change));
        }
    }

    fn hear_system(&mut self, event: SystemEvent, now: UnixMillis) -> bool {
        let own = self.identity.key();
        match event {
            SystemEvent::PeerJoined(peer) | SystemEvent::PeerReturned(peer) => {
                let is_known = self.seen(&peer).is_none_or(|change| change.member_id.is_some());
                if is_known || self.newcomers.len() >= MAX_NEWCOMERS {
                    self.publish_join(&peer);
                } else {
                    self.newcomers.push(peer);
                }
                true
            }
            SystemEvent::PeerLeft(peer) => {
                // Its coming is told before its going, also without its id.
                if let Some(at) = self.newcomers.iter().position(|one| one.pubkey == peer.pubkey) {
                    let newcomer = self.newcomers.remove(at);
                    self.publish_join(&newcomer);
                }
                if let Some(change) = self.seen(&peer) {
                    self.hub.publish(now, MeshEvent::PeerLeave(change));
                }
                true
            }
            SystemEvent::MemberRevoked(revoked) if revoked.member_id == self.identity.member_id().as_str() => {
                // The daemon ends before another roster could tell it.
                self.hub.publish(
                    now,
                    MeshEvent::MemberRevoked {
                        member_id: self.identity.member_id().clone(),
                        key: own,
                        display_name: String::new(),
                        is_self: true,
                    },
                );
                false
            }
            // The topics hear these from the link themselves.
            SystemEvent::TopicEpoch(_) | SystemEvent::TopicKeyAvailable(_) | SystemEvent::TopicMembersChanged(_) => {
                false
            }
            SystemEvent::PeerVisible(_)
            | SystemEvent::PeerHidden(_)
            | SystemEvent::PeersChanged
            | SystemEvent::MemberKeypairRotated(_)
            | SystemEvent::MemberRevoked(_)
            | SystemEvent::MemberRenamed(_)
            | SystemEvent::MemberConcurrentConnection(_)
            | SystemEvent::Other { .. } => true,
        }
    }

    /// Reads both lists; false when there is no link or no answer.
    async fn read_lists(&mut self) -> bool {
        let Some(session) = self.link.session() else { return false };
        // A broker that knows our frames tells all members; others tell who is
        // connected, which is then all there is to pin.
        let knows_members = session.negotiated.has(Feature::ClientMessageIdDedupe);
        let read = self.ask(session.number, knows_members).await;
        match &read {
            Ok(()) => self.disk_full.store(false, Ordering::Relaxed),
            Err(Error::Storage(error)) if tx::is_full(error) => self.disk_full.store(true, Ordering::Relaxed),
            // An answer that did not come says nothing of the disk.
            Err(_) => {}
        }
        match read {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(error = %error, "The roster could not be read: {error}");
                false
            }
        }
    }

    async fn ask(&mut self, session: u64, knows_members: bool) -> Result<(), Error> {
        let bare = |req_id| Bare { req_id: Some(req_id) };
        let (mut heard, mut hidden) = (false, BTreeSet::new());
        let answer = self.link.request(|id| ClientFrame::ListPeers(bare(id)), LIMIT).await?;
        if let ServerFrame::PeersList(list) = answer {
            let present: Vec<Presence> = list.peers.iter().filter_map(presence).collect();
            if !knows_members {
                self.pin(list.peers.iter().filter_map(shown::peer), &[]).await?;
            }
            self.presence.send_if_modified(|old| {
                let changed = **old != present;
                if changed {
                    *old = Arc::new(present);
                }
                changed
            });
            heard = true;
        }
        if knows_members {
            let answer = self.link.request(|id| ClientFrame::MemberList(bare(id)), LIMIT).await?;
            if let ServerFrame::MembersList(list) = answer {
                let pinned = Arc::clone(&self.members.borrow());
                let known: HashMap<&str, &PinnedMember> =
                    pinned.iter().map(|member| (member.member_id.as_str(), member)).collect();
                let identity = self.identity.clone();
                let rows = &list.members[..list.members.len().min(MAX_MEMBERS)];
                let pinned_as = |row: &MemberRow| known.get(row.member_id.as_str()).copied();
                let seen = rows.iter().filter_map(|row| shown::member(row, identity.mesh_id(), pinned_as(row)));
                self.pin(seen, rows).await?;
                let hides = rows.iter().filter(|row| row.hidden == Some(true));
                hidden.extend(hides.filter_map(|row| MemberId::parse(row.member_id.as_str()).ok()));
                self.offer_certificate(rows).await;
            }
        }
        // Last: who is seen for the first time is pinned by now.
        if heard {
            self.note_seen(session, hidden);
        }
        Ok(())
    }

    /// Brings the broker the own certificate if it lacks it.
    async fn offer_certificate(&mut self, rows: &[MemberRow]) {
        let Some(certificate) = self.certificates.offer(rows) else { return };
        let put =
            |id| ClientFrame::MemberCertificatePut(Box::new(MemberCertificatePut { certificate, req_id: Some(id) }));
        match self.link.request(put, LIMIT).await {
            Ok(ServerFrame::Ack(ack)) if ack.error.is_none() => {}
            Ok(answer) => tracing::info!("The broker did not take the member's certificate ({})", answer.kind()),
            Err(error) => tracing::info!(error = %error, "The broker did not take the member's certificate: {error}"),
        }
    }

    /// Notes who was seen. Only pinned members are kept, so that a broker cannot
    /// fill the memory with keys.
    fn note_seen(&self, session: u64, hidden: BTreeSet<MemberId>) {
        let now = self.clock.now();
        let pinned: HashSet<MemberKey> = self.members.borrow().iter().map(|member| member.key).collect();
        let present = Arc::clone(&self.presence.borrow());
        self.sightings.send_modify(|sightings| {
            let sightings = Arc::make_mut(sightings);
            sightings.as_of = Some(now);
            sightings.told_over = Some(session);
            sightings.hidden = hidden;
            sightings.last_seen.extend(present.iter().map(|one| (one.member_key, now)));
            sightings.last_seen.retain(|key, _| pinned.contains(key));
        });
    }

    /// Brings rows into the pinned list: disk first, then everybody else. Whose
    /// certificate holds is known before: nobody who wakes for a new member has to
    /// wait for it.
    async fn pin(&mut self, shown: impl Iterator<Item = ShownMember>, rows: &[MemberRow]) -> Result<(), Error> {
        let now = self.clock.now();
        let mut list: Vec<PinnedMember> = self.members.borrow().as_ref().clone();
        let mut changed_any = false;
        for row in shown.take(MAX_MEMBERS) {
            let (changed, news) = pinning::merge(&list, &row, now);
            if let Some(changed) = changed {
                repo::put(self.db.writer(), &changed, now).await?;
                list.retain(|member| member.member_id != changed.member_id);
                list.push(changed);
                changed_any = true;
            }
            news.into_iter().for_each(|news| self.tell(news, now));
        }
        self.certificates.learn(rows, &list);
        if changed_any {
            list.sort_by(|one, other| one.display_name.cmp(&other.display_name));
            self.members.send_replace(Arc::new(list));
        }
        Ok(())
    }

    /// What the operator decided: disk first, then everybody else.
    async fn change(&mut self, change: Change) -> Result<PinnedMember, Error> {
        let now = self.clock.now();
        let mut list: Vec<PinnedMember> = self.members.borrow().as_ref().clone();
        let changed = match &change {
            Change::AcceptKey { member_id, key } => vec![trust::accept_key(&list, member_id, *key)?],
            Change::AcceptName { member_id, name } => trust::accept_name(&list, member_id, name)?,
            Change::Verify { member_id, key } => vec![trust::verify(&list, member_id, *key, now)?],
        };
        let transaction = tx::begin(self.db.writer()).await?;
        for member in &changed {
            repo::put(&transaction, member, now).await?;
        }
        transaction.commit().await?;
        tracing::warn!(target: target::SECURITY, change = ?change, "The operator changed whom this daemon trusts");
        for member in &changed {
            list.retain(|old| old.member_id != member.member_id);
            list.push(member.clone());
        }
        list.sort_by(|one, other| one.display_name.cmp(&other.display_name));
        self.certificates.tell(&list);
        self.members.send_replace(Arc::new(list));
        let last = changed.into_iter().next_back();
        last.ok_or_else(|| Error::Damaged { member_id: String::new(), detail: "nothing was changed".to_owned() })
    }

    fn tell(&self, news: PinNews, now: UnixMillis) {
        match news {
            PinNews::KeyChanged { member_id, display_name, pinned, shown } => {
                tracing::warn!(member = member_id.as_str(), %pinned, %shown, "member_key_changed");
                self.hub.publish(now, MeshEvent::MemberKeyChanged { member_id, display_name, pinned, shown });
            }
            PinNews::NameTaken { name, bound_to, claimed_by } => {
                tracing::warn!(name, bound_to = %bound_to, claimed_by = %claimed_by, "name_binding_changed");
                self.hub.publish(now, MeshEvent::NameBindingChanged { name, bound_to, claimed_by });
            }
            PinNews::CapabilityDropped { member_id, display_name, missing } => {
                tracing::warn!(member = member_id.as_str(), missing = ?missing, "peer_feature_downgrade");
                self.hub.publish(now, MeshEvent::PeerFeatureDowngrade { member_id, display_name, missing });
            }
            PinNews::KeyRotated { member_id, display_name, old, new, was_verified } => {
                tracing::info!(member = member_id.as_str(), %old, %new, was_verified, "member_keypair_rotated");
                if was_verified {
                    tracing::warn!(
                        member = member_id.as_str(),
                        "The member was verified with its old key; compare the safety number again"
                    );
                }
                self.hub.publish(now, MeshEvent::MemberKeypairRotated { member_id, display_name, old, new });
            }
            PinNews::Renamed { member_id, key, old_name, new_name } => {
                tracing::info!(member = member_id.as_str(), old_name, new_name, "member_renamed");
                self.hub.publish(now, MeshEvent::MemberRenamed { member_id, key, old_name, new_name });
            }
            PinNews::Revoked { member_id, key, display_name } => {
                tracing::info!(member = member_id.as_str(), "member_revoked");
                let is_self = member_id == *self.identity.member_id();
                self.hub.publish(now, MeshEvent::MemberRevoked { member_id, key, display_name, is_self });
            }
        }
    }
}

fn presence(row: &PeerRow) -> Option<Presence> {
    let key = MemberKey::parse(&row.pubkey).ok()?;
    Some(Presence {
        key,
        member_key: MemberKey::parse(&row.member_pubkey).unwrap_or(key),
        display_name: row.display_name.clone(),
        status: row.status.clone(),
        summary: row.summary.as_deref().map(shown_summary),
        groups: row.groups.iter().map(|group| group.name.clone()).collect(),
        role: row.peer_role.clone().unwrap_or_else(|| "session".to_owned()),
        hostname: row.hostname.clone(),
        connected_at: row.connected_at.clone(),
        session_id: row.session_id.clone(),
        visible: row.visible.unwrap_or(true),
    })
}
