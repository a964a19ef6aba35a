//! What operators see of hooks, in every form.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::{Rig, ended};
use crate::support::tools;

const SETTINGS: &str = "[on-dm]\ntimeout_s = 9\noutput_size_limit = 100\nredact_payload = [\"$.meta\"]\nallow_reply = true\n\
    accept_auto = true\ncapability_token_scope = [\"reply:event\"]\nnetwork_policy = \"allowlist\"\nnetwork_allowlist = [\"example.org\"]\n\
    fs_policy = \"rw\"\naudit = false\n[on-message]\n";

// Covers: R224
#[tokio::test]
async fn a_hook_is_shown_with_its_policy_and_what_it_did() {
    let mut rig = Rig::start(SETTINGS, &[("on-dm", "exit 4"), ("on-message", "exit 0")]).await;
    let get = async |path: &str| rig.alice.http().get(path).send().await.expect(200).json();
    let listed = get("/v1/hooks").await;
    let hook = &listed["hooks"][0];
    let expected = json!({
        "name": "on-dm", "path": rig.alice.file("hooks/on-dm.sh"), "state": "active", "detail": "", "timeout_s": 9,
        "output_size_limit": 100, "redact_payload": ["$.meta"], "allow_reply": true, "accept_auto": true,
        "capability_scopes": ["reply:event"], "network_policy": "allowlist", "network_allowlist": ["example.org"],
        "fs_policy": "rw", "sandbox": "", "user_cli": false, "audit": false, "runs": 0, "failures": 0,
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&hook[name], value, "{name}: {hook}");
    }
    assert_eq!(listed["hooks"][1]["network_policy"], "deny", "{listed}");
    assert_eq!(listed["directory"], json!(rig.alice.file("hooks")));
    assert_eq!(listed["enabled"], true);
    for text in ["one", "two", "three"] {
        rig.push(text).await;
    }
    ended(&rig.alice, "on-dm", 3).await;
    ended(&rig.alice, "on-message", 3).await;
    let get = async |path: &str| rig.alice.http().get(path).send().await.expect(200);
    let counted = get("/v1/hooks").await.json();
    assert_eq!((&counted["hooks"][0]["runs"], &counted["hooks"][0]["failures"]), (&json!(3), &json!(3)), "{counted}");
    assert!(counted["hooks"][0]["last_run_at"].is_string(), "{counted}");

    let all = get("/v1/hooks/runs").await.json()["runs"].clone();
    assert_eq!(all.as_array().map(Vec::len), Some(6));
    let failed = get("/v1/hooks/runs?failed_only=true").await.json()["runs"].clone();
    assert!(
        failed.as_array().is_some_and(|runs| runs.len() == 3 && runs.iter().all(|run| run["exit_code"] == 4)),
        "{failed}"
    );
    let event = failed[0]["message_id"].as_str().expect("an id").to_owned();
    let of_event = get(&format!("/v1/hooks/runs?message_id={event}")).await.json();
    assert_eq!(of_event["runs"].as_array().map(Vec::len), Some(2), "{of_event}");
    // Pages, newest first, without gap or repeat.
    let (mut seen, mut path) = (Vec::new(), "/v1/hooks/runs?limit=4".to_owned());
    loop {
        let page = get(&path).await;
        let link = page.header("link").map(str::to_owned);
        let body = page.json();
        seen.extend(body["runs"].as_array().expect("runs").clone());
        match body["next_page_token"].as_str().filter(|token| !token.is_empty()) {
            Some(token) => {
                assert!(link.is_some_and(|link| link.contains("rel=\"next\"")));
                path = format!("/v1/hooks/runs?limit=4&page_token={token}");
            }
            None => break,
        }
    }
    assert_eq!(json!(seen), all);
    let first = get("/v1/hooks?limit=1").await.json();
    assert_eq!((first["hooks"].as_array().map(Vec::len), &first["hooks"][0]["name"]), (Some(1), &json!("on-dm")));
    let token = first["next_page_token"].as_str().expect("a token").to_owned();
    let second = get(&format!("/v1/hooks?limit=1&page_token={token}")).await.json();
    assert_eq!((&second["hooks"][0]["name"], &second["next_page_token"]), (&json!("on-message"), &json!("")));
    // The one list's token is none of the other's.
    for wrong in ["%27--", &token] {
        let path = format!("/v1/hooks/runs?page_token={wrong}");
        let refused = rig.alice.http().get(&path).send().await.expect(400).json();
        assert_eq!(refused["code"], "invalid_argument");
    }
}

#[tokio::test]
async fn the_verbs_show_the_same() {
    let mut rig = Rig::start("[on-dm]\n[on-mention]\n", &[("on-dm", "exit 4")]).await;
    rig.push("hi").await;
    ended(&rig.alice, "on-dm", 1).await;
    let table = rig.alice.cli(&["hook", "list"]).await.ok().stdout;
    assert!(table.contains("HOOK") && table.contains("active") && table.contains("missing"), "{table}");
    let listed: Value = rig.alice.cli(&["hook", "list", "--json"]).await.ok().json();
    assert_eq!(listed, rig.alice.http().get("/v1/hooks").send().await.expect(200).json());
    let table = rig.alice.cli(&["hook", "runs", "--failed"]).await.ok().stdout;
    assert!(table.contains("on-dm") && table.contains(" 4 "), "{table}");
    let none = rig.alice.cli(&["hook", "runs", "--hook", "on-mention", "--json"]).await.ok().json();
    assert_eq!(none["runs"], json!([]));
    let reloaded = rig.alice.cli(&["hook", "reload"]).await.ok().stdout;
    assert_eq!(reloaded, "active: on-dm\ninactive: on-mention\n");
    let status = rig.alice.cli(&["daemon", "status", "--mesh", "demo", "--json"]).await.ok().json();
    let hooks = &status["hooks"];
    assert_eq!((&hooks["enabled"], &hooks["active"]), (&json!(true), &json!(1)), "{hooks}");
    assert_eq!((&hooks["runs"], &hooks["failures"], &hooks["queued"]), (&json!(1), &json!(1), &json!(0)), "{hooks}");
}

#[tokio::test]
async fn the_service_answers_over_grpc() {
    let Some(grpcurl) = tools::grpcurl() else { return };
    let rig = Rig::start("[on-dm]\n", &[("on-dm", "exit 0")]).await;
    let socket = format!("unix://{}", rig.alice.socket().display());
    for (method, word) in [("ListHooks", "on-dm"), ("ListHookRuns", "{"), ("ReloadHooks", "on-dm")] {
        let method = format!("claudemesh.admin.v1.HooksService/{method}");
        let output = tokio::process::Command::new(&grpcurl)
            .args(["-plaintext", &socket, &method])
            .output()
            .await
            .expect("grpcurl");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains(word),
            "{method}: {text} {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// What the system would only say with an exit code is told before a run, with what to do.
#[tokio::test]
async fn a_script_that_cannot_run_says_why() {
    let names = ["on-dm", "on-message", "on-mention", "on-topic-a", "on-topic-b", "on-topic-c"];
    let settings: String = names.map(|name| format!("[{name}]\n")).concat();
    let mut rig = Rig::start(&settings, &[]).await;
    rig.alice.stop().await;
    let write = |name: &str, text: &[u8], mode: u32| {
        let path = rig.alice.file("hooks").join(format!("{name}.sh"));
        std::fs::write(&path, text).expect("a script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its mode");
    };
    write("on-dm", b"#!/bin/sh\r\nexit 0\r\n", 0o700);
    write("on-message", b"#!/no/such/interpreter\n", 0o700);
    write("on-mention", b"#!/bin/sh\n", 0o600);
    write("on-topic-a", b"exit 0\n", 0o700);
    write("on-topic-b", b"", 0o700);
    std::fs::create_dir(rig.alice.file("hooks").join("on-topic-c.sh")).expect("a directory");
    rig.alice.start().await;
    let listed = rig.alice.http().get("/v1/hooks").send().await.expect(200).json();
    let told = |name: &str| {
        let hooks = listed["hooks"].as_array().expect("hooks");
        let hook = hooks.iter().find(|hook| hook["name"] == name).unwrap_or_else(|| panic!("no {name}: {listed}"));
        format!("{} {}", hook["state"].as_str().unwrap_or_default(), hook["detail"].as_str().unwrap_or_default())
    };
    for (name, words) in [
        ("on-dm", "line ends of Windows"),
        ("on-message", "/no/such/interpreter"),
        ("on-mention", "chmod u+x"),
        ("on-topic-a", "#!"),
        ("on-topic-b", "#!"),
        ("on-topic-c", "is no file"),
    ] {
        assert!(told(name).contains(words), "{name}: {}", told(name));
    }
}
