//! Who may call: tokens, hosts, origins, and the command line over TCP.

use tonic::Code;
use tonic::transport::Endpoint;

use super::table::{Case, End, Heard, Row, run};
use crate::support::cli;
use crate::support::daemon::Daemon;
use crate::support::fake_broker::{Client, FakeBroker};
use crate::support::grpc::send_request;
use crate::support::http::Request;
use claudemesh::proto::pb::messaging_service_client::MessagingServiceClient;

/// A daemon with a link, whose queue holds nothing of what is refused.
struct World {
    alice: Daemon,
    client: Client,
    _fake: FakeBroker,
}

impl World {
    async fn start() -> Self {
        let fake = FakeBroker::start().await;
        let mut alice = fake.member("alice");
        alice.start().await;
        let client = fake.link(&alice).await;
        Self { alice, client, _fake: fake }
    }

    /// A send over TCP, before its credentials.
    fn send(&self) -> Request {
        self.alice.tcp().post("/v1/send", &serde_json::json!({"to": "bob", "message": "refused"}))
    }

    async fn refused(&mut self, request: Request) -> Heard {
        let token = self.alice.token();
        let heard = Heard::rest(&request.send().await);
        assert!(!heard.text().contains(&token), "an answer never shows the token");
        self.goes_on().await;
        heard
    }

    /// What was refused is not in the queue; a right send goes out.
    async fn goes_on(&mut self) {
        let id = self.alice.send("bob", "allowed").await;
        assert_eq!(self.client.expect("send").await["client_message_id"], id.as_str());
    }

    /// `claudemesh send` over TCP with this token file.
    async fn command(&mut self, token_file: &str) -> Heard {
        let port = crate::support::broker::read_trimmed(&self.alice.file("http.port"));
        let address = format!("127.0.0.1:{port}");
        let environment = [("CLAUDEMESH_ADDR", address.as_str()), ("CLAUDEMESH_TOKEN_FILE", token_file)];
        let ran = cli::run_with(self.alice.home(), &["send", "bob", "refused"], &environment).await;
        self.goes_on().await;
        Heard::command(&ran)
    }

    /// A gRPC send over TCP with this header.
    async fn call(&mut self, authorization: Option<&str>) -> Heard {
        let port = crate::support::broker::read_trimmed(&self.alice.file("http.port"));
        let endpoint = Endpoint::try_from(format!("http://127.0.0.1:{port}")).expect("an address");
        let mut client = MessagingServiceClient::new(endpoint.connect().await.expect("the daemon listens"));
        let mut request = tonic::Request::new(send_request("bob", "refused", ""));
        if let Some(value) = authorization {
            request.metadata_mut().insert("authorization", value.parse().expect("a header"));
        }
        let status = client.send(request).await.expect_err("the call is refused");
        self.goes_on().await;
        Heard::grpc(&status)
    }
}

fn cases() -> Vec<Case<World>> {
    let mut cases = tokens();
    cases.extend(pages());
    cases
}

fn tokens() -> Vec<Case<World>> {
    vec![
        Case {
            name: "tcp_without_token",
            cause: "A call over TCP carries no token.",
            code: "unauthenticated",
            end: End::Http(401),
            place: &["no bearer token was sent", "`local_token`"],
            help: "each call needs `Authorization: Bearer` with the content of `local_token` in the daemon's state directory",
            act: |world| Box::pin(async move { world.refused(world.send()).await }),
        },
        Case {
            name: "tcp_without_token_grpc",
            cause: "A call over TCP carries no token.",
            code: "unauthenticated",
            end: End::Grpc(Code::Unauthenticated),
            place: &["no bearer token was sent", "`local_token`"],
            help: "each call needs `Authorization: Bearer` with the content of `local_token` in the daemon's state directory",
            act: |world| Box::pin(async move { world.call(None).await }),
        },
        Case {
            name: "tcp_wrong_token",
            cause: "The token is that of another daemon, or of the time before it was renewed.",
            code: "unauthenticated",
            end: End::Http(401),
            place: &["the bearer token is wrong", "`local_token`"],
            help: "each call needs `Authorization: Bearer` with the content of `local_token` in the daemon's state directory",
            act: |world| Box::pin(async move { world.refused(world.send().bearer("wrong")).await }),
        },
        Case {
            name: "tcp_wrong_token_cli",
            cause: "`CLAUDEMESH_TOKEN_FILE` names the token of another daemon.",
            code: "unauthenticated",
            end: End::Exit(1),
            place: &["the bearer token is wrong"],
            help: "`local_token` in the daemon's state directory",
            act: |world| {
                Box::pin(async move {
                    let file = world.alice.home().join("wrong_token");
                    std::fs::write(&file, "wrong").expect("a token file");
                    world.command(&file.display().to_string()).await
                })
            },
        },
        Case {
            name: "token_file_does_not_exist",
            cause: "`CLAUDEMESH_TOKEN_FILE` names a file that does not exist.",
            code: "config_invalid",
            end: End::Exit(10),
            place: &["CLAUDEMESH_TOKEN_FILE=/nonexistent/token"],
            help: "set it to the file local_token in the daemon's state directory",
            act: |world| Box::pin(async move { world.command("/nonexistent/token").await }),
        },
        Case {
            name: "token_in_query",
            cause: "The token stands in the query string.",
            code: "token_in_query",
            end: End::Http(400),
            place: &["query string"],
            help: "send it as `Authorization: Bearer`",
            act: |world| {
                Box::pin(async move {
                    let token = world.alice.token();
                    let request = world.alice.tcp().get(&format!("/v1/peers?token={token}"));
                    world.refused(request.bearer(&token)).await
                })
            },
        },
    ]
}

fn pages() -> Vec<Case<World>> {
    vec![
        Case {
            name: "wrong_host",
            cause: "The `Host` header names another host.",
            code: "host_not_allowed",
            end: End::Http(403),
            place: &["evil.example"],
            help: "it must be localhost, 127.0.0.1 or [::1]",
            act: |world| {
                Box::pin(async move {
                    let request = world.send().bearer(&world.alice.token()).host(Some("evil.example"));
                    world.refused(request).await
                })
            },
        },
        Case {
            name: "origin",
            cause: "A web page made the request.",
            code: "origin_not_allowed",
            end: End::Http(403),
            place: &["Origin header"],
            help: "if that is wanted, add the origin to [ipc] allowed_origins in config.toml",
            act: |world| {
                Box::pin(async move {
                    let request = world.send().bearer(&world.alice.token()).header("Origin", "https://evil.example");
                    world.refused(request).await
                })
            },
        },
        Case {
            name: "preflight",
            cause: "A web page asks whether it may make a request.",
            code: "preflight_refused",
            end: End::Http(403),
            place: &["cross-origin"],
            help: "call the API from a program, not from a page",
            act: |world| {
                Box::pin(async move {
                    let request = world.alice.tcp().request("OPTIONS", "/v1/send").bearer(&world.alice.token());
                    world.refused(request.header("Access-Control-Request-Method", "POST")).await
                })
            },
        },
    ]
}

pub(super) fn rows() -> Vec<Row> {
    cases().iter().map(Case::row).collect()
}

#[tokio::test]
async fn who_may_not_call_is_told_why() {
    run(&mut World::start().await, &cases()).await;
}
