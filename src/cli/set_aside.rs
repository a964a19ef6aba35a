//! The state of the member that this user was in a mesh before.

use super::Context;
use super::daemon::foreground::of_start;
use super::failure::Failure;
use super::output::Output;
use crate::daemon;
use crate::membership::config_json::MeshEntry;

/// Sets it aside, and says so.
pub(super) fn other_members(entry: &MeshEntry, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let kept = daemon::set_aside(&context.root()?, entry, &context.clock).map_err(|error| of_start(&error))?;
    if let Some(kept) = kept {
        output.note(format_args!(
            "the state of the member that you were in {} before, with its messages, settings and hooks, is kept in {}",
            entry.slug,
            kept.display()
        ));
    }
    Ok(())
}
