//! The checks on what a file names.

use crate::source::SourceFile;
use crate::table;

/// The only file that may start a task.
const SUPERVISOR: &str = "runtime/supervisor.rs";

/// Starting a task without an owner.
const SPAWNS: &[&str] = &["tokio::spawn", "tokio::task::spawn", "tokio::task::spawn_local"];

/// Imports of folders that the row does not list.
pub(crate) fn forbidden_folders(file: &SourceFile) -> Vec<String> {
    let mut complaints = Vec::new();
    for named in &file.named {
        let Some(target) = named.folder() else { continue };
        // A path into a sibling item of the crate's root, such as a macro, is
        // not a folder.
        if target == file.folder || table::folder(target).is_none() {
            continue;
        }
        let (allowed, reason) = match file.folder.as_str() {
            "lib" => (true, ""),
            "main" => (target == "cli", "`main.rs` turns the command line's result into an exit code, nothing else"),
            own => match table::folder(own) {
                Some(row) => (row.may_import.contains(&target), row.reason),
                None => (false, "the folder has no row in the table"),
            },
        };
        if !allowed {
            complaints.push(format!(
                "src/{}:{}: `{}` may not import `{target}` ({}): {reason}",
                file.shown,
                named.line,
                file.folder,
                named.text(),
            ));
        }
    }
    complaints
}

/// Names of crates that the row excludes.
pub(crate) fn forbidden_crates(file: &SourceFile) -> Vec<String> {
    let Some(row) = table::folder(&file.folder) else { return Vec::new() };
    let mut complaints = Vec::new();
    for named in &file.named {
        if let Some(excluded) = row.must_not_use.iter().find(|excluded| named.is_below(excluded)) {
            complaints.push(format!(
                "src/{}:{}: `{}` must not use `{excluded}` ({}): {}",
                file.shown,
                named.line,
                file.folder,
                named.text(),
                row.reason,
            ));
        }
    }
    complaints
}

/// Tasks that are started past the supervisor.
pub(crate) fn unsupervised_tasks(file: &SourceFile) -> Vec<String> {
    if file.shown == SUPERVISOR {
        return Vec::new();
    }
    file.named
        .iter()
        .filter(|named| SPAWNS.contains(&named.text().as_str()))
        .map(|named| {
            format!(
                "src/{}:{}: `{}` starts a task without an owner: use `Supervisor::spawn`, so that its end is noticed and it stops in its phase",
                file.shown,
                named.line,
                named.text(),
            )
        })
        .collect()
}

/// Re-exports at the crate's root, which would hide who depends on whom.
pub(crate) fn root_re_exports(file: &SourceFile) -> Vec<String> {
    if file.shown != "lib.rs" {
        return Vec::new();
    }
    file.re_exports
        .iter()
        .map(|line| format!("src/lib.rs:{line}: a re-export hides an edge: import from the folder that owns the item"))
        .collect()
}
