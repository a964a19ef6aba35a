//! Topics at a broker that lies, with members that it invented.

mod copies;
mod epochs;
mod posts;
mod secrets;

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::fake_broker::{ALL_BITS, Client, FakeBroker, push_frame};
use crate::support::keys::{self, Key, now_ms};
use crate::support::mesh::certificate;
use crate::support::topics::{self, Epoch, Post, TopicKey, sealed_copy, topic_key};
use crate::support::wait;

const MESH: &str = "FakeMesh";
const TOPIC: &str = "01J0000000000000000000TOPC";
const NAME: &str = "ops";

/// A broker that shows of one topic whatever the test wants, and the daemon of
/// alice, who believes it nothing. Bob has the owner's certificate; he leads the
/// topic. Carol is a member without one.
struct Liar {
    client: Client,
    alice: Key,
    bob: Key,
    carol: Key,
    owner: Key,
    /// What it shows in the list of members.
    members: Vec<Value>,
    /// Its row in the list of topics.
    row: Value,
    /// The statements that it shows.
    epochs: Vec<Value>,
    /// Alice's copies of the keys.
    copies: Vec<Value>,
    /// Who it says is in the topic, and who has the newest key.
    inside: Vec<&'static str>,
    holders: Vec<&'static str>,
    /// Every frame of alice, the oldest first.
    frames: Vec<Value>,
    _fake: FakeBroker,
}

/// A member as a list shows it.
fn member(id: &str, key: &Key, certificate: Option<Value>) -> Value {
    let name = id.strip_prefix("member-").unwrap_or(id);
    let mut row =
        json!({"memberId": id, "pubkey": key.public(), "displayName": name, "role": "member", "joinedAt": now_ms()});
    if let Some(certificate) = certificate {
        row["certificate"] = certificate;
    }
    row
}

impl Liar {
    /// Alice is connected and knows bob and carol; of topics she has heard nothing.
    async fn start() -> (Self, Daemon) {
        let (mut fake, owner, carol) = (FakeBroker::start().await, Key::random(), Key::random());
        fake.carol = Some(carol.clone());
        let mut alice = fake.member("alice");
        let path = alice.home().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).expect("config.json")).expect("JSON");
        config["meshes"][0]["ownerPubkey"] = json!(owner.public());
        std::fs::write(&path, config.to_string()).expect("config.json");
        let secret = config["meshes"][0]["secretKey"].as_str().expect("a key").to_owned();
        let seed: [u8; 32] = hex::decode(&secret[..64]).expect("hex").try_into().expect("32 bytes");
        alice.start().await;
        let mut client = fake.accept().await;
        client.welcome().await;
        client.negotiate(&[ALL_BITS, &["topic_e2e", "key_epoch"]].concat()).await;
        let (own, bob) = (Key::from_seed(seed), fake.bob.clone());
        let of_bob = certificate(MESH, &owner, &bob.public(), "member");
        let members = vec![
            member("member-alice", &own, None),
            member("member-bob", &bob, Some(of_bob)),
            member("member-carol", &carol, None),
        ];
        let row = json!({"id": TOPIC, "name": NAME, "visibility": "public", "memberCount": 2,
            "createdAt": "2026-01-01T00:00:00.000Z", "epoch": 1, "joined": false});
        let mut liar = Self {
            client,
            alice: own,
            bob,
            carol,
            owner,
            members,
            row,
            epochs: Vec::new(),
            copies: Vec::new(),
            inside: vec!["member-bob", "member-alice"],
            holders: vec!["member-bob", "member-alice"],
            frames: Vec::new(),
            _fake: fake,
        };
        for name in ["bob", "carol"] {
            liar.serving(alice.knows(name)).await;
        }
        (liar, alice)
    }

    /// The same, and alice reads the topic, whose first key bob made.
    async fn with_topic() -> (Self, Daemon, TopicKey) {
        let (mut liar, alice) = Self::start().await;
        let key = topic_key();
        liar.epochs = vec![epoch(1, None, &key).signed_by("member-bob", &liar.bob)];
        liar.copies = vec![liar.copy(1, &key)];
        let topic = liar.subscribe(&alice).await;
        assert_eq!((&topic["waiting_for_key"], &topic["epoch"]), (&json!(false), &json!(1)), "{topic}");
        (liar, alice, key)
    }

    /// Alice's copy of a key.
    fn copy(&self, epoch: u32, key: &TopicKey) -> Value {
        let mut copy = sealed_copy(&self.bob, "member-alice", &self.alice.public(), key);
        copy["epoch"] = json!(epoch);
        copy
    }

    /// Answers what alice asks until something is done.
    async fn serving<T>(&mut self, call: impl Future<Output = T>) -> T {
        let mut call = std::pin::pin!(call);
        loop {
            tokio::select! {
                done = &mut call => return done,
                // Without a deadline: what is waited for has its own.
                frame = self.client.read() => self.answer(frame.expect("alice stays")).await,
            }
        }
    }

    async fn answer(&mut self, frame: Value) {
        let after = frame["afterEpoch"].as_u64().unwrap_or(0);
        let answer = match frame["type"].as_str().unwrap_or_default() {
            "list_peers" => json!({"type": "peers_list", "peers": []}),
            "member_list" => json!({"type": "members_list", "members": self.members}),
            "topic_list" => json!({"type": "topic_list_response", "topics": [self.row]}),
            "topic_join" | "topic_leave" | "topic_key_put" => {
                self.row["joined"] = json!(frame["type"] != "topic_leave");
                json!({"type": "ack", "id": "", "messageId": "", "queued": false})
            }
            "topic_key_get" => {
                let later = |epoch: &&Value| epoch["epoch"].as_u64().is_none_or(|epoch| epoch > after);
                let epochs: Vec<&Value> = self.epochs.iter().filter(later).collect();
                json!({"type": "topic_keys", "topicId": TOPIC, "epochs": epochs, "keys": self.copies, "more": false,
                    "members": self.inside, "holders": self.holders})
            }
            "send" => json!({"type": "ack", "id": frame["id"], "queued": true, "duplicate": false,
                "messageId": keys::base64url(&keys::random_bytes(9))}),
            _ => Value::Null,
        };
        let mut answer = answer;
        if answer.is_object() {
            answer["_reqId"] = frame["_reqId"].clone();
            self.client.send(&answer).await;
        }
        self.frames.push(frame);
    }

    fn frames_of(&self, kind: &str) -> Vec<Value> {
        self.frames.iter().filter(|frame| frame["type"] == kind).cloned().collect()
    }

    /// The posts that alice has sealed and sent.
    fn sent(&self) -> Vec<Value> {
        self.frames_of("send")
    }

    /// The next post that alice sends.
    async fn next_sent(&mut self) -> Value {
        let before = self.sent().len();
        while self.sent().len() == before {
            let frame = self.client.next().await.expect("alice stays");
            self.answer(frame).await;
        }
        self.sent().pop().expect("a post")
    }

    /// A system event.
    async fn event(&mut self, name: &str) {
        let event = json!({"type": "push", "messageId": keys::base64url(&keys::random_bytes(9)), "meshId": MESH,
            "senderPubkey": "system", "priority": "low", "nonce": "", "ciphertext": "",
            "createdAt": "2026-01-01T00:00:00.000Z", "subtype": "system", "event": name,
            "eventData": {"topicId": TOPIC, "epoch": self.row["epoch"]}});
        self.client.send(&event).await;
    }

    /// Lets alice look at the topic, until she is done with what it shows now.
    async fn shown(&mut self) {
        // She looks at one thing after the other: the second question comes when the
        // first answer has been taken in.
        for _ in 0..2 {
            let asked = self.frames_of("topic_key_get").len();
            self.event("topic_epoch").await;
            while self.frames_of("topic_key_get").len() == asked {
                let frame = self.client.next().await.expect("alice stays");
                self.answer(frame).await;
            }
        }
    }

    /// Alice subscribes; the topic as her daemon shows it.
    async fn subscribe(&mut self, alice: &Daemon) -> Value {
        let http = alice.http();
        let body = json!({"topic": NAME});
        let answer = self.serving(http.post("/v1/topic/subscribe", &body).send()).await.expect(200).json();
        answer["topic"].clone()
    }

    /// Alice posts, which is queued; the id.
    async fn post(&mut self, alice: &Daemon, text: &str) -> String {
        let http = alice.http();
        let body = json!({"topic": NAME, "message": text});
        let answer = self.serving(http.post("/v1/topic/post", &body).send()).await.expect(202).json();
        answer["client_message_id"].as_str().expect("an id").to_owned()
    }

    /// A post stays in the outbox for this reason, and nothing of it has left. It
    /// must be the oldest: those behind it are not tried.
    async fn stays(&mut self, alice: &Daemon, id: &str, why: &str) {
        let db = alice.outbox_db().await;
        let rest = format!("FROM outbox WHERE client_message_id = '{id}'");
        let what = format!("{id} to wait because of {why:?}");
        let held = wait::until(&what, async || {
            let row = db.objects("status, last_error", &rest).await.into_iter().next()?;
            let waits =
                row["status"] == "pending" && row["last_error"].as_str().is_some_and(|error| error.contains(why));
            waits.then_some(())
        });
        self.serving(held).await;
        db.close().await;
        assert!(self.sent().iter().all(|sent| sent["id"] != id), "{:?}", self.sent());
    }

    /// The topic as alice's daemon lists it.
    async fn listed(&mut self, alice: &Daemon) -> Value {
        let http = alice.http();
        let answer = self.serving(http.get("/v1/topic/list").send()).await.expect(200).json();
        answer["topics"][0].clone()
    }

    /// Pushes a post of bob's.
    async fn push(&mut self, message_id: &str, id: &str, sealed: &(Vec<u8>, Vec<u8>), more: Value) {
        let hello = self.client.hello.clone();
        let mut push = push_frame(&hello, &self.bob, message_id, Some(id), &sealed.0, &sealed.1);
        // What the topic is called is the daemon's to know.
        push["topic"] = json!("another");
        push["topicId"] = json!(TOPIC);
        push["keyEpoch"] = json!(1);
        push["bodyVersion"] = json!(2);
        for (field, value) in more.as_object().expect("fields") {
            push[field] = value.clone();
        }
        self.client.send(&push).await;
    }
}

/// The beginning of an epoch of the topic, for alice and bob.
fn epoch<'a>(number: u32, before: Option<&Value>, key: &'a TopicKey) -> Epoch<'a> {
    Epoch {
        mesh_id: MESH,
        topic_id: TOPIC,
        name: NAME,
        epoch: number,
        predecessor: before.and_then(|before| topics::hash(MESH, before)),
        key,
        members: &["member-alice", "member-bob"],
    }
}

fn post<'a>(id: &'a str, body: &'a str) -> Post<'a> {
    Post { mesh_id: MESH, topic_id: TOPIC, epoch: 1, id, body }
}
