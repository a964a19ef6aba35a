//! Sends that are wrong in themselves, over the command line, REST and gRPC.

use serde_json::{Value, json};
use tonic::Code;

use super::table::{Case, End, Heard, Row, run};
use crate::support::broker::Broker;
use crate::support::cli::Ran;
use crate::support::daemon::{Daemon, unique};
use crate::support::fake_broker::FakeBroker;
use crate::support::grpc::{self, send_request};
use crate::support::http::Request;
use crate::support::keys::now_ms;
use crate::support::mesh::Mesh;
use crate::support::process;
use crate::support::sqlite::Db;

/// Alice and Bob, and two members whose keys begin with the same digits.
struct World {
    _broker: Broker,
    alice: Daemon,
    bob: Daemon,
}

/// What the keys of both twins begin with.
const TWINS: &str = "c0ffeec0ffeec0ff";

impl World {
    async fn start() -> Self {
        let broker = Broker::start().await;
        let mesh = Mesh::create(&broker, "demo").await;
        add_twins(&broker, &mesh).await;
        let alice = Daemon::join(&broker, &mesh, "alice").await;
        let bob = Daemon::join(&broker, &mesh, "bob").await;
        for name in ["bob", "twin-a", "twin-b"] {
            alice.knows(name).await;
        }
        bob.connected().await;
        bob.knows("alice").await;
        Self { _broker: broker, alice, bob }
    }

    /// The command `send` with these arguments.
    async fn send(&self, arguments: &[&str]) -> Heard {
        let before = self.rows().await;
        let heard = Heard::command(&self.alice.cli(&[&["send"], arguments].concat()).await);
        self.nothing_happened(before).await;
        heard
    }

    /// The command with a text that no argument could hold.
    async fn send_input(&self, text: &str) -> Heard {
        let before = self.rows().await;
        let input = self.alice.home().join("input");
        std::fs::write(&input, text).expect("the input");
        let mut command = process::command(self.alice.home());
        command.args(["send", "bob", "-"]).stdin(std::fs::File::open(&input).expect("the input"));
        let output = tokio::process::Command::from(command).output().await.expect("the binary runs");
        let heard = Heard::command(&Ran::of(&output));
        self.nothing_happened(before).await;
        heard
    }

    /// `POST /v1/send` with this body, as JSON unless it says otherwise.
    async fn post(&self, body: &Value) -> Heard {
        self.request(self.alice.http().post("/v1/send", body)).await
    }

    async fn request(&self, request: Request) -> Heard {
        let before = self.rows().await;
        let heard = Heard::rest(&request.send().await);
        self.nothing_happened(before).await;
        heard
    }

    /// `MessagingService.Send`.
    async fn call(&self, to: &str, message: &str) -> Heard {
        let before = self.rows().await;
        let mut client = grpc::messaging(&self.alice.socket()).await.max_encoding_message_size(64 << 20);
        let refused = client.send(send_request(to, message, "")).await.expect_err("the send is refused");
        self.nothing_happened(before).await;
        Heard::grpc(&refused)
    }

    async fn rows(&self) -> i64 {
        let db = self.alice.outbox_db().await;
        let rows = db.number("SELECT count(*) FROM outbox").await;
        db.close().await;
        rows
    }

    /// No row was written, none was lost, and the next message arrives.
    async fn nothing_happened(&self, before: i64) {
        assert_eq!(self.rows().await, before);
        let text = unique("after a refusal");
        self.alice.send("bob", &text).await;
        self.bob.received(&text).await;
    }
}

/// Members of the mesh whose keys nobody has, written into the broker's database
/// before anybody asks for the mesh.
async fn add_twins(broker: &Broker, mesh: &Mesh) {
    let db = Db::open(&broker.database()).await;
    let now = now_ms();
    for (name, digit) in [("twin-a", "a"), ("twin-b", "b")] {
        let (id, key, mesh) = (format!("member-{name}"), format!("{TWINS}{}", digit.repeat(48)), &mesh.id);
        db.run(&format!(
            "INSERT INTO member (id, mesh_id, pubkey, display_name, role, joined_at) \
             VALUES ('{id}', '{mesh}', '{key}', '{name}', 'member', {now})"
        ))
        .await;
        db.run(&format!(
            "INSERT INTO member_key (mesh_id, pubkey, member_id, seq, registered_at) \
             VALUES ('{mesh}', '{key}', '{id}', 0, {now})"
        ))
        .await;
    }
    db.close().await;
}

fn too_long() -> String {
    "x".repeat((1 << 20) + 1)
}

fn cases() -> Vec<Case<World>> {
    let mut cases = contents();
    cases.extend(destinations());
    cases
}

fn contents() -> Vec<Case<World>> {
    vec![
        Case {
            name: "message_too_large_cli",
            cause: "The message is longer than 1 MiB or than the broker takes.",
            code: "payload_too_large",
            end: End::Exit(2),
            place: &["standard input holds more than a message can: 1048576 bytes"],
            help: "send it in parts",
            act: |world| Box::pin(async move { world.send_input(&too_long()).await }),
        },
        Case {
            name: "message_too_large_rest",
            cause: "The message is longer than 1 MiB or than the broker takes.",
            code: "payload_too_large",
            end: End::Http(413),
            place: &["the message is 1048577 bytes long", "limit_bytes"],
            help: "send it in parts",
            act: |world| Box::pin(async move { world.post(&json!({"to": "bob", "message": too_long()})).await }),
        },
        Case {
            name: "message_too_large_grpc",
            cause: "The message is longer than 1 MiB or than the broker takes.",
            code: "payload_too_large",
            end: End::Grpc(Code::InvalidArgument),
            place: &["the message is 1048577 bytes long", "limit_bytes"],
            help: "send it in parts",
            act: |world| Box::pin(async move { world.call("bob", &too_long()).await }),
        },
        Case {
            name: "message_above_the_brokers_limit",
            cause: "The message is longer than 1 MiB or than the broker takes.",
            code: "payload_too_large",
            end: End::Http(413),
            place: &["the message is 61440 bytes long, the limit is 47104 bytes", "limit_bytes"],
            help: "send it in parts",
            act: |_| {
                Box::pin(async move {
                    // A broker of the base protocol takes frames of 64 KiB.
                    let fake = FakeBroker::start().await;
                    let mut carol = fake.member("carol");
                    carol.start().await;
                    let mut client = fake.accept().await;
                    client.welcome().await;
                    client.negotiate(&["client_message_id_dedupe", "concurrent_connection_policy"]).await;
                    client.roster().await;
                    carol.knows("bob").await;
                    let refused = carol.post_send(&json!({"to": "bob", "message": "x".repeat(60 << 10)})).await;
                    let id = carol.send("bob", "short").await;
                    assert_eq!(client.expect("send").await["client_message_id"], id.as_str());
                    Heard::rest(&refused)
                })
            },
        },
        Case {
            name: "body_too_large_rest",
            cause: "The body of a request is larger than the daemon reads.",
            code: "payload_too_large",
            end: End::Http(413),
            place: &["6815744 bytes"],
            help: "send less, or raise [limits] request_body_bytes",
            act: |world| {
                Box::pin(async move { world.post(&json!({"to": "bob", "message": "x".repeat(7 << 20)})).await })
            },
        },
        Case {
            name: "request_too_large_grpc",
            cause: "A gRPC request is larger than the daemon reads.",
            code: "payload_too_large",
            end: End::Grpc(Code::InvalidArgument),
            place: &["MessagingService/Send", "8388608 bytes"],
            help: "send it in parts",
            act: |world| Box::pin(async move { world.call("bob", &"x".repeat(9 << 20)).await }),
        },
        Case {
            name: "body_is_no_json",
            cause: "The body is not JSON.",
            code: "invalid_json",
            end: End::Http(400),
            place: &["line 1 column"],
            help: "send one JSON object",
            act: |world| {
                Box::pin(async move {
                    let request = world.alice.http().request("POST", "/v1/send");
                    world.request(request.header("Content-Type", "application/json").body("{\"to\": bob}")).await
                })
            },
        },
        Case {
            name: "unknown_field",
            cause: "A field of the body is misspelt.",
            code: "unknown_field",
            end: End::Http(400),
            place: &["mesage", "\"field\": \"mesage\""],
            help: "did you mean `message`?",
            act: |world| Box::pin(async move { world.post(&json!({"to": "bob", "mesage": "hi"})).await }),
        },
        Case {
            name: "wrong_type",
            cause: "A field of the body has the wrong type.",
            code: "invalid_argument",
            end: End::Http(400),
            place: &["\"field\": \"message\"", "not 5"],
            help: "it must be a text in quotes",
            act: |world| Box::pin(async move { world.post(&json!({"to": "bob", "message": 5})).await }),
        },
        Case {
            name: "missing_field_rest",
            cause: "A required field is missing.",
            code: "invalid_argument",
            end: End::Http(400),
            place: &["\"field\": \"message\""],
            help: "`message` is missing or empty; give it a value",
            act: |world| Box::pin(async move { world.post(&json!({"to": "bob"})).await }),
        },
        Case {
            name: "missing_field_grpc",
            cause: "A required field is missing.",
            code: "invalid_argument",
            end: End::Grpc(Code::InvalidArgument),
            place: &["BadRequest to:"],
            help: "`to` is missing or empty; give it a value",
            act: |world| Box::pin(async move { world.call("", "hi").await }),
        },
        Case {
            name: "wrong_content_type",
            cause: "The body comes without `Content-Type: application/json`.",
            code: "unsupported_media_type",
            end: End::Http(415),
            place: &["Content-Type"],
            help: "the body must come with `Content-Type: application/json`",
            act: |world| {
                Box::pin(async move {
                    let request = world.alice.http().request("POST", "/v1/send");
                    world.request(request.header("Content-Type", "text/plain").body("to=bob")).await
                })
            },
        },
        Case {
            name: "meta_is_no_json",
            cause: "`--meta` is not a JSON object.",
            code: "usage_error",
            end: End::Exit(2),
            place: &["--meta"],
            help: "such as --meta '{\"ticket\": 42}'",
            act: |world| Box::pin(async move { world.send(&["bob", "hi", "--meta", "ticket=42"]).await }),
        },
    ]
}

fn destinations() -> Vec<Case<World>> {
    vec![
        Case {
            name: "unknown_peer_cli",
            cause: "The receiver's name is misspelt.",
            code: "unknown_peer",
            end: End::Exit(1),
            place: &["`bbo`", "did you mean bob (<digits>)?"],
            help: "claudemesh peer list",
            act: |world| Box::pin(async move { world.send(&["bbo", "hi"]).await }),
        },
        Case {
            name: "unknown_peer_rest",
            cause: "The receiver's name is misspelt.",
            code: "unknown_peer",
            end: End::Http(404),
            place: &["`twin`", "\"name\": \"twin-a\"", "\"name\": \"twin-b\""],
            help: "did you mean twin-a",
            act: |world| Box::pin(async move { world.post(&json!({"to": "twin", "message": "hi"})).await }),
        },
        Case {
            name: "unknown_peer_grpc",
            cause: "Nobody in the mesh has a name like that.",
            code: "unknown_peer",
            end: End::Grpc(Code::NotFound),
            place: &["`zebra`", "alice (<digits>)"],
            help: "its members are",
            act: |world| Box::pin(async move { world.call("zebra", "hi").await }),
        },
        Case {
            name: "ambiguous_prefix_cli",
            cause: "The first digits of a key are those of several members.",
            code: "ambiguous_peer",
            end: End::Exit(2),
            place: &["`<digits>`", "twin-a (<digits>), twin-b (<digits>)"],
            help: "use the member's key, or more of its digits",
            act: |world| Box::pin(async move { world.send(&[TWINS, "hi"]).await }),
        },
        Case {
            name: "ambiguous_prefix_grpc",
            cause: "The first digits of a key are those of several members.",
            code: "ambiguous_peer",
            end: End::Grpc(Code::InvalidArgument),
            place: &["twin-a (<digits>), twin-b (<digits>)", "Candidate twin-a <key>"],
            help: "write more of the key",
            act: |world| Box::pin(async move { world.call(TWINS, "hi").await }),
        },
        Case {
            name: "prefix_too_short",
            cause: "Fewer than 16 digits of a key are given.",
            code: "unknown_peer",
            end: End::Exit(1),
            place: &["`c0ffeec0`", "these are 8", "did you mean twin-a"],
            help: "write 16 or more of its digits",
            act: |world| Box::pin(async move { world.send(&[&TWINS[..8], "hi"]).await }),
        },
    ]
}

pub(super) fn rows() -> Vec<Row> {
    cases().iter().map(Case::row).collect()
}

#[tokio::test]
async fn wrong_requests_say_which_field_is_wrong_and_store_nothing() {
    run(&mut World::start().await, &cases()).await;
}
