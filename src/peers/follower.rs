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

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Certificates, Change, Error, Presence, Request, Sightings, repo, shown};
use crate::broker_client::{self, News};
use crate::db::connect::Sqlite;
use crate::db::tx;
use crate::domain::event::{MeshEvent, PeerChange};
use crate::domain::ids::{MemberId, MemberKey};
use crate::domain::names;
use crate::domain::pinning::{self, PinNews, ShownMember};
use crate::domain::profile::shown_summary;
use crate::domain::roster::PinnedMember;
use crate::domain::time::UnixMillis;
use crate::domain::trust;
use crate::events::Hub;
use crate::identity::Identity;
use crate::runtime::clock::Clock;
use crate::telemetry::names::target;
use crate::wire::certificate::{MemberCertificate, MemberCertificatePut};
use crate::wire::event::{PeerEvent, SystemEvent};
use crate::wire::features::Feature;
use crate::wire::frame::{ClientFrame, ServerFrame};
use crate::wire::roster::{ListRequest, MemberRow, MembersList, PeerRow, PeersList};

/// How long the broker may take for a list. On a slow line a long one takes its time.
const LIMIT: Duration = Duration::from_secs(60);
/// Changes that come together are read together.
const SETTLE: Duration = Duration::from_millis(50);
/// Between two reads, for each pinned member: the lists of a large mesh are not read
/// again for each of its members who comes or goes.
const SPACING: Duration = Duration::from_millis(1);
/// The greatest such pause.
const MAX_SPACING: Duration = Duration::from_secs(5);
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

/// What the broker told, as far as it did.
#[derive(Debug)]
struct Lists {
    /// The connection it came over.
    session: u64,
    peers: Option<PeersList>,
    members: Option<MembersList>,
}

// === impl Follower ===

impl Follower {
    pub(super) async fn run(mut self, mut news: mpsc::Receiver<News>) {
        let mut down_since: Option<UnixMillis> = None;
        let mut due = Instant::now() + PERIOD;
        let mut last_read = Instant::now();
        // Who waits for the next read, and for the present one.
        let (mut waiting, mut asked): (Vec<oneshot::Sender<()>>, Vec<oneshot::Sender<()>>) = (Vec::new(), Vec::new());
        // One read of the lists at most. News are heard meanwhile: the link brings its
        // answer behind them.
        let mut reads = FuturesUnordered::new();
        let mut newcomers = 0;
        let mut offers = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                item = news.recv() => match item {
                    None => return,
                    Some(item) => if self.hear(item, &mut down_since) {
                        let members = u32::try_from(self.members.borrow().len()).unwrap_or(u32::MAX);
                        let spacing = SPACING.saturating_mul(members).min(MAX_SPACING);
                        due = due.min((Instant::now() + SETTLE).max(last_read + spacing));
                    },
                },
                request = self.requests.recv() => match request {
                    None => {}
                    Some(Request::Refresh(reply)) => {
                        waiting.push(reply);
                        due = Instant::now();
                    }
                    Some(Request::Change(change, reply)) => {
                        // Whoever asked may have gone; the change stands.
                        let _ = reply.send(self.change(change).await);
                    }
                },
                () = tokio::time::sleep_until(due), if reads.is_empty() => {
                    due = Instant::now() + PERIOD;
                    asked.append(&mut waiting);
                    newcomers = self.newcomers.len();
                    reads.push(read_lists(self.link.clone()));
                }
                Some(read) = reads.next(), if !reads.is_empty() => {
                    last_read = Instant::now();
                    let lists = read.ok().flatten();
                    let offer = match lists {
                        Some(lists) => self.keep(lists).await,
                        None => None,
                    };
                    let count = newcomers.min(self.newcomers.len());
                    for peer in self.newcomers.drain(..count).collect::<Vec<_>>() {
                        self.publish_join(&peer);
                    }
                    // A dropped reply tells its caller that nothing came; whoever asked
                    // may have gone.
                    if let Some(offer) = offer {
                        asked.drain(..).for_each(|reply| _ = reply.send(()));
                        offers.extend(offer.map(|put| offer_certificate(self.link.clone(), put)));
                    }
                    asked.clear();
                }
                Some(()) = offers.next(), if !offers.is_empty() => {}
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
        Some(PeerChange { member_id, key, display_name: names::shown(&peer.name) })
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

    /// Takes over what was read. `None` if it could not be kept; else the certificate that
    /// the broker lacks, if any.
    async fn keep(&mut self, lists: Lists) -> Option<Option<MemberCertificate>> {
        let kept = self.take(lists).await;
        match &kept {
            Ok(_) => self.disk_full.store(false, Ordering::Relaxed),
            Err(Error::Storage(error)) if tx::is_full(error) => self.disk_full.store(true, Ordering::Relaxed),
            Err(_) => {}
        }
        kept.inspect_err(|error| tracing::warn!(error = %error, "The roster could not be kept: {error}")).ok()
    }

    async fn take(&mut self, lists: Lists) -> Result<Option<MemberCertificate>, Error> {
        let (mut hidden, mut offer) = (BTreeSet::new(), None);
        let heard = lists.peers.is_some();
        if let Some(list) = lists.peers {
            let present: Vec<Presence> = list.peers.iter().filter_map(presence).collect();
            if lists.members.is_none() {
                self.pin(list.peers.iter().filter_map(shown::peer), &[]).await?;
            }
            self.presence.send_if_modified(|old| {
                let changed = **old != present;
                if changed {
                    *old = Arc::new(present);
                }
                changed
            });
        }
        if let Some(list) = lists.members {
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
            offer = self.certificates.offer(rows);
        }
        // Last: who is seen for the first time is pinned by now.
        if heard {
            self.note_seen(lists.session, hidden);
        }
        Ok(offer)
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
        let (mut all_changed, mut all_news) = (Vec::new(), Vec::new());
        for row in shown.take(MAX_MEMBERS) {
            let (changed, news) = pinning::merge(&list, &row, now);
            if let Some(changed) = changed {
                match list.iter_mut().find(|member| member.member_id == changed.member_id) {
                    Some(old) => *old = changed.clone(),
                    None => list.push(changed.clone()),
                }
                all_changed.push(changed);
            }
            all_news.extend(news);
        }
        repo::put(self.db.writer(), &all_changed, now).await?;
        all_news.into_iter().for_each(|news| self.tell(news, now));
        self.certificates.learn(rows, &list);
        if !all_changed.is_empty() {
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
        repo::put(self.db.writer(), &changed, now).await?;
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

/// Reads both lists; `None` when there is no link.
async fn read_lists(link: broker_client::Handle) -> Result<Option<Lists>, Error> {
    let Some(session) = link.session() else { return Ok(None) };
    let read = async {
        let mut lists = Lists { session: session.number, peers: None, members: None };
        let asked = |after: &str| {
            let after = Some(after.to_owned());
            move |req_id| ListRequest { after, req_id: Some(req_id) }
        };
        let mut after = Some(String::new());
        while let Some(place) = after.take() {
            let request = asked(&place);
            let answer = link.request(|id| ClientFrame::ListPeers(request(id)), LIMIT).await?;
            let ServerFrame::PeersList(mut page) = answer else { break };
            let list = lists.peers.get_or_insert_default();
            after = page.next.take().filter(|next| *next > place && list.peers.len() < MAX_MEMBERS);
            list.peers.append(&mut page.peers);
        }
        // A broker that knows our frames tells all members; others tell who is
        // connected, which is then all there is to pin.
        let mut after = session.negotiated.has(Feature::ClientMessageIdDedupe).then(String::new);
        while let Some(place) = after.take() {
            let request = asked(&place);
            let answer = link.request(|id| ClientFrame::MemberList(request(id)), LIMIT).await?;
            let ServerFrame::MembersList(mut page) = answer else { break };
            let list = lists.members.get_or_insert_default();
            let more = !page.members.is_empty() && list.members.len() < MAX_MEMBERS;
            after = page.next.take().filter(|_| more);
            list.members.append(&mut page.members);
        }
        Ok::<_, Error>(lists)
    };
    let read = read.await;
    read.inspect_err(|error| tracing::warn!(error = %error, "The roster could not be read: {error}")).map(Some)
}

/// Brings the broker the own certificate.
async fn offer_certificate(link: broker_client::Handle, certificate: MemberCertificate) {
    let put = |id| ClientFrame::MemberCertificatePut(Box::new(MemberCertificatePut { certificate, req_id: Some(id) }));
    match link.request(put, LIMIT).await {
        Ok(ServerFrame::Ack(ack)) if ack.error.is_none() => {}
        Ok(answer) => tracing::info!("The broker did not take the member's certificate ({})", answer.kind()),
        Err(error) => tracing::info!(error = %error, "The broker did not take the member's certificate: {error}"),
    }
}

fn presence(row: &PeerRow) -> Option<Presence> {
    let key = MemberKey::parse(&row.pubkey).ok()?;
    Some(Presence {
        key,
        member_key: MemberKey::parse(&row.member_pubkey).unwrap_or(key),
        display_name: names::shown(&row.display_name),
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
