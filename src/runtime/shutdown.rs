//! Runs the phases of a shutdown in order, each under its own time limit.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::supervisor::Supervisor;
use super::task_kind::Phase;

/// How long a phase may take before the next one begins all the same.
pub fn limit(phase: Phase) -> Duration {
    match phase {
        Phase::Ingress | Phase::Streams | Phase::Link => Duration::from_secs(2),
        Phase::Workers => Duration::from_secs(8),
        Phase::Storage => Duration::from_secs(15),
    }
}

/// Stops the phases from the first to the last. Returns those that had not
/// stopped when their time was up.
pub async fn stop_in_order(supervisor: &Supervisor) -> Vec<Phase> {
    let mut late = Vec::new();
    for phase in Phase::ALL {
        if !supervisor.stop(phase, limit(phase)).await {
            tracing::warn!(phase = ?phase, "Phase {phase:?} of the shutdown did not end within {:?}", limit(phase));
            late.push(phase);
        }
    }
    late
}

/// Asks the process to stop, from anywhere in it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct StopRequest(CancellationToken);

// === impl StopRequest ===

impl StopRequest {
    /// Asks. Asking twice is asking once.
    pub fn request(&self) {
        self.0.cancel();
    }

    /// Waits until someone asks.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }
}
