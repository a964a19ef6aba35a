//! Commands that are wrong, or find no daemon to talk to.

use serde_json::Value;

use super::queued::Queued;
use super::table::{Case, End, Heard, Row, run};
use crate::support::cli;
use crate::support::process;

impl Queued {
    async fn command(&mut self, arguments: &[&str]) -> Heard {
        let heard = Heard::command(&self.run(arguments).await);
        self.kept().await;
        heard
    }
}

/// A copy of the mesh's entry under another name.
fn join_second_mesh(config: &mut Value) {
    let mut second = config["meshes"][0].clone();
    for (key, value) in [("slug", "second"), ("name", "second"), ("meshId", "SecondMesh")] {
        second[key] = value.into();
    }
    config["meshes"].as_array_mut().expect("meshes").push(second);
}

fn cases() -> Vec<Case<Queued>> {
    let mut cases = words();
    cases.extend(daemons());
    cases
}

fn words() -> Vec<Case<Queued>> {
    vec![
        Case {
            name: "unknown_subcommand",
            cause: "A command is misspelt.",
            code: "",
            end: End::Exit(2),
            place: &["'sned'"],
            help: "a similar subcommand exists: 'send'",
            act: |world| Box::pin(async move { world.command(&["sned", "bob", "hi"]).await }),
        },
        Case {
            name: "unknown_flag",
            cause: "A flag is misspelt.",
            code: "",
            end: End::Exit(2),
            place: &["'--prioriti'"],
            help: "a similar argument exists: '--priority'",
            act: |world| Box::pin(async move { world.command(&["send", "bob", "hi", "--prioriti", "now"]).await }),
        },
        Case {
            name: "mesh_name_invalid",
            cause: "`--mesh` is no name of a mesh.",
            code: "invalid_argument",
            end: End::Exit(2),
            place: &["\"../demo\"", "--mesh"],
            help: "use 1 to 64 of letters, digits",
            act: |world| Box::pin(async move { world.command(&["send", "bob", "hi", "--mesh", "../demo"]).await }),
        },
    ]
}

fn daemons() -> Vec<Case<Queued>> {
    vec![
        Case {
            name: "daemon_not_running",
            cause: "The mesh's daemon is not running.",
            code: "daemon_not_running",
            end: End::Exit(3),
            place: &["\"demo\""],
            help: "claudemesh daemon up --mesh demo",
            act: |world| Box::pin(async move { world.command(&["send", "bob", "hi"]).await }),
        },
        Case {
            name: "stale_socket",
            cause: "The daemon was killed, and its socket file is still there.",
            code: "daemon_not_running",
            end: End::Exit(3),
            place: &["\"demo\""],
            help: "claudemesh daemon up --mesh demo",
            act: |world| {
                Box::pin(async move {
                    world.alice.start().await;
                    world.alice.kill9();
                    assert!(world.alice.socket().exists(), "a killed daemon leaves its socket");
                    world.command(&["send", "bob", "hi"]).await
                })
            },
        },
        Case {
            name: "second_daemon",
            cause: "A daemon of this mesh runs already.",
            code: "already_running",
            end: End::Exit(4),
            place: &["mesh demo", "pid <pid>"],
            help: "claudemesh daemon down --mesh demo",
            act: |world| {
                Box::pin(async move {
                    world.alice.start().await;
                    let heard = world.command(&["daemon", "up", "--foreground", "--mesh", "demo"]).await;
                    world.alice.http().get("/v1/health").send().await.expect(200);
                    world.alice.stop().await;
                    heard
                })
            },
        },
        Case {
            name: "second_daemon_in_background",
            cause: "A daemon of this mesh runs already.",
            code: "already_running",
            end: End::Exit(4),
            place: &["\"demo\"", "pid <pid>"],
            help: "claudemesh daemon status --mesh demo",
            act: |world| {
                Box::pin(async move {
                    world.alice.start().await;
                    let heard = world.command(&["daemon", "up", "--mesh", "demo"]).await;
                    world.alice.http().get("/v1/health").send().await.expect(200);
                    world.alice.stop().await;
                    heard
                })
            },
        },
        Case {
            name: "mesh_not_joined",
            cause: "The mesh that is named was not joined on this account.",
            code: "mesh_not_joined",
            end: End::Exit(10),
            place: &["\"nowhere\""],
            help: "claudemesh mesh list",
            act: |world| Box::pin(async move { world.command(&["send", "bob", "hi", "--mesh", "nowhere"]).await }),
        },
        Case {
            name: "mesh_not_joined_foreground",
            cause: "The mesh that is named was not joined on this account.",
            code: "mesh_not_joined",
            end: End::Exit(10),
            place: &["mesh nowhere", "joined: demo"],
            help: "claudemesh join",
            act: |world| {
                Box::pin(async move { world.command(&["daemon", "up", "--foreground", "--mesh", "nowhere"]).await })
            },
        },
        Case {
            name: "no_mesh_joined",
            cause: "No mesh was joined on this account.",
            code: "mesh_not_joined",
            end: End::Exit(10),
            place: &["no mesh is joined"],
            help: "claudemesh join 'ic://join/...'",
            act: |_| {
                Box::pin(async move {
                    let home = process::directory();
                    Heard::command(&cli::run(home.path(), &["daemon", "up"]).await)
                })
            },
        },
        Case {
            name: "several_meshes_joined",
            cause: "Several meshes are joined, and none is named.",
            code: "mesh_required",
            end: End::Exit(2),
            place: &["several meshes are joined"],
            help: "name one with --mesh: demo, second",
            act: |world| {
                Box::pin(async move {
                    let path = world.alice.home().join("config.json");
                    let before = std::fs::read_to_string(&path).expect("config.json");
                    let mut config: Value = serde_json::from_str(&before).expect("JSON");
                    join_second_mesh(&mut config);
                    std::fs::write(&path, config.to_string()).expect("config.json");
                    let ran = world.run(&["daemon", "up"]).await;
                    std::fs::write(&path, before).expect("config.json");
                    world.kept().await;
                    Heard::command(&ran)
                })
            },
        },
        Case {
            name: "mesh_not_served",
            cause: "A request names another mesh than the daemon serves.",
            code: "mesh_not_found",
            end: End::Http(404),
            place: &["other", "demo"],
            help: "ask that mesh's own daemon",
            act: |world| {
                Box::pin(async move {
                    world.alice.start().await;
                    let answer = world.alice.http().get("/v1/peers?mesh=other").send().await;
                    world.alice.stop().await;
                    world.kept().await;
                    Heard::rest(&answer)
                })
            },
        },
    ]
}

pub(super) fn rows() -> Vec<Row> {
    cases().iter().map(Case::row).collect()
}

#[tokio::test]
async fn a_command_that_cannot_work_says_which_one_would() {
    let mut world = Queued::start().await;
    run(&mut world, &cases()).await;
    world.goes_out().await;
}
