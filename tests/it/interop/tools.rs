//! grpcurl, grpcio and curl against a running daemon, with the options that a
//! user would type.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::daemon::{Pair, unique};
use crate::support::tools;

/// Runs to the end, off the test's own thread.
async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().expect("the tool runs")).await.expect("no panic")
}

#[track_caller]
fn text(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[tokio::test]
async fn grpcurl_needs_no_proto_files() {
    let Some(grpcurl) = tools::grpcurl() else { return };
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let target = format!("unix://{}", alice.socket().display());
    let call = |arguments: &[&str]| {
        let mut command = Command::new(&grpcurl);
        command.args(["-plaintext", "-max-time", "20"]).args(arguments);
        command
    };
    let services = text(&run(call(&[&target, "list"])).await);
    for service in [
        "claudemesh.v1.MessagingService",
        "claudemesh.v1.InboxService",
        "claudemesh.v1.EventService",
        "claudemesh.v1.PeerService",
        "claudemesh.v1.ControlService",
        "grpc.health.v1.Health",
    ] {
        assert!(services.lines().any(|line| line == service), "{service} in {services}");
    }
    let described = text(&run(call(&[&target, "describe", "claudemesh.v1.SendRequest"])).await);
    assert!(described.contains("string client_message_id = 6"), "{described}");

    let message = unique("by grpcurl");
    let body = format!("{{\"to\": \"bob\", \"message\": \"{message}\"}}");
    let sent = text(&run(call(&["-d", &body, &target, "claudemesh.v1.MessagingService/Send"])).await);
    let sent: Value = serde_json::from_str(&sent).expect("JSON");
    assert_eq!(sent["status"], "SEND_STATUS_QUEUED", "{sent}");
    bob.received(&message).await;

    let refused =
        run(call(&["-d", "{\"to\": \"nobody\", \"message\": \"x\"}", &target, "claudemesh.v1.MessagingService/Send"]))
            .await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("NotFound") && said.contains("unknown_peer"), "{said}");
    let health = text(&run(call(&[&target, "grpc.health.v1.Health/Check"])).await);
    assert!(health.contains("SERVING"), "{health}");

    // Over TCP everything needs the token, reflection too.
    let port = crate::support::broker::read_trimmed(&alice.file("http.port"));
    let tcp = format!("127.0.0.1:{port}");
    let refused = run(call(&[&tcp, "list"])).await;
    assert!(!refused.status.success(), "{}", String::from_utf8_lossy(&refused.stdout));
    let bearer = format!("authorization: Bearer {}", alice.token());
    assert!(text(&run(call(&["-H", &bearer, &tcp, "list"])).await).contains("claudemesh.v1.MessagingService"));
}

#[tokio::test]
async fn grpcio_needs_no_options() {
    let Some(python) = tools::python() else { return };
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let generated = alice.home().join("generated");
    std::fs::create_dir(&generated).expect("a folder");
    let protos: Vec<_> = std::fs::read_dir(root.join("proto/claudemesh/v1"))
        .expect("the proto files")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let mut generate = Command::new(&python);
    generate.args(["-m", "grpc_tools.protoc", "-I"]).arg(root.join("proto"));
    generate.arg(format!("--python_out={}", generated.display()));
    generate.arg(format!("--grpc_python_out={}", generated.display())).args(&protos);
    text(&run(generate).await);
    let message = unique("by grpcio");
    let mut client = Command::new(&python);
    client.arg(root.join("tests/it/interop/grpcio_default.py")).arg(&generated).arg(alice.socket()).arg(&message);
    client.current_dir(alice.dir());
    assert_eq!(text(&run(client).await).trim(), "ok");
    for number in 0..3 {
        bob.received(&format!("{message} {number}")).await;
    }
    assert_eq!(bob.inbox("").await.len(), 3, "each id once, however often it was sent");
}

// Covers: R107, R122
#[tokio::test]
async fn curl_reaches_each_route() {
    let Some(curl) = tools::system("curl") else { return };
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let socket = alice.socket();
    let call = |arguments: &[&str]| {
        let mut command = Command::new(&curl);
        command.args(["-sS", "--max-time", "20", "-A", "", "-w", "\n%{http_code}", "--unix-socket"]).arg(&socket);
        command.args(arguments);
        command
    };
    let message = unique("by curl");
    let body = format!("{{\"to\": \"bob\", \"message\": \"{message}\"}}");
    let json = ["-H", "Content-Type: application/json", "-d"];
    for (arguments, status) in [
        (vec!["http://localhost/v1/health"], "200"),
        (vec!["http://localhost/v1/version"], "200"),
        (vec!["http://localhost/v1/compat"], "200"),
        (vec!["http://localhost/v1/metrics"], "200"),
        (vec!["http://localhost/v1/peers?include_offline=true"], "200"),
        (vec!["http://localhost/v1/inbox?limit=5"], "200"),
        ([&json[..], &["{}", "http://localhost/v1/heartbeat"]].concat(), "200"),
        ([&json[..], &[body.as_str(), "http://localhost/v1/send"]].concat(), "202"),
        (vec!["--http2-prior-knowledge", "http://localhost/v1/health"], "200"),
        (vec!["http://localhost/nothing"], "404"),
    ] {
        let answer = text(&run(call(&arguments)).await);
        let (rest, code) = answer.rsplit_once('\n').expect("a status line");
        assert_eq!(code, status, "{arguments:?}: {rest}");
    }
    bob.received(&message).await;
    // A stream is cut by curl's own time limit; its head has come.
    let mut stream = Command::new(&curl);
    stream.args(["-sS", "-i", "-N", "--max-time", "1", "--unix-socket"]).arg(&socket).arg("http://localhost/v1/events");
    let head = String::from_utf8_lossy(&run(stream).await.stdout).to_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("text/event-stream"), "{head}");
}
