//! The one binary. Turns the command line's result into an exit code.

use claudemesh::cli;

fn main() {
    // What panics on the main thread ends the process with its own code; a task
    // that panics is the supervisor's business.
    let code = std::panic::catch_unwind(cli::run).unwrap_or_else(|_| cli::report_panic());
    #[expect(clippy::disallowed_methods, reason = "the one exit that the ban points to; everything has been dropped")]
    std::process::exit(code.into());
}
