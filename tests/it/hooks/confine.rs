//! How hooks are kept from the network and from files, and what is said when they
//! cannot be.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::{Rig, configure, ended, log_lines, metric, script};
use crate::support::daemon::Daemon;
use crate::support::fake_broker::FakeBroker;
use crate::support::tools;

fn connects(port: u16) -> String {
    format!("curl -s -o /dev/null --max-time 5 http://127.0.0.1:{port}/; echo $? | keep $CLAUDEMESH_HOOK_NAME")
}

// Covers: R223, R224, R253
#[tokio::test]
async fn a_hook_without_network_reaches_nobody() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let number = port.local_addr().expect("an address").port();
    let serve = async {
        loop {
            let (mut stream, _) = port.accept().await.expect("a connection");
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
        }
    };
    let test = async {
        let settings = "[on-dm]\nnetwork_policy = \"deny\"\n[on-message]\nnetwork_policy = \"allow\"\n[on-mention]\n\
                        network_policy = \"allowlist\"\nnetwork_allowlist = []\n";
        let body = format!("cat > /dev/null; {}", connects(number));
        let Some(_) = tools::system("unshare") else { return };
        let mut rig = Rig::start(settings, &[("on-dm", &body), ("on-message", &body), ("on-mention", &body)]).await;
        rig.push("hello @own").await;
        assert_eq!(rig.written("on-message").await.trim(), "0", "allowed");
        for hook in ["on-dm", "on-mention"] {
            assert_eq!(rig.written(hook).await.trim(), "7", "{hook}: connection refused, as where there is nobody");
            assert_eq!(ended(&rig.alice, hook, 1).await[0]["unenforced"], json!([]));
        }
    };
    tokio::select! {
        () = serve => {}
        () = test => {}
    }
}

/// A directory of tools that stand in for the system's.
fn stand_ins(daemon: &Daemon, programs: &[(&str, &str)]) -> String {
    let directory = daemon.home().join("tools");
    std::fs::create_dir_all(&directory).expect("a directory");
    for (name, body) in programs {
        let path = directory.join(name);
        let text = format!("#!/bin/sh\n{}\n", body.replace("OUT", &daemon.home().display().to_string()));
        std::fs::write(&path, text).expect("a program");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    directory.display().to_string()
}

async fn with_tools(settings: &str, body: &str, programs: &[(&str, &str)]) -> Rig {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    configure(&alice, settings);
    script(&alice, "on-dm", body);
    let path = stand_ins(&alice, programs);
    alice.env("PATH", &path);
    alice.start().await;
    let client = fake.link(&alice).await;
    Rig { fake, alice, client, pushed: 0 }
}

/// Each rung: a namespace of its own, one inside a user's, a group whose packets are
/// refused, nothing.
// Covers: R253, R256, R317
#[tokio::test]
async fn the_next_best_way_is_taken_and_the_last_one_is_told() {
    let note = "echo \"$@\" >> OUT/used; while [ \"$1\" != -- ] && [ \"$1\" != true ]; do shift; done; [ \"$1\" = -- ] && shift; exec \"$@\"";
    let only_user = "case \"$*\" in *--user*) ;; *) exit 1;; esac; ".to_owned() + note;
    let iptables = "echo \"$(basename \"$0\") $*\" >> OUT/rules; [ \"$1\" = -A ]";
    let body = "cat > /dev/null; : | keep ran";
    let is_root = rustix::process::geteuid().is_root();

    let mut rig = with_tools("[on-dm]\n", body, &[("unshare", note)]).await;
    rig.push("hi").await;
    rig.written("ran").await;
    let used = rig.written("used").await;
    assert!(used.lines().last().is_some_and(|line| line.contains("--net --") && line.ends_with("on-dm.sh")), "{used}");

    let mut rig = with_tools("[on-dm]\n", body, &[("unshare", &only_user)]).await;
    rig.push("hi").await;
    rig.written("ran").await;
    let used = rig.written("used").await;
    assert!(used.lines().last().is_some_and(|line| line.contains("--user --map-current-user --net --")), "{used}");

    if is_root {
        let programs = [("unshare", "exit 1"), ("iptables", iptables), ("ip6tables", iptables), ("setpriv", note)];
        let mut rig = with_tools("[on-dm]\n", body, &programs).await;
        rig.push("hi").await;
        rig.written("ran").await;
        let rules = rig.written("rules").await;
        for program in ["iptables", "ip6tables"] {
            assert!(rules.contains(&format!("{program} -A OUTPUT -m owner --gid-owner 62950 -j REJECT")), "{rules}");
        }
        assert!(rig.written("used").await.contains("--regid 62950 --clear-groups"), "the hook is of that group");
        assert_eq!(ended(&rig.alice, "on-dm", 1).await[0]["unenforced"], json!([]));
    }

    let mut rig = with_tools("[on-dm]\n", body, &[("unshare", "exit 1"), ("iptables", "exit 1")]).await;
    rig.push("hi").await;
    rig.written("ran").await;
    assert_eq!(ended(&rig.alice, "on-dm", 1).await[0]["unenforced"], json!(["network_policy"]));
    assert_eq!(log_lines(&rig.alice, "cannot be enforced")[0]["level"], "WARN");
    let labels = ["hook=\"on-dm\"", "reason=\"network_deny\""];
    assert_eq!(metric(&rig.alice, "cm_daemon_hook_unenforceable_total", &labels).await as u64, 1);
}

// Covers: R224, R256
#[tokio::test]
async fn a_list_of_hosts_is_told_to_be_unenforced() {
    let settings = "[on-dm]\nnetwork_policy = \"allowlist\"\nnetwork_allowlist = [\"example.org\"]\n[on-message]\nnetwork_policy = \"allow\"\n\
                    network_allowlist = [\"example.org\"]\n";
    let body = "cat > /dev/null";
    let mut rig = Rig::start(settings, &[("on-dm", body), ("on-message", body)]).await;
    rig.push("hi").await;
    assert_eq!(ended(&rig.alice, "on-dm", 1).await[0]["unenforced"], json!(["network_policy"]));
    assert_eq!(
        ended(&rig.alice, "on-message", 1).await[0]["unenforced"],
        json!([]),
        "the list counts under allowlist only"
    );
    let labels = ["hook=\"on-dm\"", "reason=\"network_allowlist\""];
    assert_eq!(metric(&rig.alice, "cm_daemon_hook_unenforceable_total", &labels).await as u64, 1);
}

// Covers: R225, R252
#[tokio::test]
async fn a_read_only_hook_writes_nothing_and_a_plain_one_what_it_may() {
    let Some(_) = tools::system("bwrap") else { return };
    let body = "cat > /dev/null; true > OUT/wrote-$CLAUDEMESH_HOOK_NAME 2> /dev/null || exit 9";
    let settings = "[on-dm]\nfs_policy = \"readonly\"\n[on-message]\nfs_policy = \"rw\"\n[on-mention]\n";
    let mut rig = Rig::start(settings, &[("on-dm", body), ("on-message", body), ("on-mention", body)]).await;
    rig.push("hi @own").await;
    for (hook, exit, wrote) in [("on-dm", 9, false), ("on-message", 0, true), ("on-mention", 0, true)] {
        let run = ended(&rig.alice, hook, 1).await.remove(0);
        assert_eq!((&run["exit_code"], &run["unenforced"]), (&json!(exit), &json!([])), "{run}");
        assert_eq!(rig.out(&format!("wrote-{hook}")).exists(), wrote, "{hook}");
    }

    let programs: [(&str, &str); 0] = [];
    let mut rig = with_tools("[on-dm]\nfs_policy = \"readonly\"\nnetwork_policy = \"allow\"\n", body, &programs).await;
    rig.push("hi").await;
    let run = ended(&rig.alice, "on-dm", 1).await.remove(0);
    assert_eq!((&run["exit_code"], &run["unenforced"]), (&json!(0), &json!(["fs_policy"])), "{run}");
}

/// The hook looks around; what it finds comes back through its socket, the only way
/// out.
// Covers: R228, R250
#[tokio::test]
async fn a_sandbox_shows_the_hook_its_socket_and_little_else() {
    let Some(_) = tools::system("bwrap") else { return };
    for policy in ["readonly", "sandbox"] {
        let settings = format!("[on-dm]\nsandbox = \"bubblewrap\"\nfs_policy = \"{policy}\"\nallow_reply = true\n");
        let probe = "cat > /dev/null; r=; say() { r=\"$r $1\"; }
true > /tmp/x 2> /dev/null && say tmp-is-writable
true > /usr/x 2> /dev/null && say usr-is-writable
true > ./mine || say own-is-not-writable
[ \"$PWD\" = \"/tmp/on-dm-$CLAUDEMESH_EVENT_ID\" ] || say other-directory
[ -z \"$(ls -A /proc)\" ] || say proc
[ -z \"$(ls -A /run)\" ] || say run
[ -e /run/dbus ] && say dbus
[ -e OUT/config.json ] && say config
[ -e OUT/daemon/demo/keypair.json ] && say keys
[ -e OUT/daemon/demo/inbox.db ] && say inbox
[ -e OUT/daemon/demo/sock ] && say main-socket
[ -e OUT/daemon/demo/hooks/hooks.toml ] && say settings
true > OUT/x 2> /dev/null && say root-is-writable
curl -s -o /dev/null --max-time 5 http://127.0.0.1:1/ ; [ $? = 7 ] || say network
c=$(curl -s -o /dev/null -w '%{http_code}' --unix-socket \"$CLAUDEMESH_DAEMON_SOCK\" http://localhost/v1/health); [ \"$c\" = 401 ] || say no-socket-$c
printf '{\"reply\": \"found:%s\"}' \"$r\"";
        let mut rig = Rig::start(&settings, &[("on-dm", probe)]).await;
        rig.push("look around").await;
        let run = ended(&rig.alice, "on-dm", 1).await.remove(0);
        assert_eq!(
            (&run["exit_code"], &run["replied"], &run["unenforced"]),
            (&json!(0), &json!(true), &json!([])),
            "{run}"
        );
        let db = rig.alice.outbox_db().await;
        let found = db.texts("SELECT CAST(payload AS TEXT) FROM outbox").await;
        db.close().await;
        assert_eq!(found, ["found:"], "{policy}");
    }
}

/// Seen from outside, `bwrap` is what runs.
// Covers: R228
#[tokio::test]
async fn a_sandboxed_hook_runs_under_bwrap_and_ends_in_time() {
    let Some(_) = tools::system("bwrap") else { return };
    let settings = "[on-dm]\nsandbox = \"bubblewrap\"\ntimeout_s = 2\n";
    let mut rig = Rig::start(settings, &[("on-dm", "exec sleep 300")]).await;
    rig.push("hi").await;
    let home = rig.alice.home().display().to_string();
    let processes = || -> Vec<String> {
        let all = std::fs::read_dir("/proc").expect("/proc").flatten();
        let line = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("cmdline")).ok();
        all.filter_map(line).filter(|line| line.contains(&home) && line.contains("on-dm.sh")).collect()
    };
    crate::support::wait::until("bwrap to run", async || {
        processes()
            .iter()
            .any(|line| line.split('\0').next().is_some_and(|program| program.ends_with("/bwrap")))
            .then_some(())
    })
    .await;
    let run = ended(&rig.alice, "on-dm", 1).await.remove(0);
    assert_eq!(run["timed_out"], true, "{run}");
    assert!(processes().is_empty(), "nothing is left");
}

/// As root `bwrap` would leave a hook the right to undo its mounts.
// Covers: R228, R250
#[tokio::test]
async fn a_hook_of_root_cannot_undo_its_sandbox() {
    let Some(_) = tools::system("bwrap") else { return };
    let probe = "cat > /dev/null; r=; say() { r=\"$r $1\"; }
umount OUT 2> /dev/null && say umount
umount -l OUT 2> /dev/null && say lazy-umount
mount -o remount,rw / 2> /dev/null && say remount
mount -o remount,bind,rw / 2> /dev/null && say remount-bind
mount -t tmpfs none /mnt 2> /dev/null && say mount
[ -e OUT/config.json ] && say config
true > OUT/x 2> /dev/null && say write
[ -c /dev/tty ] && { true < /dev/tty || say tty; }
[ -n \"$(ls -A /dev/pts | grep -v ptmx)\" ] && say terminals
printf '{\"reply\": \"found:%s\"}' \"$r\"";
    let settings = "[on-dm]\nsandbox = \"bubblewrap\"\nallow_reply = true\n";
    let mut rig = Rig::start(settings, &[("on-dm", probe)]).await;
    rig.push("look around").await;
    let run = ended(&rig.alice, "on-dm", 1).await.remove(0);
    assert_eq!((&run["exit_code"], &run["replied"]), (&json!(0), &json!(true)), "{run}");
    let db = rig.alice.outbox_db().await;
    let found = db.texts("SELECT CAST(payload AS TEXT) FROM outbox").await;
    db.close().await;
    assert_eq!(found, ["found:"]);

    let probe = "cat > /dev/null; mount -o remount,rw / 2> /dev/null && exit 3; true > OUT/x 2> /dev/null && exit 4; \
                 [ \"$(stat -c %t:%T /dev/tty)\" = 1:3 ] || exit 5";
    let settings = "[on-dm]\nfs_policy = \"readonly\"\n";
    let mut rig = Rig::start(settings, &[("on-dm", probe)]).await;
    rig.push("look around").await;
    let run = ended(&rig.alice, "on-dm", 1).await.remove(0);
    assert_eq!(run["exit_code"], 0, "{run}");
}

/// Signals at the timeout reach the hook inside, which has its time to end.
// Covers: R248
#[tokio::test]
async fn a_sandboxed_hook_may_end_in_order_at_the_timeout() {
    let Some(_) = tools::system("bwrap") else { return };
    let body = "cat > /dev/null; trap 'sleep 0.5; echo bye; exit 0' TERM; sleep 60 & wait";
    let settings = "[on-dm]\nsandbox = \"bubblewrap\"\ntimeout_s = 1\n";
    let mut rig = Rig::start(settings, &[("on-dm", body)]).await;
    rig.push("hi").await;
    let run = ended(&rig.alice, "on-dm", 1).await.remove(0);
    assert_eq!((&run["timed_out"], &run["stdout_bytes"]), (&json!(true), &json!(4)), "{run}");
}

/// A hook that asks for a sandbox does not run without it.
#[tokio::test]
async fn a_sandbox_that_is_not_there_is_no_reason_to_run_without() {
    let programs: [(&str, &str); 0] = [];
    let mut rig = with_tools("[on-dm]\nsandbox = \"bubblewrap\"\n", "cat > /dev/null; : > OUT/ran", &programs).await;
    rig.push("hi").await;
    let run = ended(&rig.alice, "on-dm", 1).await.remove(0);
    assert!(run["start_error"].as_str().is_some_and(|text| text.contains("bwrap")), "{run}");
    assert!(!rig.out("ran").exists());
}
