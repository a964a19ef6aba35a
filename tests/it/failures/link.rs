//! The way to the broker: what `daemon status` tells while there is none, and
//! how a daemon ends that must not come back.

use serde_json::json;

use super::queued::Queued;
use super::servers::{self, TlsServer};
use super::table::{Case, End, Heard, Row, last_error, run};
use crate::support::broker::Broker;
use crate::support::daemon::{Daemon, unique};
use crate::support::fake_broker::ALL_BITS;
use crate::support::keys::{self, now_ms};
use crate::support::mesh::Mesh;
use crate::support::{tools, wait};

/// How far the broker's clock is ahead in the tests, in milliseconds.
const FIVE_MINUTES: i64 = 300_000;

struct World {
    queued: Queued,
    tls: TlsServer,
}

impl World {
    /// The daemon looks for its broker at this URL; what its status says then.
    async fn at(&mut self, url: &str, code: &str) -> Heard {
        let path = self.queued.alice.home().join("config.json");
        let before = std::fs::read_to_string(&path).expect("config.json");
        let own = format!("ws://{}/ws", self.queued.fake.address());
        let after = before.replace(&own, url);
        assert_ne!(before, after);
        std::fs::write(&path, after).expect("config.json");
        self.queued.alice.start().await;
        let heard = self.while_down(code).await;
        std::fs::write(&path, before).expect("config.json");
        self.queued.kept().await;
        heard
    }

    /// What the status says once the link has failed with this code. Then the
    /// daemon stops.
    async fn while_down(&mut self, code: &str) -> Heard {
        wait::until(&format!("the link to fail with {code}"), async || {
            let status = self.queued.run(&["daemon", "status", "--mesh", "demo", "--json"]).await.ok().json();
            (last_error(&status)["code"] == code).then_some(())
        })
        .await;
        let heard = self.queued.status(code).await;
        self.queued.alice.stop().await;
        heard
    }

    /// As with a broker that never granted anything: one that did is given time.
    fn forget_features(&self) {
        let _ = std::fs::remove_file(self.queued.alice.file("broker_features.json"));
    }

    /// The broker closes with this code, and the daemon ends.
    async fn closed(&mut self, code: u16, reason: &str) -> Heard {
        self.queued.spawn();
        self.queued.fake.connect().await.close(code, reason).await;
        let heard = self.queued.ended().await;
        let End::Exit(exit) = heard.end() else { panic!("a process ends with an exit code") };
        // Whoever asks later is told as well.
        let status = self.queued.run(&["daemon", "status", "--mesh", "demo"]).await.exits(3);
        assert!(status.stderr.contains(&format!("ended with exit code {exit}")), "{}", status.stderr);
        self.queued.kept().await;
        heard
    }
}

fn cases() -> Vec<Case<World>> {
    let mut cases = addresses();
    cases.extend(tls());
    cases.extend(clocks());
    cases.extend(ends());
    cases
}

fn addresses() -> Vec<Case<World>> {
    vec![
        Case {
            name: "broker_away",
            cause: "The broker is not running, or its address is wrong.",
            code: "broker_unreachable",
            end: End::Exit(0),
            place: &["nothing listens at 127.0.0.1:<port>"],
            help: "check that the broker runs there",
            act: |world| {
                Box::pin(async move {
                    let url = format!("ws://{}/ws", servers::nobody().await);
                    world.at(&url, "broker_unreachable").await
                })
            },
        },
        Case {
            name: "broker_name_does_not_resolve",
            cause: "The name of the broker does not resolve.",
            code: "broker_unreachable",
            end: End::Exit(0),
            place: &["broker.invalid:443", "does not resolve"],
            help: "check the address and this host's name service",
            act: |world| Box::pin(async move { world.at("wss://broker.invalid/ws", "broker_unreachable").await }),
        },
        Case {
            name: "not_a_broker",
            cause: "A web server answers at the broker's address.",
            code: "not_a_broker",
            end: End::Exit(0),
            place: &["127.0.0.1:<port> is no claudemesh broker", "/ws with HTTP 404"],
            help: "check the broker's address",
            act: |world| {
                Box::pin(async move {
                    let url = format!("ws://{}/ws", servers::web_server().await);
                    world.at(&url, "not_a_broker").await
                })
            },
        },
        Case {
            name: "wrong_broker",
            cause: "The broker does not have the mesh, or no longer this member.",
            code: "hello_refused",
            end: End::Exit(0),
            place: &["the broker at ws://127.0.0.1:<port>/ws knows no member", "unauthorized"],
            help: "check that this is the mesh's broker",
            act: |world| {
                Box::pin(async move {
                    let other = Broker::start().await;
                    world.at(&other.url(), "hello_refused").await
                })
            },
        },
    ]
}

fn tls() -> Vec<Case<World>> {
    vec![
        Case {
            name: "tls_expected",
            cause: "The broker's URL says `wss://`, and the broker is served without TLS.",
            code: "broker_tls_failed",
            end: End::Exit(0),
            place: &["TLS with 127.0.0.1:<port> failed", "it does not speak TLS"],
            help: "ask the mesh's owner for an invite with the right address",
            act: |world| {
                Box::pin(async move {
                    let plain = Broker::start().await;
                    world.at(&format!("wss://{}/ws", plain.address()), "broker_tls_failed").await
                })
            },
        },
        Case {
            name: "tls_not_expected",
            cause: "The broker's URL says `ws://`, and the broker is served with TLS.",
            code: "broker_tls_failed",
            end: End::Exit(0),
            place: &["TLS with 127.0.0.1:<port> failed", "it speaks TLS"],
            help: "it must begin with wss://",
            act: |world| {
                Box::pin(async move {
                    let url = format!("ws://{}/ws", world.tls.address);
                    world.at(&url, "broker_tls_failed").await
                })
            },
        },
        Case {
            name: "certificate_not_trusted",
            cause: "This host does not trust the broker's certificate.",
            code: "broker_tls_failed",
            end: End::Exit(0),
            place: &["TLS with 127.0.0.1:<port> failed", "its certificate is not trusted here"],
            help: "install its authority among the system's certificates",
            act: |world| {
                Box::pin(async move {
                    let url = format!("wss://{}/ws", world.tls.address);
                    world.at(&url, "broker_tls_failed").await
                })
            },
        },
    ]
}

fn clocks() -> Vec<Case<World>> {
    vec![
        Case {
            name: "clock_off_refused",
            cause: "This host's clock is off; the broker said its own time, and the daemon is connected.",
            code: "clock_offset",
            end: End::Exit(0),
            place: &["this host's clock is <span> behind the broker's"],
            help: "set it, for example by NTP",
            act: |world| {
                Box::pin(async move {
                    world.queued.alice.start().await;
                    let mut first = world.queued.fake.accept().await;
                    let refusal = json!({
                        "type": "error",
                        "code": "timestamp_skew",
                        "message": "timestamp is more than 60 s from the broker's clock",
                        "brokerTime": now_ms() + FIVE_MINUTES,
                    });
                    first.send(&refusal).await;
                    first.close(1008, "timestamp_skew").await;
                    let mut second = world.queued.fake.accept().await;
                    let said = second.hello["timestamp"].as_i64().expect("a time");
                    assert!((said - now_ms() - FIVE_MINUTES).abs() < 20_000, "{said} is the broker's time");
                    let key = world.queued.alice.public();
                    let signed = format!("FakeMesh|member-alice|{key}|{said}");
                    assert!(keys::verifies(&key, &signed, second.hello["signature"].as_str().expect("signature")));
                    second.welcome_at(now_ms() + FIVE_MINUTES).await;
                    second.negotiate(ALL_BITS).await;
                    second.roster().await;
                    world.queued.alice.connected().await;
                    let heard = world.queued.status("clock_offset").await;
                    world.queued.alice.stop().await;
                    world.queued.kept().await;
                    heard
                })
            },
        },
        Case {
            name: "clock_off_and_broker_silent",
            cause: "This host's clock is off, and the broker does not say its own time.",
            code: "clock_skew",
            end: End::Exit(0),
            place: &["this host's clock is more than a minute from its own"],
            help: "set this host's clock",
            act: |world| {
                Box::pin(async move {
                    world.queued.alice.start().await;
                    let mut first = world.queued.fake.accept().await;
                    first.send(&json!({"type": "error", "code": "timestamp_skew", "message": "skew"})).await;
                    first.close(1008, "timestamp_skew").await;
                    let heard = world.while_down("clock_skew").await;
                    world.queued.kept().await;
                    heard
                })
            },
        },
        Case {
            name: "clock_off",
            cause: "This host's clock is off; the daemon uses the broker's time and is connected.",
            code: "clock_offset",
            end: End::Exit(0),
            place: &["this host's clock is <span> ahead of the broker's"],
            help: "set it, for example by NTP",
            act: |_| {
                Box::pin(async move {
                    let broker = Broker::start().await;
                    let mesh = Mesh::create(&broker, "demo").await;
                    let bob = Daemon::join(&broker, &mesh, "bob").await;
                    let mut alice = Daemon::joined(&broker, &mesh, "alice").await;
                    alice.env("LD_PRELOAD", &tools::faketime().display().to_string());
                    alice.env("FAKETIME", "+5m");
                    alice.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
                    alice.start().await;
                    alice.connected().await;
                    alice.knows("bob").await;
                    let text = unique("over five minutes");
                    alice.send("bob", &text).await;
                    bob.received(&text).await;
                    Heard::told(&alice.cli(&["daemon", "status", "--mesh", "demo"]).await, "clock_offset")
                })
            },
        },
    ]
}

fn ends() -> Vec<Case<World>> {
    vec![
        Case {
            name: "replaced",
            cause: "A newer connection of the same member took over: the key is used on another host.",
            code: "replaced_by_newer_connection",
            end: End::Exit(12),
            place: &["\"demo\"", "another connection of this member took over"],
            help: "stop the other daemon, or join again here with an own invite",
            act: |world| Box::pin(async move { world.closed(4003, "replaced_by_newer_connection").await }),
        },
        Case {
            name: "already_connected",
            cause: "An older connection of the same member stays: the key is used on another host.",
            code: "member_already_connected",
            end: End::Exit(13),
            place: &["\"demo\"", "another connection holds this member"],
            help: "stop the other daemon, or join again here with an own invite",
            act: |world| Box::pin(async move { world.closed(4004, "member_already_connected").await }),
        },
        Case {
            name: "revoked",
            cause: "The member was removed from the mesh.",
            code: "member_revoked",
            end: End::Exit(14),
            place: &["\"demo\"", "this member was revoked"],
            help: "joining again needs a new invite",
            act: |world| Box::pin(async move { world.closed(4005, "member_revoked").await }),
        },
        Case {
            name: "banned",
            cause: "The member was banned at the broker.",
            code: "member_revoked",
            end: End::Exit(14),
            place: &["\"demo\"", "the broker banned this member"],
            help: "ask an admin of the mesh",
            act: |world| Box::pin(async move { world.closed(4002, "banned").await }),
        },
        Case {
            name: "feature_missing",
            cause: "The broker lacks a feature that the settings require.",
            code: "feature_unavailable",
            end: End::Exit(15),
            place: &["client_message_id_dedupe"],
            help: "update the broker, or take the feature out of [features] require in config.toml",
            act: |world| {
                Box::pin(async move {
                    world.forget_features();
                    world.queued.spawn();
                    let mut client = world.queued.fake.accept().await;
                    client.welcome().await;
                    client.negotiate(&["concurrent_connection_policy"]).await;
                    client.closed().await;
                    let heard = world.queued.ended().await;
                    world.queued.kept().await;
                    heard
                })
            },
        },
        Case {
            name: "feature_refused",
            cause: "The broker lacks a feature that the settings require.",
            code: "feature_unavailable",
            end: End::Exit(15),
            place: &["\"demo\"", "does not offer the required feature"],
            help: "update the broker, or take the feature out of [features] require in config.toml",
            act: |world| {
                Box::pin(async move {
                    world.forget_features();
                    world.queued.spawn();
                    let mut client = world.queued.fake.accept().await;
                    client.welcome().await;
                    client.close(4010, "feature_unavailable").await;
                    let heard = world.queued.ended().await;
                    world.queued.kept().await;
                    heard
                })
            },
        },
        Case {
            name: "link_not_encrypted",
            cause: "The broker's URL is unencrypted and leads to another host.",
            code: "config_invalid",
            end: End::Exit(10),
            place: &["ws://broker.example/ws"],
            help: "[broker] allow_insecure = true in config.toml",
            act: |world| {
                Box::pin(async move {
                    let path = world.queued.alice.home().join("config.json");
                    let before = std::fs::read_to_string(&path).expect("config.json");
                    let own = world.queued.fake.address().to_string();
                    std::fs::write(&path, before.replace(&own, "broker.example")).expect("config.json");
                    world.queued.spawn();
                    let heard = world.queued.ended().await;
                    std::fs::write(&path, before).expect("config.json");
                    world.queued.kept().await;
                    heard
                })
            },
        },
    ]
}

pub(super) fn rows() -> Vec<Row> {
    cases().iter().map(Case::row).collect()
}

#[tokio::test]
async fn a_link_in_trouble_says_what_the_trouble_is() {
    let mut world = World { queued: Queued::start().await, tls: TlsServer::start().await };
    run(&mut world, &cases()).await;
    world.queued.goes_out().await;
}
