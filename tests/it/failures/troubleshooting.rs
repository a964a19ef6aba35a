//! `docs/TROUBLESHOOTING.md` is made of the tables, and every snapshot has its
//! row.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::table::{End, Row};
use super::{access, command_line, disk, joining, link, requests, settings, state};

const INTRODUCTION: &str = "\
# Troubleshooting

What you see, why, and what helps. Each error ends with its code in brackets; the code leads to a page with every step.

This page is made of the tables in `tests/it/failures`, which provoke every row with the real program. Do not edit it: change the
table, then run the test `failures::troubleshooting` with `UPDATE_DOCS=1`.
";

fn sections() -> Vec<(&'static str, Vec<Row>)> {
    vec![
        ("A send is refused", requests::rows()),
        ("The disk is full", disk::rows()),
        ("A call is not let in", access::rows()),
        ("A command finds no daemon", command_line::rows()),
        ("A file is wrong", settings::rows()),
        ("The state directory is in trouble", state::rows()),
        ("There is no link to the broker", link::rows()),
        ("A mesh cannot be joined or made", joining::rows()),
    ]
}

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (title, rows) in sections() {
        write!(page, "\n## {title}\n\n| Code | Ends with | Cause | The text advises |\n|---|---|---|---|\n")
            .expect("a string");
        let mut done: Vec<(&str, &str, &str)> = Vec::new();
        for row in &rows {
            let key = (row.code, row.cause, row.help);
            if done.contains(&key) {
                continue;
            }
            done.push(key);
            let mut ends: Vec<String> = Vec::new();
            for same in rows.iter().filter(|other| (other.code, other.cause, other.help) == key) {
                let end = words(same.end);
                if !ends.contains(&end) {
                    ends.push(end);
                }
            }
            let help = row.help.replace('|', "\\|").replace("<home>", "~/.claudemesh");
            writeln!(page, "| {} | {} | {} | {help} |", code(row.code), ends.join(", "), row.cause).expect("a string");
        }
    }
    page
}

/// A link to the code's page; warnings of the status have none.
fn code(code: &str) -> String {
    match code {
        "" => "usage".to_owned(),
        _ if docs().join(format!("errors/{code}.md")).exists() => format!("[{code}](errors/{code}.md)"),
        _ => format!("{code} (a warning)"),
    }
}

fn words(end: End) -> String {
    match end {
        End::Exit(0) => "`daemon status` tells it".to_owned(),
        End::Exit(code) => format!("exit code {code}"),
        End::Http(status) => format!("HTTP {status}"),
        End::Grpc(code) => format!("gRPC {code:?}"),
    }
}

fn docs() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

#[test]
fn the_page_of_troubleshooting_is_the_tables() {
    let path = docs().join("TROUBLESHOOTING.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page()).expect("the page");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, page(), "run this test with UPDATE_DOCS=1");
}

#[test]
fn every_snapshot_belongs_to_one_row() {
    let all: Vec<&str> = sections().iter().flat_map(|(_, rows)| rows.iter().map(|row| row.name)).collect();
    let names: BTreeSet<String> = all.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(names.len(), all.len(), "a name stands twice");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/failures/snapshots");
    let files: BTreeSet<String> = std::fs::read_dir(folder)
        .expect("the snapshots")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".snap").map(str::to_owned))
        .collect();
    assert_eq!(files, names);
}
