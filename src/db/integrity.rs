//! Finds a damaged SQLite file before use, and moves it out of the way.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sea_orm::{ConnectionTrait as _, DbErr, SqlxSqliteConnector, Statement};

use super::connect::{connect_error, side_file};
use super::{Error, tx};
use crate::domain::time::UnixMillis;

/// How thorough a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Structure of every page, without comparing indexes with their tables.
    Quick,
    /// Everything SQLite can check; reads the whole file twice.
    Full,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// There is no file yet, or an empty one.
    Missing,
    /// No fault found.
    Sound,
    /// SQLite's first complaint.
    Damaged(String),
}

/// Checks the file with a connection of its own, which is closed afterwards.
pub async fn integrity_check(path: &Path, depth: Depth) -> Result<Integrity, Error> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() == 0 => return Ok(Integrity::Missing),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Integrity::Missing),
        Err(source) => return Err(Error::File { action: "read", path: path.to_owned(), source }),
    }
    match first_complaint(path, depth).await {
        Ok(complaint) if complaint == "ok" => Ok(Integrity::Sound),
        Ok(complaint) => Ok(Integrity::Damaged(complaint)),
        Err(error) if tx::is_damaged(&error) => Ok(Integrity::Damaged(error.to_string())),
        Err(source) => Err(Error::Engine { action: "check it", database: path.display().to_string(), source }),
    }
}

async fn first_complaint(path: &Path, depth: Depth) -> Result<String, DbErr> {
    // With no setting that reads the file: a connection that fails while it is
    // opened closes later, on its own thread, and takes the log with it.
    let bare = SqliteConnectOptions::new().filename(path);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(bare).await.map_err(connect_error)?;
    let connection = SqlxSqliteConnector::from_sqlx_sqlite_pool(pool);
    let sql = match depth {
        Depth::Quick => "PRAGMA quick_check(1)",
        Depth::Full => "PRAGMA integrity_check(1)",
    };
    let row = connection.query_one_raw(Statement::from_string(connection.get_database_backend(), sql)).await;
    let complaint = row.and_then(|row| match row {
        // The first line only says which database.
        Some(row) => row.try_get_by_index::<String>(0).map(|text| text.replace("*** in database main ***\n", "")),
        None => Ok("the check gave no answer".to_owned()),
    });
    connection.close_by_ref().await?;
    complaint
}

/// Renames the file and its `-wal` and `-shm` to `<file>.corrupt-<now>` and the
/// same with the suffixes, so that SQLite can still open the set for salvage.
/// Returns the new name. No connection may be open.
pub fn quarantine(path: &Path, now: UnixMillis) -> Result<PathBuf, Error> {
    let mut target = side_file(path, &format!(".corrupt-{now}"));
    let mut count = 1;
    while target.exists() {
        count += 1;
        target = side_file(path, &format!(".corrupt-{now}-{count}"));
    }
    // The side files first: a log left behind beside a fresh database would be
    // taken for its own.
    for suffix in ["-wal", "-shm", ""] {
        let from = side_file(path, suffix);
        match fs::rename(&from, side_file(&target, suffix)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::File { action: "move away", path: from, source }),
        }
    }
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|source| Error::File { action: "sync the directory of", path: path.to_owned(), source })?;
    }
    Ok(target)
}

#[cfg(test)]
mod tests;
