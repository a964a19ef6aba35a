//! Two sides are killed at once in the middle of their work: neither finds the
//! other as it left it.

use super::load::Load;
use crate::support::daemon::Pair;

// Covers: R136, R137, R138, R139, R185
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_sends_and_the_broker_killed_with_either_daemon() {
    let _alone = super::ALONE.lock().await;
    let Pair { mut broker, mut alice, mut bob, .. } = Pair::start().await;
    let mut load = Load::start(&alice, "bob", 10_000);
    load.reaches(2_000).await;
    alice.kill9();
    broker.kill9();
    // The daemon comes back first and finds nobody.
    alice.start().await;
    broker.restart().await;
    load.reaches(4_000).await;
    bob.kill9();
    broker.kill9();
    bob.start().await;
    broker.restart().await;
    // And with the broker there first.
    load.reaches(6_000).await;
    broker.kill9();
    alice.kill9();
    broker.restart().await;
    alice.start().await;
    load.reaches(8_000).await;
    broker.kill9();
    bob.kill9();
    broker.restart().await;
    bob.start().await;
    load.finish().await;
    load.assert_all_arrived_once(&bob).await;
    load.assert_stored_once(&broker.database()).await;
    load.assert_all_done(&alice).await;
}
