//! How much memory a daemon holds once it has worked.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use claudemesh::proto::pb::send_stream_response::Result as Outcome;
use claudemesh::proto::pb::stream_events_response::Event;
use claudemesh::proto::pb::{EventType, SendRequest, SendStreamRequest, StreamEventsRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::load::{Sample, payload};
use crate::mesh::Member;
use crate::{Run, mesh};

/// Members beside the two daemons, which both have pinned.
const OTHERS: u32 = 98;
const MESSAGES: u32 = 10_000;
/// Sends that are unanswered at once.
const WINDOW: usize = 64;
/// How long both daemons rest before they are looked at.
const REST: Duration = Duration::from_secs(60);
/// How long a message may take.
const LIMIT: Duration = Duration::from_secs(60);

/// One round.
pub async fn round(run: &mut Run) -> Result<()> {
    let folder = run.folder()?;
    let (broker, alice, bob) = mesh::pair(&run.binary, folder.path()).await?;
    let link = broker.invite(OTHERS)?;
    for number in 0..OTHERS {
        drop(Member::join(&run.binary, folder.path(), &link, &format!("other-{number}"))?);
    }
    send_all(&alice, &bob).await?;
    tokio::time::sleep(REST).await;
    run.add("memory/sender", Sample::amount(alice.memory_mb()?, " MB"));
    run.add("memory/receiver", Sample::amount(bob.memory_mb()?, " MB"));
    Ok(())
}

/// Sends all messages and waits until the other side has told of each.
async fn send_all(alice: &Member, bob: &Member) -> Result<()> {
    let follow = StreamEventsRequest { types: vec![EventType::Message.into()], ..StreamEventsRequest::default() };
    let mut events = bob.events().await?.stream_events(follow).await?.into_inner();
    let mut client = alice.messaging().await?;
    let text = payload();
    let (sender, requests) = mpsc::channel(WINDOW);
    let send = |index| {
        let send = SendRequest { to: "bob".to_owned(), message: text.clone(), ..SendRequest::default() };
        SendStreamRequest { index, send: Some(send), ..SendStreamRequest::default() }
    };
    for index in 0..WINDOW as u32 {
        sender.send(send(index)).await?;
    }
    let mut answers = client.send_stream(ReceiverStream::new(requests)).await?.into_inner();
    let (mut next, mut arrived) = (WINDOW as u32, 0);
    while arrived < MESSAGES {
        tokio::select! {
            answer = answers.message(), if next < MESSAGES => {
                if let Some(Outcome::Error(error)) = answer?.context("the stream of sends ended")?.result {
                    bail!("{}: {}", error.code, error.message);
                }
                sender.send(send(next)).await?;
                next += 1;
            }
            event = tokio::time::timeout(LIMIT, events.message()) => {
                let event = event.context("a message did not arrive")??.context("the events ended")?;
                arrived += u32::from(matches!(event.event, Some(Event::Message(_))));
            }
        }
    }
    Ok(())
}
