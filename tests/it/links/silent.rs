//! A link that a route has swallowed: nobody is told, and it must not look alive.

use std::time::{Duration, Instant};

use crate::support::broker::Broker;
use crate::support::daemon::Daemon;
use crate::support::mesh::Mesh;
use crate::support::slow_line::SlowLine;
use crate::support::{tools, wait};

struct Swallowed {
    _broker: Broker,
    line: SlowLine,
    alice: Daemon,
}

async fn behind_a_line(prepare: impl FnOnce(&mut Daemon)) -> Swallowed {
    let broker = Broker::start().await;
    let line = SlowLine::to(broker.address(), 10_000_000, Duration::from_millis(1)).await;
    let mesh = Mesh { url: line.url(), ..Mesh::create(&broker, "demo").await };
    let mut alice = Daemon::joined(&broker, &mesh, "alice").await;
    prepare(&mut alice);
    alice.start().await;
    alice.connected().await;
    Swallowed { _broker: broker, line, alice }
}

async fn connected(alice: &Daemon) -> bool {
    alice.http().get("/v1/health").send().await.expect(200).json()["connected"] == true
}

// Covers: D-C8
#[tokio::test]
async fn a_link_over_which_nothing_comes_does_not_count_as_connected() {
    let Swallowed { _broker, line, alice } = behind_a_line(|_| {}).await;
    line.swallow(true);
    let within = Duration::from_secs(60);
    wait::until_within(within, "health to doubt the link", async || (!connected(&alice).await).then_some(())).await;
    // It is not known to be dead yet either: the same link is there, and status says so.
    let status = alice.cli(&["daemon", "status", "--mesh", "demo"]).await.ok();
    assert!(status.stdout.contains("unknown"), "{}", status.stdout);
    assert!(status.stderr.contains("nothing has come from the broker since"), "{}", status.stderr);
    let connections = line.connections();
    wait::until_within(within, "another try", async || (line.connections() > connections).then_some(())).await;
    line.swallow(false);
    alice.connected().await;
}

// Covers: D-C8
#[tokio::test]
async fn after_a_jump_of_the_clock_a_dead_link_is_found_at_once() {
    let clock = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(clock.path(), "+0").expect("the clock");
    let Swallowed { _broker, line, alice } = behind_a_line(|alice| {
        alice.env("LD_PRELOAD", &tools::faketime().display().to_string());
        alice.env("FAKETIME_TIMESTAMP_FILE", &clock.path().display().to_string());
        alice.env("FAKETIME_NO_CACHE", "1");
        alice.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    })
    .await;
    line.swallow(true);
    let connections = line.connections();
    // As after a suspend: the wall clock has gone on, the monotonic one has not.
    let new = clock.path().with_extension("new");
    std::fs::write(&new, "+60s").expect("the clock");
    std::fs::rename(&new, clock.path()).expect("the clock");
    let began = Instant::now();
    let within = Duration::from_secs(40);
    wait::until_within(within, "another try", async || (line.connections() > connections).then_some(())).await;
    assert!(began.elapsed() < Duration::from_secs(25), "found after {:?}", began.elapsed());
    line.swallow(false);
    alice.connected().await;
}
