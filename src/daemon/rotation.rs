//! Rotates the member's key, and finishes a rotation that was cut off.
//!
//! ```text
//!  1 archive ──► 2 keypair.next.json ──► 3 register ──► 4 rename
//!     (the old key     (the new key and      (idempotent)    (and config.json)
//!      opens on)        its statement)
//! ```
//!
//! What it is for: the steps in their order, in one place.
//! What runs here: one task, which finishes at the next link what step 3 left
//! open, and erases rotated-out keys whose time is over.
//! What it guarantees: whenever the process ends, the member has a key that the
//! broker knows or will learn, and opens what was sealed for either.
//! What it must not do: begin a second rotation beside one that is under way.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::api::status::Failure;
use crate::broker_client::{self, LinkState, Session};
use crate::config::paths::{Root, StateDir};
use crate::crypto::keys::MemberSecret;
use crate::crypto::sign::KeyRotation;
use crate::domain::error_code::ErrorCode;
use crate::domain::time::UnixMillis;
use crate::identity::archive::Archive;
use crate::identity::keystore::{self, Stored};
use crate::identity::{Identity, OwnKey};
use crate::membership::config_json;
use crate::proto::admin;
use crate::proto::wkt::Timestamp;
use crate::runtime::clock::Clock;
use crate::runtime::failpoints;
use crate::runtime::ids::IdSource;
use crate::runtime::private_file;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::{Phase, TaskKind};
use crate::runtime::time_guard::TimeGuard;
use crate::telemetry::metrics::Metrics;
use crate::wire::features::Feature;
use crate::wire::frame::{ClientFrame, ServerFrame};
use crate::wire::roster::{MemberRotate, RotationStatement};

/// How long the broker may take to register a key.
const REGISTER_LIMIT: Duration = Duration::from_secs(10);
/// Pause before a registration that failed is repeated on the same link.
const REPEAT: Duration = Duration::from_secs(5);
/// How often keys are looked at whose time may be over.
const ERASE_EVERY: Duration = Duration::from_secs(60);
/// Greatest difference to the broker's clock at which this host's clock is
/// trusted with erasing a key.
const TRUSTED_OFFSET_MS: i64 = 300_000;

/// What a rotation works with.
#[derive(Debug)]
pub(super) struct Rotation {
    pub(super) root: Root,
    pub(super) mesh: String,
    pub(super) state: StateDir,
    pub(super) identity: Identity,
    pub(super) link: broker_client::Handle,
    pub(super) clock: Clock,
    pub(super) guard: TimeGuard,
    pub(super) ids: IdSource,
    pub(super) metrics: Metrics,
    pub(super) grace: Duration,
    /// Held by a rotation from its first to its last step.
    pub(super) busy: tokio::sync::Mutex<()>,
    /// A registration has to be repeated.
    pub(super) again: tokio::sync::Notify,
}

/// What became of a registration.
enum Registered {
    /// The broker has the key.
    Done,
    /// The broker does not take it, now or later.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

// === impl Rotation ===

impl Rotation {
    /// Starts the task that finishes what was cut off.
    pub(super) fn spawn(self: Arc<Self>, supervisor: &Supervisor) {
        let stop = supervisor.token(Phase::Workers);
        supervisor.spawn(TaskKind::Maintenance, "key rotation", async move { self.run(stop).await });
    }

    async fn run(&self, stop: CancellationToken) {
        let mut link = self.link.state();
        let mut erase = tokio::time::interval(ERASE_EVERY);
        loop {
            let up = matches!(&*link.borrow_and_update(), LinkState::Ready(_));
            if up {
                self.erase_expired().await;
                self.finish_what_is_open().await;
            }
            let open = up && self.identity.next().is_some();
            tokio::select! {
                () = stop.cancelled() => return,
                changed = link.changed() => if changed.is_err() {
                    stop.cancelled().await;
                    return;
                },
                _ = erase.tick() => {}
                () = self.again.notified() => {}
                () = tokio::time::sleep(REPEAT), if open => {}
            }
        }
    }

    /// A new key, registered at the broker (R373).
    pub(super) async fn rotate(&self) -> Result<admin::RotateKeypairResponse, Failure> {
        let Ok(_busy) = self.busy.try_lock() else { return Err(in_progress()) };
        if self.identity.next().is_some() {
            return Err(in_progress());
        }
        let Some(session) = self.link.session() else {
            let text = "there is no link to the broker now, and a new key has to be registered there; try again later";
            return Err(Failure::new(ErrorCode::BrokerUnreachable, text));
        };
        if !session.negotiated.has(Feature::MemberKeypairRotatedEvent) {
            let text = "the broker does not offer member_keypair_rotated_event: peers would not learn the new key, and \
                        nothing was changed";
            return Err(Failure::new(ErrorCode::FeatureUnavailable, text));
        }
        let old = self.identity.current();
        let now = self.clock.now();
        let expires_at = now.plus(self.grace);
        failpoints::hit("rotation_begun");
        let archived = self.archive(&old, now).await.map_err(|error| {
            tracing::error!(error, "key_rotation_aborted_archive_write_failed: {error}");
            let text = format!("the key was not rotated, because its archive could not be written: {error}");
            Failure::new(ErrorCode::KeyRotationAborted, text)
        })?;
        failpoints::hit("rotation_archived");
        let statement = self.write_next(&old, now).await?;
        failpoints::hit("rotation_next_written");
        match self.register(&statement).await {
            Registered::Done => {}
            Registered::Refused(why) => {
                self.withdraw();
                let text = format!("the broker refused the new key, and the old one stays: {why}");
                return Err(Failure::new(ErrorCode::RotationRefused, text));
            }
            Registered::Unknown(why) => {
                self.again.notify_one();
                let text = format!(
                    "it is not known whether the broker has the new key ({why}); the daemon finds out at its next link \
                     and finishes the rotation by itself"
                );
                return Err(Failure::new(ErrorCode::BrokerUnreachable, text));
            }
        }
        failpoints::hit("rotation_registered");
        self.finish(expires_at).await?;
        Ok(admin::RotateKeypairResponse {
            member_id: self.identity.member_id().to_string(),
            old_pubkey: old.public().to_hex(),
            new_pubkey: self.identity.key().to_hex(),
            rotation_seq: u32::try_from(statement.seq).unwrap_or(u32::MAX),
            grace_ends_at: Some(Timestamp::from_unix_ms(expires_at.0)),
            archived_keys: u32::try_from(archived).unwrap_or(u32::MAX),
        })
    }

    /// Step 1: the old key opens on, whatever comes. How many keys there are.
    async fn archive(&self, old: &Arc<OwnKey>, now: UnixMillis) -> Result<usize, String> {
        let mut archive = Archive::load(&self.state.keypair_archive(), now).map_err(|error| error.to_string())?;
        if self.may_erase() {
            archive.erase_expired(now);
        }
        let forced = archive.add(old, format!("k_{}", self.ids.ulid()), now, self.grace);
        archive.save(&self.state.keypair_archive()).map_err(|error| error.to_string())?;
        for key_id in forced {
            tracing::warn!(key_id, "A rotated-out key had to go before its time: there are eight newer ones");
            self.metrics.archive_force_expired(&key_id);
        }
        self.identity.set_archived(archive.opening_keys());
        Ok(archive.len())
    }

    /// Step 2: the new key and its statement. From here on the key opens.
    async fn write_next(&self, old: &Arc<OwnKey>, now: UnixMillis) -> Result<RotationStatement, Failure> {
        let seed = self.ids.random().map(zeroize::Zeroizing::new).map_err(|_| Failure::internal())?;
        let secret = MemberSecret::from_seed(&seed);
        let (mesh_id, member_id) = (self.identity.mesh_id(), self.identity.member_id());
        let seq = old.seq().saturating_add(1);
        let (mesh, member) = (mesh_id.as_str(), member_id.as_str());
        let change =
            KeyRotation { mesh_id: mesh, member_id: member, seq, old: old.public(), new: secret.public(), at: now };
        let signatures = change.sign(old.secret(), &secret).map_err(|_| Failure::internal())?;
        let statement = RotationStatement {
            member_id: member.to_owned(),
            seq,
            old_pubkey: old.public().to_hex(),
            new_pubkey: secret.public().to_hex(),
            ts: now.0,
            old_signature: hex::encode(signatures.old),
            new_signature: hex::encode(signatures.new),
        };
        let rotation = Some(statement.clone());
        let stored = Stored { mesh_id: mesh_id.clone(), member_id: member_id.clone(), secret, rotation };
        keystore::write(&self.state.keypair_next(), &stored).map_err(|error| {
            let text = format!("the key was not rotated: {error}");
            Failure::new(ErrorCode::StorageFailed, text)
        })?;
        self.identity.begin_rotation(stored.into_key());
        Ok(statement)
    }

    /// Step 3, which may be repeated.
    async fn register(&self, statement: &RotationStatement) -> Registered {
        let rotate = |req_id| {
            let rotate = MemberRotate { statement: statement.clone(), req_id: Some(req_id) };
            ClientFrame::MemberRotate(Box::new(rotate))
        };
        match self.link.request(rotate, REGISTER_LIMIT).await {
            Ok(ServerFrame::MemberRotated(rotated)) if rotated.pubkey == statement.new_pubkey => Registered::Done,
            Ok(ServerFrame::MemberRotated(_)) => {
                Registered::Refused("a newer key of this member is registered".to_owned())
            }
            Ok(ServerFrame::Ack(ack)) => match ack.failure() {
                Some(failure) if !failure.retryable => Registered::Refused(failure.text.to_owned()),
                Some(failure) => Registered::Unknown(failure.text.to_owned()),
                None => Registered::Unknown("the broker's answer says nothing".to_owned()),
            },
            Ok(_) => Registered::Unknown("the broker answered something else".to_owned()),
            Err(error) => Registered::Unknown(error.to_string()),
        }
    }

    /// Step 4: the new key is the key.
    async fn finish(&self, expires_at: UnixMillis) -> Result<(), Failure> {
        let (next, current) = (self.state.keypair_next(), self.state.keypair());
        private_file::rename(&next, &current)
            .map_err(|error| Failure::new(ErrorCode::StorageFailed, error.to_string()))?;
        failpoints::hit("rotation_renamed");
        self.identity.finish_rotation(expires_at);
        let key = self.identity.current();
        tracing::info!(seq = key.seq(), key = %key.public(), "member_keypair_rotated: this member has a new key");
        // `keypair.json` leads: the next start brings `config.json` after it.
        if let Err(error) = config_json::replace_key(&self.root, &self.mesh, key.secret()) {
            tracing::warn!(error = %error, "config.json still has the old key: {error}");
        }
        if self.link.session().is_some_and(|session| session.key != key.public()) {
            self.link.renew().await;
        }
        Ok(())
    }

    /// The new key was refused: the old one stays.
    fn withdraw(&self) {
        self.identity.abandon_rotation();
        if let Err(error) = private_file::remove_if_there(&self.state.keypair_next()) {
            tracing::warn!(error = %error, "The key that was refused was not removed: {error}");
        }
    }

    /// Finishes a rotation that an earlier process or a lost link left open.
    async fn finish_what_is_open(&self) {
        let Ok(_busy) = self.busy.try_lock() else { return };
        let (Some(next), Some(session)) = (self.identity.next(), self.link.session()) else { return };
        let expires_at = self.clock.now().plus(self.grace);
        if session.key != next.public() {
            let statement = match keystore::load(&self.state.keypair_next()) {
                Ok(Some(Stored { rotation: Some(statement), .. })) => statement,
                other => {
                    tracing::error!(found = ?other, "The statement of the rotation under way cannot be read");
                    return;
                }
            };
            match self.register(&statement).await {
                Registered::Done => {}
                Registered::Refused(why) => {
                    tracing::error!(why, "The broker refused the new key, and the old one stays: {why}");
                    self.withdraw();
                    return;
                }
                Registered::Unknown(why) => {
                    tracing::warn!(why, "The new key is not registered yet: {why}");
                    return;
                }
            }
        }
        if let Err(error) = self.finish(expires_at).await {
            tracing::error!(error = ?error, "The rotation could not be finished and goes on at the next start");
        }
    }

    /// Whether keys may be erased: the broker's time confirmed this host's when the
    /// link came, and the clock has not jumped since. What is gone does not come
    /// back with the right time.
    fn may_erase(&self) -> bool {
        let confirmed = |session: Arc<Session>| session.clock_offset_ms.saturating_abs() <= TRUSTED_OFFSET_MS;
        self.link.session().is_some_and(confirmed) && self.guard.may_destroy()
    }

    /// Erases keys whose time is over (R377).
    async fn erase_expired(&self) {
        if !self.may_erase() {
            return;
        }
        let now = self.clock.now();
        if !self.identity.archived().iter().any(|archived| archived.expires_at <= now) {
            return;
        }
        let Ok(_busy) = self.busy.try_lock() else { return };
        let path = self.state.keypair_archive();
        let erased = Archive::load(&path, now).and_then(|mut archive| {
            let erased = archive.erase_expired(now);
            archive.save(&path).map(|()| (archive, erased))
        });
        match erased {
            Ok((archive, erased)) => {
                self.identity.set_archived(archive.opening_keys());
                tracing::info!(erased, kept = archive.len(), "Rotated-out keys were erased");
            }
            Err(error) => tracing::warn!(error = %error, "Rotated-out keys could not be erased: {error}"),
        }
    }
}

fn in_progress() -> Failure {
    let text = "a rotation of this member's key is under way; it is finished as soon as the broker has the new key";
    Failure::new(ErrorCode::RotationInProgress, text)
}
