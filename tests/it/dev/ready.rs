//! What is there once the first line is.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use super::Dev;
use crate::support::broker::read_trimmed;
use crate::support::daemon::unique;
use crate::support::http::Target;
use crate::support::{cli, process, tools};

#[tokio::test]
async fn the_first_line_has_what_a_program_needs() {
    let dev = Dev::ready(&["--members", "alice,bob,cy"]).await;
    assert_eq!(dev.ready["mesh"], "dev");
    assert!(dev.ready["broker"].as_str().expect("a URL").starts_with("ws://127.0.0.1:"));
    let mode = std::fs::metadata(dev.dir()).expect("the directory").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    for name in ["alice", "bob", "cy"] {
        let member = dev.member(name);
        // Nothing has to be waited for any more.
        assert_eq!(member.online().await, ["alice", "bob", "cy"]);
        let health = member.health().await;
        assert_eq!((&health["mesh"], &health["member_pubkey"]), (&json!("dev"), &member.0["pubkey"]));
        let token = read_trimmed(Path::new(member.text("token_file")));
        let tcp = Target::tcp(member.text("address")).get("/v1/health").bearer(&token).send().await;
        assert_eq!(tcp.expect(200).json()["member_pubkey"], member.0["pubkey"]);
        assert!(Path::new(member.text("home")).join("config.json").is_file());
        assert!(Path::new(member.text("log")).is_file());
        assert_eq!(member.text("member_id").len(), 26);
    }
    let text = unique("hi");
    dev.member("alice").send("bob", &text).await;
    dev.member("bob").received(&text).await;
}

#[tokio::test]
async fn nothing_of_the_caller_goes_along() {
    let home = process::directory();
    let mut command = process::command(home.path());
    command.args(["dev", "--json"]).env("CLAUDEMESH_MESH", "other").env("CLAUDEMESH_BROKER_LISTEN", "127.0.0.1:1");
    command.env("SECRET", "of the caller");
    let dev = Dev::start_as(home, command).await;
    let environment = std::fs::read(format!("/proc/{}/environ", dev.member("bob").pid())).expect("the environment");
    let environment = String::from_utf8_lossy(&environment);
    let mut names: Vec<&str> = environment.split('\0').filter_map(|pair| Some(pair.split_once('=')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["CLAUDEMESH_HOME", "HOME", "PATH"]);
    let own: Vec<_> =
        std::fs::read_dir(dev.home.path()).expect("the home").flatten().map(|entry| entry.path()).collect();
    assert_eq!(own, [dev.dir()], "the caller's own root stays as it was");
}

#[tokio::test]
async fn a_named_directory_is_kept_and_must_be_empty() {
    let home = process::directory();
    let dir = home.path().join("mesh");
    let mut dev = Dev::ready(&["--dir", &dir.display().to_string()]).await;
    assert_eq!(dev.dir(), dir);
    dev.stdin = None;
    let (_, stderr, code) = dev.ended().await;
    assert_eq!((stderr.as_str(), code), ("", Some(0)));
    assert!(dir.join("bob/daemon/dev/daemon.log").is_file());
    assert!(dev.processes().is_empty(), "{:?}", dev.processes());
    let mut again = Dev::start(&["--dir", &dir.display().to_string()]).await;
    assert_eq!((&again.ready["event"], &again.ready["error"]["code"]), (&json!("failed"), &json!("usage_error")));
    let said = again.ready["error"]["message"].as_str().expect("a text").to_owned();
    assert!(said.contains("is not empty"), "{said}");
    assert_eq!(again.ended().await, (String::new(), String::new(), Some(2)));
}

#[tokio::test]
async fn what_cannot_start_says_why_and_leaves_nothing() {
    for (arguments, code) in [
        (["--members", "alice,../x"], "invalid_argument"),
        (["--members", "alice,Alice"], "invalid_argument"),
        (
            [
                "--dir",
                "a-directory-whose-name-is-so-long-that-the-sockets-below-it-would-not-fit-any-more-on-any-system-at-all",
            ],
            "socket_path_too_long",
        ),
    ] {
        let mut dev = Dev::start(&arguments).await;
        assert_eq!((&dev.ready["event"], &dev.ready["error"]["code"]), (&json!("failed"), &json!(code)));
        let exit = dev.ready["error"]["exit_code"].as_i64().and_then(|code| i32::try_from(code).ok());
        assert_eq!(dev.ended().await, (String::new(), String::new(), exit), "{arguments:?}: told once");
        assert_eq!(std::fs::read_dir(dev.home.path()).expect("the home").count(), 0, "{arguments:?}");
    }
}

#[tokio::test]
async fn a_place_where_nothing_can_be_made_is_told() {
    let home = process::directory();
    let file = home.path().join("a-file");
    std::fs::write(&file, "").expect("a file");
    let ran = cli::run_with(home.path(), &["dev"], &[("TMPDIR", file.to_str().expect("a path"))]).await.exits(10);
    assert!(ran.stderr.contains("(state_dir_unusable)") && ran.stderr.contains("--dir"), "{}", ran.stderr);
}

/// What removes the directory at the end removes no other.
#[tokio::test]
async fn only_a_directory_of_its_own_is_removed() {
    let home = process::directory();
    let dir = home.path().join("precious");
    std::fs::create_dir(&dir).expect("a directory");
    let ran = cli::run(home.path(), &["dev", "--remove-at-end", "--dir", dir.to_str().expect("a path")]).await.exits(2);
    assert!(ran.stderr.contains("usage_error") && dir.exists(), "{}", ran.stderr);
}

/// The library is hidden below an empty file system, in a namespace of the test's.
#[tokio::test]
async fn a_clock_that_cannot_be_moved_is_told_at_the_start() {
    let home = process::directory();
    let hidden = tools::faketime().parent().expect("a directory").display().to_string();
    let mut command = process::with_program(Path::new("unshare"), home.path());
    let script = r#"mount -t tmpfs tmpfs "$1" && exec "$2" dev --json --clock"#;
    command.args(["--mount", "sh", "-c", script, "sh", &hidden, process::binary()]);
    let mut dev = Dev::start_as(home, command).await;
    assert_eq!(dev.ready["error"]["code"], "faketime_missing", "{}", dev.ready);
    assert!(dev.ready["error"]["message"].as_str().expect("a text").contains("install the package"), "{}", dev.ready);
    assert_eq!(dev.ended().await.2, Some(1));
    assert_eq!(std::fs::read_dir(dev.home.path()).expect("the home").count(), 0);
}
