//! The scripts that complete commands are scripts of their shells.

use std::process::Stdio;

use crate::support::cli::run;
use crate::support::{process, tools, wait};

/// Runs the shell with a script; standard output.
async fn shell(name: &str, arguments: &[&str]) -> Option<String> {
    let program = tools::system_if_there(name)?;
    let home = process::directory();
    let mut command = process::with_program(&program, home.path());
    command.args(arguments).stdin(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    let output = wait::soon("the shell", command.kill_on_drop(true).output()).await.expect("the shell runs");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn each_script_is_one_of_its_shell() {
    let home = process::directory();
    for name in ["bash", "zsh", "fish"] {
        let script = run(home.path(), &["completions", name]).await.ok().stdout;
        assert!(script.contains("claudemesh") && script.contains("inbox"), "{script}");
        let path = home.path().join(name);
        std::fs::write(&path, script).expect("the script");
        let flag = if name == "fish" { "--no-execute" } else { "-n" };
        shell(name, &[flag, &path.display().to_string()]).await;
    }
}

#[tokio::test]
async fn bash_completes_verbs_and_flags() {
    let home = process::directory();
    let path = home.path().join("script");
    std::fs::write(&path, run(home.path(), &["completions", "bash"]).await.ok().stdout).expect("the script");
    // As bash calls it: the command, the word at the cursor, the word before it.
    let complete = |before: &[&str], word: &str| {
        let last = before.last().copied().unwrap_or_default();
        format!(
            "source {}; COMP_WORDS=({} {word}); COMP_CWORD={}; _claudemesh claudemesh {word} {last}; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            path.display(),
            before.join(" "),
            before.len(),
        )
    };
    let Some(said) = shell("bash", &["-c", &complete(&["claudemesh"], "da")]).await else { return };
    assert_eq!(said.trim(), "daemon");
    let said = shell("bash", &["-c", &complete(&["claudemesh", "send"], "--wa")]).await.unwrap_or_default();
    assert_eq!(said.trim(), "--wait");
}
