//! The shape of the code, checked: who may import whom and why, which folder
//! stays free of which framework, how long a file may be, how it begins, and
//! which words it may not hold.
//!
//! Each check is a function from text to complaints, so that the samples in
//! `architecture/samples.rs` can show every one of them failing.

#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/samples.rs"]
mod samples;
#[path = "architecture/source.rs"]
mod source;
#[path = "architecture/table.rs"]
mod table;
#[path = "architecture/text.rs"]
mod text;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use source::SourceFile;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the crate, parsed.
fn sources() -> Vec<SourceFile> {
    let files = text::files_below(&root().join("src"), &["rs"]);
    assert!(files.len() > 10, "src/ holds only {} files; this test looks in the wrong place", files.len());
    files
        .iter()
        .map(|path| {
            let relative = path.strip_prefix(root().join("src")).expect("found below src/");
            let code = std::fs::read_to_string(path).expect("a source file is UTF-8");
            SourceFile::parse(relative, &code).unwrap_or_else(|error| panic!("src/{}: {error}", relative.display()))
        })
        .collect()
}

/// Fails with every complaint, one a line.
#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{} complaint(s):\n  {}", complaints.len(), complaints.join("\n  "));
}

#[test]
fn a_folder_imports_only_what_its_row_allows() {
    none(sources().iter().flat_map(imports::forbidden_folders).collect());
}

#[test]
fn a_folder_stays_free_of_what_its_row_excludes() {
    none(sources().iter().flat_map(imports::forbidden_crates).collect());
}

#[test]
fn only_the_supervisor_starts_tasks() {
    none(sources().iter().flat_map(imports::unsupervised_tasks).collect());
}

#[test]
fn the_crate_root_re_exports_nothing() {
    none(sources().iter().flat_map(imports::root_re_exports).collect());
}

#[test]
fn the_table_agrees_with_itself_and_with_the_tree() {
    let folders: BTreeSet<String> = std::fs::read_dir(root().join("src"))
        .expect("src/ can be listed")
        .filter_map(|entry| {
            let path = entry.expect("an entry of src/").path();
            let name = path.file_stem()?.to_str()?.to_owned();
            (name != "lib" && name != "main").then_some(name)
        })
        .collect();
    none(table::inconsistencies(table::FOLDERS, table::PLANNED, &folders));
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut complaints = Vec::new();
    for path in rust_files() {
        let code = std::fs::read_to_string(&path).expect("a source file is UTF-8");
        complaints.extend(text::missing_header(&shown(&path), &code));
    }
    none(complaints);
}

#[test]
fn no_file_is_longer_than_800_lines() {
    let mut complaints = Vec::new();
    for folder in ["src", "migrations", "tests"] {
        for path in text::files_below(&root().join(folder), &["rs", "py", "sh"]) {
            let code = std::fs::read_to_string(&path).expect("a source file is UTF-8");
            complaints.extend(text::too_long(&shown(&path), &code));
        }
    }
    none(complaints);
}

#[test]
fn the_project_holds_no_unfinished_place_and_no_foreign_path() {
    let mut complaints = Vec::new();
    for path in text::files_below(root(), text::TEXT_ENDINGS) {
        let Ok(content) = std::fs::read_to_string(&path) else { continue };
        complaints.extend(text::forbidden_words(&shown(&path), &content));
    }
    none(complaints);
}

/// Files that must open with a module comment: the crate, the migrations and
/// the tests themselves.
fn rust_files() -> Vec<PathBuf> {
    ["src", "migrations", "tests"].iter().flat_map(|folder| text::files_below(&root().join(folder), &["rs"])).collect()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Every code that a user can meet has a page, and every page a code.
#[test]
fn every_error_code_has_its_page() {
    use claudemesh::domain::error_code::ErrorCode;
    let pages: BTreeSet<String> = text::files_below(&root().join("docs/errors"), &["md"])
        .iter()
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| name != "README")
        .collect();
    let codes: BTreeSet<String> = ErrorCode::ALL.iter().map(|code| code.name().to_owned()).collect();
    let missing = codes.difference(&pages).map(|name| format!("docs/errors/{name}.md is missing"));
    let stale = pages.difference(&codes).map(|name| format!("docs/errors/{name}.md explains no code"));
    none(missing.chain(stale).collect());
}
