//! One process of a hook, from its input to its end.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

/// Time between SIGTERM and SIGKILL (R248).
const KILL_AFTER: Duration = Duration::from_secs(5);
/// How long outputs are read on after the end: what is left behind may hold them
/// open.
const DRAIN: Duration = Duration::from_secs(1);
/// Pause between two looks for what is left of a group: no event tells its end.
const LOOK: Duration = Duration::from_millis(20);

/// What a process may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Time.
    pub(super) timeout: Duration,
    /// Bytes of each output that are kept.
    pub(super) keep: usize,
    /// Signals go to its group.
    pub(super) group: bool,
}

/// One output.
#[derive(Clone, Debug, Default)]
pub(super) struct Captured {
    /// Its beginning.
    pub(super) kept: Vec<u8>,
    /// Its length.
    pub(super) total: u64,
}

/// How a process ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended {
    pub(super) status: Option<ExitStatus>,
    /// It took longer than it may.
    pub(super) timed_out: bool,
    /// The daemon stops, so it was ended.
    pub(super) stopped: bool,
    pub(super) stdout: Captured,
    pub(super) stderr: Captured,
}

/// Why a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// By itself.
    Own,
    /// Its time is up.
    Timeout,
    /// The daemon stops.
    Stop,
}

/// The process and its group.
#[derive(Clone, Copy, Debug)]
struct Target {
    pid: Option<Pid>,
    group: bool,
}

/// Feeds a process, reads what it writes and ends it when its time is up or the
/// daemon stops. What it leaves behind in its group ends with it.
pub(super) async fn attend(mut child: Child, input: Vec<u8>, bounds: Bounds, stop: &CancellationToken) -> Ended {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let target = Target { pid, group: bounds.group };
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Captured::default(), Captured::default());
    let feed = async {
        if let Some(mut pipe) = stdin {
            // A hook need not read what it is given.
            let _ = pipe.write_all(&input).await;
        }
    };
    let (status, cause) = {
        let keep = bounds.keep;
        let streams = async { tokio::join!(feed, capture(stdout, &mut out, keep), capture(stderr, &mut err, keep)) };
        let mut streams = std::pin::pin!(streams);
        let mut end = std::pin::pin!(end(&mut child, target, bounds.timeout, stop));
        let mut is_read = false;
        let ended = loop {
            tokio::select! {
                ended = &mut end => break ended,
                _ = &mut streams, if !is_read => is_read = true,
            }
        };
        if !is_read {
            let _ = tokio::time::timeout(DRAIN, streams).await;
        }
        ended
    };
    Ended { status, timed_out: cause == Cause::Timeout, stopped: cause == Cause::Stop, stdout: out, stderr: err }
}

/// Waits for the end, and brings it about when it has to come.
async fn end(
    child: &mut Child,
    target: Target,
    timeout: Duration,
    stop: &CancellationToken,
) -> (Option<ExitStatus>, Cause) {
    let cause = tokio::select! {
        status = child.wait() => {
            target.signal_group(Signal::KILL);
            return (status.ok(), Cause::Own);
        }
        () = tokio::time::sleep(timeout) => Cause::Timeout,
        () = stop.cancelled() => Cause::Stop,
    };
    target.signal(Signal::TERM);
    let orderly = async {
        let status = child.wait().await;
        while target.has_group() {
            tokio::time::sleep(LOOK).await;
        }
        status.ok()
    };
    let status = match tokio::time::timeout(KILL_AFTER, orderly).await {
        Ok(status) => status,
        Err(_) => {
            target.signal(Signal::KILL);
            child.wait().await.ok()
        }
    };
    (status, cause)
}

async fn capture(pipe: Option<impl AsyncRead + Unpin>, into: &mut Captured, keep: usize) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let room = keep.saturating_sub(into.kept.len()).min(count);
        into.kept.extend_from_slice(&buffer[..room]);
        into.total += count as u64;
    }
}

// === impl Target ===

impl Target {
    /// To the group, or to the first process alone (R226). What is gone already needs
    /// no signal.
    fn signal(self, signal: Signal) {
        match self.pid {
            Some(pid) if !self.group => {
                let _ = kill_process(pid, signal);
            }
            _ => self.signal_group(signal),
        }
    }

    fn signal_group(self, signal: Signal) {
        if let (Some(pid), true) = (self.pid, self.group) {
            let _ = kill_process_group(pid, signal);
        }
    }

    fn has_group(self) -> bool {
        self.group && self.pid.is_some_and(|pid| test_kill_process_group(pid).is_ok())
    }
}
