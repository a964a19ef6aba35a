//! Files that a person may have edited or damaged: settings, keys, memberships.

use std::os::unix::fs::PermissionsExt as _;

use super::queued::Queued;
use super::table::{Case, End, Heard, Row, run};

impl Queued {
    async fn config_toml(&mut self, text: &str) -> Heard {
        let path = self.alice.file("config.toml");
        self.refused_with(&path, text).await
    }

    async fn config_json(&mut self, edit: impl FnOnce(String) -> String) -> Heard {
        let path = self.alice.home().join("config.json");
        let before = std::fs::read_to_string(&path).expect("config.json");
        let after = edit(before.clone());
        assert_ne!(before, after);
        self.refused_with(&path, &after).await
    }

    async fn key_file(&mut self, edit: impl FnOnce(String) -> String) -> Heard {
        let path = self.alice.file("keypair.json");
        let before = std::fs::read_to_string(&path).expect("keypair.json");
        let after = edit(before.clone());
        assert_ne!(before, after);
        let heard = self.refused_with(&path, &after).await;
        let secret = &self.alice.config_member()["secretKey"];
        assert!(!heard.text().contains(&secret.as_str().expect("a secret")[..32]), "no secret is shown");
        heard
    }
}

fn cases() -> Vec<Case<Queued>> {
    let mut cases = toml();
    cases.extend(keys());
    cases
}

fn toml() -> Vec<Case<Queued>> {
    vec![
        Case {
            name: "unknown_setting",
            cause: "A key of `config.toml` is misspelt.",
            code: "config_invalid",
            end: End::Exit(10),
            place: &["<home>/daemon/demo/config.toml, line 2", "log_levle"],
            help: "did you mean `log_level`?",
            act: |world| Box::pin(async move { world.config_toml("[daemon]\nlog_levle = \"debug\"\n").await }),
        },
        Case {
            name: "unknown_setting_in_background",
            cause: "A key of `config.toml` is misspelt.",
            code: "config_invalid",
            end: End::Exit(10),
            place: &["the daemon of mesh \"demo\" did not start", "<home>/daemon/demo/config.toml, line 2", "http_prt"],
            help: "did you mean `http_port`?",
            act: |world| {
                Box::pin(async move {
                    let path = world.alice.file("config.toml");
                    let before = std::fs::read(&path).expect("config.toml");
                    std::fs::write(&path, "[ipc]\nhttp_prt = 1\n").expect("config.toml");
                    let ran = world.run(&["daemon", "up", "--mesh", "demo"]).await;
                    std::fs::write(&path, before).expect("config.toml");
                    world.kept().await;
                    Heard::command(&ran)
                })
            },
        },
        Case {
            name: "unknown_section",
            cause: "A section of `config.toml` is misspelt.",
            code: "config_invalid",
            end: End::Exit(10),
            place: &["<home>/daemon/demo/config.toml, line 1", "outbx"],
            help: "did you mean `outbox`?",
            act: |world| Box::pin(async move { world.config_toml("[outbx]\nmax_age_hours = 3\n").await }),
        },
        Case {
            name: "setting_of_wrong_type",
            cause: "A value of `config.toml` has the wrong type.",
            code: "config_invalid",
            end: End::Exit(10),
            place: &["<home>/daemon/demo/config.toml, line 2", "`initial_backoff_ms`", "expected u64"],
            help: "correct it or take it out",
            act: |world| {
                Box::pin(async move { world.config_toml("[reconnect]\ninitial_backoff_ms = \"soon\"\n").await })
            },
        },
        Case {
            name: "setting_out_of_range",
            cause: "A value of `config.toml` is out of range.",
            code: "config_invalid",
            end: End::Exit(10),
            place: &["<home>/daemon/demo/config.toml, line 3", "`outbox.max_age_hours` = 168"],
            help: "it must be from 1 to 23",
            act: |world| Box::pin(async move { world.config_toml("[outbox]\n# a week\nmax_age_hours = 168\n").await }),
        },
        Case {
            name: "settings_are_no_toml",
            cause: "`config.toml` is not TOML.",
            code: "config_invalid",
            end: End::Exit(10),
            place: &["<home>/daemon/demo/config.toml, line 1"],
            help: "correct it or take it out",
            act: |world| Box::pin(async move { world.config_toml("log_level debug\n").await }),
        },
        Case {
            name: "setting_of_a_fleet",
            cause: "A value of the settings for all daemons is out of range.",
            code: "config_invalid",
            end: End::Exit(10),
            place: &["<home>/daemon/config.toml, line 2", "`fleet.max_daemons` = 0"],
            help: "it must be at least 1",
            act: |world| {
                Box::pin(async move {
                    let path = world.alice.home().join("daemon/config.toml");
                    std::fs::write(&path, "[fleet]\nmax_daemons = 0\n").expect("config.toml");
                    let ran = world.run(&["daemon", "up", "--mesh", "demo"]).await;
                    std::fs::remove_file(path).expect("config.toml");
                    world.kept().await;
                    Heard::command(&ran)
                })
            },
        },
        Case {
            name: "memberships_are_no_json",
            cause: "`config.json` is damaged.",
            code: "config_invalid",
            end: End::Exit(10),
            place: &["<home>/config.json", "line 1 column"],
            help: "mend the file by hand",
            act: |world| Box::pin(async move { world.config_json(|text| text[..100].to_owned()).await }),
        },
        Case {
            name: "membership_incomplete",
            cause: "An entry of `config.json` misses a field.",
            code: "config_invalid",
            end: End::Exit(10),
            place: &["<home>/config.json", "the entry of mesh \"demo\"", "`brokerUrl`"],
            help: "mend the file by hand",
            act: |world| {
                Box::pin(async move { world.config_json(|text| text.replace("brokerUrl", "brokerUri")).await })
            },
        },
    ]
}

fn keys() -> Vec<Case<Queued>> {
    vec![
        Case {
            name: "key_file_is_no_json",
            cause: "`keypair.json` is damaged.",
            code: "key_unreadable",
            end: End::Exit(18),
            place: &["<home>/daemon/demo/keypair.json is damaged"],
            help: "move the file away and start again: it is made anew from config.json",
            act: |world| Box::pin(async move { world.key_file(|text| text[..text.len() / 2].to_owned()).await }),
        },
        Case {
            name: "key_file_of_two_pairs",
            cause: "The keys of `keypair.json` do not belong together.",
            code: "key_unreadable",
            end: End::Exit(18),
            place: &["<home>/daemon/demo/keypair.json", "do not belong together"],
            help: "move the file away and start again",
            act: |world| {
                Box::pin(async move {
                    let key = world.alice.public();
                    world
                        .key_file(|text| text.replace(&format!("\"{key}\""), &format!("\"{}\"", "ab".repeat(32))))
                        .await
                })
            },
        },
        Case {
            name: "key_file_of_another_member",
            cause: "The state directory belongs to a member that this mesh was joined as before.",
            code: "key_unreadable",
            end: End::Exit(18),
            place: &["<home>/daemon/demo/keypair.json", "member-alice", "member-carol"],
            help: "move the state directory away",
            act: |world| {
                Box::pin(async move { world.config_json(|text| text.replace("member-alice", "member-carol")).await })
            },
        },
        Case {
            name: "key_file_readable_by_others",
            cause: "`keypair.json` could be read by other users.",
            code: "key_file_exposed",
            end: End::Exit(0),
            place: &["<home>/daemon/demo/keypair.json", "mode 0644"],
            help: "join again with a new key",
            act: |world| {
                Box::pin(async move {
                    let path = world.alice.file("keypair.json");
                    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
                    world.alice.start().await;
                    let heard = world.status("key_file_exposed").await;
                    let mode = std::fs::metadata(&path).expect("keypair.json").permissions().mode();
                    assert_eq!(mode & 0o777, 0o600, "it is private again");
                    world.alice.stop().await;
                    world.kept().await;
                    heard
                })
            },
        },
    ]
}

pub(super) fn rows() -> Vec<Row> {
    cases().iter().map(Case::row).collect()
}

#[tokio::test]
async fn a_wrong_file_is_named_with_its_line_and_left_as_it_is() {
    let mut world = Queued::start().await;
    run(&mut world, &cases()).await;
    world.goes_out().await;
}
