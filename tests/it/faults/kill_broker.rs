//! The broker is killed in the middle of its work.

use super::load::Load;
use crate::support::daemon::Pair;

// Covers: R5, R137, R138, R139
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_sends_and_the_broker_killed_among_them() {
    let _alone = super::ALONE.lock().await;
    let Pair { mut broker, alice, bob, .. } = Pair::start().await;
    let mut load = Load::start(&alice, "bob", 10_000);
    for third in [2_500, 5_000] {
        load.reaches(third).await;
        broker.kill9();
        broker.restart().await;
    }
    load.finish().await;
    load.assert_all_arrived_once(&bob).await;
    load.assert_stored_once(&broker.database()).await;
    load.assert_all_done(&alice).await;
}
