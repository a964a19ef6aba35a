//! The process is killed at each step of a rotation. Built with the feature
//! `failpoints` only.

use serde_json::Value;

use super::pinned;
use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::wait;

async fn settled(daemon: &Daemon) {
    wait::until("the rotation to be settled", async || {
        let status = daemon.cli(&["daemon", "status", "--json"]).await.json();
        let pending = status.to_string().contains("\"rotation_pending\":true");
        (!pending && !daemon.file("keypair.next.json").exists()).then_some(())
    })
    .await;
}

/// Whichever step it was: afterwards the member has one key that the broker
/// knows, nothing is lost and nothing is doubled.
#[tokio::test]
async fn a_kill_at_any_step_loses_nothing() {
    let steps = [
        ("rotation_begun", false),
        ("rotation_archived", false),
        ("rotation_next_written", true),
        ("rotation_registered", true),
        ("rotation_renamed", true),
    ];
    for (step, rotates) in steps {
        let Pair { broker: _broker, mesh: _mesh, mut alice, mut bob } = Pair::start().await;
        let old = alice.public();
        // Waiting at the broker for alice's old key, and in her outbox.
        alice.stop().await;
        let (waiting, queued) = (unique("waits at the broker"), unique("waits in the outbox"));
        let id = bob.send("alice", &waiting).await;
        bob.outbox_status(&id, "done").await;
        bob.stop().await;
        let mut command = alice.command();
        command.env("CLAUDEMESH_FAILPOINT", step);
        alice.start_as(command).await;
        alice.connected().await;
        alice.send("bob", &queued).await;
        alice.cli(&["daemon", "rotate-keypair"]).await;
        assert_eq!(alice.ended().await, -1, "killed at {step}: {}", alice.output());
        bob.start().await;
        bob.connected().await;
        let meanwhile = unique("while she is down");
        bob.send("alice", &meanwhile).await;
        alice.start().await;
        alice.connected().await;
        settled(&alice).await;
        alice.received(&waiting).await;
        alice.received(&meanwhile).await;
        bob.received(&queued).await;
        let new = alice.public();
        assert_eq!(new != old, rotates, "after a kill at {step}");
        let stored = std::fs::read_to_string(alice.file("keypair.json")).expect("keypair.json");
        assert!(stored.contains(&new), "both files have the key after {step}");
        wait::until("bob to follow", async || (pinned(&bob, "alice").await["pubkey"] == new).then_some(())).await;
        for (one, name, other) in [(&alice, "bob", &bob), (&bob, "alice", &alice)] {
            let text = unique("afterwards");
            one.send(name, &text).await;
            other.received(&text).await;
        }
        for (daemon, text) in [(&alice, &waiting), (&alice, &meanwhile), (&bob, &queued)] {
            let count = daemon.inbox("").await.iter().filter(|row| row["body"] == *text).count();
            assert_eq!(count, 1, "{text} after {step}");
        }
        // And the next rotation works.
        let next: Value = alice.cli(&["daemon", "rotate-keypair", "--json"]).await.ok().json();
        assert_eq!(next["rotation_seq"], if rotates { 2 } else { 1 }, "{next} after {step}");
    }
}

/// A broker that had the bits is given time, and no more.
#[tokio::test]
async fn patience_with_a_broker_that_lost_a_bit_ends() {
    use crate::support::fake_broker::FakeBroker;
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure("[reconnect]\ninitial_backoff_ms = 10\nmax_backoff_ms = 10\n");
    alice.env("CLAUDEMESH_LIMIT_MS", "1500");
    alice.start().await;
    fake.link(&alice).await.drop_link();
    let since = std::time::Instant::now();
    let refuse = async {
        loop {
            let mut client = fake.accept().await;
            client.welcome().await;
            client.negotiate(&["concurrent_connection_policy"]).await;
            assert_eq!(client.closed().await.0, 4010);
        }
    };
    let code = tokio::select! {
        code = alice.ended() => code,
        () = refuse => -1,
    };
    assert_eq!(code, 15, "{}", alice.output());
    assert!(since.elapsed() >= std::time::Duration::from_millis(1500), "{:?}", since.elapsed());
}
