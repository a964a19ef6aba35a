//! Which hooks run at all: files, sections, switches.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::{Rig, configure, ended, log_lines, runs, script};
use crate::support::daemon::Daemon;
use crate::support::fake_broker::FakeBroker;

const TOUCH: &str = "cat > /dev/null; : > OUT/ran-$CLAUDEMESH_HOOK_NAME";

async fn states(daemon: &Daemon) -> Value {
    let listed = daemon.http().get("/v1/hooks").send().await.expect(200).json();
    let hooks = listed["hooks"].as_array().unwrap_or_else(|| panic!("{listed}"));
    hooks.iter().map(|hook| (hook["name"].as_str().expect("a name").to_owned(), hook["state"].clone())).collect()
}

/// Runs a hook that certainly runs, so that others would have run by then.
async fn settle(rig: &mut Rig) {
    configure(&rig.alice, "[on-message]\n");
    script(&rig.alice, "on-message", TOUCH);
    rig.alice.cli(&["hook", "reload"]).await.ok();
    rig.push("another").await;
    ended(&rig.alice, "on-message", 1).await;
}

// Covers: R210
#[tokio::test]
async fn without_hooks_toml_nothing_runs_and_the_log_says_why() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    configure(&alice, "");
    std::fs::remove_file(alice.file("hooks/hooks.toml")).expect("hooks.toml");
    script(&alice, "on-dm", TOUCH);
    script(&alice, "on-startup", TOUCH);
    alice.start().await;
    let client = fake.link(&alice).await;
    let mut rig = Rig { fake, alice, client, pushed: 0 };
    rig.push("hi").await;
    let said = log_lines(&rig.alice, "No hook runs");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0]["message"].as_str().is_some_and(|text| text.contains("hooks.toml")), "{said:?}");
    assert_eq!(states(&rig.alice).await, json!({"on-dm": "unconfigured", "on-startup": "unconfigured"}));
    settle(&mut rig).await;
    assert!(!rig.out("ran-on-dm").exists() && !rig.out("ran-on-startup").exists());
}

// Covers: R209, R216, R217, R257
#[tokio::test]
async fn each_hook_needs_its_own_section_and_may_be_switched_off() {
    let settings = "[on-message]\ntimeout_s = 5\n[on-dm]\nenabled = false\n[on-reconnect]\n";
    let hooks = [("on-message", TOUCH), ("on-dm", TOUCH), ("on-mention", TOUCH)];
    let mut rig = Rig::start(settings, &hooks).await;
    let expected =
        json!({"on-message": "active", "on-dm": "disabled", "on-mention": "unconfigured", "on-reconnect": "missing"});
    assert_eq!(states(&rig.alice).await, expected);
    rig.push("hi @alice @own").await;
    ended(&rig.alice, "on-message", 1).await;
    assert_eq!(runs(&rig.alice, "").await.len(), 1);
    assert!(!rig.out("ran-on-dm").exists() && !rig.out("ran-on-mention").exists());
}

// Covers: R358
#[tokio::test]
async fn hooks_are_on_but_for_ci_and_the_setting_decides() {
    for (ci, config, active) in [
        (false, "", true),
        (true, "", false),
        (true, "[hooks]\nenabled = true\n", true),
        (false, "[hooks]\nenabled = false\n", false),
    ] {
        let fake = FakeBroker::start().await;
        let mut alice = fake.member("alice");
        if ci {
            alice.env("CI", "true");
        }
        alice.configure(config);
        configure(&alice, "[on-startup]\n");
        script(&alice, "on-startup", TOUCH);
        alice.start().await;
        let listed = alice.http().get("/v1/hooks").send().await.expect(200).json();
        assert_eq!(listed["enabled"], active, "{ci} {config}");
        let state = if active { "active" } else { "disabled" };
        assert_eq!(listed["hooks"][0]["state"], state, "{ci} {config}: {listed}");
        if active {
            ended(&alice, "on-startup", 1).await;
        } else {
            assert!(!alice.home().join("ran-on-startup").exists());
        }
    }
}

// Covers: R215
#[tokio::test]
async fn a_file_that_others_could_have_written_does_not_run() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    configure(&alice, "[on-dm]\n[on-message]\n[on-mention]\n");
    for name in ["on-dm", "on-message"] {
        script(&alice, name, TOUCH);
    }
    let hooks = alice.file("hooks");
    let mode = |path: &str, mode| std::fs::set_permissions(hooks.join(path), std::fs::Permissions::from_mode(mode));
    mode("on-dm.sh", 0o722).expect("a mode");
    mode("on-message.sh", 0o600).expect("a mode");
    std::fs::rename(hooks.join("on-dm.sh"), alice.home().join("elsewhere.sh")).expect("moved");
    std::os::unix::fs::symlink(alice.home().join("elsewhere.sh"), hooks.join("on-mention.sh")).expect("a link");
    std::fs::copy(alice.home().join("elsewhere.sh"), hooks.join("on-dm.sh")).expect("a copy");
    mode("on-dm.sh", 0o722).expect("a mode");
    alice.start().await;
    assert_eq!(states(&alice).await, json!({"on-dm": "missing", "on-message": "missing", "on-mention": "missing"}));
    let listed = alice.http().get("/v1/hooks").send().await.expect(200).json();
    for (index, word) in ["go-w", "leads out", "u+x"].iter().enumerate() {
        let detail = listed["hooks"][index]["detail"].as_str().expect("a detail");
        assert!(detail.contains(word), "{word}: {detail}");
    }
    assert_eq!(std::fs::metadata(&hooks).expect("hooks").permissions().mode() & 0o777, 0o700);
}

// Covers: R215
#[tokio::test]
async fn no_call_writes_a_hook() {
    let rig = Rig::start("[on-dm]\n", &[("on-dm", TOUCH)]).await;
    let path = rig.alice.file("hooks/on-dm.sh");
    let before = std::fs::read(&path).expect("the script");
    let files = || std::fs::read_dir(rig.alice.file("hooks")).expect("hooks").count();
    let count = files();
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        for route in ["/v1/hooks", "/v1/hooks/on-dm", "/v1/hooks/on-dm.sh", "/v1/hooks/../hooks/on-dm.sh"] {
            let answer = rig.alice.http().request(method, route).body("#!/bin/sh\n").send().await;
            assert!([400, 404, 405].contains(&answer.status), "{method} {route}: {}", answer.text());
        }
    }
    assert_eq!(std::fs::read(&path).expect("the script"), before);
    assert_eq!(files(), count);
}

/// A file that was changed under the daemon's hands is looked at again.
// Covers: R215
#[tokio::test]
async fn a_file_is_checked_before_each_run() {
    let mut rig = Rig::start("[on-dm]\n", &[("on-dm", TOUCH)]).await;
    let path = rig.alice.file("hooks/on-dm.sh");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("a mode");
    rig.push("hi").await;
    let run = ended(&rig.alice, "on-dm", 1).await.remove(0);
    assert!(run["start_error"].as_str().is_some_and(|text| text.contains("go-w")), "{run}");
    assert!(run["exit_code"].is_null() && !rig.out("ran-on-dm").exists(), "{run}");
}

// Covers: R241
#[tokio::test]
async fn a_wrong_section_is_refused_by_file_section_and_key() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    for (settings, words) in [
        ("[on-dm]\ncapability_token_scope = [\"state:read\"]\n", ["on-dm", "capability_token_scope", "state:read"]),
        ("[on-dm]\ntimeout = 3\n", ["on-dm", "timeout_s", "line 2"]),
        ("[on-dmm]\n", ["on-dmm", "on-dm", "line 1"]),
    ] {
        configure(&alice, settings);
        let (code, said) = alice.refused().await;
        assert_eq!(code, 10, "{said}");
        assert!(said.contains("hooks.toml") && words.iter().all(|word| said.contains(word)), "{settings}: {said}");
    }
    configure(&alice, "[on-dm]\n");
    script(&alice, "on-dm", TOUCH);
    alice.start().await;
    configure(&alice, "[on-dm]\ncapability_token_scope = [\"state:read\"]\n");
    for verb in [["hook", "reload"], ["daemon", "reload"]] {
        let refused = alice.cli(&verb).await;
        assert_eq!(refused.code, 10, "{refused:?}");
        assert!(refused.stderr.contains("state:read") && refused.stderr.contains("config_invalid"), "{refused:?}");
    }
    assert_eq!(states(&alice).await, json!({"on-dm": "active"}), "what worked goes on");
}
