//! The disk becomes full under a running daemon.

use serde_json::json;
use tonic::Code;

use super::table::{Case, End, Heard, Row, run};

use crate::support::broker::Broker;
use crate::support::cli::Ran;
use crate::support::daemon::Daemon;
use crate::support::fake_broker::{Client, FakeBroker};
use crate::support::grpc::{self, send_request};
use crate::support::mesh::Mesh;
use crate::support::postgres::Backend;
use crate::support::tmpfs::Tmpfs;
use crate::support::{process, wait};

/// A running daemon on a small file system.
struct World {
    // Before the directory that it is mounted in.
    disk: Tmpfs,
    alice: Daemon,
    client: Client,
    _fake: FakeBroker,
}

impl World {
    async fn start() -> Self {
        let fake = FakeBroker::start().await;
        let mut alice = fake.member("alice");
        let directory = alice.home().join("daemon");
        std::fs::create_dir(&directory).expect("a directory");
        let disk = Tmpfs::mount(&directory, "8m");
        alice.start().await;
        let client = fake.link(&alice).await;
        Self { alice, client, disk, _fake: fake }
    }

    /// Fills the disk, sends in the given way, and makes space again: what was
    /// accepted before goes out, and sends work without a restart.
    async fn full(&mut self, send: impl AsyncFnOnce(&Daemon) -> Heard) -> Heard {
        let before = self.alice.send("bob", "accepted before").await;
        let ballast = self.disk.fill();
        let heard = send(&self.alice).await;
        self.alice.process().assert_running();
        std::fs::remove_file(ballast).expect("the ballast");
        let db = self.alice.outbox_db().await;
        let refused = db.number("SELECT count(*) FROM outbox WHERE client_message_id LIKE 'refused-%'").await;
        assert_eq!(refused, 0, "a send that was refused is not stored");
        db.close().await;
        let sent = self.client.expect("send").await;
        assert_eq!(sent["client_message_id"], before.as_str());
        self.client.ack(&sent, &format!("message-{before}")).await;
        self.alice.outbox_status(&before, "done").await;
        let after = self.alice.send("bob", "accepted after").await;
        let sent = self.client.expect("send").await;
        assert_eq!(sent["client_message_id"], after.as_str());
        self.client.ack(&sent, &format!("message-{after}")).await;
        self.alice.outbox_status(&after, "done").await;
        heard
    }
}

/// Longer than what is left over in the files that are there already.
fn long() -> String {
    "x".repeat(600_000)
}

fn cases() -> Vec<Case<World>> {
    vec![
        Case {
            name: "disk_full_while_running_rest",
            cause: "The disk became full while the daemon runs.",
            code: "insufficient_storage",
            end: End::Http(507),
            place: &["<home>/daemon/demo/outbox.db", "refused-rest"],
            help: "free some space there and repeat it with the same id",
            act: |world| {
                Box::pin(async move {
                    let body = json!({"to": "bob", "message": long(), "client_message_id": "refused-rest"});
                    world.full(async |alice| Heard::rest(&alice.post_send(&body).await)).await
                })
            },
        },
        Case {
            name: "disk_full_while_running_grpc",
            cause: "The disk became full while the daemon runs.",
            code: "insufficient_storage",
            end: End::Grpc(Code::ResourceExhausted),
            place: &["<home>/daemon/demo/outbox.db", "refused-grpc"],
            help: "free some space there and repeat it with the same id",
            act: |world| {
                Box::pin(async move {
                    let send = async |alice: &Daemon| {
                        let mut client = grpc::messaging(&alice.socket()).await;
                        let request = send_request("bob", &long(), "refused-grpc");
                        Heard::grpc(&client.send(request).await.expect_err("the disk is full"))
                    };
                    world.full(send).await
                })
            },
        },
        Case {
            name: "disk_full_while_running_cli",
            cause: "The disk became full while the daemon runs.",
            code: "insufficient_storage",
            end: End::Exit(1),
            place: &["<home>/daemon/demo/outbox.db", "refused-cli"],
            help: "free some space there and repeat it with the same id",
            act: |world| {
                Box::pin(async move {
                    let send = async |alice: &Daemon| {
                        let input = alice.home().join("input");
                        std::fs::write(&input, long()).expect("the input");
                        let mut command = process::command(alice.home());
                        command.args(["send", "bob", "-", "--id", "refused-cli"]);
                        command.stdin(std::fs::File::open(&input).expect("the input"));
                        let output = tokio::process::Command::from(command).output().await.expect("the binary runs");
                        Heard::command(&Ran::of(&output))
                    };
                    world.full(send).await
                })
            },
        },
    ]
}

pub(super) fn rows() -> Vec<Row> {
    cases().iter().map(Case::row).collect()
}

// Covers: D-C1
#[tokio::test]
async fn a_full_disk_refuses_sends_and_loses_none() {
    run(&mut World::start().await, &cases()).await;
}

/// Who is a member has to be kept before anything is sent to them.
#[tokio::test]
async fn a_disk_without_room_for_the_members_is_named_instead_of_them() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    let directory = alice.home().join("daemon");
    std::fs::create_dir(&directory).expect("a directory");
    let disk = Tmpfs::mount(&directory, "8m");
    alice.start().await;
    let ballast = disk.fill();
    let mut client = fake.connect().await;
    let send = json!({"to": "bob", "message": "hello", "client_message_id": "first"});
    // Asked for the members again, unless what was held back is given up already.
    let answering = async {
        loop {
            let frame = client.next().await.expect("a frame");
            client.answer_lists(&frame).await;
        }
    };
    let refused = tokio::select! {
        refused = alice.post_send(&send) => refused.expect(507).json(),
        () = answering => unreachable!("it answers for ever"),
    };
    assert_eq!(refused["code"], "insufficient_storage", "{refused}");
    assert_eq!(refused["metadata"]["client_message_id"], "first", "{refused}");
    let health = alice.http().get("/v1/health").send().await.expect(200).json();
    assert_eq!(health["state"], "degraded", "{health}");

    std::fs::remove_file(ballast).expect("the ballast");
    // The lists are read again where they found no room before.
    let broker = async {
        loop {
            match client.next().await.expect("a frame") {
                frame if frame["type"] == "send" => break frame,
                frame => client.answer_lists(&frame).await,
            }
        }
    };
    let taken = async || (alice.post_send(&send).await.status == 202).then_some(());
    let (sent, ()) = tokio::join!(broker, wait::until("the send to be taken", taken));
    assert_eq!(sent["client_message_id"], "first");
    let health = alice.http().get("/v1/health").send().await.expect(200).json();
    assert_eq!(health["state"], "ready", "{health}");
    // Before the directory that it is mounted in.
    alice.stop().await;
    drop(disk);
}

async fn degraded(alice: &Daemon) -> Vec<String> {
    let said = alice.cli(&["daemon", "status", "--mesh", "demo", "--json"]).await.ok().json();
    let reasons = said["degraded_reasons"].as_array().cloned().unwrap_or_default();
    reasons.iter().map(|reason| reason.as_str().unwrap_or_default().to_owned()).collect()
}

/// How often the disk becomes full. The ids of what was sent stay, so that each time
/// there is less room.
const ROUNDS: usize = 2;

/// A queue fills a small disk while the broker is away. When it is back the queue goes
/// out, and sends are taken again: of this one disk nobody but the daemon could make room.
// Covers: R198
#[tokio::test]
async fn a_disk_that_the_queue_has_filled_heals_once_the_broker_took_it() {
    let mut broker = Broker::with(Backend::Sqlite, &[("member_rate_per_s", "0")]).await;
    let mesh = Mesh::create(&broker, "demo").await;
    // Of one alone the broker would keep no more than a thousand.
    let receivers = ["bob", "carol", "dave"];
    let mut there = Vec::new();
    for name in receivers {
        there.push(Daemon::join(&broker, &mesh, name).await);
    }
    let mut alice = Daemon::joined(&broker, &mesh, "alice").await;
    let directory = alice.home().join("daemon");
    std::fs::create_dir(&directory).expect("a directory");
    let disk = Tmpfs::mount(&directory, "6m");
    alice.start().await;
    for name in receivers {
        alice.knows(name).await;
    }
    let (mut sent, mut taken) = (0, 0);
    // More than once: what is kept of the first queue must not be in the way of the second.
    for round in 0..ROUNDS {
        broker.stop().await;
        let refused = loop {
            let body = json!({"to": receivers[sent % 3], "message": "x".repeat(1500), "client_message_id": format!("send-{sent}")});
            let answer = alice.post_send(&body).await;
            if answer.status != 202 {
                break answer.expect(507).json();
            }
            sent += 1;
            assert!(sent < 20_000, "the disk was never full");
        };
        assert_eq!(refused["code"], "insufficient_storage", "{refused}");
        assert!(sent - taken > 200, "round {round}: only {} found room", sent - taken);
        assert_eq!(degraded(&alice).await, ["outbox_disk_full"]);
        broker.restart().await;
        let again = json!({"to": "bob", "message": "again", "client_message_id": format!("again-{round}")});
        let is_taken = async || (alice.post_send(&again).await.status == 202).then_some(());
        wait::until("sends to be taken again", is_taken).await;
        wait::until("the queue to be empty", async || {
            let said = alice.cli(&["daemon", "status", "--mesh", "demo", "--json"]).await.ok().json();
            let empty = said["outbox"]["pending"] == 0 && said["outbox"]["inflight"] == 0;
            (empty && degraded(&alice).await.is_empty()).then_some(())
        })
        .await;
        taken = sent;
    }
    wait::until("each to be there once", async || {
        let mut count = 0;
        for daemon in &there {
            count += daemon.inbox("").await.len();
        }
        (count == sent + ROUNDS).then_some(())
    })
    .await;
    alice.stop().await;
    drop(disk);
}

/// A start has to find room on a disk that others have filled meanwhile.
#[tokio::test]
async fn a_daemon_starts_on_a_disk_that_is_full() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    let directory = alice.home().join("daemon");
    std::fs::create_dir(&directory).expect("a directory");
    let disk = Tmpfs::mount(&directory, "6m");
    alice.start().await;
    let ballast = alice.file("ballast");
    assert_eq!(std::fs::metadata(&ballast).expect("the ballast").len(), 2 << 20);
    let mut client = fake.link(&alice).await;
    let before = alice.send("bob", "accepted before").await;
    client.expect("send").await;
    client.drop_link();
    alice.stop().await;
    let filler = disk.fill();
    alice.start().await;

    assert!(std::fs::metadata(&ballast).expect("its rest").len() < 1 << 20, "its room is used");
    assert_eq!(degraded(&alice).await, ["outbox_disk_full"]);
    let mut client = fake.link(&alice).await;
    let sent = client.expect("send").await;
    assert_eq!(sent["client_message_id"], before.as_str());
    client.ack(&sent, "message-1").await;
    alice.outbox_status(&before, "done").await;
    std::fs::remove_file(filler).expect("the filler");
    wait::until("the ballast to be back", async || {
        let back = std::fs::metadata(&ballast).is_ok_and(|file| file.len() == 2 << 20);
        (back && degraded(&alice).await.is_empty()).then_some(())
    })
    .await;
    alice.stop().await;
    drop(disk);
}

/// A log that cannot start over grows with all that is written.
#[tokio::test]
async fn a_log_that_another_program_holds_is_told_and_let_go() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let client = fake.link(&alice).await;
    let reader = alice.outbox_db().await;
    reader.run("BEGIN").await;
    reader.number("SELECT count(*) FROM outbox").await;
    for _ in 0..60 {
        alice.send("bob", &long()).await;
    }
    wait::until("the reason", async || (degraded(&alice).await == ["outbox_log_held"]).then_some(())).await;
    reader.run("COMMIT").await;
    wait::until("a log that starts over", async || degraded(&alice).await.is_empty().then_some(())).await;
    drop(client);
}

/// What a queue has filled stays full over a restart: the rest is for what waits.
#[tokio::test]
async fn a_start_on_a_disk_that_its_queue_has_filled_takes_no_more_and_sends_all() {
    let mut broker = Broker::with(Backend::Sqlite, &[("member_rate_per_s", "0")]).await;
    let mesh = Mesh::create(&broker, "demo").await;
    let bob = Daemon::join(&broker, &mesh, "bob").await;
    let mut alice = Daemon::joined(&broker, &mesh, "alice").await;
    let directory = alice.home().join("daemon");
    std::fs::create_dir(&directory).expect("a directory");
    let disk = Tmpfs::mount(&directory, "6m");
    alice.start().await;
    alice.knows("bob").await;
    broker.stop().await;
    let send = async |alice: &Daemon, number: usize| {
        let body = json!({"to": "bob", "message": "x".repeat(4000), "client_message_id": format!("send-{number}")});
        alice.post_send(&body).await.status
    };
    let mut sent = 0;
    while send(&alice, sent).await == 202 {
        sent += 1;
    }
    alice.stop().await;
    alice.start().await;
    assert_eq!(send(&alice, sent).await, 507);
    assert_eq!(degraded(&alice).await, ["outbox_disk_full"]);
    broker.restart().await;
    wait::until("each to be there once", async || (bob.inbox("").await.len() == sent).then_some(())).await;
    alice.stop().await;
    drop(disk);
}
