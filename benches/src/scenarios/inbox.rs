//! How long a page of the inbox takes as the inbox grows.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use claudemesh::proto::pb::inbox_service_client::InboxServiceClient;
use claudemesh::proto::pb::{ListMessagesRequest, MessageOrder};
use claudemesh::proto::wkt::Timestamp;
use sea_orm::DatabaseConnection;
use tonic::transport::Channel;

use crate::load::{Sample, payload};
use crate::{Run, machine, mesh, sqlite};

/// Sizes, and the names of their steps.
const SIZES: [(u32, &str); 2] = [(10_000, "10k"), (1_000_000, "1M")];
/// Rows of a page.
const PAGE: u32 = 100;
/// Pages of each kind that one step reads.
const PAGES: u32 = 200;
/// Rows of one commit while the inbox is filled.
const FILL: u32 = 50_000;
/// Milliseconds from one row to the next; all of them lie within the retention.
const APART: i64 = 1_000;

/// One round.
pub async fn round(run: &mut Run) -> Result<()> {
    let folder = run.folder()?;
    let (_broker, alice, mut bob) = mesh::pair(&run.binary, folder.path()).await?;
    drop(alice);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let received_at = i64::try_from(now)? - i64::from(SIZES[1].0) * APART;
    let mut stored = 0;
    for (size, name) in SIZES {
        bob.stop()?;
        fill(&bob.dir(), received_at, stored, size).await?;
        stored = size;
        bob.start().await?;
        machine::quiet().await;
        let mut client = InboxServiceClient::new(bob.channel().await?);
        for (kind, request) in requests(size, received_at) {
            // What each reader of a large file has to fetch first.
            page(&mut client, request(0)).await?;
            let mut latencies = Vec::new();
            for number in 0..PAGES {
                latencies.push(page(&mut client, request(number)).await?);
            }
            run.add(format!("inbox/{kind}/{name}"), Sample::one_by_one(latencies));
        }
    }
    Ok(())
}

type Request = Box<dyn Fn(u32) -> ListMessagesRequest>;

/// The pages that are asked for, by number.
fn requests(size: u32, received_at: i64) -> [(&'static str, Request); 3] {
    let since = move |number: u32| {
        // All over the inbox, in no order that a disk would like.
        let row = i64::from(size - PAGE) * i64::from(number * 7919 % PAGES) / i64::from(PAGES);
        let since = Timestamp { seconds: (received_at + row * APART) / 1000, nanos: 0 };
        ListMessagesRequest { since: Some(since), limit: PAGE, ..ListMessagesRequest::default() }
    };
    [
        ("newest", Box::new(|_| newest_first(""))),
        ("since", Box::new(since)),
        ("from", Box::new(|_| newest_first("alice"))),
    ]
}

fn newest_first(sender: &str) -> ListMessagesRequest {
    ListMessagesRequest {
        sender: sender.to_owned(),
        limit: PAGE,
        order: MessageOrder::NewestFirst.into(),
        ..ListMessagesRequest::default()
    }
}

async fn page(client: &mut InboxServiceClient<Channel>, request: ListMessagesRequest) -> Result<Duration> {
    let begun = Instant::now();
    let listed = client.list_messages(request).await?.into_inner();
    let took = begun.elapsed();
    ensure!(listed.messages.len() == PAGE as usize, "a page has {} rows", listed.messages.len());
    Ok(took)
}

/// Rows as the daemon writes them, from one number to the next.
async fn fill(folder: &Path, received_at: i64, from: u32, to: u32) -> Result<()> {
    let db = sqlite::open(&folder.join("inbox.db")).await?;
    let outbox = folder.join("outbox.db").display().to_string();
    sqlite::run(&db, "ATTACH ? AS pinned", [outbox.into()]).await?;
    let mut next = from;
    while next < to {
        let end = (next + FILL).min(to);
        insert(&db, received_at, next + 1, end).await?;
        next = end;
    }
    Ok(db.close().await?)
}

/// Every fiftieth is from alice.
async fn insert(db: &DatabaseConnection, received_at: i64, first: u32, last: u32) -> Result<()> {
    let sql = "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2), \
        alice AS (SELECT member_id, pubkey FROM pinned.pinned_member WHERE name_key = 'alice') \
        INSERT INTO inbox (id, seq, client_message_id, broker_message_id, mesh, kind, sender_member_id, sender_pubkey, \
        sender_name, body, priority, received_at, sent_at) \
        SELECT printf('01%024d', i), i, printf('c%025d', i), printf('m%025d', i), 'bench', 'direct', \
        iif(i % 50, printf('member-%d', i % 50), member_id), iif(i % 50, printf('%064d', i % 50), pubkey), \
        iif(i % 50, printf('name-%d', i % 50), 'alice'), ?3, 'next', ?4 + i * ?5, ?4 + i * ?5 FROM n, alice";
    let values = [first.into(), last.into(), payload().into(), received_at.into(), APART.into()];
    sqlite::run(db, sql, values).await
}
