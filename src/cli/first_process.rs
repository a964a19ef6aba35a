//! This program as process 1 of a container.
//!
//! Process 1 gets every process whose parent has ended, such as what a hook left behind,
//! and has to take note of their ends, or they stay in the table for ever. A process
//! that waits for children of its own cannot do that beside: it would take the ends
//! that are waited for. So the work is done by a child, and process 1 only looks after
//! processes.

use std::io::{self, IsTerminal as _};
use std::os::unix::process::CommandExt as _;
use std::thread;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use super::process;
use crate::domain::error_code::{ErrorCode, exit};

/// Does the same command in a child, if this is process 1: its exit code then. `None`
/// for every other process.
pub(super) fn in_a_child() -> Result<Option<u8>, Failure> {
    if getpid() != Pid::INIT {
        return Ok(None);
    }
    let failed = |error: io::Error| Failure::new(ErrorCode::InternalError, format!("cannot start a process: {error}"));
    let mut command = process::this_program()?;
    command.args(std::env::args_os().skip(1));
    // A terminal tells its whole group of Ctrl-C; else the child hears of it from here.
    let shares_terminal = io::stdin().is_terminal();
    if !shares_terminal {
        command.process_group(0);
    }
    let runtime = super::one_thread()?;
    let forwarded = [
        (Signal::TERM, SignalKind::terminate()),
        (Signal::HUP, SignalKind::hangup()),
        (Signal::INT, SignalKind::interrupt()),
    ];
    let mut signals = Vec::new();
    {
        // Before the child, so that none is lost.
        let _guard = runtime.enter();
        for (forward, kind) in forwarded {
            signals.push((forward, signal(kind).map_err(failed)?));
        }
    }
    let child = command.spawn().map_err(failed)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Failure::new(ErrorCode::InternalError, "the child has no process id"))?;
    let forward = move || {
        runtime.block_on(async {
            let mut all = futures_util::future::join_all(signals.into_iter().map(|(forward, mut stream)| async move {
                while stream.recv().await.is_some() {
                    if forward != Signal::INT || !shares_terminal {
                        // It may have ended meanwhile.
                        let _ = kill_process(pid, forward);
                    }
                }
            }));
            (&mut all).await;
        });
    };
    thread::Builder::new().name("signals".to_owned()).spawn(forward).map_err(failed)?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended == pid => {
                let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                return Ok(Some(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::OTHER)));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
}
