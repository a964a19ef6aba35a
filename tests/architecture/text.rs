//! The checks on a file's text: its first lines, its length, its words.

use std::path::{Path, PathBuf};

/// The limit on a file, its tests included.
pub(crate) const MOST_LINES: usize = 800;

/// What the opening comment of a `mod.rs` answers.
pub(crate) const FOUR_ANSWERS: [&str; 4] =
    ["What it is for:", "What runs here:", "What it guarantees:", "What it must not do:"];

/// Endings of the text files that are read for words.
pub(crate) const TEXT_ENDINGS: &[&str] = &[
    "cfg", "go", "json", "md", "mod", "proto", "py", "pyi", "rs", "sh", "sql", "toml", "ts", "txt", "yaml", "yml",
    "Makefile", "run",
];

/// Written in two halves, so that this file does not hold what it looks for.
const FOREIGN_PATHS: &[&str] = &[concat!("../", "shared"), concat!("/wo", "rk/"), concat!("/fa", "rm/")];
const UNFINISHED_MARKS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
const UNFINISHED_CODE: &[&str] = &[
    concat!("unimple", "mented!("),
    concat!("to", "do!("),
    concat!("#[ig", "nore"),
    concat!("not yet ", "implemented"),
];

/// Folders that hold nothing written by hand.
const SKIPPED: &[&str] = &["target", "node_modules", ".git", ".venv", "gen", "_gen", "__pycache__", "bench-results"];

/// Every file below `folder` with one of the endings (or of that very name).
pub(crate) fn files_below(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !SKIPPED.contains(&name.as_str()) {
                    open.push(path);
                }
            } else if endings.iter().any(|ending| name == *ending || name.ends_with(&format!(".{ending}"))) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A file without a module comment; a `mod.rs` without the four answers.
pub(crate) fn missing_header(shown: &str, code: &str) -> Vec<String> {
    let header: Vec<&str> = code.lines().take_while(|line| line.starts_with("//!")).collect();
    if header.is_empty() {
        return vec![format!("{shown}: opens without a `//!` comment that says what the file is for")];
    }
    let is_folder_of_the_crate = shown.starts_with("src/") && shown.ends_with("/mod.rs");
    if !is_folder_of_the_crate || is_test_module(shown) {
        return Vec::new();
    }
    let text = header.join("\n");
    FOUR_ANSWERS
        .iter()
        .filter(|answer| !text.contains(*answer))
        .map(|answer| format!("{shown}: the module comment does not answer \"{answer}\""))
        .collect()
}

fn is_test_module(shown: &str) -> bool {
    shown.split('/').any(|part| part == "tests")
}

/// A file over the limit.
pub(crate) fn too_long(shown: &str, code: &str) -> Option<String> {
    let lines = code.lines().count();
    (lines > MOST_LINES).then(|| format!("{shown}: {lines} lines, {MOST_LINES} are allowed: split it by what it does"))
}

/// Places that are unfinished, switched off, or point outside the project.
pub(crate) fn forbidden_words(shown: &str, content: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in content.lines().enumerate() {
        let number = number + 1;
        for path in FOREIGN_PATHS.iter().filter(|path| line.contains(**path)) {
            complaints.push(format!("{shown}:{number}: `{path}` points outside the project"));
        }
        for code in UNFINISHED_CODE.iter().filter(|code| line.contains(**code)) {
            complaints.push(format!("{shown}:{number}: `{code}` is unfinished or switched off"));
        }
        for mark in UNFINISHED_MARKS.iter().filter(|mark| holds_word(line, mark)) {
            complaints.push(format!(
                "{shown}:{number}: `{mark}` is unfinished: do it or say in words what is missing and why"
            ));
        }
    }
    complaints
}

/// Whether `word` stands in `line` with no letter, digit or `_` beside it.
fn holds_word(line: &str, word: &str) -> bool {
    let joins = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(joins) && !line[at + word.len()..].starts_with(joins))
}
