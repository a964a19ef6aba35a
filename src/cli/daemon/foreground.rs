//! `claudemesh daemon up --foreground`: this process is the daemon.

use crate::cli::failure::Failure;
use crate::cli::one_thread;
use crate::cli::output::Output;
use crate::config::paths::Root;
use crate::daemon::{self, Options};
use crate::domain::error_code::ErrorCode;

/// Runs the daemon until it ends; its exit code tells why.
pub(super) fn run(root: Root, mesh: String, name: Option<String>, output: &mut Output) -> Result<u8, Failure> {
    let runtime = one_thread()?;
    let options = Options { root, mesh: mesh.clone(), display_name: name };
    let daemon = daemon::run(options, |prepared| {
        let version = env!("CARGO_PKG_VERSION");
        let socket = prepared.socket();
        let line = format!("claudemesh daemon {version} ready: mesh {mesh}, socket {}", socket.display());
        // The daemon does its work whether or not somebody reads this.
        let _ = output.line(line);
    });
    let result = runtime.block_on(Box::pin(daemon));
    // What still blocks a thread must not hold up the end.
    runtime.shutdown_background();
    let reason = result.map_err(|error| of_start(&error))?;
    match reason.code() {
        None => Ok(reason.exit_code()),
        Some(code) => Err(Failure::new(code, format!("the daemon of mesh {mesh:?} ended: {}", reason.detail()))
            .with_exit(reason.exit_code())
            .next(advice(code))),
    }
}

/// Why a daemon did not start, and what to do.
pub(in crate::cli) fn of_start(error: &daemon::Error) -> Failure {
    let failure = Failure::new(error.code(), error.to_string());
    match error.next_step() {
        Some(step) => failure.next(step),
        None => failure,
    }
}

/// What helps against the ends that a restart does not cure.
fn advice(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::ReplacedByNewerConnection | ErrorCode::MemberAlreadyConnected => {
            "the same key is used on another host; stop the other daemon, or join again here with an own invite"
        }
        ErrorCode::MemberRevoked => "ask an admin of the mesh; joining again needs a new invite",
        ErrorCode::FeatureUnavailable => {
            "update the broker, or take the feature out of [features] require in config.toml"
        }
        _ => "the log has more: claudemesh daemon logs",
    }
}
