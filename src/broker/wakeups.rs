//! Hears what other brokers of the database have written.
//!
//! What it is for: a message that one broker accepts for a member who is connected to
//! another one is pushed there at once, and changes of members and connections are known
//! there at once. Without it both wait for the next scan.
//! What runs here: one task, on a database that brokers can share.
//! What it guarantees: nothing. A notice that is lost, as over a new connection to the
//! database, costs a scan; one of room, the pause of the sender.
//! What it must not do: believe a notice. It says where to look.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Fuse, FusedFuture as _};
use futures_util::{FutureExt as _, StreamExt as _};
use sea_orm::DbErr;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::accept::writer::Command;
use super::shared::Shared;
use super::store::notices::Notice;
use super::{delivery, nodes};

/// Changes and ends that come together are looked at together.
const SETTLE: Duration = Duration::from_millis(30);
/// Pause before the database is asked again to be heard.
const AGAIN: Duration = Duration::from_secs(1);
/// Scans in which nothing of this broker's own is heard before it listens anew.
const DEAF_SCANS: u32 = 3;

/// What was heard of and not looked at.
#[derive(Debug, Default)]
struct Heard {
    changed: bool,
    drained: BTreeSet<String>,
    due: Option<Instant>,
}

/// Listens until `stop`.
pub async fn listen(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = hear(&shared) => heard,
        };
        if let Err(error) = heard {
            tracing::warn!(error = %error, "Cannot hear the other brokers: {error}; what they write is found by the next scan");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Until the connection to the database is lost for good, or says nothing of what this
/// broker itself says: a host that is gone does not end it.
async fn hear(shared: &Arc<Shared>) -> Result<(), DbErr> {
    let mut notices = shared.store.notices().await?;
    // What was said before it was heard.
    nodes::look(shared).await?;
    let mut heard = Heard::default();
    let mut looking = pin!(Fuse::terminated());
    let mut said = pin!(Fuse::terminated());
    let mut scans = tokio::time::interval(shared.config.timers.scan);
    let mut unheard = 0;
    loop {
        let due = heard.due.unwrap_or_else(Instant::now);
        tokio::select! {
            next = notices.next() => match next {
                Some(Ok(notice)) if notice.node == shared.node_id => unheard = 0,
                Some(Ok(notice)) => heard.take(shared, notice),
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            () = tokio::time::sleep_until(due), if heard.due.is_some() && looking.is_terminated() => {
                looking.set(std::mem::take(&mut heard).look(shared).fuse());
            }
            done = &mut looking => done?,
            _ = scans.tick() => {
                if unheard >= DEAF_SCANS {
                    return Err(DbErr::Custom("the connection that should hear them is silent".to_owned()));
                }
                unheard += 1;
                said.set(shared.store.say(&shared.node_id, Notice::default()).fuse());
            }
            done = &mut said => done?,
        }
    }
}

// === impl Heard ===

impl Heard {
    fn take(&mut self, shared: &Shared, notice: Notice) {
        // Whoever speaks is there, and hears.
        shared.store.tell_others(Some(&shared.node_id));
        notice.copies.iter().for_each(|wake| delivery::wake(shared, wake));
        if notice.changed || !notice.drained.is_empty() {
            self.changed |= notice.changed;
            self.drained.extend(notice.drained);
            self.due.get_or_insert_with(|| Instant::now() + SETTLE);
        }
    }

    async fn look(self, shared: &Arc<Shared>) -> Result<(), DbErr> {
        let Self { changed, drained, .. } = self;
        if !drained.is_empty() {
            // Refused only while the broker stops.
            let _ = shared.writer.submit(Command::Drained(drained.into_iter().collect())).await;
        }
        if changed { nodes::look(shared).await } else { Ok(()) }
    }
}
