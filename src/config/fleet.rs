//! What holds for all daemons of one user: `[fleet]` in
//! `<root>/daemon/config.toml`.

use serde::Deserialize;

use super::ConfigError;
use super::paths::Root;
use super::source;

/// `[fleet]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Fleet {
    /// Daemons of one user at once. Default 10 (R261).
    pub max_daemons: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    fleet: Fleet,
}

// === impl Fleet ===

impl Default for Fleet {
    fn default() -> Self {
        Self { max_daemons: 10 }
    }
}

impl Fleet {
    /// Reads and checks the file; a missing file gives the defaults.
    pub fn load(root: &Root) -> Result<Self, ConfigError> {
        let path = root.daemons_dir().join("config.toml");
        let fleet = source::read_toml::<File>(&path)?.fleet;
        if fleet.max_daemons == 0 {
            let error = ConfigError::Value {
                key: "fleet.max_daemons",
                value: "0".to_owned(),
                reason: "it must be at least 1".to_owned(),
            };
            return Err(error.in_file(&path));
        }
        Ok(fleet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Covers: R261
    #[test]
    fn ten_daemons_unless_the_file_says_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        assert_eq!(Fleet::load(&root).unwrap().max_daemons, 10);
        std::fs::create_dir(root.daemons_dir()).unwrap();
        let write = |text: &str| std::fs::write(root.daemons_dir().join("config.toml"), text).unwrap();
        write("[fleet]\nmax_daemons = 3\n");
        assert_eq!(Fleet::load(&root).unwrap().max_daemons, 3);
        for wrong in ["[fleet]\nmax_daemons = 0\n", "[fleet]\nmax_deamons = 3\n", "[flet]\n"] {
            write(wrong);
            assert!(Fleet::load(&root).is_err(), "{wrong}");
        }
    }
}
