//! Presence, leases, and the second connection of one member.

use std::time::Duration;

use serde_json::json;

use super::*;
use sea_orm::{ConnectionTrait as _, Statement as Sql};

async fn audits(broker: &TestBroker) -> i64 {
    let url = match &broker.home.postgres {
        Some(database) => database.url(),
        None => format!("sqlite://{}", broker.path().join("broker.db").display()),
    };
    let db = sea_orm::Database::connect(url).await.expect("opens");
    let sql = "SELECT COUNT(*) FROM audit WHERE event = 'member_concurrent_connection'";
    let row = db.query_one_raw(Sql::from_string(db.get_database_backend(), sql)).await.expect("reads");
    db.close().await.expect("closes");
    row.expect("a row").try_get_by_index(0).expect("a number")
}

// Covers: R66, R71, R72
async fn prefer_newest_closes_the_older_connection(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let members = broker.mesh("prefer_newest", &[1, 2]).await;
    let mut older = broker.daemon(&members[0], "host-1").await;
    let reader = async {
        let frame = older.next_but_events().await;
        assert_eq!((&frame["type"], &frame["code"]), (&json!("close_reason"), &json!(4003)));
        older.close().await
    };
    let (closed, mut newer) = tokio::join!(reader, broker.daemon(&members[0], "host-2"));
    assert_eq!(closed, json!({"type": "CLOSE", "code": 4003, "reason": "replaced_by_newer_connection"}));
    let mut b = broker.daemon(&members[1], "ib").await;
    b.message(&members[0], "m1", "f").await;
    assert_eq!(newer.expect("push").await["client_message_id"], "m1");
    assert_eq!(audits(&broker).await, 1);
}

// Covers: R68, R72
async fn prefer_oldest_refuses_the_newcomer(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let members = broker.mesh("prefer_oldest", &[1, 2]).await;
    let mut older = broker.daemon(&members[0], "host-1").await;
    let mut newer = broker.connect().await;
    let keep_reading = async { older.is_quiet().await };
    let second = broker.negotiate(&mut newer, &members[0], json!({"instanceId": "host-2"}));
    let (quiet, (_, frame)) = tokio::join!(keep_reading, second);
    assert_eq!((&frame["type"], &frame["kind"]), (&json!("close_reason"), &json!("member_already_connected")));
    assert_eq!(newer.close().await["code"], 4004);
    assert!(quiet, "the first is untouched");
    assert_eq!(audits(&broker).await, 1);
}

async fn a_half_open_connection_gives_way_whatever_the_policy(backend: Backend) {
    let broker = TestBroker::start_with(backend, |config| config.timers.probe = Duration::from_millis(50)).await;
    let members = broker.mesh("prefer_oldest", &[1]).await;
    // Nobody reads this socket, so nobody answers its pings.
    let _dead = broker.daemon(&members[0], "host-1").await;
    broker.daemon(&members[0], "host-2").await;
    assert_eq!(audits(&broker).await, 0, "a dead socket is no second host");
}

// Covers: R70, R72
async fn allow_concurrent_keeps_both_and_both_get_messages(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let members = broker.mesh("allow_concurrent", &[1, 2]).await;
    let mut one = broker.daemon(&members[0], "host-1").await;
    let reading = async { one.is_quiet().await };
    let (_, mut two) = tokio::join!(reading, broker.daemon(&members[0], "host-2"));
    let mut b = broker.daemon(&members[1], "ib").await;
    b.message(&members[0], "m1", "f").await;
    assert_eq!(one.expect("push").await["client_message_id"], "m1");
    assert_eq!(two.expect("push").await["client_message_id"], "m1");
    assert_eq!(audits(&broker).await, 1);
}

async fn a_daemon_that_yields_evicts_nobody(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let members = broker.mesh("prefer_newest", &[1]).await;
    let mut older = broker.daemon(&members[0], "host-1").await;
    let mut newer = broker.connect().await;
    let reading = async { older.is_quiet().await };
    let second = broker.negotiate(&mut newer, &members[0], json!({"instanceId": "host-2", "yield": true}));
    let (quiet, (_, frame)) = tokio::join!(reading, second);
    assert!(quiet && frame["code"] == 4004, "{frame}");
}

async fn old_clients_and_their_session_ids_evict_no_daemon_and_no_other_member(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let members = broker.mesh("prefer_newest", &[1, 2]).await;
    let mut daemon = broker.daemon(&members[0], "host-1").await;
    let mut cli = broker.legacy(&members[0], "same").await;
    let mut other = broker.legacy(&members[1], "same").await;
    assert!(daemon.is_quiet().await && cli.is_quiet().await && other.is_quiet().await);
    let _again = broker.legacy(&members[0], "same").await;
    assert_eq!(cli.close().await, json!({"type": "CLOSE", "code": 1000, "reason": "session_replaced"}));
    assert!(daemon.is_quiet().await && other.is_quiet().await);
}

async fn a_lost_connection_comes_back_silently_and_leaves_once(backend: Backend) {
    let broker = TestBroker::start_with(backend, |config| config.timers.grace = Duration::from_millis(500)).await;
    let members = broker.mesh("prefer_newest", &[1, 2]).await;
    let mut watcher = broker.daemon(&members[1], "ib").await;
    let mut first = broker.connect().await;
    let (ack, _) = broker.negotiate(&mut first, &members[0], json!({"instanceId": "ia"})).await;
    assert_eq!(watcher.event("peer_joined").await["eventData"]["name"], "m1");
    cut(first).await;

    let mut second = broker.connect().await;
    let (again, _) = broker.negotiate(&mut second, &members[0], json!({"instanceId": "ia"})).await;
    assert_eq!(again["presenceId"], ack["presenceId"]);
    assert_eq!((&ack["generation"], &again["generation"]), (&json!(1), &json!(2)));
    watcher.send(json!({"type": "list_peers"})).await;
    let frame = watcher.next().await;
    assert_eq!(frame["type"], "peers_list", "no event for the reattach: {frame}");
    assert_eq!(frame["peers"].as_array().map(Vec::len), Some(2), "{frame}");

    cut(second).await;
    assert_eq!(watcher.event("peer_left").await["eventData"]["pubkey"], members[0].key());
    watcher.send(json!({"type": "member_list", "_reqId": "r"})).await;
    let list = watcher.expect("members_list").await;
    assert_eq!(list["members"].as_array().map(Vec::len), Some(2), "offline members are listed: {list}");
}

async fn silence_is_a_hard_close_and_pings_keep_a_connection(backend: Backend) {
    let broker = TestBroker::start_with(backend, |config| {
        config.timers.ping = Duration::from_millis(30);
        config.timers.silence = Duration::from_millis(90);
    });
    let broker = broker.await;
    let members = broker.mesh("prefer_newest", &[1, 2]).await;
    let mut reads = broker.legacy(&members[0], "a").await;
    assert!(reads.is_quiet().await, "answering pings is life");
    let mut sleeps = broker.legacy(&members[1], "b").await;
    let frozen = sleeps.is_quiet_without_reading(&mut reads).await;
    assert!(frozen, "the other one stays");
    assert_eq!(sleeps.close().await["type"], "CUT");
}

async fn a_stop_closes_connections_and_a_start_finds_everything(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let members = broker.mesh("prefer_newest", &[1]).await;
    let mut client = broker.daemon(&members[0], "ia").await;
    assert_eq!(std::fs::read_to_string(broker.path().join("addr")).expect("addr"), broker.addr.to_string());
    let (home, close) = tokio::join!(broker.shut_down(), client.close());
    assert_eq!((&close["code"], &close["reason"]), (&json!(1001), &json!("shutting down")));
    assert!(!home.dir.path().join("addr").exists());
    let broker = TestBroker::start_in(home, |_| {}).await;
    broker.daemon(&members[0], "ia").await;
}

impl Client {
    /// Leaves this socket unread while the other one is read for longer than
    /// the limit of silence.
    async fn is_quiet_without_reading(&mut self, other: &mut Self) -> bool {
        other.is_quiet().await
    }
}

on_both_databases! {
    prefer_newest_closes_the_older_connection,
    prefer_oldest_refuses_the_newcomer,
    a_half_open_connection_gives_way_whatever_the_policy,
    allow_concurrent_keeps_both_and_both_get_messages,
    a_daemon_that_yields_evicts_nobody,
    old_clients_and_their_session_ids_evict_no_daemon_and_no_other_member,
    a_lost_connection_comes_back_silently_and_leaves_once,
    silence_is_a_hard_close_and_pings_keep_a_connection,
    a_stop_closes_connections_and_a_start_finds_everything,
}
