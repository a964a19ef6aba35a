//! Safety numbers, and the mark that the operator gives.

use serde_json::{Value, json};

use super::pinned;
use crate::support::daemon::{Daemon, Pair};
use crate::support::wait;

async fn number(daemon: &Daemon, peer: &str) -> String {
    let shown = daemon.cli(&["verify", peer, "--json"]).await.json();
    shown["safety_number"].as_str().unwrap_or_else(|| panic!("{shown}")).to_owned()
}

async fn state(daemon: &Daemon, name: &str) -> Value {
    let peers = daemon.http().get("/v1/peers?include_offline=true").send().await.expect(200).json();
    let all = peers["peers"].as_array().expect("peers").clone();
    all.into_iter().find(|peer| peer["display_name"] == name).expect("the peer")["provenance"]["pin_state"].clone()
}

#[tokio::test]
async fn both_sides_see_one_number_and_the_operator_confirms_it() {
    let Pair { broker: _broker, mesh: _mesh, mut alice, bob } = Pair::start().await;
    let shown = number(&alice, "bob").await;
    assert_eq!(shown, number(&bob, "alice").await);
    let groups: Vec<&str> = shown.split(' ').collect();
    assert_eq!(groups.len(), 12, "{shown}");
    assert!(groups.iter().all(|group| group.len() == 5 && group.bytes().all(|b| b.is_ascii_digit())), "{shown}");
    let text = alice.cli(&["verify", "bob"]).await.ok();
    assert!(text.stdout.contains(groups[0]) && text.stdout.contains("not verified"), "{}", text.all());
    assert_eq!(state(&alice, "bob").await, "pinned");

    let wrong = format!("--confirm={}", shown.replace(groups[0], "00000"));
    let refused = alice.cli(&["verify", "bob", &wrong]).await.exits(5);
    assert!(refused.stderr.contains("safety_number_mismatch"), "{}", refused.all());
    assert_eq!(state(&alice, "bob").await, "pinned");
    alice.cli(&["verify", "bob", &format!("--confirm={shown}")]).await.ok();
    assert_eq!(state(&alice, "bob").await, "verified");
    assert_eq!(state(&bob, "alice").await, "pinned", "each side decides for itself");
    let list = alice.cli(&["peer", "list"]).await.ok();
    assert!(list.stdout.contains("bob (verified)"), "{}", list.stdout);

    // The mark is on disk.
    alice.kill9();
    alice.start().await;
    assert_eq!(state(&alice, "bob").await, "verified");
    assert!(alice.cli(&["verify", "bob"]).await.ok().stdout.contains("verified on"));
    alice.cli(&["verify", "alice"]).await.exits(2);
    alice.cli(&["verify", "nobody"]).await.exits(1);
}

#[tokio::test]
async fn a_rotation_takes_the_mark_away_and_says_so() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let before = number(&alice, "bob").await;
    alice.cli(&["verify", "bob", "--confirm"]).await.ok();
    let old = bob.public();
    bob.cli(&["daemon", "rotate-keypair"]).await.ok();
    wait::until("the new key", async || (pinned(&alice, "bob").await["pubkey"] != old).then_some(())).await;
    let member = pinned(&alice, "bob").await;
    assert_eq!((&member["pin_state"], &member["verified_pubkey"]), (&json!("pinned"), &json!(old)), "{member}");
    assert!(alice.cli(&["verify", "bob"]).await.ok().stdout.contains("the key changed since it was"));
    let after = number(&alice, "bob").await;
    assert_ne!(before, after);
    assert_eq!(after, number(&bob, "alice").await);
    alice.cli(&["verify", "bob", "--confirm"]).await.ok();
    assert_eq!(state(&alice, "bob").await, "verified");
}

#[tokio::test]
async fn the_calls_are_served_over_rest_with_the_same_errors() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let shown = number(&alice, "bob").await;
    let verify = |body: Value| {
        let alice = &alice;
        async move { alice.http().post("/v1/keys/verify", &body).send().await }
    };
    let answer = verify(json!({"peer": bob.public()})).await.expect(200).json();
    assert_eq!(answer["safety_number"], shown.as_str(), "{answer}");
    let answer = verify(json!({"peer": "bob", "safety_number": "1"})).await.expect(409).json();
    assert_eq!(answer["code"], "safety_number_mismatch", "{answer}");
    let dashes = shown.replace(' ', "-");
    let answer = verify(json!({"peer": "bob", "safety_number": dashes})).await.expect(200).json();
    assert_eq!(answer["member"]["pin_state"], "verified", "{answer}");
    let answer = verify(json!({"peer": "nobody"})).await.expect(404).json();
    assert_eq!(answer["code"], "unknown_peer", "{answer}");
    for (path, body) in [
        ("/v1/keys/accept-key", json!({"member": "bob", "pubkey": bob.public()})),
        ("/v1/keys/accept-name", json!({"name": "bob", "member_id": bob.config_member()["memberId"]})),
    ] {
        let answer = alice.http().post(path, &body).send().await.expect(409).json();
        assert_eq!(answer["code"], "no_pending_change", "{path}: {answer}");
    }
    let pending = alice.http().get("/v1/keys/pinned?pending_only=true").send().await.expect(200).json();
    assert_eq!(pending["members"], json!([]), "{pending}");
    let page = alice.http().get("/v1/keys/pinned?limit=1").send().await.expect(200).json();
    let token = page["next_page_token"].as_str().expect("a token").to_owned();
    let next = alice.http().get(&format!("/v1/keys/pinned?limit=1&page_token={token}")).send().await.expect(200).json();
    assert_ne!(page["members"][0]["member_id"], next["members"][0]["member_id"], "{page} {next}");
    // Over TCP all of it needs the token.
    alice.tcp().get("/v1/keys/pinned").send().await.expect(401);
    alice.tcp().get("/v1/keys/pinned").bearer(&alice.token()).send().await.expect(200);
}
