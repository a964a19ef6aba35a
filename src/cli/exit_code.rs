//! From a daemon's refusal to a failure of the command, with its exit code.

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::failure::Failure;
use super::output::safe;
use crate::domain::error_code::ErrorCode;

/// What the refusal of a call means for the command. The daemon's own code wins;
/// a status without one comes from the transport.
pub fn of_status(status: &Status) -> Failure {
    let details = status.get_error_details();
    let Some(info) = details.error_info() else { return of_transport(status) };
    let text = safe(status.message());
    let named = |names: &String| names.split(',').all(|name| text.contains(name.trim()));
    // The code stands at the end of the line, also where the text begins with it.
    let what = text.strip_prefix(&format!("{}: ", info.reason)).unwrap_or(&text);
    let mut failure = Failure::foreign(&info.reason, what);
    for (name, value) in &info.metadata {
        failure = failure.with(name, value.as_str());
    }
    if let Some(candidates) = info.metadata.get("candidates").filter(|names| !named(names)) {
        failure = failure.next(format!("candidates: {}", safe(candidates)));
    }
    if let Some(step) = ErrorCode::from_name(&info.reason).and_then(next_step) {
        failure = failure.next(step);
    }
    if let Some(after) = details.retry_info().and_then(|info| info.retry_delay).filter(|delay| !delay.is_zero()) {
        failure = failure.next(format!("try again in {}", humantime::format_duration(after)));
    }
    failure
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

    #[test]
    fn the_daemons_code_decides_about_the_exit_code() {
        let failure = of_status(&refusal(Code::NotFound, "unknown_peer", &[("candidates", "bob, bert")]));
        assert_eq!((failure.code(), failure.exit()), ("unknown_peer", exit::OTHER));
        let text = failure.to_string();
        assert!(text.contains("candidates: bob, bert") && text.contains("peer list") && text.contains("2s"), "{text}");
        assert!(!text.contains('\u{1b}'));
        let repeated = Status::with_error_details(
            Code::NotFound,
            "unknown_peer: nobody; there are bob and bert",
            ErrorDetails::with_error_info("unknown_peer", "x", [("candidates".to_owned(), "bob, bert".to_owned())]),
        );
        let first = of_status(&repeated).to_string();
        assert!(first.starts_with("error: nobody; there are bob and bert (unknown_peer)\n  see"), "{first}");
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
