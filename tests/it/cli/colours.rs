//! Colours: on a terminal, when they are wanted, and nowhere else.

use std::process::Stdio;

use crate::support::cli::run;
use crate::support::{process, tools, wait};

const ESCAPE: char = '\u{1b}';

#[tokio::test]
async fn a_pipe_gets_no_colours_unless_they_are_asked_for() {
    let home = process::directory();
    let plain = run(home.path(), &["explain", "unknown_peer"]).await.ok();
    assert!(!plain.all().contains(ESCAPE), "{}", plain.all());
    let coloured = run(home.path(), &["explain", "unknown_peer", "--color", "always"]).await.ok();
    assert!(coloured.stdout.contains(ESCAPE), "{}", coloured.stdout);
    let stripped = anstream::adapter::strip_str(&coloured.stdout).to_string();
    assert_eq!(stripped, plain.stdout, "colours change nothing else");
    let failed = run(home.path(), &["--color=always", "explain", "nothing_like_it"]).await.exits(2);
    assert!(failed.stderr.starts_with("\u{1b}["), "{}", failed.stderr);
    let json = run(home.path(), &["explain", "nothing_like_it", "--json", "--color=always"]).await.exits(2);
    assert!(!json.all().contains(ESCAPE), "{}", json.all());
    let help = run(home.path(), &["send", "--help", "--color=never"]).await.ok();
    assert!(!help.stdout.contains(ESCAPE), "{}", help.stdout);
}

/// What the command prints on a terminal. `script` of util-linux makes one.
async fn on_a_terminal(arguments: &str, environment: &[(&str, &str)]) -> Option<String> {
    let script = tools::system("script")?;
    let home = process::directory();
    let mut command = process::with_program(&script, home.path());
    command.args(["--quiet", "--return", "--command"]).arg(format!("{} {arguments}", process::binary()));
    command.arg("/dev/null").env("TERM", "xterm").envs(environment.iter().copied()).stdin(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    let output = wait::soon("the terminal", command.kill_on_drop(true).output()).await.expect("script runs");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn a_terminal_gets_colours_and_the_way_to_more() {
    let failing = "send bob hi --mesh nowhere";
    let Some(said) = on_a_terminal(failing, &[]).await else { return };
    assert!(said.contains(ESCAPE), "{said:?}");
    assert!(said.contains("more: claudemesh explain mesh_not_joined"), "{said:?}");
    for off in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let said = on_a_terminal(failing, &[off]).await.expect("script is there");
        assert!(!said.contains(ESCAPE) && said.contains("mesh_not_joined"), "{off:?}: {said:?}");
    }
}
