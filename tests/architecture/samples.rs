//! Each check of this test binary, seen failing on a small sample.

use std::collections::BTreeSet;
use std::path::Path;

use crate::source::SourceFile;
use crate::table::{self, Folder};
use crate::{imports, text};

fn parse(path: &str, code: &str) -> SourceFile {
    SourceFile::parse(Path::new(path), code).expect("the sample is Rust")
}

#[track_caller]
fn one(complaints: &[String], says: &str) {
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains(says), "{complaints:?} does not say {says:?}");
}

#[test]
fn an_import_of_a_higher_folder_is_seen_in_every_spelling() {
    for code in [
        "use crate::api::Deps;",
        "use crate::{domain::ids::MemberKey, api::{self}};",
        "use crate::api as local;",
        "fn f() { crate::api::serve(); }",
        "type T = Vec<crate::api::Deps>;",
        "use super::super::api::Deps;",
        "mod inner { use super::super::super::api::Deps; }",
        "fn f() { println!(\"{}\", crate::api::NAME); }",
        "fn f() { tokio::select! { _ = crate::api::serve(1) => {} } }",
    ] {
        one(&imports::forbidden_folders(&parse("outbox/writer.rs", code)), "`outbox` may not import `api`");
    }
    let failing = imports::forbidden_folders(&parse("outbox/writer.rs", "\n\nuse crate::api::Deps;"));
    one(&failing, "src/outbox/writer.rs:3");
    one(&failing, table::folder("outbox").expect("outbox has a row").reason);
}

#[test]
fn an_import_of_an_allowed_folder_passes() {
    let code = "use crate::domain::ids::MemberKey; use super::repo; use std::fs; fn f() { self::helper(); crate::db::tx::begin(); }";
    assert_eq!(imports::forbidden_folders(&parse("outbox/writer.rs", code)), Vec::<String>::new());
}

#[test]
fn the_binary_reaches_the_command_line_only() {
    assert!(imports::forbidden_folders(&parse("main.rs", "fn main() { claudemesh::cli::run(); }")).is_empty());
    one(
        &imports::forbidden_folders(&parse("main.rs", "fn main() { claudemesh::daemon::run(); }")),
        "may not import `daemon`",
    );
}

#[test]
fn a_folder_without_a_row_may_import_nothing() {
    one(&imports::forbidden_folders(&parse("util/mod.rs", "use crate::domain::time;")), "no row");
}

#[test]
fn an_excluded_crate_is_seen_through_a_rename() {
    for (path, code) in [
        ("domain/retry.rs", "use tokio::time::sleep;"),
        ("domain/retry.rs", "use std::{fs, io};"),
        ("domain/retry.rs", "use std::time as t; fn f() { t::Instant::now(); }"),
        ("domain/retry.rs", "fn f() { std::env::var(\"HOME\"); }"),
        ("domain/retry.rs", "use chrono::Utc; fn f() { Utc::now(); }"),
        ("crypto/keys.rs", "async fn f() { tokio::task::yield_now().await }"),
        ("api/mod.rs", "use sea_orm::EntityTrait;"),
        ("outbox/mod.rs", "fn f() -> tonic::Status { todo() }"),
        ("cli/mod.rs", "use claudemesh_migrations::OutboxMigrator;"),
    ] {
        let complaints = imports::forbidden_crates(&parse(path, code));
        assert!(!complaints.is_empty(), "{path}: {code} passes");
        assert!(complaints[0].contains("must not use"), "{complaints:?}");
    }
}

#[test]
fn what_a_pure_decision_needs_is_allowed() {
    let code = "use std::time::Duration; use chrono::{DateTime, Utc}; type T = DateTime<Utc>; use serde::Serialize;";
    assert_eq!(imports::forbidden_crates(&parse("domain/retry.rs", code)), Vec::<String>::new());
}

#[test]
fn a_task_past_the_supervisor_is_seen() {
    for code in ["fn f() { tokio::spawn(async {}); }", "use tokio::task; fn f() { task::spawn(async {}); }"] {
        one(&imports::unsupervised_tasks(&parse("api/server.rs", code)), "without an owner");
        assert!(imports::unsupervised_tasks(&parse("runtime/supervisor.rs", code)).is_empty());
    }
    let used = imports::unsupervised_tasks(&parse("api/server.rs", "use tokio::spawn; fn f() { spawn(async {}); }"));
    assert_eq!(used.len(), 2, "the import and the call: {used:?}");
}

#[test]
fn a_re_export_at_the_root_is_seen() {
    one(&imports::root_re_exports(&parse("lib.rs", "pub mod api;\npub use api::Deps;")), "src/lib.rs:2");
    assert!(imports::root_re_exports(&parse("lib.rs", "pub mod api;")).is_empty());
    assert!(imports::root_re_exports(&parse("api/mod.rs", "pub use server::serve;")).is_empty());
}

#[test]
fn a_missing_header_or_answer_is_seen() {
    one(&text::missing_header("src/a/b.rs", "use std::fs;\n//! late"), "opens without");
    assert!(text::missing_header("src/a/b.rs", "//! A file.\n").is_empty());
    let three = "//! A folder.\n//! What it is for: x\n//! What runs here: x\n//! What it guarantees: x\nuse std::fs;\n// What it must not do: x";
    one(&text::missing_header("src/a/mod.rs", three), "What it must not do:");
    assert!(text::missing_header("tests/it/support/mod.rs", "//! Helpers.\n").is_empty());
}

#[test]
fn a_long_file_is_seen() {
    assert_eq!(text::too_long("src/a.rs", &"x\n".repeat(text::MOST_LINES)), None);
    assert!(
        text::too_long("src/a.rs", &"x\n".repeat(text::MOST_LINES + 1)).is_some_and(|text| text.contains("801 lines"))
    );
}

#[test]
fn forbidden_words_are_seen_with_their_line() {
    for word in [
        concat!("// TO", "DO: later"),
        concat!("# FIX", "ME"),
        concat!("// XX", "X"),
        concat!("to", "do!()"),
        concat!("#[ig", "nore]"),
        concat!("see ../", "shared/notes"),
        concat!("cd /wo", "rk/main"),
    ] {
        one(&text::forbidden_words("a.rs", &format!("fine\n{word}")), "a.rs:2");
    }
    for fine in ["mktemp /tmp/aXXXXXX", "let todo_list = 1;", "the network/wire", "homework/"] {
        assert_eq!(text::forbidden_words("a.rs", fine), Vec::<String>::new());
    }
}

#[test]
fn a_table_that_contradicts_itself_or_the_tree_is_seen() {
    let row = |name, rank, may_import| Folder { name, rank, may_import, must_not_use: &[], reason: "sample" };
    let tree = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let folders = [row("low", 1, &[]), row("high", 2, &["low"])];
    assert_eq!(table::inconsistencies(&folders, &[], &tree(&["low", "high"])), Vec::<String>::new());
    assert_eq!(table::inconsistencies(&folders, &["high"], &tree(&["low"])), Vec::<String>::new());
    one(&table::inconsistencies(&folders, &[], &tree(&["low"])), "`src/high` has a row but is gone");
    one(&table::inconsistencies(&folders, &[], &tree(&["low", "high", "util"])), "`src/util` has no row");
    one(&table::inconsistencies(&folders, &["gone"], &tree(&["low", "high"])), "planned but has no row");
    let upward = [row("low", 1, &["high"]), row("high", 2, &[])];
    one(&table::inconsistencies(&upward, &[], &tree(&["low", "high"])), "imports go down only");
    let unknown = [row("low", 1, &["nothing"])];
    one(&table::inconsistencies(&unknown, &[], &tree(&["low"])), "has no row");
}
