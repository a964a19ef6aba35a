//! Invites that cannot be used, and meshes that cannot be made.

use serde_json::Value;

use super::servers::{self, TlsServer};
use super::table::{Case, End, Heard, Row, bytes, run};
use crate::support::broker::Broker;
use crate::support::daemon::Daemon;
use crate::support::keys::{self, Key, now_ms};
use crate::support::mesh::{Invite, Mesh};

/// Alice is a member of the mesh; Carol, who is a member of another one, is not.
struct World {
    broker: Broker,
    mesh: Mesh,
    alice: Daemon,
    carol: Daemon,
    tls: TlsServer,
}

impl World {
    async fn start() -> Self {
        let broker = Broker::start().await;
        let mesh = Mesh::create(&broker, "demo").await;
        let alice = Daemon::joined(&broker, &mesh, "alice").await;
        let first = Mesh::create(&broker, "first").await;
        let carol = Daemon::joined(&broker, &first, "carol").await;
        Self { broker, mesh, alice, carol, tls: TlsServer::start().await }
    }

    /// Carol tries to join; what she has joined before stays.
    async fn join(&self, link: &str) -> Heard {
        self.carol_runs(&["join", link, "--display-name", "carol"]).await
    }

    async fn carol_runs(&self, arguments: &[&str]) -> Heard {
        let config = self.carol.home().join("config.json");
        let before = bytes(&config);
        let heard = Heard::command(&self.carol.cli(arguments).await);
        assert_eq!(bytes(&config), before, "what was joined before is as it was");
        heard
    }

    /// An invite to the mesh that names another broker.
    fn invite_to(&self, url: &str) -> String {
        let mesh = Mesh { url: url.to_owned(), ..self.mesh.clone() };
        link(&mesh.payload(&mesh.owner, hour(), "member"))
    }

    async fn create(&self, token_file: &str) -> Heard {
        let url = self.broker.url();
        self.carol_runs(&["mesh", "create", "demo", "--broker", &url, "--admin-token-file", token_file]).await
    }
}

fn link(payload: &Value) -> String {
    Invite { token: keys::base64url(payload.to_string().as_bytes()), payload: payload.clone() }.link()
}

/// In an hour, as an invite says it.
fn hour() -> i64 {
    now_ms() / 1000 + 3600
}

fn cases() -> Vec<Case<World>> {
    let mut cases = invites();
    cases.extend(brokers());
    cases.extend(meshes());
    cases
}

fn invites() -> Vec<Case<World>> {
    vec![
        Case {
            name: "invite_expired",
            cause: "The invite's time is over.",
            code: "invite_expired",
            end: End::Exit(1),
            place: &["the invite has expired"],
            help: "ask the mesh's owner for a new link",
            act: |world| {
                Box::pin(async move {
                    let payload = world.mesh.payload(&world.mesh.owner, now_ms() / 1000 - 60, "member");
                    world.join(&link(&payload)).await
                })
            },
        },
        Case {
            name: "invite_used_up",
            cause: "The invite was used as often as it may be.",
            code: "join_refused",
            end: End::Exit(1),
            place: &["http://127.0.0.1:<port>", "the invite was used as often as it may be"],
            help: "ask the mesh's owner for a new link",
            act: |world| {
                Box::pin(async move {
                    let invite = world.mesh.invite(&world.broker, 1).await.link();
                    let _bob = Daemon::joined_by(&invite, "demo", "bob").await;
                    world.join(&invite).await
                })
            },
        },
        Case {
            name: "invite_forged",
            cause: "The invite was not signed by the mesh's owner.",
            code: "invite_invalid",
            end: End::Exit(1),
            place: &["the invite's signature is not the owner's"],
            help: "ask the mesh's owner for a new link",
            act: |world| {
                Box::pin(async move {
                    let payload = world.mesh.payload(&Key::random(), hour(), "member");
                    world.join(&link(&payload)).await
                })
            },
        },
        Case {
            name: "invite_cut_off",
            cause: "The link was not copied as a whole.",
            code: "invite_invalid",
            end: End::Exit(1),
            place: &["the invite is damaged"],
            help: "copy the whole link",
            act: |world| {
                Box::pin(async move {
                    let whole = world.mesh.invite(&world.broker, 1).await.link();
                    // A length that no whole base64 text has.
                    world.join(&whole[.."ic://join/".len() + 89]).await
                })
            },
        },
        Case {
            name: "invite_key_cut_off",
            cause: "The part of the link behind # was not copied as a whole.",
            code: "invite_invalid",
            end: End::Exit(1),
            place: &["the part of the link behind # is cut off or changed"],
            help: "copy the whole link",
            act: |world| {
                Box::pin(async move {
                    let whole = world.mesh.invite(&world.broker, 1).await.link();
                    world.join(&format!("{whole}#{}", "A".repeat(100))).await
                })
            },
        },
        Case {
            name: "invite_is_none",
            cause: "What was given is no invite.",
            code: "invite_invalid",
            end: End::Exit(1),
            place: &["this is no invite"],
            help: "claudemesh join 'ic://join/...'",
            act: |world| Box::pin(async move { world.join("https://mesh.example/").await }),
        },
    ]
}

fn brokers() -> Vec<Case<World>> {
    vec![
        Case {
            name: "join_broker_away",
            cause: "Nothing listens at the broker's address in the invite.",
            code: "broker_unreachable",
            end: End::Exit(1),
            place: &["http://127.0.0.1:<port>", "connection refused"],
            help: "check the address and that the broker runs",
            act: |world| {
                Box::pin(
                    async move { world.join(&world.invite_to(&format!("ws://{}/ws", servers::nobody().await))).await },
                )
            },
        },
        Case {
            name: "join_name_does_not_resolve",
            cause: "The name of the broker in the invite does not resolve.",
            code: "broker_unreachable",
            end: End::Exit(1),
            place: &["https://broker.invalid", "the name does not resolve"],
            help: "check the address and that the broker runs",
            act: |world| Box::pin(async move { world.join(&world.invite_to("wss://broker.invalid/ws")).await }),
        },
        Case {
            name: "join_not_a_broker",
            cause: "A web server answers at the broker's address in the invite.",
            code: "not_a_broker",
            end: End::Exit(1),
            place: &["http://127.0.0.1:<port>/join", "HTTP 404"],
            help: "check that this is a claudemesh broker",
            act: |world| {
                Box::pin(async move {
                    world.join(&world.invite_to(&format!("ws://{}/ws", servers::web_server().await))).await
                })
            },
        },
        Case {
            name: "join_wrong_broker",
            cause: "The broker in the invite does not have the mesh.",
            code: "join_refused",
            end: End::Exit(1),
            place: &["http://127.0.0.1:<port>", "it has no such mesh"],
            help: "check that this is the mesh's broker",
            act: |world| {
                Box::pin(async move {
                    let other = Broker::start().await;
                    world.join(&world.invite_to(&other.url())).await
                })
            },
        },
        Case {
            name: "join_tls_expected",
            cause: "The invite says `wss://`, and the broker is served without TLS.",
            code: "broker_tls_failed",
            end: End::Exit(1),
            place: &["https://127.0.0.1:<port>", "does not speak TLS"],
            help: "ask the mesh's owner for one whose address fits",
            act: |world| {
                Box::pin(async move {
                    let url = format!("wss://{}/ws", world.broker.address());
                    world.join(&world.invite_to(&url)).await
                })
            },
        },
        Case {
            name: "join_tls_not_expected",
            cause: "The invite says `ws://`, and the broker is served with TLS.",
            code: "broker_unreachable",
            end: End::Exit(1),
            place: &["http://127.0.0.1:<port>", "as a server with TLS (wss://) does"],
            help: "check the address",
            act: |world| {
                Box::pin(async move {
                    let url = format!("ws://{}/ws", world.tls.address);
                    world.join(&world.invite_to(&url)).await
                })
            },
        },
        Case {
            name: "join_certificate_not_trusted",
            cause: "This host does not trust the broker's certificate.",
            code: "broker_tls_failed",
            end: End::Exit(1),
            place: &["https://127.0.0.1:<port>", "its certificate is not trusted here"],
            help: "install the certificate's authority on this host",
            act: |world| {
                Box::pin(async move {
                    let url = format!("wss://{}/ws", world.tls.address);
                    world.join(&world.invite_to(&url)).await
                })
            },
        },
    ]
}

fn meshes() -> Vec<Case<World>> {
    vec![
        Case {
            name: "mesh_exists",
            cause: "The broker has a mesh of that name already.",
            code: "mesh_exists",
            end: End::Exit(1),
            place: &["http://127.0.0.1:<port>", "\"demo\""],
            help: "choose another name, or ask its owner for an invite",
            act: |world| {
                Box::pin(async move {
                    let token = world.broker.admin_token_file().display().to_string();
                    world.create(&token).await
                })
            },
        },
        Case {
            name: "admin_token_refused",
            cause: "The admin token is that of another broker.",
            code: "admin_token_refused",
            end: End::Exit(1),
            place: &["http://127.0.0.1:<port>"],
            help: "the token is in the file admin_token of that broker's directory",
            act: |world| {
                Box::pin(async move {
                    let file = world.carol.home().join("wrong_token");
                    std::fs::write(&file, "wrong").expect("a token");
                    world.create(&file.display().to_string()).await
                })
            },
        },
        Case {
            name: "admin_token_missing",
            cause: "The file with the admin token does not exist.",
            code: "admin_token_refused",
            end: End::Exit(1),
            place: &["/nonexistent/admin_token does not exist"],
            help: "--admin-token-file",
            act: |world| Box::pin(async move { world.create("/nonexistent/admin_token").await }),
        },
        Case {
            name: "owner_key_missing",
            cause: "Only the account that created a mesh can invite.",
            code: "owner_key_missing",
            end: End::Exit(1),
            place: &["\"demo\"", "<home>/owners"],
            help: "make the invite on the host where the mesh was created",
            act: |world| Box::pin(async move { Heard::command(&world.alice.cli(&["mesh", "invite", "demo"]).await) }),
        },
    ]
}

pub(super) fn rows() -> Vec<Row> {
    cases().iter().map(Case::row).collect()
}

#[tokio::test]
async fn a_join_that_fails_says_why_and_a_good_invite_still_works() {
    let mut world = World::start().await;
    run(&mut world, &cases()).await;
    let good = world.mesh.invite(&world.broker, 1).await.link();
    world.carol.cli(&["join", &good, "--display-name", "carol"]).await.ok();
}
