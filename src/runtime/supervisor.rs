//! Starts every task of the process, watches it and stops it in its phase.
//!
//! What it is for: no task without an owner. It is the only caller of
//! `tokio::spawn`.
//! What runs here: every task that is handed to [`Supervisor::spawn`].
//! What it guarantees: a task of a kind that the process cannot live without
//! ends the process when it panics or returns early ([`Supervisor::failure`]).
//! What it must not do: restart a task; the receivers it owned are gone.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::task_kind::{OnEnd, Phase, TaskKind};

/// Owner of all tasks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Supervisor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    phases: [PhaseTasks; Phase::ALL.len()],
    failure: watch::Sender<Option<TaskFailure>>,
}

#[derive(Debug, Default)]
struct PhaseTasks {
    /// Cancelled when the phase begins to stop.
    token: CancellationToken,
    tasks: TaskTracker,
}

/// A task ended that the process cannot live without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFailure {
    /// Which kind of task.
    pub kind: TaskKind,
    /// The name it was started with.
    pub name: &'static str,
    /// The panic's message; `None` when it returned early.
    pub panic: Option<String>,
}

// === impl Supervisor ===

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// A supervisor without tasks.
    pub fn new() -> Self {
        Self(Arc::new(Inner { phases: Default::default(), failure: watch::Sender::new(None) }))
    }

    /// Starts a task. It must end soon after [`Self::token`] of its phase is
    /// cancelled.
    pub fn spawn<F>(&self, kind: TaskKind, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        let phase = &self.0.phases[kind.phase().index()];
        let watched = async move {
            let result = AssertUnwindSafe(task).catch_unwind().await;
            let asked_to_stop = inner.phases[kind.phase().index()].token.is_cancelled();
            let panic = result.err().map(|payload| panic_text(payload.as_ref()));
            match (kind.on_end(), &panic) {
                (OnEnd::Log, Some(text)) => tracing::error!(task = name, panic = text, "Task {name} panicked: {text}"),
                (OnEnd::EndProcess, _) if panic.is_some() || !asked_to_stop => {
                    tracing::error!(task = name, panic = panic, "Task {name} ended by itself; the process stops");
                    inner.failure.send_if_modified(|first| {
                        let is_first = first.is_none();
                        if is_first {
                            *first = Some(TaskFailure { kind, name, panic });
                        }
                        is_first
                    });
                }
                _ => {}
            }
        };
        #[expect(clippy::disallowed_methods, reason = "this is the supervisor that the ban points to")]
        drop(tokio::spawn(phase.tasks.track_future(watched)));
    }

    /// The signal on which tasks of this phase stop.
    pub fn token(&self, phase: Phase) -> CancellationToken {
        self.0.phases[phase.index()].token.clone()
    }

    /// Asks the tasks of a phase to stop and waits for them. False when some
    /// were still running at the time limit.
    pub async fn stop(&self, phase: Phase, limit: Duration) -> bool {
        let PhaseTasks { token, tasks } = &self.0.phases[phase.index()];
        token.cancel();
        tasks.close();
        tokio::time::timeout(limit, tasks.wait()).await.is_ok()
    }

    /// Waits until a task has ended that the process cannot live without.
    pub async fn failure(&self) -> TaskFailure {
        let mut failure = self.0.failure.subscribe();
        loop {
            if let Some(first) = failure.borrow_and_update().clone() {
                return first;
            }
            if failure.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_early_return_of_a_needed_task_is_a_failure() {
        let supervisor = Supervisor::new();
        supervisor.spawn(TaskKind::OutboxWriter, "writer", async {});
        let failure = supervisor.failure().await;
        assert_eq!((failure.kind, failure.panic), (TaskKind::OutboxWriter, None));
    }

    #[tokio::test]
    async fn a_stopped_task_is_none_and_a_panic_is_one() {
        let supervisor = Supervisor::new();
        let token = supervisor.token(Phase::Storage);
        supervisor.spawn(TaskKind::OutboxWriter, "writer", async move { token.cancelled().await });
        assert!(supervisor.stop(Phase::Storage, Duration::from_secs(5)).await);
        assert!(supervisor.0.failure.borrow().is_none());
        supervisor.spawn(TaskKind::BrokerSession, "session", async { panic!("boom") });
        assert_eq!(supervisor.failure().await.panic.as_deref(), Some("boom"));
    }

    #[tokio::test]
    async fn a_task_that_ignores_the_signal_is_reported() {
        let supervisor = Supervisor::new();
        supervisor.spawn(TaskKind::Peers, "stuck", std::future::pending());
        assert!(!supervisor.stop(Phase::Workers, Duration::from_millis(20)).await);
    }
}
