//! A daemon that runs out of file descriptors.

use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::support::fake_broker::FakeBroker;
use crate::support::process::{self, binary};
use crate::support::wait;

/// Callers are answered, if only by the end of their connection; the log stays short;
/// and all is well again when the others have gone.
#[tokio::test]
async fn without_descriptors_callers_are_answered_and_the_log_stays_short() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    let mut command = process::with_program(Path::new("/bin/sh"), alice.home());
    let script = format!("ulimit -n 64; exec {} daemon up --foreground --mesh demo", binary());
    command.args(["-c", &script]);
    alice.start_as(command).await;
    let _client = fake.link(&alice).await;
    alice.knows("bob").await;
    let held: Vec<UnixStream> = (0..80).map(|_| UnixStream::connect(alice.socket()).expect("connects")).collect();
    let accept_lines = || {
        let log = alice.log();
        log.into_iter()
            .filter(|line| line["message"].as_str().is_some_and(|it| it.starts_with("Cannot accept")))
            .count()
    };
    wait::until("it to be out of descriptors", async || (accept_lines() > 0).then_some(())).await;
    let started = std::time::Instant::now();
    let refused = alice.cli(&["send", "bob", "hello", "--json"]).await;
    assert!(started.elapsed() < std::time::Duration::from_secs(5), "it took {:?}", started.elapsed());
    if refused.code != 0 {
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains("daemon_busy"), "{refused:?}");
    }
    drop(held);
    wait::until("sends to be taken", async || (alice.cli(&["send", "bob", "hello"]).await.code == 0).then_some(()))
        .await;
    assert_eq!(accept_lines(), 1, "one line a minute");
}
