//! What state each part of the process is in, for whoever asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// The state of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not ready yet.
    Starting,
    /// Does its work.
    Ready,
    /// Does part of its work; the text says what is wrong.
    Degraded(String),
    /// Has stopped.
    Stopped,
}

/// The states of all parts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HealthBoard(Arc<watch::Sender<BTreeMap<&'static str, Health>>>);

// === impl HealthBoard ===

impl Default for HealthBoard {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }
}

impl HealthBoard {
    /// Notes the state of a part.
    pub fn set(&self, part: &'static str, health: Health) {
        self.0.send_if_modified(|board| board.insert(part, health.clone()).as_ref() != Some(&health));
    }

    /// The state of a part; `Starting` when it has not said anything.
    pub fn get(&self, part: &str) -> Health {
        self.0.borrow().get(part).cloned().unwrap_or(Health::Starting)
    }

    /// All states now, and a signal when one changes.
    pub fn watch(&self) -> watch::Receiver<BTreeMap<&'static str, Health>> {
        self.0.subscribe()
    }
}
