//! However `dev` ends, nothing of it stays.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{Dev, Member};
use crate::support::process::{self, Process};
use crate::support::{cli, wait};

fn signal(pid: &str, signal: Signal) {
    let pid = Pid::from_raw(pid.parse().expect("a process id")).expect("a process id");
    kill_process(pid, signal).expect("it can be signalled");
}

/// A mesh in every state that a process can be in.
async fn disturbed() -> Dev {
    let mut dev = Dev::ready(&["--members", "alice,bob,cy"]).await;
    dev.act("pause", "alice").await;
    dev.act("stall", "bob").await;
    dev.act("kill", "cy").await;
    // Broker, two daemons, who removes the directory.
    assert_eq!(dev.processes().len(), 4, "{:?}", dev.processes());
    dev
}

#[tokio::test]
async fn the_end_of_standard_input_ends_it() {
    let mut dev = disturbed().await;
    dev.stdin = None;
    assert_eq!(dev.ended().await, (String::new(), String::new(), Some(0)));
    // By then, not soon after.
    assert!(dev.processes().is_empty(), "{:?}", dev.processes());
    assert!(!dev.dir().exists());
}

#[tokio::test]
async fn a_signal_ends_it() {
    for end in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut dev = disturbed().await;
        signal(&dev.child.id().expect("it runs").to_string(), end);
        assert_eq!(dev.ended().await, (String::new(), String::new(), Some(0)), "{end:?}");
        assert!(dev.processes().is_empty() && !dev.dir().exists(), "{end:?}: {:?}", dev.processes());
    }
}

/// As `pkill` or a service manager does it.
#[tokio::test]
async fn a_signal_to_all_of_its_processes_ends_it() {
    for end in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut dev = Dev::ready(&[]).await;
        let mut all = dev.processes();
        all.push(dev.child.id().expect("it runs").to_string());
        for pid in &all {
            signal(pid, end);
        }
        assert_eq!(dev.ended().await, (String::new(), String::new(), Some(0)), "{end:?}");
        assert!(dev.processes().is_empty() && !dev.dir().exists(), "{end:?}: {:?}", dev.processes());
    }
}

#[tokio::test]
async fn sigkill_ends_it() {
    let mut dev = disturbed().await;
    dev.child.kill().await.expect("it can be killed");
    dev.nothing_is_left().await;
}

/// As a terminal or a CI job does it that kills all that it has started.
#[tokio::test]
async fn sigkill_of_its_process_group_ends_it() {
    use std::os::unix::process::CommandExt as _;
    let home = process::directory();
    let mut command = process::command(home.path());
    command.args(["dev", "--json"]).process_group(0);
    let dev = Dev::start_as(home, command).await;
    let group = i32::try_from(dev.child.id().expect("it runs")).expect("a process id");
    rustix::process::kill_process_group(Pid::from_raw(group).expect("a group"), Signal::KILL).expect("a signal");
    dev.nothing_is_left().await;
}

/// At whatever point of the start: what was started then knows its parent.
#[tokio::test]
async fn sigkill_during_the_start_leaves_nothing() {
    for after in [0, 1, 2, 3, 4] {
        let home = process::directory();
        let mut command = process::command(home.path());
        command.args(["dev"]).env("TMPDIR", home.path());
        let mut dev = Process::spawn("dev", command, &home.path().join("output"), Vec::new());
        let dir = wait::until("a directory", async || {
            let mut entries = std::fs::read_dir(home.path()).expect("the home").flatten();
            entries.find(|entry| entry.path().is_dir()).map(|entry| entry.path())
        })
        .await;
        let text = dir.display().to_string();
        let mesh = || super::processes().into_iter().filter(|pid| super::mentions(pid, &text)).count();
        wait::until("some processes", async || (mesh() >= after).then_some(())).await;
        dev.kill9();
        wait::until("all processes to end", async || (mesh() == 0).then_some(())).await;
        wait::until("the directory to go", async || (!dir.exists() || after == 0).then_some(())).await;
    }
}

#[tokio::test]
async fn a_daemon_that_ends_by_itself_can_be_started() {
    let mut dev = Dev::ready(&[]).await;
    let bob = dev.member("bob");
    signal(&bob.pid(), Signal::KILL);
    // The system takes a moment to end all threads of a process.
    wait::until("the end to be noticed", async || {
        let answer = dev.command(json!({ "do": "pause", "member": "bob" })).await;
        (answer["error"]["code"] == "daemon_not_running").then_some(())
    })
    .await;
    let again = Member(dev.act("start", "bob").await["member"].clone());
    again.connected(true).await;
}

#[tokio::test]
async fn a_person_is_told_the_sockets_and_ends_it_with_ctrl_c() {
    let home = process::directory();
    let mut command = process::command(home.path());
    command.args(["dev", "--members", "ann,ben"]).env("TMPDIR", home.path());
    let mut dev = Process::spawn("dev", command, &home.path().join("output"), Vec::new());
    let said = wait::until("the words", async || Some(dev.output()).filter(|said| said.contains("Ctrl-C"))).await;
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((&lines[0][..], lines[1][0], lines[2][0]), (&["NAME", "SOCKET"][..], "ann", "ben"), "{said}");
    assert!(said.contains(&format!("export CLAUDEMESH_DAEMON_SOCK={}", lines[1][1])), "{said}");
    let socket = [("CLAUDEMESH_DAEMON_SOCK", lines[1][1])];
    cli::run_with(home.path(), &["send", "ben", "hi", "--wait", "delivered"], &socket).await.ok();
    dev.signal(Signal::INT);
    assert_eq!(dev.wait().await.code(), Some(0));
    assert!(!Path::new(lines[1][1]).exists());
}
