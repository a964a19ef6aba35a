//! What a broker on SQLite needs as connections and members grow.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use futures_util::StreamExt as _;
use serde_json::json;

use crate::load::{Sample, warm_up};
use crate::raw::{Client, Identity};
use crate::{Run, machine, mesh, sqlite};

/// Connections at rest, and meshes that they are spread over.
const CONNECTIONS: u32 = 10_000;
const MESHES: u32 = 100;
/// Connections that say hello at once.
const AT_ONCE: usize = 32;
/// Members of the mesh in which two write to each other.
const MEMBERS: [u32; 3] = [10, 1_000, 10_000];
/// Sends that are unanswered at once.
const WINDOW: u32 = 16;

/// One round.
pub async fn round(run: &mut Run) -> Result<()> {
    connections(run).await?;
    for members in MEMBERS {
        message(run, members).await?;
    }
    Ok(())
}

/// Memory of a broker with many connections.
async fn connections(run: &mut Run) -> Result<()> {
    let folder = run.folder()?;
    let mut broker = mesh::Broker::start(&run.binary, folder.path()).await?;
    let everybody: Vec<Identity> =
        (0..CONNECTIONS).map(|number| Identity::new(&format!("mesh-{}", number % MESHES), number)).collect();
    broker.stop()?;
    add_members(&broker.dir(), &everybody).await?;
    broker.run().await?;
    let before = broker.memory_mb()?;
    let begun = Instant::now();
    let connecting = futures_util::stream::iter(&everybody).map(|one| Client::connect(&broker.address, one));
    let mut connecting = connecting.buffer_unordered(AT_ONCE);
    let mut resting = Vec::new();
    while let Some(client) = connecting.next().await {
        resting.push(tokio::spawn(client?.rest()));
    }
    drop(connecting);
    run.add("broker/connect", Sample::rate(f64::from(CONNECTIONS) / begun.elapsed().as_secs_f64()));
    machine::quiet().await;
    run.add("broker/memory/0", Sample::amount(before, " MB"));
    run.add("broker/memory/10000", Sample::amount(broker.memory_mb()?, " MB"));
    ensure!(resting.iter().all(|task| !task.is_finished()), "the broker has closed connections");
    resting.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}

/// Messages between two members of a mesh of that size.
async fn message(run: &mut Run, members: u32) -> Result<()> {
    let folder = run.folder()?;
    let mut broker = mesh::Broker::start(&run.binary, folder.path()).await?;
    let everybody: Vec<Identity> = (0..members).map(|number| Identity::new("mesh-0", number)).collect();
    broker.stop()?;
    add_members(&broker.dir(), &everybody).await?;
    broker.run().await?;
    let mut alice = Client::connect(&broker.address, &everybody[0]).await?;
    let mut bob = Client::connect(&broker.address, &everybody[1]).await?;
    let receiver = tokio::spawn(async move {
        loop {
            let push = bob.expect("push").await?;
            let ack = json!({"type": "client_ack", "deliveryId": push["deliveryId"], "state": "stored"});
            bob.send(&ack).await?;
        }
        #[expect(unreachable_code, reason = "says what the task returns")]
        Ok::<_, anyhow::Error>(())
    });
    machine::quiet().await;
    let (nonce, sealed) = ("A".repeat(32), "A".repeat(1_400));
    let to = everybody[1].public();
    let mut next = 0_u32;
    let mut frame = || {
        let id = format!("m{next}");
        next += 1;
        json!({
            "type": "send", "id": id, "targetSpec": to, "priority": "next", "nonce": nonce, "ciphertext": sealed,
            "client_message_id": id, "request_fingerprint": "f".repeat(64),
        })
    };
    for _ in 0..WINDOW {
        alice.send(&frame()).await?;
    }
    let start = Instant::now() + warm_up(run.time);
    let mut stored = 0_u32;
    while start.elapsed() < run.time || Instant::now() < start {
        let ack = alice.expect("ack").await?;
        // A refusal would cost less.
        ensure!(ack["queued"] == true, "{ack}");
        stored += u32::from(Instant::now() >= start);
        alice.send(&frame()).await?;
    }
    ensure!(!receiver.is_finished(), "the receiver has ended");
    receiver.abort();
    run.add(format!("broker/message/{members}"), Sample::rate(f64::from(stored) / run.time.as_secs_f64()));
    Ok(())
}

/// Members as the broker writes them, each in the mesh that it names.
async fn add_members(folder: &Path, everybody: &[Identity]) -> Result<()> {
    let db = sqlite::open(&folder.join("broker.db")).await?;
    let rows: Vec<_> = everybody.iter().map(|one| json!([one.mesh_id, one.member_id, one.public()])).collect();
    let rows = serde_json::Value::Array(rows).to_string();
    for sql in [
        "INSERT INTO mesh (id, slug, name, owner_pubkey, created_at) \
         SELECT DISTINCT value ->> 0, value ->> 0, value ->> 0, printf('%064d', 0), 0 FROM json_each(?)",
        "INSERT INTO member (id, mesh_id, pubkey, display_name, role, joined_at) \
         SELECT value ->> 1, value ->> 0, value ->> 2, value ->> 1, 'member', 0 FROM json_each(?)",
        "INSERT INTO member_key (mesh_id, pubkey, member_id, seq, registered_at) \
         SELECT value ->> 0, value ->> 2, value ->> 1, 0, 0 FROM json_each(?)",
    ] {
        sqlite::run(&db, sql, [rows.as_str().into()]).await?;
    }
    Ok(db.close().await?)
}
