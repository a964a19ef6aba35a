//! Files and directories that are private from the moment they exist.
//!
//! The mode is given at creation: a file that is narrowed afterwards was
//! readable for an instant.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Mode of secrets: only the owner reads and writes.
pub const PRIVATE: u32 = 0o600;
/// Mode of what others may read, such as the port number.
pub const PUBLIC: u32 = 0o644;

/// A file operation failed; names the path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    /// What was attempted, as a verb.
    pub action: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

// === impl FileError ===

impl FileError {
    /// True if there is no room for the file.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// What the user can do about it.
    pub fn next_step(&self) -> &'static str {
        use io::ErrorKind as Kind;
        match self.source.kind() {
            Kind::ReadOnlyFilesystem => {
                "the file system is read-only: mount it for writing, or set CLAUDEMESH_HOME to another directory"
            }
            Kind::StorageFull | Kind::QuotaExceeded => {
                "free some space there and try again; what is stored there is kept"
            }
            Kind::NotADirectory | Kind::AlreadyExists => {
                "a file stands where a directory belongs: move it away, or set CLAUDEMESH_HOME to another directory"
            }
            Kind::IsADirectory => "a directory stands where a file belongs: move it away",
            _ => "check that the directory exists and is yours; CLAUDEMESH_HOME moves it",
        }
    }
}

/// Clears the creation mask's permissive bits for the whole process, so that
/// files which libraries create (such as a database's side files) are private.
pub fn restrict_umask() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Makes a directory and its missing parents, mode 0700. An existing one is
/// narrowed to 0700 when it belongs to this user.
pub fn create_dir(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| error("create", path, source))?;
    let metadata = fs::metadata(path).map_err(|source| error("read", path, source))?;
    let owned = metadata.uid() == rustix::process::geteuid().as_raw();
    if owned && metadata.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|source| error("set the mode of", path, source))?;
    }
    Ok(())
}

/// Opens or creates a file for writing with the given mode.
pub fn open(path: &Path, mode: u32) -> Result<File, FileError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(mode)
        .open(path)
        .map_err(|source| error("open", path, source))
}

/// Replaces a file's content in one step: a reader sees the old bytes or the
/// new ones, also after a power failure (file and directory are synced).
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".{name}.{}.tmp", std::process::id()));
    match fs::remove_file(&temporary) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(error("remove", &temporary, source)),
        _ => {}
    }
    let result = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        // The mask may have narrowed the mode; what was asked for is exact.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_dir(dir)
    })();
    result.map_err(|source| {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
        error("write", path, source)
    })
}

/// Gives a file another name in the same directory, in place of the file that
/// has it; the directory is synced.
pub fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    let renamed = fs::rename(from, to).and_then(|()| sync_dir(to.parent().unwrap_or_else(|| Path::new("."))));
    renamed.map_err(|source| error("rename", from, source))
}

/// Greatest file that is read, in bytes.
const MAX_READ: u64 = 16 << 20;

/// Reads a small file as text; `None` when there is none.
pub fn read_optional(path: &Path) -> Result<Option<String>, FileError> {
    let read = || {
        let mut text = String::new();
        let read = File::open(path)?.take(MAX_READ + 1).read_to_string(&mut text)?;
        // A device may have no end.
        if read as u64 > MAX_READ { Err(io::Error::other("it is larger than 16 MiB")) } else { Ok(text) }
    };
    match read() {
        Ok(text) => Ok(Some(text)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(error("read", path, source)),
    }
}

/// The mode of a file that others than its owner may read or write; `None` when
/// it is private or not there.
pub fn exposed(path: &Path) -> Result<Option<u32>, FileError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.permissions().mode() & 0o7777).filter(|mode| mode & 0o077 != 0)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(error("read", path, source)),
    }
}

/// Sets the mode of a file to [`PRIVATE`].
pub fn narrow(path: &Path) -> Result<(), FileError> {
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE))
        .map_err(|source| error("set the mode of", path, source))
}

/// Removes a file; one that is not there is fine.
pub fn remove_if_there(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(error("remove", path, source)),
        _ => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })?.sync_all()
}

fn error(action: &'static str, path: &Path, source: io::Error) -> FileError {
    FileError { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_atomic_write_sets_the_exact_mode_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        for (content, mode) in [("one", PRIVATE), ("two", PUBLIC)] {
            write_atomic(&path, content.as_bytes(), mode).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_names_the_path() {
        let error = write_atomic(Path::new("/nonexistent-dir/x"), b"", PRIVATE).unwrap_err();
        assert!(error.to_string().contains("/nonexistent-dir/x"), "{error}");
    }

    #[test]
    fn a_wide_directory_is_narrowed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        create_dir(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
