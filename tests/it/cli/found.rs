//! What listens at the socket is no daemon of the user's, or says nothing; and a
//! result that nobody takes.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::json;

use crate::support::cli::{Ran, run_with};
use crate::support::daemon::{Pair, unique};
use crate::support::fake_broker::FakeBroker;
use crate::support::process::{self, Process};
use crate::support::wait;

/// A user that owns nothing here.
const NOBODY: u32 = 65_534;

#[tokio::test]
async fn nothing_is_sent_to_another_users_process() {
    let home = process::directory();
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(home.path(), open).expect("a directory for all");
    let socket = home.path().join("sock");
    let mut command = process::with_program(Path::new("python3"), home.path());
    let script = "import socket, sys, os\ns = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o666)\n\
                  s.listen()\nopen(sys.argv[1] + '.got', 'wb').write(s.accept()[0].recv(1))\n";
    command.args(["-c", script]).arg(&socket).uid(NOBODY).gid(NOBODY);
    let mut listener = Process::spawn("listener", command, &home.path().join("output"), Vec::new());
    wait::until("the socket", async || socket.exists().then_some(())).await;
    let environment = [("CLAUDEMESH_DAEMON_SOCK", socket.to_str().expect("a path"))];
    let ran = run_with(home.path(), &["send", "bob", "secret", "--json"], &environment).await.exits(5);
    assert_eq!(ran.error()["code"], "permission_denied", "{}", ran.stderr);
    assert!(ran.stderr.contains("belongs to another user"), "{}", ran.stderr);
    listener.wait().await;
    let got = std::fs::read(home.path().join("sock.got")).expect("what it got");
    assert!(got.is_empty(), "it was told {got:?}");
}

/// The first question is answered within 10 s or not at all.
#[tokio::test]
async fn a_daemon_that_stands_still_is_told_from_one_that_is_gone() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    alice.process().signal(Signal::STOP);
    let ran = alice.cli(&["send", "bob", "hi", "--json"]).await;
    alice.process().signal(Signal::CONT);
    assert_eq!(ran.error()["code"], "deadline_exceeded", "{}", ran.stderr);
}

#[tokio::test]
async fn a_send_whose_answer_cannot_be_printed_keeps_its_id() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let text = unique("to a full disk");
    for line in [["send", "bob", &text, "--json"], ["send", "bob", &text, "--id=given"]] {
        let mut command = process::command(alice.home());
        let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
        command.args(line).stdout(full).stderr(Stdio::piped());
        let child = tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("the binary runs");
        let output = wait::soon("the command", child.wait_with_output()).await.expect("it ends");
        let ran = Ran::of(&output).exits(1);
        if line[3] == "--json" {
            let error = ran.error();
            assert_eq!(error["code"], "output_failed", "{error}");
            let id = error["metadata"]["client_message_id"].as_str().expect("the id");
            assert_eq!(
                alice.http().get(&format!("/v1/send/{id}")).send().await.expect(200).json()["recipient"]["name"],
                json!("bob")
            );
        } else {
            assert!(ran.stderr.contains("(output_failed)") && ran.stderr.contains("its id is given"), "{}", ran.stderr);
        }
    }
    bob.received(&text).await;
}

#[tokio::test]
async fn a_topic_is_not_waited_for_until_delivered() {
    let home = process::directory();
    let ran = run_with(home.path(), &["send", "#ops", "hi", "--wait", "delivered"], &[]).await.exits(2);
    assert!(ran.stderr.contains("--wait accepted") && ran.stderr.contains("usage_error"), "{}", ran.stderr);
}

/// Found on the way up from the working directory, where others may write as well.
#[tokio::test]
async fn a_file_that_names_the_mesh_is_a_file_of_this_users() {
    let home = process::directory();
    let dir = home.path().join(".claudemesh");
    std::fs::create_dir(&dir).expect("a directory");
    let path = dir.join("mesh");
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo");
    assert!(made.success());
    let ran = run_with(home.path(), &["send", "bob", "hi", "--json"], &[]).await.exits(10);
    assert_eq!(ran.error()["code"], "config_invalid", "{}", ran.stderr);
    assert!(ran.stderr.contains("it is no file"), "{}", ran.stderr);
    std::fs::remove_file(&path).expect("the pipe");
    std::fs::write(&path, "demo\n").expect("a file");
    std::os::unix::fs::chown(&path, Some(NOBODY), None).expect("only root can give a file away");
    let ran = run_with(home.path(), &["send", "bob", "hi", "--json"], &[]).await.exits(10);
    assert!(ran.stderr.contains("belongs to the user 65534"), "{}", ran.stderr);
}
