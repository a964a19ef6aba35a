//! What waits for a receiver who is away: how fast it comes once that one is back, beside
//! the same messages to a receiver who is there; the same with far more waiting for
//! others.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sea_orm::DatabaseConnection;

use crate::load::Sample;
use crate::mesh::{Broker, Member};
use crate::{Run, clients, machine, mesh, sqlite};

/// Messages of a step.
const MESSAGES: u32 = 20_000;
/// What the broker keeps of one sender for one receiver; the rest waits in the outbox.
const AT_BROKER: u32 = 1_000;
/// Members who are away all the time, and what waits in the outbox for all of them.
const OTHERS: u32 = 30;
const FOR_OTHERS: u32 = 300_000;
/// Sends that are unanswered at once.
const WINDOW: usize = 64;
/// How long a step may take.
const LIMIT: Duration = Duration::from_secs(180);

/// One round.
pub async fn round(run: &mut Run) -> Result<()> {
    let folder = run.folder()?;
    let (broker, mut alice, mut bob) = mesh::pair(&run.binary, folder.path()).await?;
    machine::quiet().await;
    run.add("backlog/live", live(&alice, &bob).await?);
    machine::quiet().await;
    run.add("backlog/drain", drain(&alice, &mut bob, 0).await?);
    fill_for_others(&broker, folder.path(), &mut alice).await?;
    machine::quiet().await;
    run.add("backlog/drain-behind", drain(&alice, &mut bob, FOR_OTHERS).await?);
    Ok(())
}

/// Messages until they are in the inbox of one who is there.
pub async fn live(alice: &Member, bob: &Member) -> Result<Sample> {
    let inbox = sqlite::open(&bob.dir().join("inbox.db")).await?;
    let before = stored(&inbox).await?;
    let begun = Instant::now();
    clients::send_all(&mut alice.messaging().await?, "bob", MESSAGES, WINDOW).await?;
    until(&inbox, STORED, before + MESSAGES).await?;
    Ok(rate(begun))
}

/// Messages to one who is away, from the moment in which it is told to start until they
/// are in its inbox. So many rows wait for others.
pub async fn drain(alice: &Member, bob: &mut Member, for_others: u32) -> Result<Sample> {
    bob.stop()?;
    let inbox = sqlite::open(&bob.dir().join("inbox.db")).await?;
    let before = stored(&inbox).await?;
    clients::send_all(&mut alice.messaging().await?, "bob", MESSAGES, WINDOW).await?;
    until_waiting(alice, MESSAGES - AT_BROKER + for_others).await?;
    machine::quiet().await;
    let begun = Instant::now();
    bob.start().await?;
    until(&inbox, STORED, before + MESSAGES).await?;
    Ok(rate(begun))
}

fn rate(begun: Instant) -> Sample {
    Sample::rate(f64::from(MESSAGES) / begun.elapsed().as_secs_f64())
}

const STORED: &str = "SELECT count(*) FROM inbox";

async fn stored(inbox: &DatabaseConnection) -> Result<u32> {
    sqlite::number(inbox, STORED).await
}

/// Waits until the broker has taken what it takes.
async fn until_waiting(alice: &Member, count: u32) -> Result<()> {
    let outbox = sqlite::open(&alice.dir().join("outbox.db")).await?;
    until(&outbox, "SELECT count(*) FROM outbox WHERE status = 'pending'", count).await?;
    until(&outbox, "SELECT count(*) FROM outbox WHERE status = 'inflight'", 0).await
}

async fn until(db: &DatabaseConnection, sql: &str, expected: u32) -> Result<()> {
    let begun = Instant::now();
    loop {
        let found = sqlite::number(db, sql).await?;
        if found == expected {
            return Ok(());
        }
        ensure!(begun.elapsed() < LIMIT, "{sql}: {found} and not {expected} after {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Rows for members who never come, written as the daemon writes them: sends would take
/// minutes.
async fn fill_for_others(broker: &Broker, folder: &std::path::Path, alice: &mut Member) -> Result<()> {
    let link = broker.invite(OTHERS)?;
    for number in 0..OTHERS {
        drop(Member::join(alice.binary(), folder, &link, &format!("other-{number}"))?);
    }
    // Who has never been there is in the lists that a new link brings.
    alice.stop()?;
    alice.start().await?;
    alice.connected_with(&format!("other-{}", OTHERS - 1)).await?;
    alice.stop()?;
    let outbox = sqlite::open(&alice.dir().join("outbox.db")).await?;
    let of_each = AT_BROKER + FOR_OTHERS / OTHERS;
    // Like one that was sent, but for where it goes.
    let sql = "INSERT INTO outbox (id, client_message_id, payload, request_fingerprint, fingerprint_version, \
               wire_fingerprint, mesh, sender_key, destination_kind, destination_ref, target_id, target_key, \
               target_name, priority, enqueued_at, next_attempt_at, status) \
               WITH RECURSIVE number(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM number WHERE n < ?), \
               sent AS (SELECT * FROM outbox LIMIT 1), \
               now AS (SELECT MAX(enqueued_at) AS at FROM outbox) \
               SELECT printf('0000000%06d%06d0000000', n, pinned.rowid), printf('other-%d-%d', n, pinned.rowid), \
               CAST('for later' AS BLOB), sent.request_fingerprint, sent.fingerprint_version, sent.wire_fingerprint, sent.mesh, \
               sent.sender_key, 'dm', display_name, member_id, pubkey, display_name, 'next', now.at, now.at, 'pending' \
               FROM number, sent, now, pinned_member AS pinned WHERE display_name LIKE 'other-%'";
    sqlite::run(&outbox, sql, [of_each.into()]).await?;
    outbox.close().await?;
    alice.start().await?;
    until_waiting(alice, FOR_OTHERS).await
}
