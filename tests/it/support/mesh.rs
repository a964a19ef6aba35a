//! Meshes and members, made over the broker's HTTP side by hand.

use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::{Value, json};

use super::broker::Broker;
use super::http::Response;
use super::keys::{self, Key, now_ms};
use super::postgres::Backend;
use super::raw::{Member, Raw};

/// A mesh with the owner's key.
#[derive(Clone)]
pub(crate) struct Mesh {
    pub(crate) id: String,
    pub(crate) slug: String,
    pub(crate) owner: Key,
    pub(crate) url: String,
}

/// An invite that the broker knows.
#[derive(Clone)]
pub(crate) struct Invite {
    pub(crate) token: String,
    pub(crate) payload: Value,
}

impl Invite {
    /// The link that the command line takes.
    pub(crate) fn link(&self) -> String {
        format!("ic://join/{}", self.token)
    }
}

impl Mesh {
    /// A new mesh on the broker.
    pub(crate) async fn create(broker: &Broker, slug: &str) -> Self {
        Self::create_with(broker, json!({"slug": slug})).await
    }

    /// A new mesh with further fields of the request.
    pub(crate) async fn create_with(broker: &Broker, mut body: Value) -> Self {
        let owner = Key::random();
        body["owner_pubkey"] = json!(owner.public());
        let answer =
            broker.http().post("/v1/meshes", &body).bearer(&broker.admin_token()).send().await.expect(201).json();
        let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        Self { id: text("mesh_id"), slug: text("slug"), owner, url: broker.url() }
    }

    /// The same mesh for members who connect to another broker over its database.
    pub(crate) fn at(&self, broker: &Broker) -> Self {
        Self { id: self.id.clone(), slug: self.slug.clone(), owner: self.owner.clone(), url: broker.url() }
    }

    /// The payload of an invite, signed by `signer`.
    pub(crate) fn payload(&self, signer: &Key, expires_at_s: i64, role: &str) -> Value {
        let root_key = keys::base64url(&[9; 32]);
        let owner = self.owner.public();
        let signed = format!("1|{}|{}|{}|{expires_at_s}|{root_key}|{role}|{owner}", self.id, self.slug, self.url);
        json!({
            "v": 1,
            "mesh_id": self.id,
            "mesh_slug": self.slug,
            "broker_url": self.url,
            "expires_at": expires_at_s,
            "mesh_root_key": root_key,
            "role": role,
            "owner_pubkey": owner,
            "signature": signer.sign(&signed),
        })
    }

    /// An invite for `uses` members, registered at the broker.
    pub(crate) async fn invite(&self, broker: &Broker, uses: u32) -> Invite {
        // An invite holds nothing random: two of one second would be the same.
        static NUMBER: AtomicI64 = AtomicI64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        self.invite_until(broker, uses, now_ms() / 1000 + 3600 + number * 3600).await
    }

    /// An invite that ends at a second of one's choice.
    pub(crate) async fn invite_until(&self, broker: &Broker, uses: u32, expires_at_s: i64) -> Invite {
        let payload = self.payload(&self.owner, expires_at_s, "member");
        let token = keys::base64url(payload.to_string().as_bytes());
        let invite = Invite { token, payload };
        self.register(broker, &invite, uses, &self.owner).await.expect(201);
        invite
    }

    /// Registers an invite with a request signed by `signer`.
    pub(crate) async fn register(&self, broker: &Broker, invite: &Invite, uses: u32, signer: &Key) -> Response {
        use sha2::Digest as _;
        let (token, now) = (hex::encode(sha2::Sha256::digest(&invite.token)), now_ms());
        let signed = format!("claudemesh-invite-register|v1|{}|{token}|{uses}|{now}", self.id);
        let body = json!({
            "token": invite.token,
            "payload": invite.payload,
            "max_uses": uses,
            "ts": now,
            "signature": signer.sign(&signed),
        });
        broker.http().post(&format!("/v1/meshes/{}/invites", self.id), &body).send().await
    }

    /// A request about the mesh, signed by `signer` at this moment.
    pub(crate) fn signed(&self, signer: &Key, frame: Value) -> Value {
        self.signed_at(signer, frame, now_ms())
    }

    /// A request about the mesh, signed by `signer` at another moment.
    pub(crate) fn signed_at(&self, signer: &Key, mut frame: Value, ts: i64) -> Value {
        use sha2::Digest as _;
        frame["meshId"] = json!(self.id);
        let fields: std::collections::BTreeMap<&String, &Value> =
            frame.as_object().expect("a frame is an object").iter().collect();
        let canonical = serde_json::to_string(&fields).expect("JSON");
        let hash = hex::encode(sha2::Sha256::digest(canonical));
        let key = signer.public();
        let signature = signer.sign(&format!("claudemesh-admin|v1|{}|{key}|{hash}|{ts}", self.id));
        frame["auth"] = json!({"signer": key, "ts": ts, "signature": signature});
        frame
    }

    /// Posts a request about the mesh.
    pub(crate) async fn admin(&self, broker: &Broker, signer: &Key, frame: Value) -> Response {
        let frame = self.signed(signer, frame);
        broker.http().post(&format!("/v1/meshes/{}/admin", self.id), &frame).send().await
    }

    /// A new member who may administer the mesh.
    pub(crate) async fn join_admin(&self, broker: &Broker, name: &str) -> Member {
        let payload = self.payload(&self.owner, now_ms() / 1000 + 7200, "admin");
        let invite = Invite { token: keys::base64url(payload.to_string().as_bytes()), payload };
        self.register(broker, &invite, 100, &self.owner).await;
        self.join_with(broker, &invite, name).await
    }

    async fn join_with(&self, broker: &Broker, invite: &Invite, name: &str) -> Member {
        let key = Key::random();
        let answer = post_join(broker, invite, &key, name).await.expect(200).json();
        assert_eq!(answer["ok"], true, "{answer}");
        let member_id = answer["memberId"].as_str().expect("memberId").to_owned();
        Member { mesh_id: self.id.clone(), member_id, key, name: name.to_owned() }
    }

    /// A certificate for this key, by an invite key that `owner` signed.
    pub(crate) fn certificate(&self, owner: &Key, member: &str, role: &str) -> Value {
        certificate(&self.id, owner, member, role)
    }

    /// A new member with a fresh key.
    pub(crate) async fn join(&self, broker: &Broker, name: &str) -> Member {
        let invite = self.invite(broker, 1).await;
        self.join_with(broker, &invite, name).await
    }
}

/// A certificate of any mesh, owner and member, made by hand.
pub(crate) fn certificate(mesh_id: &str, owner: &Key, member: &str, role: &str) -> Value {
    let (key, expires_at) = (Key::random(), 1_900_000_000);
    let invite = key.public();
    let by_owner = format!("claudemesh-invite-key|v1|{mesh_id}|{invite}|{role}|{expires_at}");
    let by_invite = format!("claudemesh-member-certificate|v1|{mesh_id}|{member}|{invite}|{role}|{expires_at}");
    json!({
        "memberPubkey": member,
        "invitePubkey": invite,
        "role": role,
        "expiresAt": expires_at,
        "ownerSignature": owner.sign(&by_owner),
        "inviteSignature": key.sign(&by_invite),
    })
}

/// `POST /join`, whatever the answer.
pub(crate) async fn post_join(broker: &Broker, invite: &Invite, key: &Key, name: &str) -> Response {
    post_join_with(broker, invite, key, name, &json!({})).await
}

/// The same with further fields.
pub(crate) async fn post_join_with(broker: &Broker, invite: &Invite, key: &Key, name: &str, more: &Value) -> Response {
    let mut body = join_body(invite, key, name);
    for (field, value) in more.as_object().expect("fields") {
        body[field] = value.clone();
    }
    broker.http().post("/join", &body).send().await
}

/// What `POST /join` takes.
pub(crate) fn join_body(invite: &Invite, key: &Key, name: &str) -> Value {
    json!({
        "invite_token": invite.token,
        "invite_payload": invite.payload,
        "peer_pubkey": key.public(),
        "display_name": name,
    })
}

/// A broker, a mesh on it and members who speak raw frames.
pub(crate) struct RawMesh {
    pub(crate) broker: Broker,
    pub(crate) mesh: Mesh,
}

impl RawMesh {
    pub(crate) async fn start(backend: Backend) -> Self {
        Self::with(backend, &[]).await
    }

    /// With settings of the broker.
    pub(crate) async fn with(backend: Backend, settings: &[(&str, &str)]) -> Self {
        Self::on(Broker::with(backend, settings).await).await
    }

    /// With the broker's `broker.toml`.
    pub(crate) async fn configured(backend: Backend, toml: &str) -> Self {
        Self::on(Broker::configured(backend, toml).await).await
    }

    /// With that rule for a second connection of a member.
    pub(crate) async fn with_policy(backend: Backend, policy: &str) -> Self {
        let broker = Broker::on(backend).await;
        let mesh = Mesh::create_with(&broker, json!({"slug": "demo", "concurrency_policy": policy})).await;
        Self { broker, mesh }
    }

    async fn on(broker: Broker) -> Self {
        let mesh = Mesh::create(&broker, "demo").await;
        Self { broker, mesh }
    }

    pub(crate) async fn member(&self, name: &str) -> Member {
        self.mesh.join(&self.broker, name).await
    }

    /// A new member, connected.
    pub(crate) async fn connected(&self, name: &str) -> (Member, Raw) {
        let member = self.member(name).await;
        let raw = Raw::member(&self.broker.url(), &member).await;
        (member, raw)
    }

    pub(crate) fn url(&self) -> String {
        self.broker.url()
    }
}
