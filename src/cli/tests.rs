//! Commands against a small stand-in for a daemon.

use std::path::Path;
use std::sync::{Arc, Mutex};

use futures_util::Stream;
use futures_util::stream;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

use super::output::tests::Captured;
use super::*;
use crate::config::source::MapSource;
use crate::proto::pb::event_service_server::{EventService, EventServiceServer};
use crate::proto::pb::stream_events_response::Event;
use crate::proto::pb::{InboxMessage, Provenance, StreamEventsRequest, StreamEventsResponse};

/// Gives one prepared stream for each call, and notes the calls.
#[derive(Clone, Default)]
struct Events {
    streams: Arc<Mutex<Vec<Vec<Item>>>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

type Item = Result<StreamEventsResponse, Status>;
/// `after` and the shown token.
type Call = (String, Option<String>);

#[tonic::async_trait]
impl EventService for Events {
    type StreamEventsStream = std::pin::Pin<Box<dyn Stream<Item = Item> + Send + 'static>>;

    async fn stream_events(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let token = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        self.calls.lock().unwrap().push((request.into_inner().after, token));
        let events = self.streams.lock().unwrap().remove(0);
        let mut response: Response<Self::StreamEventsStream> = Response::new(Box::pin(stream::iter(events)));
        response.metadata_mut().insert("server", "claudemesh/0.0.1".parse().unwrap());
        Ok(response)
    }
}

fn stored(id: &str, body: &str) -> Item {
    let message = InboxMessage {
        sender_name: "bob".to_owned(),
        body: body.to_owned(),
        provenance: Some(Provenance { name_bound: true, ..Provenance::default() }),
        ..InboxMessage::default()
    };
    let event = Some(Event::Message(message));
    Ok(StreamEventsResponse { event_id: id.to_owned(), event, ..StreamEventsResponse::default() })
}

fn context(dir: &Path, variables: &[(&str, &str)]) -> Context {
    let mut source = MapSource([("CLAUDEMESH_HOME".to_owned(), dir.display().to_string())].into());
    source.0.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Context::new(Arc::new(source), dir.to_owned())
}

fn parse(line: &[&str]) -> Verb {
    Cli::try_parse_from(std::iter::once("claudemesh").chain(line.iter().copied())).unwrap().verb
}

async fn follow(context: &Context, line: &[&str]) -> (String, Failure) {
    let Verb::Events(args) = parse(line) else { panic!("not events") };
    let captured = Captured::default();
    let failure = events::run(args, context, &mut captured.output()).await.unwrap_err();
    (captured.text(), failure)
}

#[tokio::test]
async fn following_goes_on_after_a_restart_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let events = Events::default();
    *events.streams.lock().unwrap() = vec![
        vec![stored("G-1", "one"), stored("G-2", "two"), Err(Status::unavailable("the daemon stops"))],
        vec![stored("G-3", "three")],
        vec![Err(Status::invalid_argument("enough"))],
    ];
    let server = Server::builder()
        .add_service(EventServiceServer::new(events.clone()))
        .serve_with_incoming(UnixListenerStream::new(listener));
    let context = context(dir.path(), &[]);
    let line = ["events", "-f", "--after", "G-0", "--socket", socket.to_str().unwrap()];
    let (text, failure) = tokio::select! {
        result = follow(&context, &line) => result,
        ended = server => panic!("{ended:?}"),
    };
    let (notes, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("note: "));
    let others = notes.iter().filter(|note| note.contains("the daemon is 0.0.1, this command ")).count();
    assert_eq!(others, 1, "another version is told once: {text}");
    assert_eq!(lines, ["-  bob: one", "-  bob: two", "-  bob: three"]);
    assert_eq!(failure.code(), "internal_error");
    assert!(failure.to_string().contains("enough"), "{failure}");
    let calls: Vec<String> = events.calls.lock().unwrap().iter().map(|(after, _)| after.clone()).collect();
    assert_eq!(calls, ["G-0", "G-2", "G-3"]);
}

#[tokio::test]
async fn over_tcp_the_token_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let token = dir.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let events = Events::default();
    *events.streams.lock().unwrap() = vec![vec![Err(Status::new(Code::Unauthenticated, "no"))]];
    let server = Server::builder()
        .add_service(EventServiceServer::new(events.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let variables = [("CLAUDEMESH_ADDR", address.as_str()), ("CLAUDEMESH_TOKEN_FILE", token.to_str().unwrap())];
    let context = context(dir.path(), &variables);
    let (_, failure) = tokio::select! {
        result = follow(&context, &["events", "-f", "--after", "G-0"]) => result,
        ended = server => panic!("{ended:?}"),
    };
    assert_eq!(failure.code(), "unauthenticated");
    assert_eq!(events.calls.lock().unwrap()[0].1.as_deref(), Some("Bearer s3cret"));
}

#[tokio::test]
async fn without_a_daemon_the_command_to_start_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let context = context(dir.path(), &[]);
    let (_, failure) = follow(&context, &["events", "-f", "--mesh", "demo"]).await;
    assert_eq!(failure.code(), "mesh_not_joined");
    let entry = r#"{"meshId":"M","memberId":"m","slug":"demo","pubkey":"","secretKey":"","brokerUrl":""}"#;
    std::fs::write(dir.path().join("config.json"), format!(r#"{{"meshes":[{entry}]}}"#)).unwrap();
    let (_, failure) = follow(&context, &["events", "-f", "--mesh", "demo"]).await;
    assert_eq!((failure.code(), failure.exit()), ("daemon_not_running", 3));
    assert!(failure.to_string().contains("claudemesh daemon up --mesh demo"), "{failure}");
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

// Covers: R269
#[test]
fn ps_is_status() {
    assert!(matches!(parse(&["daemon", "ps", "--json"]), Verb::Daemon(daemon::Verb::Status(_))));
}

// Covers: R3
#[test]
fn no_help_text_promises_exactly_once() {
    fn check(command: &mut clap::Command) {
        let help = command.render_long_help().to_string().to_lowercase();
        assert!(!help.contains("exactly once") && !help.contains("exactly-once"), "{help}");
        command.get_subcommands_mut().for_each(check);
    }
    check(&mut Cli::command());
}
