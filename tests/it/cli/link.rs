//! What a user is told of a link that is down, and of what the daemon is.

use serde_json::json;

use crate::support::daemon::Pair;
use crate::support::wait;

#[tokio::test]
async fn a_link_that_is_down_is_told_where_it_matters() {
    let Pair { mut broker, mesh: _mesh, alice, bob: _bob } = Pair::start().await;
    wait::until("bob to be seen online", async || {
        let peers = alice.cli(&["peer", "list", "--json"]).await.ok().json();
        let bob = peers["peers"].as_array()?.iter().find(|peer| peer["display_name"] == "bob")?.clone();
        assert!(peers["presence_as_of"].is_string() || bob["online"] == false, "{peers}");
        (bob["online"] == true && bob["last_seen_at"].is_string()).then_some(())
    })
    .await;
    let up = alice.cli(&["send", "bob", "up"]).await.ok();
    assert_eq!(up.stderr, "", "nothing is said while all is well");
    let peers = alice.cli(&["peer", "list"]).await.ok();
    assert!(peers.stderr.is_empty() && !peers.stdout.contains("unknown"), "{}", peers.all());

    broker.stop().await;
    wait::until("the loss to be noticed", async || {
        let health = alice.http().get("/v1/health").send().await.json();
        (health["connected"] == false).then_some(())
    })
    .await;
    let down = alice.cli(&["send", "bob", "down"]).await.ok();
    assert!(down.stdout.starts_with("queued  "), "{}", down.stdout);
    assert!(down.stderr.starts_with("note: no link to the broker since "), "{}", down.stderr);
    assert!(down.stderr.contains("goes out when the link is back"), "{}", down.stderr);
    let quiet = alice.cli(&["send", "bob", "down", "--json"]).await.ok();
    assert_eq!(quiet.stderr, "");
    let peers = alice.cli(&["peer", "list"]).await.ok();
    let bob = peers.stdout.lines().find(|line| line.starts_with("bob")).expect("bob's row");
    assert!(bob.contains("unknown") && bob.contains("ago") | bob.contains("just now"), "{bob}");
    assert!(peers.stderr.contains("the broker last said at "), "{}", peers.stderr);
    let status = alice.cli(&["daemon", "status"]).await.ok();
    assert!(status.stderr.contains("demo: no link to the broker since "), "{}", status.stderr);
}

#[tokio::test]
async fn the_status_is_filled_with_what_is_true() {
    let Pair { broker: _broker, mesh: _mesh, mut alice, bob: _bob } = Pair::start().await;
    let status = alice.cli(&["daemon", "status", "--mesh", "demo", "--json"]).await.ok().json();
    let rss: u64 = status["process"]["rss_bytes"].as_str().expect("a number").parse().expect("a number");
    assert!((1 << 20..4 << 30).contains(&rss), "{rss}");
    assert_ne!(status["environment"]["detected"], json!("unspecified"), "{status}");
    alice.stop().await;
    alice.env("CI", "true");
    alice.env("BUILDKITE", "true");
    alice.start().await;
    let status = alice.cli(&["daemon", "status", "--mesh", "demo", "--json"]).await.ok().json();
    assert_eq!(status["environment"], json!({"detected": "ci", "signal": "BUILDKITE", "overrides": []}));
    let response = alice.http().get("/v1/version").send().await.expect(200);
    let server = format!("claudemesh/{}", response.json()["daemon_version"].as_str().expect("a version"));
    assert_eq!(response.header("server"), Some(server.as_str()));
    let refused = alice.tcp().get("/v1/version").send().await.expect(401);
    assert_eq!(refused.header("server"), None, "who is turned away learns nothing");
}
