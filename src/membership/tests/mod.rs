//! Creating, inviting and joining against a small stand-in for a broker.

mod certificates;
mod config_json;
mod joining;
mod stand_in;

use std::sync::Arc;

use crate::config::broker_client::BrokerLink;
use crate::config::paths::Root;
use crate::config::source::MapSource;
use crate::domain::time::UnixMillis;
use crate::membership::Env;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;

/// A user with a root directory of its own. The clock stands still.
fn user(dir: &tempfile::TempDir) -> Env {
    let clock = Clock::manual(UnixMillis(1_800_000_000_000));
    Env {
        root: Root::at(dir.path().join("root")),
        ids: IdSource::new(clock.clone()),
        clock,
        link: BrokerLink::default(),
        environment: Arc::new(MapSource::default()),
    }
}
