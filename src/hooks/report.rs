//! What becomes known of an ended run: its row, its event, its audit record, its
//! numbers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Inner;
use super::ended::End;
use super::input::time;
use super::repo;
use crate::config::hooks_file::Policy;
use crate::domain::event::{HookRun, MeshEvent};
use crate::telemetry::names::target;

/// Runs between two removals of old rows.
const TRIM_EVERY: u64 = 256;

// === impl Inner ===

impl Inner {
    /// Tells of an ended run, after its row is written: who sees the event finds it
    /// in the list, unless it could not be written yet.
    pub(super) async fn report(&self, id: &str, run: HookRun, policy: &Policy) -> End {
        let written = repo::end(self.deps.db.writer(), id, &run).await.inspect_err(|error| {
            tracing::error!(hook = run.hook, error = %error, "The end of hook {} was not written: {error}", run.hook);
        });
        if policy.audit {
            audit(&run);
        }
        let took = run.start_error.is_empty().then(|| Duration::from_millis(run.duration_ms.into()));
        self.deps.metrics.hook_ended(&run.hook, exit_label(&run), took);
        self.count(&run);
        let end = written.map_or_else(|_| End::Unwritten(Box::new(run.clone())), |()| End::Written);
        self.deps.hub.publish(self.deps.clock.now(), MeshEvent::HookExecuted(Box::new(run)));
        if self.reported.fetch_add(1, Ordering::Relaxed).is_multiple_of(TRIM_EVERY)
            && let Err(error) = repo::trim(self.deps.db.writer()).await
        {
            tracing::warn!(error = %error, "Old hook runs were not removed: {error}");
        }
        end
    }
}

/// One line of the log for each run (R249).
fn audit(run: &HookRun) {
    tracing::info!(
        target: target::AUDIT,
        audit = "hook",
        hook = run.hook,
        message_id = run.message_id,
        exit = exit_label(run),
        duration_ms = run.duration_ms,
        stdout_bytes = run.stdout_bytes,
        stderr_bytes = run.stderr_bytes,
        replied = run.replied,
        capability_calls = run.capability_calls,
        ts = time(run.started_at),
        "Hook {} ended: {}",
        run.hook,
        exit_label(run)
    );
}

/// An exit code, or what stands for one.
pub(super) fn exit_label(run: &HookRun) -> String {
    match run.exit_code {
        _ if run.timed_out => "timeout".to_owned(),
        Some(code) => code.to_string(),
        None if !run.start_error.is_empty() => "not_started".to_owned(),
        None => "signal".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_a_label() {
        let label = |run: HookRun| exit_label(&run);
        assert_eq!(label(HookRun { exit_code: Some(3), ..HookRun::default() }), "3");
        assert_eq!(label(HookRun { exit_code: Some(3), timed_out: true, ..HookRun::default() }), "timeout");
        assert_eq!(label(HookRun { signal: Some(9), ..HookRun::default() }), "signal");
        assert_eq!(label(HookRun { start_error: "x".to_owned(), ..HookRun::default() }), "not_started");
    }
}
