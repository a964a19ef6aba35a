//! `broker_features.json`: which features the broker granted last.
//!
//! A broker that once had a bit may lack it for a moment, while it is updated
//! node by node. The daemon bears that for a while, also when it was started in
//! the middle of it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::runtime::private_file;

/// The file's shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    /// Another broker's features say nothing about this one's.
    broker_url: String,
    granted: Vec<String>,
}

/// The features that the broker granted before.
#[derive(Debug)]
pub(super) struct Granted {
    path: PathBuf,
    file: File,
}

// === impl Granted ===

impl Granted {
    /// Reads the file. One that cannot be read counts as none: it makes the
    /// daemon less patient and nothing else.
    pub(super) fn load(path: PathBuf, broker_url: &str) -> Self {
        let text = private_file::read_optional(&path).ok().flatten();
        let file = text
            .and_then(|text| serde_json::from_str::<File>(&text).ok())
            .filter(|file| file.broker_url == broker_url)
            .unwrap_or_else(|| File { broker_url: broker_url.to_owned(), granted: Vec::new() });
        Self { path, file }
    }

    /// Whether this broker granted the bit before.
    pub(super) fn had(&self, feature: &str) -> bool {
        self.file.granted.iter().any(|name| name == feature)
    }

    /// Notes what was granted now. The disk is touched only by a change.
    pub(super) async fn note(&mut self, granted: &[String]) {
        if self.file.granted == granted {
            return;
        }
        granted.clone_into(&mut self.file.granted);
        // Texts: it can be written.
        let json = serde_json::to_vec(&self.file).unwrap_or_default();
        let path = self.path.clone();
        // It is synced, and the daemon has one thread.
        let write = move || private_file::write_atomic(&path, &json, private_file::PRIVATE);
        let written = match tokio::task::spawn_blocking(write).await {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = written {
            tracing::warn!(error, "The broker's features were not noted: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_granted_is_known_after_a_restart_and_for_that_broker_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker_features.json");
        let mut granted = Granted::load(path.clone(), "ws://a/ws");
        assert!(!granted.had("x"));
        granted.note(&["x".to_owned()]).await;
        assert!(Granted::load(path.clone(), "ws://a/ws").had("x"));
        assert!(!Granted::load(path.clone(), "ws://b/ws").had("x"));
        std::fs::write(&path, "{").unwrap();
        assert!(!Granted::load(path, "ws://a/ws").had("x"));
    }
}
