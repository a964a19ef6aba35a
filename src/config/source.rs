//! Where settings outside of files come from. The only reader of the process
//! environment, so that tests never have to change it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use crate::domain::nearest::nearest;

/// Gives the values of environment variables.
pub trait Source: Debug + Send + Sync {
    /// The value of a variable; `None` when it is not set, empty or not UTF-8.
    fn var(&self, name: &str) -> Option<String>;

    /// The names of the variables that begin like this.
    fn names(&self, prefix: &str) -> Vec<String>;

    /// The first variable whose value is not UTF-8, of those that this program reads.
    fn unreadable(&self) -> Option<String> {
        None
    }
}

/// Variables that are read and have no prefix.
const READ: [&str; 13] = [
    "HOME",
    "TMPDIR",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "https_proxy",
    "HTTPS_PROXY",
    "http_proxy",
    "HTTP_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

/// A fixed list of variables.
#[derive(Clone, Debug, Default)]
pub struct MapSource(pub BTreeMap<String, String>);

// === impl ProcessEnvironment ===

impl Source for ProcessEnvironment {
    #[expect(clippy::disallowed_methods, reason = "this is the reader that the ban points to")]
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    #[expect(clippy::disallowed_methods, reason = "this is the reader that the ban points to")]
    fn names(&self, prefix: &str) -> Vec<String> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        names.filter(|name| name.starts_with(prefix)).collect()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the reader that the ban points to")]
    fn unreadable(&self) -> Option<String> {
        std::env::vars_os().find_map(|(name, value)| {
            let is_read = |name: &&str| name.starts_with("CLAUDEMESH_") || READ.contains(name);
            let name = name.to_str().filter(is_read)?;
            value.to_str().is_none().then(|| name.to_owned())
        })
    }
}

// === impl MapSource ===

impl Source for MapSource {
    fn var(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned().filter(|value| !value.is_empty())
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        self.0.keys().filter(|name| name.starts_with(prefix)).cloned().collect()
    }
}

/// Reads a TOML file into a struct that refuses unknown keys. A missing file
/// gives the defaults.
pub fn read_toml<T: serde::de::DeserializeOwned + Default>(path: &Path) -> Result<T, super::ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(T::default()),
        Err(source) => return Err(super::ConfigError::Unreadable { path: path.to_owned(), source }),
    };
    toml::from_str(&text).map_err(|error| super::ConfigError::Malformed {
        path: path.to_owned(),
        line: error.span().map(|span| line_at(&text, span.start)),
        detail: with_guess(&text, &error),
    })
}

/// The parser's complaint on one line, with the key of the line, and the name
/// that was perhaps meant.
pub(super) fn with_guess(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim().replace('\n', "; ");
    let Some(names) = message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `"))
    else {
        // Not the value: it may be a password.
        let line = error.span().and_then(|span| text.lines().nth(line_at(text, span.start) - 1));
        let key = line.and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
        return key.map_or_else(|| message.clone(), |key| format!("`{key}`: {message}"));
    };
    let wanted = names.split('`').next().unwrap_or_default();
    let known: Vec<&str> = names.split('`').skip(2).step_by(2).collect();
    match nearest(wanted, known).first() {
        Some(near) => format!("{message}; did you mean `{near}`?"),
        None => message.clone(),
    }
}

/// The line of a byte, from 1.
pub(super) fn line_at(text: &str, byte: usize) -> usize {
    1 + text.bytes().take(byte).filter(|byte| *byte == b'\n').count()
}

/// The section in which a line stands; `None` above the first one.
pub(super) fn section_of(text: &str, line: usize) -> Option<&str> {
    text.lines().take(line).filter_map(section_name).last()
}

/// The line in which a section begins, from 1.
pub(super) fn line_of_section(text: &str, section: &str) -> Option<usize> {
    text.lines().position(|line| section_name(line) == Some(section)).map(|index| index + 1)
}

fn section_name(line: &str) -> Option<&str> {
    line.trim().strip_prefix('[')?.split(']').next().map(|name| name.trim().trim_matches('"'))
}

/// The line of a key such as `ipc.http_bind`, from 1.
pub(super) fn line_of(text: &str, key: &str) -> Option<usize> {
    let (section, name) = key.rsplit_once('.')?;
    let mut current = "";
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            current = header.trim();
        } else if current == section && line.split('=').next().is_some_and(|found| found.trim() == name) {
            return Some(index + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_one() {
        let text = "# x\n[ipc]\nhttp_port = 1\n[daemon]\nhttp_port = 2\n";
        assert_eq!(line_of(text, "ipc.http_port"), Some(3));
        assert_eq!(line_of(text, "daemon.http_port"), Some(5));
        assert_eq!(line_of(text, "daemon.log_level"), None);
        assert_eq!((line_at(text, 0), line_at(text, 4)), (1, 2));
    }
}
