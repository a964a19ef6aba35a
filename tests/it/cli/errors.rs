//! Failures: one form for people, one for programs, a page for each code.

use std::collections::BTreeMap;
use std::path::Path;

use claudemesh::domain::error_code::ErrorCode;
use serde_json::{Value, json};

use crate::support::cli::run;
use crate::support::daemon::Daemon;
use crate::support::process;

fn pages() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors")
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

fn row(code: ErrorCode) -> Vec<String> {
    let retry = if code.retryable() { "yes" } else { "no" };
    let (http, exit) = (code.http().to_string(), code.exit().to_string());
    [code.grpc_name(), &http, retry, &exit, code.title()].map(str::to_owned).to_vec()
}

#[test]
fn the_table_of_the_docs_is_the_table_of_the_program() {
    let text = std::fs::read_to_string(pages().join("README.md")).expect("docs/errors/README.md");
    let listed: BTreeMap<String, Vec<String>> = text
        .lines()
        .filter(|line| line.starts_with("| ["))
        .map(|line| {
            let mut cells = cells(line);
            let name = cells.remove(0).trim_end_matches('*').trim().to_owned();
            let code = name.trim_start_matches('[').split(']').next().unwrap_or_default().to_owned();
            assert_eq!(name, format!("[{code}]({code}.md)"));
            (code, cells)
        })
        .collect();
    let known: BTreeMap<String, Vec<String>> =
        ErrorCode::ALL.iter().map(|code| (code.name().to_owned(), row(*code))).collect();
    assert_eq!(listed, known);
}

#[test]
fn each_page_is_complete_and_agrees_with_the_table() {
    for code in ErrorCode::ALL {
        let text = std::fs::read_to_string(pages().join(format!("{code}.md"))).expect("the page");
        let mut lines = text.lines().filter(|line| !line.is_empty());
        assert_eq!(lines.next(), Some(format!("# {code}").as_str()));
        assert_eq!(lines.next(), Some(format!("{}.", code.title()).as_str()), "{code}");
        let table = lines.find(|line| line.starts_with("| ") && !line.contains("gRPC")).expect("a row");
        let retry = if code.retryable() { "yes" } else { "no" };
        let expected = [code.grpc_name(), &code.http().to_string(), &code.exit().to_string(), retry].map(str::to_owned);
        assert_eq!(cells(table), expected, "{code}");
        for part in ["**What happened.**", "**Usual causes**", "**What to do**", "**Is anything lost?**"] {
            assert!(text.contains(part), "{code}: {part} is missing");
        }
    }
}

#[tokio::test]
async fn a_code_is_explained_and_a_wrong_one_is_guessed() {
    let home = process::directory();
    let said = run(home.path(), &["explain", "daemon_not_running"]).await.ok().stdout;
    let head = "daemon_not_running  No daemon answers\n\
                gRPC UNAVAILABLE, HTTP 503, exit code 3, the same request can be repeated\n\nWhat happened. ";
    assert!(said.starts_with(head), "{said}");
    let all = run(home.path(), &["explain"]).await.ok().stdout;
    assert_eq!(all.lines().count(), ErrorCode::ALL.len() + 1, "{all}");
    let wrong = run(home.path(), &["explain", "daemon_not_runing"]).await.exits(2);
    assert!(wrong.stderr.contains("did you mean daemon_not_running"), "{}", wrong.stderr);
    let list = run(home.path(), &["explain", "--json"]).await.ok().json();
    assert_eq!(list["codes"].as_array().map(Vec::len), Some(ErrorCode::ALL.len()));
    let one = run(home.path(), &["explain", "daemon_not_running", "--json"]).await.ok().json();
    assert_eq!((&one["exit_code"], &one["grpc_status"]), (&json!(3), &json!("UNAVAILABLE")));
    assert!(one["page"].as_str().is_some_and(|page| page.starts_with("# daemon_not_running\n")), "{one}");
}

#[tokio::test]
async fn a_wrong_line_is_answered_like_every_other_failure() {
    let home = process::directory();
    let wrong = run(home.path(), &["snd", "bob", "hi"]).await.exits(2);
    let expected = "error: unrecognized subcommand 'snd' (usage_error)\n  a similar subcommand exists: 'send'\n";
    assert!(wrong.stdout.is_empty() && wrong.stderr.starts_with(expected), "{}", wrong.all());
    let wrong = run(home.path(), &["daemon", "status", "--jso"]).await.exits(2);
    assert!(wrong.stderr.contains("'--json'") && wrong.stderr.contains("(usage_error)"), "{}", wrong.stderr);
    let wrong = run(home.path(), &["peer", "list", "--offline", "--json"]).await.exits(2);
    assert_eq!(wrong.error()["code"], "usage_error");
    for noun in ["daemon", "peer", "mesh", "broker"] {
        let help = run(home.path(), &[noun]).await.exits(2);
        assert!(help.stderr.contains("Usage: claudemesh") && help.stderr.contains("Commands:"), "{}", help.stderr);
        let asked = run(home.path(), &["help", noun]).await.ok();
        assert_eq!(asked.stdout, help.stderr);
    }
}

/// Every verb that prints JSON fails in JSON: one object, nothing beside it.
#[tokio::test]
async fn with_json_a_failure_is_one_object() {
    let home = process::directory();
    let fields = ["candidates", "code", "exit_code", "message", "metadata", "next", "retryable"];
    for line in [
        "send bob hi --mesh nowhere",
        "inbox --mesh nowhere",
        "inbox -f --mesh nowhere",
        "daemon inbox --mesh nowhere",
        "events --mesh nowhere",
        "events -f --mesh nowhere",
        "peer list --mesh nowhere",
        "join no-link",
        "mesh create UPPER",
        "mesh invite nowhere",
        "daemon up --mesh nowhere",
        "daemon down --mesh nowhere",
        "daemon restart --mesh nowhere",
        "daemon status --mesh nowhere",
        "daemon reload --mesh nowhere",
        "daemon logs --mesh nowhere",
        "daemon recover --mesh nowhere",
        "explain nothing_like_it",
        "explain unknown_peer --no-such-flag",
    ] {
        let mut arguments: Vec<&str> = line.split(' ').collect();
        arguments.push("--json");
        let ran = run(home.path(), &arguments).await;
        assert_ne!(ran.code, 0, "{line}: {}", ran.all());
        let error = ran.error();
        let names: Vec<&String> = error.as_object().expect("an object").keys().collect();
        assert_eq!(names, fields, "{line}");
        assert_eq!(error["exit_code"], ran.code, "{line}");
        assert!(ErrorCode::from_name(error["code"].as_str().unwrap_or_default()).is_some(), "{line}: {error}");
        let words = run(home.path(), &arguments[..arguments.len() - 1]).await.exits(ran.code);
        let same = format!(
            "error: {} ({})",
            error["message"].as_str().unwrap_or_default(),
            error["code"].as_str().unwrap_or_default()
        );
        assert!(words.stderr.starts_with(&same), "{line}: {} and {error}", words.stderr);
    }
}

#[tokio::test]
async fn several_failures_are_one_object_a_line() {
    let alice = Daemon::unjoined("demo", "alice");
    let entry = |slug: &str| json!({"meshId": slug, "memberId": "m", "slug": slug, "pubkey": "", "secretKey": "", "brokerUrl": "ws://127.0.0.1:1/ws"});
    let config = json!({"version": 1, "meshes": [entry("one"), entry("two")]});
    std::fs::write(alice.home().join("config.json"), config.to_string()).expect("config.json");
    let ran = alice.cli(&["daemon", "up", "--all", "--json"]).await;
    assert_ne!(ran.code, 0);
    let lines: Vec<Value> = ran.stderr.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let meshes: Vec<&Value> = lines.iter().map(|line| &line["mesh"]).collect();
    assert_eq!(meshes, ["one", "two"], "{}", ran.stderr);
}
