//! Links that are cut or stalled, and a broker that is away.

use serde_json::json;

use super::Dev;
use crate::support::daemon::unique;
use crate::support::wait;

#[tokio::test]
async fn a_cut_link_comes_back_when_it_is_mended() {
    let mut dev = Dev::ready(&[]).await;
    let (alice, bob) = (dev.member("alice"), dev.member("bob"));
    dev.act("cut", "bob").await;
    bob.connected(false).await;
    assert_eq!(alice.health().await["connected"], true, "others keep theirs");
    let (to_bob, to_alice) = (unique("to bob"), unique("to alice"));
    alice.send("bob", &to_bob).await;
    bob.send("alice", &to_alice).await;
    // It tries again and is refused.
    let log = || std::fs::read_to_string(bob.text("log")).expect("the log").matches("No link to the broker").count();
    let before = log();
    wait::until("two more tries", async || (log() >= before + 2).then_some(())).await;
    assert_eq!((bob.count(&to_bob).await, alice.count(&to_alice).await), (0, 0));
    dev.act("mend", "bob").await;
    bob.received(&to_bob).await;
    alice.received(&to_alice).await;
}

#[tokio::test]
async fn on_a_stalled_link_nothing_moves_and_nothing_is_lost() {
    let mut dev = Dev::ready(&[]).await;
    let (alice, bob) = (dev.member("alice"), dev.member("bob"));
    dev.act("stall", "alice").await;
    let text = unique("stalled");
    alice.send("bob", &text).await;
    // It has left the daemon, which believes in its link.
    wait::until("the send to be on its way", async || (alice.health().await["inflight"] == 1).then_some(())).await;
    assert_eq!(alice.health().await["connected"], true);
    let other = unique("past it");
    dev.ok(json!({ "do": "add", "member": "cy" })).await;
    let cy = super::Member(dev.ok(json!({ "do": "restart", "member": "cy" })).await["member"].clone());
    cy.connected(true).await;
    cy.send("bob", &other).await;
    bob.received(&other).await;
    assert_eq!(bob.count(&text).await, 0);
    dev.act("mend", "alice").await;
    bob.received(&text).await;
    wait::until("the answer", async || (alice.health().await["inflight"] == 0).then_some(())).await;
}

#[tokio::test]
async fn a_broker_that_was_away_is_the_same_afterwards() {
    let mut dev = Dev::ready(&[]).await;
    let (alice, bob) = (dev.member("alice"), dev.member("bob"));
    // At the broker, for whom it cannot reach.
    dev.act("kill", "bob").await;
    let stored = unique("stored there");
    alice.send("bob", &stored).await;
    wait::until("it to be there", async || {
        let health = alice.health().await;
        (health["queue_depth"] == 0 && health["inflight"] == 0).then_some(())
    })
    .await;
    dev.ok(json!({ "do": "broker_stop" })).await;
    alice.connected(false).await;
    dev.refused(json!({ "do": "broker_stop" }), "broker_unreachable").await;
    dev.refused(json!({ "do": "add", "member": "cy" }), "broker_unreachable").await;
    let queued = unique("queued here");
    alice.send("bob", &queued).await;
    dev.ok(json!({ "do": "broker_start" })).await;
    dev.refused(json!({ "do": "broker_start" }), "already_running").await;
    dev.act("start", "bob").await;
    bob.received(&stored).await;
    bob.received(&queued).await;
}
