//! From a send on one host to the event on the other, beside the sum of what it
//! cannot do without: three synced commits, two WebSocket hops and two calls.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use claudemesh::proto::pb::stream_events_response::Event;
use claudemesh::proto::pb::{EventType, SendRequest, SendStreamRequest, StreamEventsRequest, StreamEventsResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::load::{Sample, payload, warm_up};
use crate::mesh::Member;
use crate::{Run, machine, mesh, parts};

/// Messages that are under way at once when throughput is asked for.
const WINDOW: usize = 64;

/// One round.
pub async fn round(run: &mut Run) -> Result<()> {
    let (time, folder) = (run.time, run.folder()?);
    let folder = folder.path();

    machine::quiet().await;
    run.add("part/commit", parts::commit(folder, time).await?);
    run.add("part/websocket", parts::websocket(time).await?);
    run.add("part/call", parts::call(folder, time).await?);
    machine::quiet().await;
    run.add("part/broker-ceiling", parts::broker_ceiling(folder, WINDOW, time).await?);

    let (_broker, alice, bob) = mesh::pair(&run.binary, folder).await?;
    machine::quiet().await;
    run.add("e2e/1", one_at_a_time(&alice, &bob, "one", time).await?);
    machine::quiet().await;
    run.add("e2e/64", many_at_a_time(&alice, &bob, time).await?);
    Ok(())
}

async fn follow(member: &Member) -> Result<Streaming<StreamEventsResponse>> {
    let request = StreamEventsRequest { types: vec![EventType::Message.into()], ..StreamEventsRequest::default() };
    Ok(member.events().await?.stream_events(request).await?.into_inner())
}

/// The id of the next message.
async fn next(events: &mut Streaming<StreamEventsResponse>) -> Result<String> {
    let limit = Duration::from_secs(40);
    loop {
        let event = tokio::time::timeout(limit, events.message()).await.context("no event for 40 s")??;
        if let Some(Event::Message(message)) = event.context("the stream of events ended")?.event {
            return Ok(message.client_message_id);
        }
    }
}

fn to_bob(message: &str, id: String) -> SendRequest {
    SendRequest { to: "bob".to_owned(), message: message.to_owned(), client_message_id: id, ..SendRequest::default() }
}

/// One message after the other. `name` begins their ids.
pub async fn one_at_a_time(alice: &Member, bob: &Member, name: &str, time: Duration) -> Result<Sample> {
    let mut events = follow(bob).await?;
    let mut client = alice.messaging().await?;
    let message = payload();
    let start = Instant::now() + warm_up(time);
    let mut latencies = Vec::new();
    for number in 0.. {
        let begun = Instant::now();
        let id = format!("{name}-{number}");
        client.send(to_bob(&message, id.clone())).await?;
        while next(&mut events).await? != id {}
        if begun >= start {
            latencies.push(begun.elapsed());
        }
        if begun > start + time {
            break;
        }
    }
    Ok(Sample::one_by_one(latencies))
}

/// Keeps [`WINDOW`] messages under way, each until its event is there.
async fn many_at_a_time(alice: &Member, bob: &Member, time: Duration) -> Result<Sample> {
    let time = time * 3;
    let mut events = follow(bob).await?;
    let mut client = alice.messaging().await?;
    let message = payload();
    let (sender, requests) = mpsc::channel(WINDOW + 1);
    let mut begun: HashMap<String, Instant> = HashMap::new();
    let mut number = 0_u32;
    let mut send_next = |begun: &mut HashMap<String, Instant>| {
        let id = format!("many-{number}");
        begun.insert(id.clone(), Instant::now());
        let request =
            SendStreamRequest { index: number, send: Some(to_bob(&message, id)), ..SendStreamRequest::default() };
        number += 1;
        request
    };
    for _ in 0..WINDOW {
        sender.send(send_next(&mut begun)).await?;
    }
    let mut answers = client.send_stream(ReceiverStream::new(requests)).await?.into_inner();
    let drain = tokio::spawn(async move { while let Ok(Some(_)) = answers.message().await {} });
    let start = Instant::now() + warm_up(time);
    let mut latencies = Vec::new();
    loop {
        let id = next(&mut events).await?;
        let now = Instant::now();
        let Some(sent) = begun.remove(&id) else { bail!("{id} came twice") };
        if now > start + time {
            break;
        }
        if now >= start {
            latencies.push(now - sent);
        }
        sender.send(send_next(&mut begun)).await?;
    }
    drain.abort();
    Ok(Sample::new(latencies, time))
}
