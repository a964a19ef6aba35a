//! Keeps up with the topics of this member.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::manage::note_row;
use super::table::Topic;
use super::{Error, Handle};
use crate::broker_client::LinkState;
use crate::domain::ids::TopicId;
use crate::wire::topics::TopicRow;

/// News that come together are looked at together.
const SETTLE: Duration = Duration::from_millis(50);
/// Pause after a look that the link did not carry to its end.
const PAUSE: Duration = Duration::from_secs(1);
/// All topics are looked at so often, whatever was heard.
const PERIOD: Duration = Duration::from_secs(60);

/// What is to be looked at.
#[derive(Default)]
struct Due {
    all: bool,
    named: BTreeSet<String>,
    /// Those of them that were looked at in vain.
    behind: BTreeSet<String>,
}

// === impl Due ===

impl Due {
    fn is_empty(&self) -> bool {
        !self.all && self.named.is_empty()
    }
}

/// Looks at topics when something was heard of them, when the link is new, and
/// when it is known of more members who may be trusted.
pub(super) async fn run(topics: Handle, mut news: mpsc::Receiver<String>, stop: CancellationToken) {
    let mut link = topics.0.deps.link.state();
    let mut roster = topics.0.deps.peers.changes();
    let mut certificates = topics.0.deps.peers.certificates();
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut due = Due::default();
    let mut heard = Vec::new();
    let mut number = 0;
    loop {
        let session = match &*link.borrow_and_update() {
            LinkState::Ready(session) => Some(session.number),
            _ => None,
        };
        if session.is_some_and(|session| session != number) {
            due.all = true;
        } else if session.is_none() || due.is_empty() {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = link.changed() => {
                    if changed.is_err() { stop.cancelled().await; return }
                    continue;
                }
                changed = roster.changed() => { if changed.is_err() { return } due.all = true }
                changed = certificates.changed() => { if changed.is_err() { return } due.all = true }
                1.. = news.recv_many(&mut heard, 64) => {}
                _ = period.tick() => due.all = true,
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SETTLE) => {}
            }
            while let Ok(one) = news.try_recv() {
                heard.push(one);
            }
            due.all |= roster.has_changed().unwrap_or(false) || certificates.has_changed().unwrap_or(false);
            roster.mark_unchanged();
            certificates.mark_unchanged();
        }
        due.named.extend(heard.drain(..));
        let Some(session) = session else { continue };
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = look(&topics, &due) => result,
        };
        match result {
            Ok(behind) => {
                number = session;
                due = Due { all: false, named: behind.clone(), behind };
            }
            Err(Error::NotOffered) => {
                number = session;
                due = Due::default();
            }
            // What is due stays due.
            Err(error) => tracing::debug!(error = %error, "Topics could not be brought up to date: {error}"),
        }
        if !due.is_empty() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

/// Looks at what is due. The topics that are behind all the same, to be looked at
/// again.
async fn look(topics: &Handle, due: &Due) -> Result<BTreeSet<String>, Error> {
    let settled = !topics.is_unsettled();
    let known: Vec<TopicId> =
        topics.read().all().filter(|topic| topic.subscribed).map(|topic| topic.id.clone()).collect();
    if known.is_empty() && settled {
        return Ok(BTreeSet::new());
    }
    let rows = if due.all || !settled { topics.rows().await? } else { Vec::new() };
    if !settled {
        settle(topics, &rows).await?;
    }
    let subscribed: Vec<TopicId> =
        topics.read().all().filter(|topic| topic.subscribed).map(|topic| topic.id.clone()).collect();
    let mut behind = BTreeSet::new();
    for id in subscribed {
        if !due.all && !due.named.contains(id.as_str()) {
            continue;
        }
        match one(topics, &id, rows.iter().find(|row| row.id == id.as_str())).await {
            Ok(()) => {}
            Err(error @ (Error::NoLink | Error::Link(_))) => return Err(error),
            // One topic in trouble does not keep the others waiting.
            Err(error) => {
                if !due.behind.contains(id.as_str()) {
                    tracing::warn!(error = %error, topic_id = id.as_str(), "A topic is behind: {error}");
                }
                if error.is_transient() {
                    behind.insert(id.to_string());
                }
            }
        }
    }
    Ok(behind)
}

async fn one(topics: &Handle, id: &TopicId, row: Option<&TopicRow>) -> Result<(), Error> {
    let _busy = topics.turn().await?;
    let Some(mut topic) = topics.read().get(id).filter(|topic| topic.subscribed).cloned() else { return Ok(()) };
    if let Some(row) = row {
        if !row.joined {
            // The broker does not know of the subscription: one of the two was
            // restored from a backup.
            topics.join(id.as_str(), &topic.name).await?;
        }
        note_row(&mut topic, row);
        topics.note(topic);
    }
    if topics.is_encrypted(id.as_str()) { topics.sync(id).await } else { Ok(()) }
}

/// Takes over from the broker to which topics this member is subscribed.
async fn settle(topics: &Handle, rows: &[TopicRow]) -> Result<(), Error> {
    let _busy = topics.turn().await?;
    topics
        .settle(|table| {
            for row in rows.iter().filter(|row| row.joined) {
                let Ok(id) = TopicId::parse(row.id.as_str()) else { continue };
                let mut topic = table.get(&id).cloned().unwrap_or_else(|| Topic::new(id, row.name.clone()));
                topic.subscribed = true;
                note_row(&mut topic, row);
                table.put(topic);
            }
        })
        .await
}
