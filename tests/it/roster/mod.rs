//! Whom the daemon trusts: what a broker must offer, which key is a member's,
//! and how a key is replaced by the next.

mod certificates;
mod erasure;
mod negotiation;
mod pinning;
mod presence;
mod profile;
mod provenance;
mod rotation;
#[cfg(feature = "failpoints")]
mod rotation_faults;
mod rotation_nodes;
mod rotation_waiting;
mod verify;

use crate::support::daemon::Daemon;
use crate::support::keys::Key;
use crate::support::wait;
use serde_json::{Value, json};

/// A statement by which a member of the fake mesh changes its key.
fn rotation(member_id: &str, seq: u64, old: &Key, new: &Key) -> Value {
    let (ts, from, to) = (crate::support::keys::now_ms(), old.public(), new.public());
    let signed = format!("claudemesh-key-rotation|v1|FakeMesh|{member_id}|{seq}|{from}|{to}|{ts}");
    json!({
        "memberId": member_id,
        "seq": seq,
        "oldPubkey": from,
        "newPubkey": to,
        "ts": ts,
        "oldSignature": old.sign(&signed),
        "newSignature": new.sign(&signed),
    })
}

/// What a member of the fake mesh says that it can read.
fn capabilities(key: &Key, names: &[&str]) -> Value {
    let (ts, public) = (crate::support::keys::now_ms(), key.public());
    let signed = format!("claudemesh-capabilities|v1|FakeMesh|{public}|{}|{ts}", names.join(","));
    json!({"capabilities": names, "ts": ts, "signature": key.sign(&signed)})
}

/// `GET /v1/keys/pinned`: the member of that name.
async fn pinned(daemon: &Daemon, name: &str) -> Value {
    let answer = daemon.http().get("/v1/keys/pinned").send().await.expect(200).json();
    let members = answer["members"].as_array().expect("members").clone();
    let found = members.into_iter().find(|member| member["display_name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {answer}"))
}

/// `GET /v1/peers`, offline ones included: the member of that name.
async fn peer(daemon: &Daemon, name: &str) -> Option<Value> {
    let answer = daemon.http().get("/v1/peers?include_offline=true&limit=1000").send().await.expect(200).json();
    answer["peers"].as_array().expect("peers").iter().find(|peer| peer["display_name"] == name).cloned()
}

/// Waits until the daemon shows the member of that name as it should.
async fn sees(daemon: &Daemon, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) {
    wait::until(what, async || peer(daemon, name).await.filter(|peer| is_so(peer)).map(drop)).await;
}
