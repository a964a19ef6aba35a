//! What a run gets, and within which bounds it runs.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Rig, ended, log_lines, metric, runs};
use crate::support::{process, wait};

// Covers: R222, R229-R235
#[tokio::test]
async fn a_run_sees_its_own_variables_and_nothing_of_the_daemon() {
    let dump = "env | sort | keep $CLAUDEMESH_HOOK_NAME";
    let settings = "[on-dm]\n[on-message]\ncapability_token_scope = [\"reply:event\"]\npass_home = true\n";
    let mut rig = Rig::start(settings, &[("on-dm", dump), ("on-message", dump)]).await;
    rig.push("hi").await;
    let names = |text: &str| -> Vec<String> {
        // The shell adds the last three by itself.
        let own = |name: &&str| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name);
        text.lines().filter_map(|line| Some(line.split_once('=')?.0)).filter(own).map(str::to_owned).collect()
    };
    let value = |text: &str, name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        found.unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
    };
    let plain = rig.written("on-dm").await;
    assert_eq!(
        names(&plain),
        [
            "CLAUDEMESH_BIN",
            "CLAUDEMESH_DAEMON_SOCK",
            "CLAUDEMESH_EVENT_ID",
            "CLAUDEMESH_HOOK_NAME",
            "CLAUDEMESH_MESH",
            "PATH"
        ]
    );
    assert_eq!(value(&plain, "PATH"), "/usr/bin:/bin");
    assert_eq!(value(&plain, "CLAUDEMESH_MESH"), "demo");
    assert_eq!(value(&plain, "CLAUDEMESH_HOOK_NAME"), "on-dm");
    assert_eq!(value(&plain, "CLAUDEMESH_BIN"), crate::support::process::binary());
    let (own, main) = (value(&plain, "CLAUDEMESH_DAEMON_SOCK"), rig.alice.socket().display().to_string());
    assert!(own != main && own.starts_with(&rig.alice.file("run").display().to_string()), "{own}");
    let scoped = rig.written("on-message").await;
    assert_eq!(
        names(&scoped),
        [
            "CLAUDEMESH_BIN",
            "CLAUDEMESH_CAPABILITY_TOKEN",
            "CLAUDEMESH_DAEMON_SOCK",
            "CLAUDEMESH_EVENT_ID",
            "CLAUDEMESH_HOOK_NAME",
            "CLAUDEMESH_MESH",
            "HOME",
            "PATH",
        ]
    );
    assert_eq!(value(&scoped, "HOME"), rig.alice.home().display().to_string());
    assert_ne!(value(&scoped, "CLAUDEMESH_DAEMON_SOCK"), own, "each run has a socket of its own");
    ended(&rig.alice, "on-dm", 1).await;
    wait::until("the sockets to be gone", async || {
        std::fs::read_dir(rig.alice.file("run")).ok()?.next().is_none().then_some(())
    })
    .await;
    let token = value(&scoped, "CLAUDEMESH_CAPABILITY_TOKEN");
    let log = std::fs::read_to_string(rig.alice.file("daemon.log")).expect("the log");
    assert!(!log.contains(&token), "a token is never logged");
}

// Covers: R220
#[tokio::test]
async fn what_is_redacted_never_reaches_the_hook() {
    let settings = "[on-dm]\nredact_payload = [\"$.body.password\", \"$.sender_name\"]\n";
    let mut rig = Rig::start(settings, &[("on-dm", "keep input")]).await;
    rig.push("{\"user\": \"u\", \"password\": \"hunter2\"}").await;
    let text = rig.written("input").await;
    let input: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(input["body"], "{\"user\":\"u\"}", "{input}");
    assert!(!text.contains("hunter2") && !text.contains("sender_name"), "{text}");
}

// Covers: R245, R361
#[tokio::test]
async fn a_large_event_is_cut_to_valid_json() {
    let mut rig = Rig::start("[on-dm]\n", &[("on-dm", "keep input")]).await;
    rig.push(&"x".repeat(300 << 10)).await;
    let text = rig.written("input").await;
    assert!(text.len() <= 262_144 && text.len() > 262_000, "{}", text.len());
    let input: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(input["_truncated"], true);

    let small = "[hooks]\nstdin_max_bytes = 2000\n";
    let mut rig = Rig::with_config(small, "[on-dm]\n", &[("on-dm", "keep input")]).await;
    rig.push(&"x".repeat(5000)).await;
    let text = rig.written("input").await;
    assert!(text.len() <= 2000, "{}", text.len());
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["_truncated"], true);
}

// Covers: R219, R246, R247
#[tokio::test]
async fn outputs_are_cut_with_a_warning() {
    // One byte more than is kept, and the end of an answer behind it.
    let long = "cat > /dev/null; head -c 65537 /dev/zero | tr '\\0' ' '; echo '{\"reply\": \"too late\"}'; \
                head -c 100000 /dev/zero >&2";
    let short = "cat > /dev/null; printf '%100s' ''; echo '{}'";
    let settings = "[on-dm]\nallow_reply = true\n[on-message]\noutput_size_limit = 10\n";
    let mut rig = Rig::start(settings, &[("on-dm", long), ("on-message", short)]).await;
    rig.push("hi").await;
    let dm = ended(&rig.alice, "on-dm", 1).await;
    assert_eq!(dm[0]["stdout_bytes"], 65537 + 22, "{dm:?}");
    assert_eq!((&dm[0]["stderr_bytes"], &dm[0]["replied"]), (&json!(100_000), &json!(false)), "{dm:?}");
    let said = log_lines(&rig.alice, "Hook on-dm wrote");
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[0]["level"], "WARN");
    assert_eq!((&said[0]["kept"], &said[1]["kept"]), (&json!(65_536), &json!(65_536)));
    ended(&rig.alice, "on-message", 1).await;
    let said = log_lines(&rig.alice, "Hook on-message wrote");
    assert_eq!((said.len(), &said[0]["kept"]), (1, &json!(10)), "{said:?}");
}

/// A hook and its grandchild both ignore SIGTERM.
// Covers: R218, R226, R248
#[tokio::test]
async fn a_run_that_takes_too_long_is_ended_with_its_children() {
    let stubborn = "trap 'date > OUT/termed' TERM; sh -c 'trap \"\" TERM; echo $$ > OUT/child; while :; do sleep 1; done' & \
                    while :; do sleep 1; done";
    let mut rig = Rig::start("[on-dm]\ntimeout_s = 1\n", &[("on-dm", stubborn)]).await;
    let began = Instant::now();
    rig.push("hi").await;
    let run = ended(&rig.alice, "on-dm", 1).await.remove(0);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(6) && took < Duration::from_secs(20), "{took:?}: 1 s, then 5 s more");
    assert_eq!((&run["timed_out"], &run["signal"]), (&json!(true), &json!(9)), "{run}");
    assert!(run["exit_code"].is_null(), "{run}");
    assert!(rig.out("termed").exists(), "it was asked first");
    let child = rig.written("child").await;
    wait::until("the grandchild to be gone", async || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    })
    .await;
    let labels = ["hook=\"on-dm\"", "exit=\"timeout\""];
    assert!(metric(&rig.alice, "cm_daemon_hook_invocations_total", &labels).await > 0.0);
}

/// The group lives on; only the first process is ended.
// Covers: R226
#[tokio::test]
async fn without_killpg_only_the_first_process_gets_the_signal() {
    let body = "sh -c 'echo $$ > OUT/child; exec sleep 300' > /dev/null 2>&1 & wait";
    let settings = "[on-dm]\ntimeout_s = 1\nkillpg_on_timeout = false\nnetwork_policy = \"allow\"\n";
    let mut rig = Rig::start(settings, &[("on-dm", body)]).await;
    rig.push("hi").await;
    let run = ended(&rig.alice, "on-dm", 1).await.remove(0);
    assert_eq!((&run["timed_out"], &run["signal"]), (&json!(true), &json!(15)), "{run}");
    let child: i32 = rig.written("child").await.trim().parse().expect("a number");
    let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).expect("it still runs");
    assert!(!stat.contains(") Z "), "{stat}");
    let child = rustix::process::Pid::from_raw(child).expect("a process id");
    rustix::process::kill_process(child, rustix::process::Signal::KILL).expect("it still runs");
}

// Covers: R360
#[tokio::test]
async fn the_default_time_limit_is_a_setting() {
    let mut rig =
        Rig::with_config("[hooks]\ndefault_timeout_s = 1\n", "[on-dm]\n", &[("on-dm", "exec sleep 60")]).await;
    rig.push("hi").await;
    let run = ended(&rig.alice, "on-dm", 1).await.remove(0);
    assert_eq!((&run["timed_out"], &run["signal"]), (&json!(true), &json!(15)), "{run}");
    let listed = rig.alice.http().get("/v1/hooks").send().await.expect(200).json();
    assert_eq!(listed["hooks"][0]["timeout_s"], 1, "{listed}");
}

// Covers: R213, R227, R249, R310, R311
#[tokio::test]
async fn a_failed_run_is_recorded_counted_and_not_repeated() {
    let settings = "[on-dm]\n[on-message]\naudit = false\n";
    let fail = "cat > /dev/null; echo again >> OUT/log; exit 3";
    let mut rig =
        Rig::with_config("[daemon]\nlog_level = \"error\"\n", settings, &[("on-dm", fail), ("on-message", fail)]).await;
    rig.push("one").await;
    rig.push("two").await;
    let dm = ended(&rig.alice, "on-dm", 2).await;
    ended(&rig.alice, "on-message", 2).await;
    let lines = std::fs::read_to_string(rig.out("log")).expect("the hook's file");
    assert_eq!(lines.lines().count(), 4, "each message once");
    let labels = ["hook=\"on-dm\"", "exit=\"3\""];
    let count = async |name: &str, labels: &[&str]| metric(&rig.alice, name, labels).await as u64;
    assert_eq!(count("cm_daemon_hook_invocations_total", &labels).await, 2);
    assert_eq!(count("cm_daemon_hook_duration_seconds_count", &["hook=\"on-dm\""]).await, 2);
    let audits: Vec<Value> = rig.alice.log().into_iter().filter(|line| line["audit"] == "hook").collect();
    assert_eq!(audits.len(), 2, "whatever the level, and not for the hook that is not audited: {audits:?}");
    for audit in &audits {
        // The two ran at once, and ended in either order.
        let run = dm.iter().find(|run| run["message_id"] == audit["message_id"]).expect("its run");
        assert_eq!((&audit["hook"], &audit["exit"]), (&json!("on-dm"), &json!("3")), "{audit}");
        for field in ["message_id", "duration_ms", "stdout_bytes", "stderr_bytes", "replied", "capability_calls"] {
            assert_eq!(audit[field], run[field], "{field}: {audit} {run}");
        }
        assert!(audit["ts"].as_str().is_some_and(|ts| chrono::DateTime::parse_from_rfc3339(ts).is_ok()), "{audit}");
    }
}

/// Twenty hooks that wait for a sign: eight begin, the others when there is room.
/// Meanwhile messages are stored as ever.
// Covers: R34, R214, R359
#[tokio::test]
async fn eight_run_at_once_and_nobody_waits_for_them() {
    let body = "cat > /dev/null; : > OUT/began-$CLAUDEMESH_EVENT_ID; until [ -e OUT/go ]; do sleep 0.05; done";
    let mut rig = Rig::with_config("[hooks]\nsender_rate_per_min = 0\n", "[on-dm]\n", &[("on-dm", body)]).await;
    let began = |rig: &Rig| {
        let entries = std::fs::read_dir(rig.alice.home()).expect("the home");
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("began-")).count()
    };
    for number in 0..20 {
        rig.push(&format!("slow {number}")).await;
    }
    wait::until("eight to begin", async || (began(&rig) == 8).then_some(())).await;
    for number in 0..80 {
        rig.push(&format!("more {number}")).await;
    }
    assert_eq!(rig.alice.inbox("").await.len(), 100, "the inbox fills while hooks wait");
    assert_eq!(began(&rig), 8);
    let queued = async |rig: &Rig| {
        rig.alice.cli(&["daemon", "status", "--mesh", "demo", "--json"]).await.ok().json()["hooks"]["queued"].clone()
    };
    wait::until("the others to be queued", async || (queued(&rig).await == 92).then_some(())).await;
    std::fs::write(rig.out("go"), "").expect("the sign");
    ended(&rig.alice, "on-dm", 100).await;
    assert!(runs(&rig.alice, "failed_only=true").await.is_empty());
}

/// The daemon in the foreground has what its caller had open; its hooks do not.
#[tokio::test]
async fn a_hook_has_nothing_open_of_the_daemons_caller() {
    let mut rig = Rig::start("[on-dm]\n", &[("on-dm", "cat > /dev/null; ls -l /proc/self/fd | keep open")]).await;
    rig.alice.stop().await;
    std::fs::write(rig.out("secret"), "for the caller").expect("a file");
    let mut command = process::with_program(Path::new("sh"), rig.alice.home());
    command.args(["-c", "exec 7<secret; exec \"$0\" daemon up --foreground --mesh demo", process::binary()]);
    rig.alice.start_as(command).await;
    rig.client = rig.fake.link(&rig.alice).await;
    rig.push("hello").await;
    let open = rig.written("open").await;
    assert!(open.contains("pipe:") && !open.contains("secret"), "{open}");
}
