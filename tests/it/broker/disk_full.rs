//! The disk under the embedded broker becomes full: whoever sends is told to try
//! again, no message is there in part, and the same ids are good later.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::mesh::{Mesh, RawMesh};
use crate::support::raw::{Member, Raw, send_with_id};
use crate::support::tmpfs::Tmpfs;

const HOST_A: &str = "01J0000000000000000000000A";
const HOST_B: &str = "01J0000000000000000000000B";
const BOOT: &str = "01J00000000000000000000001";
/// Ciphertext that is larger than the room that some tests leave.
const LARGE: usize = 1_200_000;
/// Room for the small messages of a test, each of which changes some twenty
/// pages, and for none of [`LARGE`].
const ROOM: u64 = 800_000;

/// A broker on a small file system, and two members of its mesh.
struct World {
    // Before the directory that it is mounted in.
    disk: Tmpfs,
    mesh: RawMesh,
    alice: Member,
    bob: Member,
    /// What was sent, to be sent again as it was.
    frames: BTreeMap<String, Value>,
}

/// The answers to sends, by id.
type Acks = BTreeMap<String, Value>;

impl World {
    async fn start() -> Self {
        let mut broker = Broker::unstarted();
        let disk = Tmpfs::mount(&broker.dir(), "16m");
        broker.restart().await;
        let mesh = Mesh::create(&broker, "demo").await;
        let mesh = RawMesh { broker, mesh };
        let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
        Self { disk, mesh, alice, bob, frames: BTreeMap::new() }
    }

    async fn alice(&self) -> Raw {
        Raw::daemon(&self.mesh.url(), &self.alice, HOST_A, BOOT).await.0
    }

    /// A message to bob; one and the same for each id.
    fn frame(&mut self, id: &str) -> Value {
        let bob = self.bob.public();
        let made = || {
            let mut frame = send_with_id(&bob, id, &"a".repeat(64));
            if id.starts_with("large") {
                frame["ciphertext"] = json!("A".repeat(LARGE));
            }
            frame
        };
        self.frames.entry(id.to_owned()).or_insert_with(made).clone()
    }

    /// Sends all of these so that they meet in one batch: nobody can write until
    /// the broker has read every one.
    async fn send_at_once(&mut self, raw: &mut Raw, ids: &[&str]) -> Acks {
        let db = self.mesh.broker.tables().await;
        db.run("BEGIN IMMEDIATE").await;
        for id in ids {
            let frame = self.frame(id);
            raw.send(&frame).await;
        }
        // It handles the frames of a socket in order.
        assert_eq!(raw.answers_so_far().await, Vec::<Value>::new(), "nothing can be stored meanwhile");
        db.run("ROLLBACK").await;
        db.close().await;
        let mut acks = Acks::new();
        for _ in ids {
            let ack = raw.expect_past_events("ack").await;
            acks.insert(ack["id"].as_str().expect("an id").to_owned(), ack);
        }
        acks
    }

    /// One after the other.
    async fn send(&mut self, raw: &mut Raw, ids: &[&str]) -> Acks {
        let mut acks = Acks::new();
        for id in ids {
            let frame = self.frame(id);
            raw.send(&frame).await;
            acks.insert((*id).to_owned(), raw.expect_past_events("ack").await);
        }
        acks
    }

    /// Every part of these messages is there, and no part of any other.
    async fn assert_stored(&self, ids: &[&str]) {
        let db = self.mesh.broker.tables().await;
        let mut wanted: Vec<&str> = ids.to_vec();
        wanted.sort_unstable();
        let by_message = "(SELECT client_message_id FROM client_message_dedupe WHERE broker_message_id = h.id)";
        for sql in [
            "SELECT client_message_id FROM message_queue ORDER BY 1",
            "SELECT client_message_id FROM client_message_dedupe ORDER BY 1",
            "SELECT client_message_id FROM delivery ORDER BY 1",
            &format!("SELECT coalesce({by_message}, h.id) FROM message_history AS h ORDER BY 1"),
        ] {
            assert_eq!(db.texts(sql).await, wanted, "{sql}");
        }
        assert_eq!(db.texts("PRAGMA integrity_check").await, ["ok"]);
        db.close().await;
    }

    async fn metric(&self, name: &str) -> u64 {
        let text = self.mesh.broker.http().get("/metrics").send().await.expect(200).text();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        let value = line.and_then(|line| line.rsplit(' ').next()).unwrap_or_else(|| panic!("no {name} in {text}"));
        value.parse().expect("a number")
    }

    /// Bob comes for the first time and gets each of these once, in this order.
    async fn bob_gets(&self, acks: &[&Value]) {
        let mut bob_raw = Raw::daemon(&self.mesh.url(), &self.bob, HOST_B, BOOT).await.0;
        for ack in acks {
            let push = bob_raw.message().await;
            assert_eq!((&push["messageId"], &push["client_message_id"]), (&ack["messageId"], &ack["id"]));
            bob_raw.send(&json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
        }
        assert_eq!(bob_raw.answers_so_far().await, Vec::<Value>::new(), "each of them once");
    }
}

/// Makes room again.
fn free(ballast: &Path) {
    std::fs::remove_file(ballast).expect("the ballast");
}

#[track_caller]
fn assert_try_again(ack: &Value) {
    assert_eq!((&ack["queued"], &ack["messageId"]), (&json!(false), &json!("")), "{ack}");
    assert_eq!((&ack["code"], &ack["retryable"]), (&json!("busy"), &json!(true)), "{ack}");
}

#[track_caller]
fn assert_taken(ack: &Value) {
    assert_eq!((&ack["queued"], &ack["duplicate"]), (&json!(true), &json!(false)), "{ack}");
}

// Covers: D-J1
#[tokio::test]
async fn a_batch_without_room_is_refused_whole_and_its_ids_are_good_later() {
    let mut world = World::start().await;
    let mut alice_raw = world.alice().await;
    let before = world.send(&mut alice_raw, &["before"]).await;
    assert_taken(&before["before"]);

    let ids = ["m1", "m2", "large", "m3"];
    let ballast = world.disk.fill();
    let refused = world.send_at_once(&mut alice_raw, &ids).await;
    refused.values().for_each(assert_try_again);
    world.mesh.broker.process().assert_running();
    world.assert_stored(&["before"]).await;
    // What was stored before needs no room to be known, and can be read.
    let again = world.send(&mut alice_raw, &["before"]).await;
    assert_eq!(again["before"]["messageId"], before["before"]["messageId"], "{again:?}");
    world.mesh.broker.http().get("/readyz").send().await.expect(200);
    assert_eq!(world.metric("cm_broker_message_refused_total").await, 4);
    assert!(world.metric("cm_broker_batch_split_total").await >= 1);
    assert!(world.mesh.broker.output().contains("database or disk is full"), "the log names the cause");

    free(&ballast);
    let acks = world.send_at_once(&mut alice_raw, &ids).await;
    acks.values().for_each(assert_taken);
    world.mesh.broker.crash().await;
    let mut alice_raw = world.alice().await;
    for (id, again) in world.send(&mut alice_raw, &ids).await {
        assert_eq!((&again["duplicate"], &again["messageId"]), (&json!(true), &acks[&id]["messageId"]), "{again}");
    }
    world.assert_stored(&["before", "m1", "m2", "large", "m3"]).await;
    let all = [&before["before"], &acks["m1"], &acks["m2"], &acks["large"], &acks["m3"]];
    world.bob_gets(&all).await;
}

// Covers: D-J1
#[tokio::test]
async fn the_one_message_that_does_not_fit_harms_no_other_of_its_batch() {
    let mut world = World::start().await;
    let mut alice_raw = world.alice().await;
    let ballast = world.disk.fill_but(ROOM);
    let ids = ["m1", "m2", "large", "m3", "m4"];
    let mut acks = world.send_at_once(&mut alice_raw, &ids).await;
    assert_try_again(&acks["large"]);
    let small = ["m1", "m2", "m3", "m4"];
    small.iter().for_each(|id| assert_taken(&acks[*id]));
    world.assert_stored(&small).await;
    assert_eq!(world.metric("cm_broker_batch_split_total").await, 1, "they were one batch");
    assert_eq!(world.metric("cm_broker_message_refused_total").await, 1);
    assert_eq!(world.metric("cm_broker_message_accepted_total").await, 4);

    // A broker that is killed on the full disk has lost nothing of it.
    world.mesh.broker.kill9();
    world.assert_stored(&small).await;
    free(&ballast);
    world.mesh.broker.restart().await;
    let mut alice_raw = world.alice().await;
    let again = world.send(&mut alice_raw, &ids).await;
    assert_taken(&again["large"]);
    for id in small {
        let ack = &again[id];
        assert_eq!((&ack["duplicate"], &ack["messageId"]), (&json!(true), &acks[id]["messageId"]), "{ack}");
    }
    acks.insert("large".to_owned(), again["large"].clone());
    world.assert_stored(&ids).await;
    world.bob_gets(&[&acks["m1"], &acks["m2"], &acks["m3"], &acks["m4"], &acks["large"]]).await;
}
