//! Topics at the broker: who is in them, to whom posts go, and the epochs of
//! their keys.

mod epochs;
mod keys;
mod legacy;
mod news;
mod nodes;
mod posts;
mod posts_kept;

use serde_json::{Value, json};

use crate::support::mesh::RawMesh;
use crate::support::raw::{Member, Raw, send_with_id};
use crate::support::topics::{Epoch, TopicKey, opaque_copy, topic_key};

const FINGERPRINT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const NAME: &str = "ops";

/// The bits of a client that knows encrypted topics.
const BITS: &[&str] = &["topic_e2e", "key_epoch"];

/// A connection of this member that knows encrypted topics.
async fn knowing(url: &str, member: &Member) -> Raw {
    let mut hello = member.hello();
    // Who says which process it is gets nothing before it has negotiated.
    hello["instanceId"] = json!(new_id());
    hello["bootId"] = json!(new_id());
    let (mut raw, _) = Raw::hello(url, &hello).await;
    let answer = raw.negotiate(BITS, &[]).await;
    assert_eq!(answer["missing_required"], json!([]), "{answer}");
    raw
}

/// A new member with such a connection.
async fn connected(mesh: &RawMesh, name: &str) -> (Member, Raw) {
    let member = mesh.member(name).await;
    let raw = knowing(&mesh.url(), &member).await;
    (member, raw)
}

/// The answer to a request.
async fn ask(raw: &mut Raw, frame: Value) -> Value {
    raw.request(frame).await.0
}

/// Does what is answered with a bare ack.
async fn done(raw: &mut Raw, frame: Value) {
    let ack = ask(raw, frame.clone()).await;
    assert_eq!((&ack["type"], &ack["queued"]), (&json!("ack"), &json!(false)), "{frame}: {ack}");
    assert!(ack.get("error").is_none() && ack.get("code").is_none(), "{frame}: {ack}");
}

/// Asks for what is refused with this code; the ack.
async fn refused(raw: &mut Raw, frame: Value, code: &str) -> Value {
    let ack = ask(raw, frame.clone()).await;
    assert_eq!((&ack["type"], &ack["code"]), (&json!("ack"), &json!(code)), "{frame}: {ack}");
    assert!(ack["error"].as_str().is_some_and(|text| !text.is_empty()), "{ack}");
    ack
}

fn join(topic: &str) -> Value {
    json!({"type": "topic_join", "topic": topic})
}

fn leave(topic: &str) -> Value {
    json!({"type": "topic_leave", "topic": topic})
}

/// Makes a topic of the first version; its id.
async fn legacy_topic(raw: &mut Raw, name: &str) -> String {
    let made = ask(raw, json!({"type": "topic_create", "name": name})).await;
    assert_eq!((&made["type"], &made["created"]), (&json!("topic_created"), &json!(true)), "{made}");
    made["topic"]["id"].as_str().expect("an id").to_owned()
}

/// An encrypted topic, and what its keys are for.
struct Topic {
    id: String,
    mesh_id: String,
    /// The newest statement.
    head: Value,
}

impl Topic {
    /// Makes one that this member leads.
    async fn create(raw: &mut Raw, lead: &Member) -> Self {
        let mut topic = Self { id: new_id(), mesh_id: lead.mesh_id.clone(), head: Value::Null };
        topic.head = topic.statement(1, None, &[lead], lead);
        let made = ask(raw, topic.creation()).await;
        assert_eq!((&made["type"], &made["created"]), (&json!("topic_created"), &json!(true)), "{made}");
        assert_eq!(made["topic"]["id"], topic.id.as_str(), "{made}");
        topic
    }

    /// The frame that makes it.
    fn creation(&self) -> Value {
        let keys = [opaque_copy(self.head["signer"].as_str().expect("a signer"))];
        json!({"type": "topic_create", "name": NAME, "statement": self.head, "keys": keys})
    }

    fn statement(&self, epoch: u32, before: Option<&Value>, members: &[&Member], signer: &Member) -> Value {
        let key = topic_key();
        self.epoch(epoch, before, &key, &ids(members)).signed_by(&signer.member_id, &signer.key)
    }

    fn epoch<'a>(&'a self, epoch: u32, before: Option<&Value>, key: &'a TopicKey, members: &'a [&'a str]) -> Epoch<'a> {
        let predecessor = before.and_then(|before| crate::support::topics::hash(&self.mesh_id, before));
        Epoch { mesh_id: &self.mesh_id, topic_id: &self.id, name: NAME, epoch, predecessor, key, members }
    }

    /// The frame that goes on to the next epoch, for these members.
    fn next(&self, members: &[&Member], signer: &Member) -> Value {
        let epoch = self.head["epoch"].as_u64().and_then(|epoch| u32::try_from(epoch).ok()).expect("an epoch");
        let statement = self.statement(epoch + 1, Some(&self.head), members, signer);
        let keys: Vec<Value> = members.iter().map(|member| opaque_copy(&member.member_id)).collect();
        json!({"type": "topic_epoch_new", "statement": statement, "keys": keys})
    }

    /// Goes on to the next epoch, which must be taken.
    async fn renew(&mut self, raw: &mut Raw, members: &[&Member], signer: &Member) {
        let frame = self.next(members, signer);
        let answer = ask(raw, frame.clone()).await;
        assert_eq!((&answer["type"], &answer["accepted"]), (&json!("topic_epoch"), &json!(true)), "{answer}");
        assert_eq!(answer["statement"], frame["statement"], "{answer}");
        self.head = frame["statement"].clone();
    }

    /// Copies of the newest key for these members.
    fn put(&self, members: &[&Member]) -> Value {
        let keys: Vec<Value> = members.iter().map(|member| opaque_copy(&member.member_id)).collect();
        json!({"type": "topic_key_put", "topicId": self.id, "epoch": self.head["epoch"], "keys": keys})
    }

    fn get(&self) -> Value {
        json!({"type": "topic_key_get", "topicId": self.id})
    }

    /// A post under the key of this epoch.
    fn post(&self, id: &str, epoch: u32) -> Value {
        let mut frame = post(&self.id, id);
        frame["bodyVersion"] = json!(2);
        frame["keyEpoch"] = json!(epoch);
        frame["topicId"] = json!(self.id);
        frame
    }
}

fn ids<'a>(members: &[&'a Member]) -> Vec<&'a str> {
    members.iter().map(|member| member.member_id.as_str()).collect()
}

/// An id as topics have it: 26 characters.
fn new_id() -> String {
    format!("01J{}", &hex::encode_upper(crate::support::keys::random_bytes(12))[..23])
}

/// A post in clear, with an idempotency id.
fn post(topic_id: &str, id: &str) -> Value {
    send_with_id(&format!("#{topic_id}"), id, FINGERPRINT)
}

/// Sends it, and it must be taken; the ack.
async fn posted(raw: &mut Raw, frame: Value) -> Value {
    let ack = ask(raw, frame.clone()).await;
    assert_eq!((&ack["type"], &ack["queued"]), (&json!("ack"), &json!(true)), "{frame}: {ack}");
    ack
}

/// Revokes a member.
async fn revoke(mesh: &RawMesh, member: &Member) {
    let frame = json!({"type": "member_revoke", "memberId": member.member_id});
    mesh.mesh.admin(&mesh.broker, &mesh.mesh.owner, frame).await.expect(200);
}

/// A single number from the broker's tables.
async fn number(mesh: &RawMesh, sql: &str) -> i64 {
    let db = mesh.broker.tables().await;
    let number = db.number(sql).await;
    db.close().await;
    number
}

/// Changes the broker's tables from beside.
async fn change(mesh: &RawMesh, sql: &str) {
    let db = mesh.broker.tables().await;
    db.run(sql).await;
    db.close().await;
}

/// Everything of the topics' news that came to this connection so far, by name.
async fn news(raw: &mut Raw) -> Vec<String> {
    let (_, before) = raw.request(json!({"type": "list_peers"})).await;
    let events = before.iter().filter_map(|frame| frame["event"].as_str());
    events.filter(|event| event.starts_with("topic_")).map(str::to_owned).collect()
}
