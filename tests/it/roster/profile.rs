//! What a member shows of itself, at home and at its peers.

use std::os::unix::fs::PermissionsExt as _;

use claudemesh::proto::pb::peer_service_client::PeerServiceClient;
use claudemesh::proto::pb::{PeerStatus, SetProfileRequest};
use serde_json::{Value, json};
use tonic::Code;

use super::{peer, sees};
use crate::support::broker::Broker;
use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::fake_broker::FakeBroker;
use crate::support::grpc;
use crate::support::mesh::Mesh;
use crate::support::postgres::Backend;
use crate::support::proxy::Proxy;
use crate::support::raw::Raw;
use crate::support::wait;

async fn set(daemon: &Daemon, body: Value) -> Value {
    daemon.http().post("/v1/profile", &body).send().await.expect(200).json()
}

fn shows(peer: &Value, summary: &str, status: &str) -> bool {
    peer["summary"] == summary && peer["status"] == status
}

// Covers: R84
#[tokio::test]
async fn what_is_set_is_answered_kept_and_seen_by_peers() {
    let Pair { broker: _broker, mesh: _mesh, alice, mut bob } = Pair::start().await;
    let unset = json!({"summary": "", "status": "idle", "visible": true});
    assert_eq!(set(&bob, json!({})).await, unset);
    assert!(!bob.file("profile.json").exists(), "nothing was changed");

    let wanted = json!({"summary": "the release", "status": "working", "visible": true});
    assert_eq!(set(&bob, json!({"summary": " the release ", "status": "working"})).await, wanted);
    let own = peer(&bob, "bob").await.expect("oneself");
    assert!(shows(&own, "the release", "working") && own["visible"] == true, "{own}");
    sees(&alice, "bob", "its summary", |bob| shows(bob, "the release", "working")).await;
    let mode = std::fs::metadata(bob.file("profile.json")).expect("profile.json").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // What is left out stays, also over gRPC; then over a restart.
    let mut client = PeerServiceClient::new(grpc::channel(&bob.socket()).await);
    let request = SetProfileRequest { status: Some(PeerStatus::Dnd.into()), ..SetProfileRequest::default() };
    let answer = client.set_profile(request).await.expect("an answer").into_inner();
    assert_eq!((answer.summary.as_str(), answer.status(), answer.visible), ("the release", PeerStatus::Dnd, true));
    sees(&alice, "bob", "the other status", |bob| shows(bob, "the release", "dnd")).await;
    bob.kill9();
    bob.start().await;
    assert_eq!(set(&bob, json!({})).await["status"], "dnd");
    bob.connected().await;
    sees(&alice, "bob", "the kept profile", |bob| bob["online"] == true && shows(bob, "the release", "dnd")).await;
    assert_eq!(set(&bob, json!({"summary": ""})).await["summary"], "");
    sees(&alice, "bob", "no summary", |bob| bob["summary"] == "").await;
}

/// Another daemon of the member may have set what this one never did.
#[tokio::test]
async fn what_was_never_set_is_not_told_and_what_was_not_taken_is_told_again() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure("[reconnect]\ninitial_backoff_ms = 50\nmax_backoff_ms = 200\n");
    alice.start().await;
    let mut client = fake.link(&alice).await;
    assert_eq!(client.hello.get("shown"), None, "{}", client.hello);
    // Set to what it is: that is a word of its own.
    set(&alice, json!({"visible": true})).await;
    let asked = client.expect("set_visible").await;
    let refusal = json!({"type": "ack", "id": "", "messageId": "", "queued": false, "_reqId": asked["_reqId"],
                         "error": "busy", "code": "rate_limited", "retryable": true});
    client.send(&refusal).await;
    let again = client.expect("set_visible").await;
    assert_eq!(again["visible"], true, "{again}");
    client.drop_link();
    assert_eq!(fake.connect().await.hello["shown"]["visible"], true);
}

// Covers: R84
#[tokio::test]
async fn a_wrong_profile_is_refused_by_field_and_changes_nothing() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob: _bob } = Pair::start().await;
    set(&alice, json!({"summary": "as it was"})).await;
    for (body, field) in [
        (json!({"summary": "x".repeat(1025)}), "summary"),
        (json!({"summary": "two\nlines"}), "summary"),
        (json!({"summary": "a\u{202E}b"}), "summary"),
        (json!({"status": "unspecified"}), "status"),
        (json!({"status": 9}), "status"),
    ] {
        let refused = alice.http().post("/v1/profile", &body).send().await.expect(400).json();
        assert_eq!(refused["code"], "invalid_argument", "{refused}");
        assert!(refused["detail"].as_str().is_some_and(|text| text.contains(field)), "{refused}");
    }
    let refused = alice.http().post("/v1/profile", &json!({"name": "x"})).send().await.expect(400).json();
    assert_eq!(refused["code"], "unknown_field", "{refused}");
    let mut client = PeerServiceClient::new(grpc::channel(&alice.socket()).await);
    for status in [PeerStatus::Unspecified.into(), 7] {
        let request = SetProfileRequest { status: Some(status), ..SetProfileRequest::default() };
        assert_eq!(client.set_profile(request).await.expect_err("refused").code(), Code::InvalidArgument);
    }
    assert_eq!(set(&alice, json!({})).await, json!({"summary": "as it was", "status": "idle", "visible": true}));
    assert_eq!(set(&alice, json!({"summary": "ü".repeat(512)})).await["summary"], "ü".repeat(512));
}

#[tokio::test]
async fn a_change_without_a_link_is_told_with_the_next_one() {
    // Without a lease a coming would be told at once.
    let broker = Broker::configured(Backend::Sqlite, "[timers]\ngrace_ms = 50\n").await;
    let proxy = Proxy::to(broker.address()).await;
    let mesh = Mesh::create(&broker, "demo").await;
    let mut at_proxy = mesh.clone();
    at_proxy.url = proxy.url();
    let alice = Daemon::join(&broker, &mesh, "alice").await;
    let bob = Daemon::join(&broker, &at_proxy, "bob").await;
    sees(&bob, "bob", "oneself", |own| own["online"] == true).await;
    sees(&alice, "bob", "bob there", |bob| bob["online"] == true).await;
    proxy.cut();
    wait::until("bob without a link", async || {
        let health = bob.http().get("/v1/health").send().await.expect(200).json();
        (health["connected"] == false).then_some(())
    })
    .await;
    set(&bob, json!({"summary": "written offline", "status": "dnd"})).await;
    let own = peer(&bob, "bob").await.expect("oneself, with include_offline");
    assert!(shows(&own, "written offline", "dnd") && own["online"] == false, "{own}");
    proxy.restore();
    sees(&alice, "bob", "what was set meanwhile", |bob| shows(bob, "written offline", "dnd")).await;

    // Hidden while it was away: it is not seen for an instant.
    proxy.cut();
    set(&bob, json!({"visible": false})).await;
    let mut events = alice.http().get("/v1/events?types=peer_join").stream().await;
    proxy.restore();
    bob.connected().await;
    wait::until("alice not to list bob", async || peer(&alice, "bob").await.is_none().then_some(())).await;
    let carol = Daemon::join(&broker, &mesh, "carol").await;
    carol.connected().await;
    let joined = events.next_of("peer_join").await.json();
    assert_eq!(joined["peer_join"]["display_name"], "carol", "bob's coming is told to nobody");
    assert!(peer(&carol, "bob").await.is_none());
}

#[tokio::test]
async fn a_hidden_member_is_in_nobodys_list_and_is_reached_all_the_same() {
    let Pair { broker, mesh, alice, mut bob } = Pair::start().await;
    sees(&alice, "bob", "bob there", |bob| bob["online"] == true).await;
    assert_eq!(set(&bob, json!({"visible": false})).await["visible"], false);
    let gone = async |daemon: &Daemon| {
        wait::until("bob to be in no list", async || peer(daemon, "bob").await.is_none().then_some(())).await;
    };
    gone(&alice).await;
    let own = peer(&bob, "bob").await.expect("oneself");
    assert_eq!((&own["visible"], &own["online"]), (&json!(false), &json!(true)), "{own}");
    for to in ["bob".to_owned(), bob.public()] {
        let text = unique("to one who hides");
        let answer = alice.post_send(&json!({"to": to, "message": text})).await.expect(202).json();
        assert_eq!(answer.get("recipient_online"), None, "whether it is there is not known: {answer}");
        let row = bob.received(&text).await;
        assert_eq!(row["sender_name"], "alice");
    }
    // Whoever stops keeps hiding, and so does whoever comes back.
    bob.stop().await;
    gone(&alice).await;
    bob.start().await;
    bob.connected().await;
    gone(&alice).await;
    // The link itself does not show it to others either.
    let carol = mesh.join(&broker, "carol").await;
    let mut raw = Raw::member(&broker.url(), &carol).await;
    let names = |peers: Vec<Value>| peers.iter().map(|peer| peer["displayName"].clone()).collect::<Vec<_>>();
    let listed = names(raw.peers().await);
    assert!(listed.contains(&json!("alice")) && !listed.contains(&json!("bob")), "{listed:?}");

    set(&bob, json!({"visible": true})).await;
    sees(&alice, "bob", "bob again", |bob| bob["online"] == true && bob["visible"] == true).await;
}

/// A broker stores what daemons show, so that it is the same at every broker of its
/// database.
#[tokio::test]
async fn members_at_another_broker_of_the_database_see_it() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let scans = "[timers]\nscan_ms = 200\ngrace_ms = 500\n";
    let broker = Broker::configured(Backend::Postgres, scans).await;
    let mesh = Mesh::create(&broker, "demo").await;
    let second = broker.second_node(scans).await;
    let alice = Daemon::join(&broker, &mesh, "alice").await;
    let mut bob = Daemon::join(&second, &mesh.at(&second), "bob").await;
    sees(&alice, "bob", "bob at the other broker", |bob| bob["online"] == true).await;
    sees(&bob, "alice", "alice at the other broker", |alice| alice["online"] == true).await;
    set(&bob, json!({"summary": "far away", "status": "working"})).await;
    sees(&alice, "bob", "what bob shows", |bob| shows(bob, "far away", "working")).await;
    set(&bob, json!({"visible": false})).await;
    wait::until("alice not to list bob", async || peer(&alice, "bob").await.is_none().then_some(())).await;
    set(&bob, json!({"visible": true})).await;
    sees(&alice, "bob", "bob again", |bob| bob["online"] == true).await;
    let mut events = alice.http().get("/v1/events?types=peer_leave").stream().await;
    bob.stop().await;
    let left = events.next_of("peer_leave").await.json();
    assert_eq!(left["peer_leave"]["display_name"], "bob", "{left}");
}

#[tokio::test]
async fn a_damaged_profile_stops_the_start_and_says_what_to_do() {
    let Pair { broker: _broker, mesh: _mesh, alice: _alice, mut bob } = Pair::start().await;
    set(&bob, json!({"visible": false})).await;
    bob.stop().await;
    std::fs::write(bob.file("profile.json"), "{\"visible\":fal").expect("profile.json");
    let (code, said) = bob.refused().await;
    assert!(code != 0 && said.contains("profile.json is damaged") && said.contains("remove it"), "{code}: {said}");
    std::fs::remove_file(bob.file("profile.json")).expect("removed");
    bob.start().await;
    assert_eq!(set(&bob, json!({})).await["visible"], true);
}

#[tokio::test]
async fn the_command_line_shows_and_changes_it() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    assert_eq!(bob.cli(&["profile"]).await.ok().stdout, "summary  -\nstatus   idle\nvisible  yes\n");
    let changed = bob.cli(&["profile", "--summary", "a demo", "--status", "dnd", "--visible", "true"]).await.ok();
    assert_eq!(
        (changed.stdout.as_str(), changed.stderr.as_str()),
        ("summary  a demo\nstatus   dnd\nvisible  yes\n", "")
    );
    let shown = json!({"summary": "a demo", "status": "dnd", "visible": true});
    assert_eq!(bob.cli(&["profile", "--json"]).await.ok().json(), shown);
    sees(&alice, "bob", "it", |bob| shows(bob, "a demo", "dnd")).await;
    let list = alice.cli(&["peer", "list"]).await.ok().stdout;
    let row = list.lines().find(|line| line.starts_with("bob ")).unwrap_or_else(|| panic!("{list}"));
    assert!(row.contains("dnd") && row.ends_with("a demo"), "{row}");
    let refused = bob.cli(&["profile", "--summary", "a\tb"]).await.exits(2);
    assert!(refused.stderr.contains("summary"), "{}", refused.stderr);
    bob.cli(&["profile", "--status", "asleep"]).await.exits(2);
}

// Covers: R101
#[tokio::test]
async fn a_sign_of_life_is_taken_over_both_protocols_and_counted() {
    use claudemesh::proto::pb::HeartbeatRequest;
    use claudemesh::proto::pb::control_service_client::ControlServiceClient;
    let Pair { broker: _broker, mesh: _mesh, alice, bob: _bob } = Pair::start().await;
    alice.http().post("/v1/heartbeat", &json!({})).send().await.expect(200);
    let mut client = ControlServiceClient::new(grpc::channel(&alice.socket()).await);
    client.heartbeat(HeartbeatRequest {}).await.expect("an answer");
    let metrics = alice.http().get("/v1/metrics").send().await.expect(200).text();
    let count =
        metrics.lines().filter(|line| line.starts_with("cm_daemon_ipc_request_total") && line.contains("eartbeat"));
    assert_eq!(count.count(), 2, "{metrics}");
}
