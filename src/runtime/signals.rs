//! The process's signals as futures.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT and SIGTERM. The first asks for an orderly stop, the second ends the
/// process at once: start-up recovery covers what it cut off.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

// === impl StopSignals ===

impl StopSignals {
    /// Takes the two signals over from their default action.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next of the two and tells its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// SIGHUP: read the settings again.
pub fn reload_signal() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}
