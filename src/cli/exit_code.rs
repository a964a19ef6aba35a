//! From a daemon's refusal to a failure of the command, with its exit code.

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::failure::{Candidate, Failure};
use super::output::safe;
use crate::domain::error_code::ErrorCode;
use crate::domain::names;
use crate::proto::pb;

/// What the refusal of a call means for the command. The daemon's own code wins;
/// a status without one comes from the transport.
pub fn of_status(status: &Status) -> Failure {
    let details = status.get_error_details();
    let Some(info) = details.error_info() else { return of_transport(status) };
    let text = safe(status.message());
    // The code stands at the end of the line, also where the text begins with it.
    let what = text.strip_prefix(&format!("{}: ", info.reason)).unwrap_or(&text);
    let mut failure = Failure::foreign(&info.reason, what);
    for (name, value) in &info.metadata {
        failure = failure.with(name, value.as_str());
    }
    let candidates = candidates(status);
    // The daemon's text names most of them already.
    let unnamed: Vec<String> =
        candidates.iter().map(ToString::to_string).filter(|candidate| !text.contains(candidate)).collect();
    if !unnamed.is_empty() {
        failure = failure.next(format!("candidates: {}", unnamed.join(", ")));
    }
    failure = failure.candidates(candidates);
    if let Some(step) = ErrorCode::from_name(&info.reason).and_then(next_step) {
        failure = failure.next(step);
    }
    if let Some(after) = details.retry_info().and_then(|info| info.retry_delay).filter(|delay| !delay.is_zero()) {
        failure = failure.next(format!("try again in {}", humantime::format_duration(after)));
    }
    failure
}

/// The members that a destination may mean; none where the daemon names none.
fn candidates(status: &Status) -> Vec<Candidate> {
    let details = tonic_types::pb::Status::decode(status.details()).unwrap_or_default().details;
    let named = details.iter().find(|detail| detail.type_url.ends_with("/claudemesh.v1.Candidates"));
    let read = named.and_then(|detail| pb::Candidates::decode(detail.value.as_slice()).ok()).unwrap_or_default();
    let candidates = read.candidates.into_iter();
    candidates
        .map(|one| Candidate {
            pubkey: safe(&one.pubkey),
            name: names::shown(&one.name),
            member_id: safe(&one.member_id),
        })
        .collect()
}

fn of_transport(status: &Status) -> Failure {
    let text = safe(status.message());
    match status.code() {
        // A limit of this side is reported as CANCELLED.
        Code::DeadlineExceeded | Code::Cancelled => {
            Failure::new(ErrorCode::DeadlineExceeded, "the daemon did not answer in time")
                .next("see what it does: claudemesh daemon status")
        }
        Code::Unimplemented => Failure::new(ErrorCode::NotServed, "the running daemon does not know this call")
            .next("it may be of another version; restart it: claudemesh daemon restart"),
        Code::Unauthenticated => Failure::new(ErrorCode::Unauthenticated, text)
            .next("the daemon's token is in the file local_token of its state directory"),
        Code::Unavailable | Code::Unknown | Code::Internal => {
            Failure::new(ErrorCode::DaemonNotRunning, format!("the connection to the daemon broke: {text}"))
                .next("see whether it still runs: claudemesh daemon status")
        }
        code => Failure::new(ErrorCode::InternalError, format!("{text} ({code:?})")),
    }
}

/// What to do about the failures that people meet most; the daemon's text tells
/// the rest.
fn next_step(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::UnknownPeer => "see who is in the mesh: claudemesh peer list",
        ErrorCode::AmbiguousPeer => "use the member's key, or more of its digits",
        ErrorCode::DaemonShuttingDown => "start it again: claudemesh daemon up",
        ErrorCode::UnencryptedNotAllowed => {
            "to let the text leave this host unencrypted, repeat with --allow-unencrypted"
        }
        ErrorCode::InternalError | ErrorCode::StorageFailed => "look into its log: claudemesh daemon logs",
        ErrorCode::InsufficientStorage => "see what is full: claudemesh daemon status",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use tonic_types::ErrorDetails;

    use super::*;
    use crate::domain::error_code::exit;

    fn refusal(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
        let metadata: HashMap<_, _> = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut details = ErrorDetails::with_error_info(reason, "claudemesh", metadata);
        details.set_retry_info(Some(Duration::from_secs(2)));
        Status::with_error_details(code, "no member matches \"b\u{1b}b\"", details)
    }

    /// The refusal of a send to `b` as a daemon makes it, with another text.
    fn ambiguous(text: &str, names: &[&str]) -> Status {
        let candidates = names.iter().map(|name| pb::Candidate {
            pubkey: "07".repeat(32),
            name: (*name).to_owned(),
            member_id: format!("id-{name}"),
        });
        let info = ErrorDetails::with_error_info("ambiguous_peer", "claudemesh", HashMap::new());
        let status = Status::with_error_details(Code::InvalidArgument, text, info);
        let mut all = tonic_types::pb::Status::decode(status.details()).unwrap();
        let value = pb::Candidates { candidates: candidates.collect() }.encode_to_vec();
        all.details
            .push(prost_types::Any { type_url: "type.googleapis.com/claudemesh.v1.Candidates".to_owned(), value });
        Status::with_details(status.code(), text, all.encode_to_vec().into())
    }

    #[test]
    fn candidates_come_from_their_detail() {
        let failure = of_status(&ambiguous("several match", &["bo\u{1b}b", "bert"]));
        let text = failure.to_string();
        assert!(text.contains("candidates: bo") && text.contains("bert (0707070707070707)"), "{text}");
        assert!(!text.contains('\u{1b}'));
        let json = serde_json::to_value(&failure).unwrap();
        let bert = serde_json::json!({ "pubkey": "07".repeat(32), "name": "bert", "member_id": "id-bert" });
        assert_eq!(json["candidates"][1], bert);
        assert_eq!(json["metadata"], serde_json::json!({}));
        // What the text names is not said twice.
        let failure = of_status(&ambiguous("ambiguous_peer: it is bert (0707070707070707)", &["bert"]));
        let first = failure.to_string();
        assert!(first.starts_with("error: it is bert (0707070707070707) (ambiguous_peer)\n  use"), "{first}");
        let none = serde_json::to_value(of_status(&refusal(Code::NotFound, "unknown_peer", &[]))).unwrap();
        assert_eq!(none["candidates"], serde_json::json!([]));
    }

    #[test]
    fn the_daemons_code_decides_about_the_exit_code() {
        let failure = of_status(&refusal(Code::NotFound, "unknown_peer", &[]));
        assert_eq!((failure.code(), failure.exit()), ("unknown_peer", exit::OTHER));
        let text = failure.to_string();
        assert!(text.contains("peer list") && text.contains("2s"), "{text}");
        assert!(!text.contains('\u{1b}'));
        for code in ErrorCode::ALL {
            let failure = of_status(&refusal(Code::Unknown, code.name(), &[]));
            assert_eq!((failure.code(), failure.exit()), (code.name(), code.exit()));
        }
        assert_eq!(of_status(&refusal(Code::Aborted, "made_up_later", &[])).code(), "made_up_later");
    }

    #[test]
    fn failures_of_the_transport_have_codes_too() {
        for (status, code) in [
            (Status::cancelled("Timeout expired"), ErrorCode::DeadlineExceeded),
            (Status::unavailable("broken pipe"), ErrorCode::DaemonNotRunning),
            (Status::unimplemented(""), ErrorCode::NotServed),
            (Status::unauthenticated("no token"), ErrorCode::Unauthenticated),
            (Status::data_loss("x"), ErrorCode::InternalError),
        ] {
            let failure = of_status(&status);
            assert_eq!((failure.code(), failure.exit()), (code.name(), code.exit()));
        }
    }
}
