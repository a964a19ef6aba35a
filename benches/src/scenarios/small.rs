//! What a user waits for: the start of a daemon, and a command.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::load::{Sample, payload};
use crate::processes::which;
use crate::{Run, machine, mesh};

/// Starts and commands of one round.
const TIMES: usize = 15;

/// One round.
pub async fn round(run: &mut Run) -> Result<()> {
    let folder = run.folder()?;
    let (_broker, mut alice, _bob) = mesh::pair(&run.binary, folder.path()).await?;

    machine::quiet().await;
    let mut latencies = Vec::new();
    for _ in 0..TIMES {
        alice.stop()?;
        let begun = Instant::now();
        alice.start().await?;
        latencies.push(begun.elapsed());
    }
    run.add("start", Sample::one_by_one(latencies));

    alice.connected_with("bob").await?;
    let text = payload();
    let body = serde_json::json!({"to": "bob", "message": text}).to_string();
    let socket = alice.socket();
    let Some(curl) = which("curl") else { return Ok(()) };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    machine::quiet().await;
    for _ in 0..TIMES * 2 {
        let mut command = alice.command();
        command.args(["send", "bob", &text, "--mesh", mesh::MESH]);
        ours.push(time(&mut command)?);
        let mut command = Command::new(&curl);
        command.args(["--silent", "--fail", "--unix-socket"]).arg(&socket);
        command.args(["-H", "content-type: application/json", "-d", &body, "http://localhost/v1/send"]);
        theirs.push(time(&mut command)?);
    }
    run.add("cli/send", Sample::one_by_one(ours));
    run.add("cli/curl", Sample::one_by_one(theirs));
    Ok(())
}

/// A command from its start to its end.
fn time(command: &mut Command) -> Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let begun = Instant::now();
    let status = command.status()?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(begun.elapsed())
}
