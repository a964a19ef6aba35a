//! The receiver's daemon is killed in the middle of its work.

use super::load::{Load, bodies};
use crate::support::daemon::{Pair, unique};
use crate::support::wait;

// Covers: R138, R139
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_sends_and_the_receivers_daemon_killed_among_them() {
    let _alone = super::ALONE.lock().await;
    let Pair { broker, alice, mut bob, .. } = Pair::start().await;
    let mut load = Load::start(&alice, "bob", 10_000);
    for third in [2_500, 5_000] {
        load.reaches(third).await;
        bob.kill9();
        bob.start().await;
    }
    load.finish().await;
    load.assert_all_arrived_once(&bob).await;
    load.assert_stored_once(&broker.database()).await;
}

/// What waited for a receiver that was away comes in the order of accept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_was_away_gets_everything_in_order() {
    let _alone = super::ALONE.lock().await;
    let Pair { broker: _broker, alice, mut bob, .. } = Pair::start().await;
    bob.kill9();
    let run = unique("while away");
    let expected: Vec<String> = (0..200).map(|number| format!("{run} {number:03}")).collect();
    for text in &expected {
        alice.send("bob", text).await;
    }
    bob.start().await;
    let rows = wait::until("200 messages", async || {
        let rows = bob.inbox("").await;
        (rows.len() >= expected.len()).then_some(rows)
    })
    .await;
    assert_eq!(bodies(&rows), expected.iter().map(String::as_str).collect::<Vec<_>>());
}
