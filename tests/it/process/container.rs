//! The daemon as process 1 of a container.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::fake_broker::FakeBroker;
use crate::support::process::{self, binary};
use crate::support::wait;

/// Processes that have ended and that nobody has taken note of, whose parent is `pid`.
fn zombies(pid: &str) -> usize {
    let all = std::fs::read_dir("/proc").expect("the processes");
    let stats = all.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    let is_one = |stat: &String| {
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        fields.first() == Some(&"Z") && fields.get(1) == Some(&pid)
    };
    stats.filter(is_one).count()
}

/// What a hook leaves behind becomes its child, and must not stay when it has ended. It
/// stops as any other does, too.
#[tokio::test]
async fn as_process_1_it_takes_note_of_the_ends_of_what_hooks_left_behind() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    let hooks = alice.file("hooks");
    std::fs::create_dir_all(&hooks).expect("the hooks");
    std::fs::set_permissions(&hooks, std::fs::Permissions::from_mode(0o700)).expect("its mode");
    let settings = hooks.join("hooks.toml");
    std::fs::write(&settings, "[on-message]\n").expect("hooks.toml");
    std::fs::set_permissions(&settings, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    let script = hooks.join("on-message.sh");
    let ended = alice.home().join("ended");
    let left = format!("setsid sh -c 'sleep 0.2; echo >> {}' </dev/null >/dev/null 2>&1 & sleep 0.1", ended.display());
    std::fs::write(&script, format!("#!/bin/sh\n{left}\n")).expect("the hook");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).expect("its mode");
    let mut command = process::with_program(Path::new("unshare"), alice.home());
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", binary()]);
    command.args(["daemon", "up", "--foreground", "--mesh", "demo"]);
    alice.start_as(command).await;
    let unshare = alice.process().pid();
    let first = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).expect("its child");
    let first = first.trim().to_owned();
    let mut client = fake.link(&alice).await;
    alice.knows("bob").await;
    for number in 0..3 {
        client.push_from(&fake.bob, &format!("m{number}"), Some(&format!("c{number}")), "hello").await;
        client.expect("client_ack").await;
    }
    wait::until("what was left behind to end", async || {
        let lines = std::fs::read_to_string(&ended).unwrap_or_default().lines().count();
        (lines == 3).then_some(())
    })
    .await;
    wait::until("their ends to be noted", async || (zombies(&first) == 0).then_some(())).await;
    let pid = first.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
    assert_eq!(alice.ended().await, 0);
    let last = alice.log().pop().expect("a line");
    assert_eq!(last["message"], "The daemon has stopped", "{last}");
}
