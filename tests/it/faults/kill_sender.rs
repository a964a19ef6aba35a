//! The sender's daemon is killed in the middle of its work.

use super::load::Load;
use crate::support::daemon::Pair;

// Covers: R136, R138, R139, R184, R185
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_sends_and_the_senders_daemon_killed_among_them() {
    let _alone = super::ALONE.lock().await;
    let Pair { broker, mut alice, bob, .. } = Pair::start().await;
    let mut load = Load::start(&alice, "bob", 10_000);
    for third in [2_500, 5_000] {
        load.reaches(third).await;
        alice.kill9();
        alice.start().await;
    }
    load.finish().await;
    load.assert_all_arrived_once(&bob).await;
    load.assert_stored_once(&broker.database()).await;
    load.assert_all_done(&alice).await;
}

/// A stop by the operator is no fault: everything that was answered is kept,
/// and the daemon ends in order while callers press on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_is_clean() {
    let _alone = super::ALONE.lock().await;
    let Pair { broker: _broker, mut alice, bob, .. } = Pair::start().await;
    let mut load = Load::start(&alice, "bob", 2_000);
    load.reaches(500).await;
    let status = alice.stop().await;
    assert_eq!(status.code(), Some(0), "{}", alice.output());
    assert!(!alice.socket().exists() && !alice.file("pid").exists());
    alice.start().await;
    load.finish().await;
    load.assert_all_arrived_once(&bob).await;
    load.assert_all_done(&alice).await;
}
