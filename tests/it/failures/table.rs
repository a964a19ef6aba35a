//! A row of the tables, and what is checked for each.

use std::path::Path;
use std::sync::LazyLock;

use claudemesh::proto::pb::Candidates;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use prost::Message as _;
use regex::Regex;
use serde_json::Value;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::support::cli::Ran;
use crate::support::http::Response;

/// One way to fail, in a world `W` that the cases of a table share.
pub(super) struct Case<W> {
    /// Names the row and its snapshot.
    pub(super) name: &'static str,
    /// What is wrong, for the page of troubleshooting.
    pub(super) cause: &'static str,
    /// The stable code; empty where the text is the argument parser's.
    pub(super) code: &'static str,
    /// How the command or call ends.
    pub(super) end: End,
    /// Where it happened: each stands in the text.
    pub(super) place: &'static [&'static str],
    /// What to do next: it stands in the text.
    pub(super) help: &'static str,
    /// Gets there and back. It checks itself that nothing was lost.
    pub(super) act: for<'w> fn(&'w mut W) -> LocalBoxFuture<'w, Heard>,
}

/// How something that fails ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    /// A command, with its exit code.
    Exit(i32),
    /// A REST call, with its status.
    Http(u16),
    /// A gRPC call, with its status.
    Grpc(tonic::Code),
}

/// What the user gets to see.
pub(super) struct Heard {
    code: String,
    end: End,
    text: String,
}

/// A row as the documentation needs it.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) cause: &'static str,
    pub(super) code: &'static str,
    pub(super) end: End,
    pub(super) help: &'static str,
}

// === impl Case ===

impl<W> Case<W> {
    /// Without what makes it happen.
    pub(super) fn row(&self) -> Row {
        Row { name: self.name, cause: self.cause, code: self.code, end: self.end, help: self.help }
    }

    fn check(&self, heard: &Heard) {
        let text = redacted(&heard.text);
        assert_eq!(heard.code, self.code, "{}: {text}", self.name);
        assert_eq!(heard.end, self.end, "{}: {text}", self.name);
        for place in self.place.iter().chain([&self.help]) {
            assert!(text.contains(place), "{}: {place:?} is not in: {text}", self.name);
        }
        insta::with_settings!({
            description => self.cause,
            omit_expression => true,
            prepend_module_to_snapshot => false,
        }, {
            insta::assert_snapshot!(self.name, text);
        });
    }
}

/// Runs all cases, and fails at the end with the names of those that failed.
pub(super) async fn run<W>(world: &mut W, cases: &[Case<W>]) {
    let mut failed = Vec::new();
    for case in cases {
        let ran = std::panic::AssertUnwindSafe(async {
            let heard = (case.act)(world).await;
            case.check(&heard);
        });
        if ran.catch_unwind().await.is_err() {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "these cases failed: {failed:?}");
}

// === impl Heard ===

impl Heard {
    /// A command: its exit code and standard error.
    pub(super) fn command(ran: &Ran) -> Self {
        Self::process(ran.code, &ran.stderr)
    }

    /// A process: its exit code and what it said.
    pub(super) fn process(exit: i32, said: &str) -> Self {
        // The code ends the line, or the last of the lines, that say what happened.
        let code = said.lines().filter_map(|line| CODE.captures(line)).next_back();
        let code = code.map_or_else(String::new, |found| found[1].to_owned());
        Self { code, end: End::Exit(exit), text: format!("exit code {exit}\n{said}") }
    }

    /// A problem document.
    pub(super) fn rest(answer: &Response) -> Self {
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
        let problem = answer.json();
        assert_eq!(problem["status"], answer.status, "{problem}");
        assert_eq!(problem["instance"], answer.header("x-request-id").expect("x-request-id"), "{problem}");
        let code = problem["code"].as_str().expect("code").to_owned();
        assert_eq!(problem["type"], format!("urn:claudemesh:error:{code}"));
        let text = serde_json::to_string_pretty(&problem).expect("JSON");
        let retry = answer.header("retry-after").map_or_else(String::new, |after| format!("\nRetry-After: {after}"));
        Self { code, end: End::Http(answer.status), text: format!("HTTP {}{retry}\n{text}", answer.status) }
    }

    /// A gRPC status with its details.
    pub(super) fn grpc(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
        assert_eq!(info.domain, "claudemesh");
        let metadata: std::collections::BTreeMap<_, _> = info.metadata.iter().collect();
        let mut text = format!("{:?}: {}\nErrorInfo {} {metadata:?}", status.code(), status.message(), info.reason);
        if let Some(retry) = details.retry_info() {
            text += &format!("\nRetryInfo {:?}", retry.retry_delay);
        }
        for field in details.bad_request().map(|wrong| wrong.field_violations.as_slice()).unwrap_or_default() {
            text += &format!("\nBadRequest {}: {}", field.field, field.description);
        }
        let all = tonic_types::pb::Status::decode(status.details()).expect("details").details;
        for any in all.iter().filter(|any| any.type_url.ends_with("/claudemesh.v1.Candidates")) {
            let read = Candidates::decode(any.value.as_slice()).expect("candidates");
            for one in read.candidates {
                text += &format!("\nCandidate {} {} {}", one.name, one.pubkey, one.member_id);
            }
        }
        Self { code: info.reason.clone(), end: End::Grpc(status.code()), text }
    }

    /// A command that works and tells of trouble beside its result, such as
    /// `daemon status`, with the code of the trouble.
    pub(super) fn told(ran: &Ran, code: &str) -> Self {
        // Whether the link is up by now has nothing to do with it.
        let lines = ran.stderr.lines().filter(|line| !line.ends_with("the daemon is connecting to the broker"));
        let text: String = lines.flat_map(|line| [line, "\n"]).collect();
        assert!(text.contains(&format!("({code})")), "{code} is not in: {text}");
        Self { code: code.to_owned(), end: End::Exit(ran.code), text: format!("exit code {}\n{text}", ran.code) }
    }

    /// How it ended.
    pub(super) fn end(&self) -> End {
        self.end
    }

    /// The text, for checks of one's own.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

static CODE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\(([a-z]+(?:_[a-z]+)*)\)$").expect("a pattern"));

/// What differs from run to run, by its form: the text is only replaced where the
/// form is right.
static FORMS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    let forms = [
        (r"/tmp/cm[A-Za-z0-9]{6}", "<home>"),
        (r"\b(127\.0\.0\.1|localhost|\[::1\]):[0-9]{4,5}\b", "$1:<port>"),
        (r"\b[0-9a-f]{128}\b", "<secret>"),
        (r"\b[0-9a-f]{64}\b", "<key>"),
        (r"\b[0-9a-f]{16}\b", "<digits>"),
        (r"\b[0-9A-HJKMNP-TV-Z]{26}\b", "<ulid>"),
        (r"\b20[0-9]{2}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]+)?Z?", "<time>"),
        (r"\b[0-2][0-9]:[0-5][0-9]:[0-5][0-9] \((just now|[0-9]+ [a-z]+ ago)\)", "<time> (<age>)"),
        (r"\bnext attempt at [0-2][0-9]:[0-5][0-9]:[0-5][0-9]", "next attempt at <time>"),
        (r"\bpid [1-9][0-9]*", "pid <pid>"),
        (r"\b1[0-9]{12}\b", "<ms>"),
        (r"\bcolumn [1-9][0-9]*\b", "column <n>"),
        (r"Tree [0-9]+ page [0-9]+( cell [0-9]+)?: [^\n]* error code [0-9]+", "<complaint>"),
        (r"\b(4m 5[0-9]s|5m|5m [0-9]s) (behind|ahead)", "<span> $2"),
    ];
    forms.map(|(form, name)| (Regex::new(form).expect("a pattern"), name)).into()
});

/// The text without what differs from run to run.
pub(super) fn redacted(text: &str) -> String {
    FORMS.iter().fold(text.to_owned(), |text, (form, name)| form.replace_all(&text, *name).into_owned())
}

/// The content of a file, for comparison before and after.
pub(super) fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The last error of the link in a status.
pub(super) fn last_error(status: &Value) -> &Value {
    &status["link"]["last_error"]
}
