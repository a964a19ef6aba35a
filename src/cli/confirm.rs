//! Asking before what cannot be taken back.

use std::io::{self, IsTerminal as _, Write as _};

use super::failure::Failure;
use crate::domain::error_code::ErrorCode;

/// Asks on the terminal whether to go on. Without one nobody is asked: a script has said
/// what it wants. `yes`: the answer was given on the command line.
pub(super) fn ask(what: &str, yes: bool) -> Result<(), Failure> {
    if yes || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(());
    }
    let failed = |error: io::Error| Failure::new(ErrorCode::UsageError, format!("nobody could be asked: {error}"));
    let mut terminal = io::stderr();
    write!(terminal, "{what}\nGo on? [y/N] ").and_then(|()| terminal.flush()).map_err(failed)?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(failed)?;
    match line.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(ErrorCode::UsageError, "nothing was changed: the answer was not yes")
            .next("to go on without being asked, repeat with --yes")),
    }
}
