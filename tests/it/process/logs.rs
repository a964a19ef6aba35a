//! A log that is moved away.

use crate::support::fake_broker::FakeBroker;
use crate::support::wait;

/// What a log rotation does: it moves the file and tells the daemon.
#[tokio::test]
async fn a_log_that_was_moved_away_is_begun_anew() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let logs = ["daemon", "logs", "--mesh", "demo"];
    for (number, by_signal) in [(1, true), (2, false)] {
        std::fs::rename(alice.file("daemon.log"), alice.file(&format!("daemon.log.{number}"))).expect("it is there");
        let refused = alice.cli(&logs).await;
        assert!(refused.stderr.contains("runs, but its log"), "{refused:?}");
        assert!(refused.stderr.contains("claudemesh daemon reload --mesh demo"), "{refused:?}");
        if by_signal {
            alice.process().signal(rustix::process::Signal::HUP);
        } else {
            alice.cli(&["daemon", "reload", "--mesh", "demo"]).await.ok();
        }
        wait::until("a new log", async || (alice.file("daemon.log").exists() && !alice.log().is_empty()).then_some(()))
            .await;
        assert!(alice.cli(&logs).await.ok().stdout.contains("The settings were read again"));
    }
}
