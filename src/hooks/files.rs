//! Which hook files may run: ours, writable by nobody else, and in the directory.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::config::ConfigError;
use crate::config::hooks_file::FILE;

/// Files that are looked at in a hooks directory.
const MAX_FILES: usize = 1024;

/// As much of a script's first line is looked at as the system does.
const MAX_INTERPRETER: usize = 256;

/// Why a file may not run; `None` when it may. Looked at when the hooks are read
/// and again before each run.
pub(super) fn problem(directory: &Path, path: &Path) -> Option<String> {
    let shown = path.display();
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(format!("there is no file {shown}")),
        Err(error) => return Some(format!("{shown} cannot be read: {error}")),
    };
    let inside = directory.canonicalize().is_ok_and(|directory| real.starts_with(directory));
    if !inside {
        return Some(format!("{shown} leads out of the hooks directory, to {}; copy the file", real.display()));
    }
    let found = match std::fs::metadata(&real) {
        Ok(found) => found,
        Err(error) => return Some(format!("{shown} cannot be read: {error}")),
    };
    if !found.is_file() {
        return Some(format!("{shown} is no file"));
    }
    if let Some(problem) = exposed(path, &found) {
        return Some(problem);
    }
    if found.permissions().mode() & 0o100 == 0 {
        return Some(format!("{shown} is not executable: chmod u+x {shown}"));
    }
    interpreter_problem(&real).map(|problem| format!("{shown} {problem}"))
}

/// Why the system would not find what a script names as its interpreter. All that is
/// seen of it otherwise is exit code 127, or that it did not start.
fn interpreter_problem(path: &Path) -> Option<String> {
    let mut head = [0; MAX_INTERPRETER];
    let count = File::open(path).and_then(|mut file| file.read(&mut head)).ok()?;
    let head = &head[..count];
    let line = head.split(|byte| *byte == b'\n').next()?;
    let Some(named) = line.strip_prefix(b"#!") else {
        // A program of its own has such bytes, and a text has none.
        let is_text = !head.contains(&0);
        return is_text.then(|| "does not begin with `#!` and an interpreter, such as `#!/bin/sh`".to_owned());
    };
    let named = String::from_utf8_lossy(named).into_owned();
    if named.ends_with('\r') {
        return Some("has the line ends of Windows: remove them with `sed -i 's/\\r$//'`".to_owned());
    }
    let program = named.split_whitespace().next()?;
    (!Path::new(program).exists()).then(|| format!("names the interpreter {program}, which is not there"))
}

/// Why others could change the file.
fn exposed(path: &Path, found: &Metadata) -> Option<String> {
    let (shown, own) = (path.display(), rustix::process::geteuid().as_raw());
    if found.uid() != own {
        return Some(format!("{shown} belongs to the user {}, not to the daemon's {own}", found.uid()));
    }
    let writable = found.permissions().mode() & 0o022 != 0;
    writable.then(|| format!("{shown} can be changed by other users: chmod go-w {shown}"))
}

/// Refuses a hooks directory, or a hooks.toml in it, that others could change.
pub(super) fn check_settings(directory: &Path) -> Result<(), ConfigError> {
    for path in [directory.to_owned(), directory.join(FILE)] {
        let found = match std::fs::metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        };
        if let Some(detail) = exposed(&path, &found) {
            return Err(ConfigError::Malformed { path, line: None, detail });
        }
    }
    Ok(())
}

/// The hook files of a directory, by the names of their hooks.
pub(super) fn found(directory: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<(String, PathBuf)> = entries
        .flatten()
        .take(MAX_FILES)
        .filter_map(|entry| {
            let name = entry.file_name().to_str()?.strip_suffix(".sh")?.to_owned();
            (!name.is_empty()).then(|| (name, entry.path()))
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, mode: u32) {
        std::fs::write(path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    // Covers: R209, R215
    #[test]
    fn a_file_that_others_could_have_written_does_not_run() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = dir.path().join("on-dm.sh");
        let says = |word: &str| {
            let problem = problem(dir.path(), &path);
            assert!(problem.as_ref().is_some_and(|text| text.contains(word)), "{word}: {problem:?}");
        };
        says("there is no file");
        for (mode, word) in [(0o600, "executable"), (0o720, "go-w"), (0o702, "go-w")] {
            write(&path, mode);
            says(word);
        }
        write(&path, 0o755);
        assert_eq!(problem(dir.path(), &path), None);
        for (text, word) in [("#!/bin/sh\r\ntrue\r\n", "line ends"), ("#! /no/such/shell -e\n", "/no/such/shell")] {
            std::fs::write(&path, text).unwrap();
            says(word);
        }
        for text in ["true\n", ""] {
            std::fs::write(&path, text).unwrap();
            says("does not begin with");
        }
        for text in ["#!/usr/bin/env python3\n", "\x7fELF\0"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(problem(dir.path(), &path), None, "{text:?}");
        }
        std::fs::remove_file(&path).unwrap();
        let target = outside.path().join("evil.sh");
        write(&target, 0o700);
        std::os::unix::fs::symlink(&target, &path).unwrap();
        says("leads out");
        std::fs::remove_file(&path).unwrap();
        write(&dir.path().join("common"), 0o700);
        std::os::unix::fs::symlink("common", &path).unwrap();
        assert_eq!(problem(dir.path(), &path), None, "a link inside the directory");
        assert_eq!(found(dir.path()), [("on-dm".to_owned(), path)]);
    }

    #[test]
    fn settings_that_others_could_change_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_settings(dir.path()).is_ok());
        write(&dir.path().join(FILE), 0o666);
        assert!(check_settings(dir.path()).unwrap_err().to_string().contains("go-w"));
    }
}
