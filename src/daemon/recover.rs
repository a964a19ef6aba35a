//! Looking at the databases of a daemon that does not run, and setting a damaged
//! one aside (R186).

use std::path::PathBuf;

use super::{Error, state};
use crate::config::paths::Root;
use crate::db::integrity::{Depth, Integrity, integrity_check, quarantine};
use crate::runtime::clock::Clock;
use crate::runtime::private_file;

/// What a check found, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `outbox` or `inbox`.
    pub database: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The engine's first complaint; `None` when the file is sound or missing.
    pub complaint: Option<String>,
    /// Where the damaged file is now, when it was set aside.
    pub set_aside: Option<PathBuf>,
}

/// Checks both databases of a mesh. Holds the daemon's lock meanwhile, so it
/// refuses while one runs. With `set_aside` damaged files are renamed; the next
/// start begins new ones. Nothing is deleted.
pub async fn recover(root: &Root, mesh: &str, set_aside: bool) -> Result<Vec<Finding>, Error> {
    private_file::restrict_umask();
    let directory = root.state_dir(mesh);
    state::joined(root, mesh)?;
    let _lock = state::lock(&directory, mesh)?;
    let clock = Clock::system();
    let mut findings = Vec::new();
    for (database, path) in [("outbox", directory.outbox_db()), ("inbox", directory.inbox_db())] {
        let complaint = match integrity_check(&path, Depth::Full).await? {
            Integrity::Damaged(complaint) => Some(complaint),
            Integrity::Missing | Integrity::Sound => None,
        };
        let moved = complaint.is_some() && set_aside;
        let set_aside = moved.then(|| quarantine(&path, clock.now())).transpose()?;
        findings.push(Finding { database, path, complaint, set_aside });
    }
    Ok(findings)
}
