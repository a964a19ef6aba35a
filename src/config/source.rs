//! Where settings outside of files come from. The only reader of the process
//! environment, so that tests never have to change it.

use std::collections::BTreeMap;
use std::path::Path;

/// Gives the values of environment variables.
pub trait Source: Send + Sync {
    /// The value of a variable; `None` when it is not set, empty or not UTF-8.
    fn var(&self, name: &str) -> Option<String>;
}

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
}

// === impl MapSource ===

impl Source for MapSource {
    fn var(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned().filter(|value| !value.is_empty())
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
    toml::from_str(&text)
        .map_err(|error| super::ConfigError::Malformed { path: path.to_owned(), detail: error.to_string() })
}
