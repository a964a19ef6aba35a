//! Keeps up with the topics of this member.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::manage::note_row;
use super::{Error, Handle};
use crate::broker_client::LinkState;
use crate::domain::ids::TopicId;
use crate::wire::frame::ClientFrame;
use crate::wire::topics::TopicRequest;

/// News that come together are looked at together.
const SETTLE: Duration = Duration::from_millis(50);
/// Pause after a look that the link did not carry to its end.
const PAUSE: Duration = Duration::from_secs(1);
/// All topics are looked at so often, whatever was heard.
const PERIOD: Duration = Duration::from_secs(60);

/// Looks at topics when something was heard of them, when the link is new, and
/// when it is known of more members who may be trusted.
pub(super) async fn run(topics: Handle, mut news: mpsc::Receiver<String>, stop: CancellationToken) {
    let mut link = topics.0.deps.link.state();
    let mut roster = topics.0.deps.peers.changes();
    let mut certificates = topics.0.deps.peers.certificates();
    let mut number = 0;
    let mut heard = Vec::new();
    loop {
        let session = match &*link.borrow_and_update() {
            LinkState::Ready(session) => Some(session.number),
            _ => None,
        };
        let is_new = session.is_some_and(|session| session != number);
        let mut all = is_new;
        if !is_new {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = link.changed() => {
                    if changed.is_err() { stop.cancelled().await; return }
                    continue;
                }
                changed = roster.changed() => { if changed.is_err() { return } all = true }
                changed = certificates.changed() => { if changed.is_err() { return } all = true }
                1.. = news.recv_many(&mut heard, 64) => {}
                () = tokio::time::sleep(PERIOD) => all = true,
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SETTLE) => {}
            }
            while let Ok(one) = news.try_recv() {
                heard.push(one);
            }
            roster.mark_unchanged();
            certificates.mark_unchanged();
        }
        let named: BTreeSet<String> = heard.drain(..).collect();
        if session.is_some() {
            tokio::select! {
                () = stop.cancelled() => return,
                result = look(&topics, all, &named) => match result {
                    Ok(()) => number = session.unwrap_or(number),
                    // The next link is looked at from its beginning.
                    Err(Error::NoLink | Error::Link(_)) => tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(PAUSE) => {}
                    },
                    Err(Error::NotOffered) => number = session.unwrap_or(number),
                    Err(error) => {
                        number = session.unwrap_or(number);
                        tracing::warn!(error = %error, "Topics could not be brought up to date: {error}");
                    }
                },
            }
        }
    }
}

async fn look(topics: &Handle, all: bool, named: &BTreeSet<String>) -> Result<(), Error> {
    let subscribed: Vec<TopicId> = {
        let table = topics.read();
        table.all().filter(|topic| topic.subscribed).map(|topic| topic.id.clone()).collect()
    };
    if subscribed.is_empty() {
        return Ok(());
    }
    let rows = if all { topics.rows().await? } else { Vec::new() };
    for id in subscribed {
        let _busy = topics.0.busy.lock().await;
        let row = rows.iter().find(|row| row.id == id.as_str());
        if all {
            let Some(row) = row else { continue };
            if !row.joined {
                rejoin(topics, &id).await?;
            }
            topics.note(|table| {
                if let Some(topic) = table.get_mut(&id) {
                    note_row(topic, row);
                }
            });
        } else if !named.contains(id.as_str()) {
            continue;
        }
        if !topics.is_encrypted(id.as_str()) {
            continue;
        }
        match topics.sync(&id).await {
            Ok(()) => {}
            Err(error @ (Error::NoLink | Error::Link(_))) => return Err(error),
            // One topic in trouble does not keep the others waiting.
            Err(error) => tracing::warn!(error = %error, topic_id = id.as_str(), "{error}"),
        }
    }
    Ok(())
}

/// The broker does not know of the subscription: it was restored from a backup, or
/// this daemon was.
async fn rejoin(topics: &Handle, id: &TopicId) -> Result<(), Error> {
    let topic = id.to_string();
    let join = |req_id| ClientFrame::TopicJoin(TopicRequest { topic, role: None, req_id: Some(req_id) });
    topics.request(id.as_str(), join).await.map(drop)
}
