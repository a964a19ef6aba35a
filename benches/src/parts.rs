//! The parts that no message can do without, each measured alone in the same
//! run.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::{SinkExt as _, StreamExt as _};
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DbBackend, SqlxSqliteConnector, Statement, TransactionTrait as _, Value,
    sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_tungstenite::tungstenite::Message;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::load::{Sample, payload, warm_up};
use crate::mesh::channel;

async fn database(path: &Path) -> Result<DatabaseConnection> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", "20000");
    let pool = SqlitePoolOptions::new().max_connections(1).test_before_acquire(false).connect_with(options).await?;
    Ok(SqlxSqliteConnector::from_sqlx_sqlite_pool(pool))
}

/// One row of 1 KiB a commit, synced.
pub async fn commit(folder: &Path, time: Duration) -> Result<Sample> {
    let db = database(&folder.join("commit.db")).await?;
    db.execute_unprepared("CREATE TABLE t (id INTEGER PRIMARY KEY, payload TEXT NOT NULL)").await?;
    let payload = payload();
    let start = Instant::now() + warm_up(time);
    let mut latencies = Vec::new();
    loop {
        let begun = Instant::now();
        if begun > start + time {
            break;
        }
        let sql = "INSERT INTO t (payload) VALUES (?)";
        db.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, [payload.clone().into()])).await?;
        if begun >= start {
            latencies.push(begun.elapsed());
        }
    }
    db.close().await?;
    Ok(Sample::new(latencies, time))
}

/// What the broker writes for a message, `batch` messages a commit, and nothing
/// else: dedupe row, message, history row, delivery row. Messages a second.
pub async fn broker_ceiling(folder: &Path, batch: usize, time: Duration) -> Result<Sample> {
    let db = database(&folder.join("ceiling.db")).await?;
    for table in [
        "CREATE TABLE dedupe (mesh TEXT, sender TEXT, id TEXT, message TEXT, fingerprint TEXT, at INTEGER, \
         PRIMARY KEY (mesh, sender, id)) WITHOUT ROWID",
        "CREATE TABLE message (id TEXT PRIMARY KEY, mesh TEXT, sender TEXT, nonce BLOB, ciphertext BLOB, at INTEGER)",
        "CREATE TABLE history (id TEXT PRIMARY KEY, mesh TEXT, sender TEXT, target TEXT, at INTEGER)",
        "CREATE TABLE delivery (id TEXT PRIMARY KEY, message TEXT, mesh TEXT, recipient TEXT, sender TEXT, at INTEGER)",
    ] {
        db.execute_unprepared(table).await?;
    }
    let insert = |table: &str, columns: usize| {
        let row = format!("({})", vec!["?"; columns].join(", "));
        format!("INSERT INTO {table} VALUES {}", vec![row; batch].join(", "))
    };
    let statements = [insert("dedupe", 6), insert("message", 6), insert("history", 5), insert("delivery", 6)];
    let (mesh, sender) = ("01J00000000000000000000000", "01J00000000000000000000001");
    let sealed = payload().into_bytes();
    let start = Instant::now() + warm_up(time);
    let (mut latencies, mut number) = (Vec::new(), 0_u64);
    loop {
        let begun = Instant::now();
        if begun > start + time {
            break;
        }
        let ids: Vec<String> = (0..batch as u64).map(|one| format!("01JX{:022}", number + one)).collect();
        number += batch as u64;
        let rows: [Vec<Value>; 4] = [
            ids.iter().flat_map(|id| values([mesh, sender, id, id, id], None, 1)).collect(),
            ids.iter().flat_map(|id| values([id, mesh, sender, "nonce"], Some(&sealed), 1)).collect(),
            ids.iter().flat_map(|id| values([id, mesh, sender, sender], None, 1)).collect(),
            ids.iter().flat_map(|id| values([id, id, mesh, sender, sender], None, 1)).collect(),
        ];
        let transaction = db.begin().await?;
        for (sql, row) in statements.iter().zip(rows) {
            transaction.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, row)).await?;
        }
        transaction.commit().await?;
        if begun >= start {
            latencies.push(begun.elapsed());
        }
    }
    db.close().await?;
    let batches = Sample::new(latencies, time);
    Ok(Sample::rate(batches.per_s * batch as f64))
}

fn values<const N: usize>(texts: [&str; N], blob: Option<&[u8]>, at: i64) -> Vec<Value> {
    let mut row: Vec<Value> = texts.iter().map(|text| Value::from(*text)).collect();
    row.extend(blob.map(|bytes| Value::from(bytes.to_vec())));
    row.push(at.into());
    row
}

/// A text frame to a WebSocket server and back: two hops.
pub async fn websocket(time: Duration) -> Result<Sample> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut socket = tokio_tungstenite::accept_async(stream).await?;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() {
                socket.send(message).await?;
            }
        }
        Ok::<_, anyhow::Error>(())
    });
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{address}/")).await?;
    // As large as a message of 1 KiB in a frame.
    let text = payload().repeat(2);
    let start = Instant::now() + warm_up(time);
    let mut latencies = Vec::new();
    loop {
        let begun = Instant::now();
        if begun > start + time {
            break;
        }
        socket.send(Message::text(text.clone())).await?;
        socket.next().await.context("the echo ended")??;
        if begun >= start {
            latencies.push(begun.elapsed());
        }
    }
    server.abort();
    Ok(Sample::new(latencies, time))
}

/// A unary gRPC call over a Unix socket that does nothing.
pub async fn call(folder: &Path, time: Duration) -> Result<Sample> {
    let path = folder.join("call.sock");
    let listener = UnixListener::bind(&path)?;
    let (_reporter, service) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder().add_service(service);
    let server = tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    let mut client = HealthClient::new(channel(&path).await?);
    let start = Instant::now() + warm_up(time);
    let mut latencies = Vec::new();
    loop {
        let begun = Instant::now();
        if begun > start + time {
            break;
        }
        client.check(HealthCheckRequest::default()).await?;
        if begun >= start {
            latencies.push(begun.elapsed());
        }
    }
    server.abort();
    Ok(Sample::new(latencies, time))
}
