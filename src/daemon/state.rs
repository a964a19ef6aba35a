//! The files of a state directory, from the lock to the databases.

use std::path::{Path, PathBuf};

use claudemesh_migrations::{InboxMigrator, OutboxMigrator};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use sea_orm_migration::MigratorTrait;

use super::Error;
use crate::config::daemon::{DaemonConfig, TEMPLATE};
use crate::config::outbox::FsyncMode;
use crate::config::paths::{Root, StateDir};
use crate::db::connect::Sqlite;
use crate::db::integrity::{Depth, Integrity, integrity_check, quarantine};
use crate::db::migrate;
use crate::domain::ids::{MemberId, MemberKey, MeshId};
use crate::identity::Identity;
use crate::identity::archive::Archive;
use crate::identity::host::{self, HostFacts};
use crate::identity::keystore::{self, Stored};
use crate::inbox::salvage::salvage;
use crate::membership::config_json::{self, ConfigJson, MeshEntry};
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::runtime::instance_lock::{InstanceLock, LockError};
use crate::runtime::private_file::{self, PRIVATE, PUBLIC};
use crate::{membership, outbox, peers};

/// Read-only connections of a database.
const READERS: u32 = 4;
/// Pause before a send that a crash interrupted goes out again.
const RECOVER_PAUSE_MS: i64 = 500;

/// The two databases of a daemon.
#[derive(Debug)]
pub(super) struct Databases {
    pub(super) outbox: Sqlite,
    pub(super) inbox: Sqlite,
    /// Where a damaged inbox was moved to.
    pub(super) inbox_set_aside: Option<PathBuf>,
}

/// Version of both databases' schema together (R20): each migration of either
/// counts one.
pub fn schema_version() -> u32 {
    let migrations = migrate::schema_version::<OutboxMigrator>() + migrate::schema_version::<InboxMigrator>();
    // Both begin with the migration that makes version 1.
    u32::try_from(migrations).unwrap_or(u32::MAX) - 1
}

/// Makes the directory and takes its lock; nothing else is touched before.
pub(super) fn lock(state: &StateDir, mesh: &str) -> Result<InstanceLock, Error> {
    private_file::create_dir(state.path())?;
    match InstanceLock::acquire(&state.lock()) {
        Ok(lock) => Ok(lock),
        Err(LockError::Held { .. }) => {
            let pid = private_file::read_optional(&state.pid())?.and_then(|text| text.trim().parse().ok());
            Err(Error::AlreadyRunning { mesh: mesh.to_owned(), pid })
        }
        Err(error) => Err(Error::Lock(error)),
    }
}

/// What every start writes: pid, hooks directory, an example of the settings.
pub(super) fn lay_out(state: &StateDir) -> Result<DaemonConfig, Error> {
    // What a killed daemon left behind says nothing about this one.
    private_file::remove_if_there(&state.http_port())?;
    private_file::write_atomic(&state.pid(), std::process::id().to_string().as_bytes(), PRIVATE)?;
    private_file::create_dir(&state.hooks())?;
    if private_file::read_optional(&state.config())?.is_none() {
        private_file::write_atomic(&state.config(), TEMPLATE.as_bytes(), PUBLIC)?;
    }
    Ok(DaemonConfig::load(&state.config())?)
}

/// The member that this mesh was joined as.
pub(super) fn joined(root: &Root, mesh: &str) -> Result<MeshEntry, Error> {
    let config = ConfigJson::load(root)?;
    match config.mesh(mesh)? {
        Some(mut entry) => {
            let of_user = || config.display_name().map(str::to_owned);
            entry.display_name = entry.display_name.or_else(of_user);
            Ok(entry)
        }
        None => {
            let joined = config.meshes()?.into_iter().map(|entry| entry.slug).collect();
            Err(Error::NotJoined { mesh: mesh.to_owned(), joined })
        }
    }
}

/// The member's keys. The first start copies the key from the joined mesh; from
/// then on the key file leads. A rotation that was cut off is taken up again.
pub(super) fn identity(root: &Root, state: &StateDir, entry: &MeshEntry, clock: &Clock) -> Result<Identity, Error> {
    let path = state.keypair();
    if keystore::load(&path)?.is_none() {
        let mesh_id = MeshId::parse(entry.mesh_id.as_str());
        let member_id = MemberId::parse(entry.member_id.as_str());
        let (Ok(mesh_id), Ok(member_id)) = (mesh_id, member_id) else {
            return Err(membership::Error::Id("id in config.json").into());
        };
        let stored = Stored { mesh_id, member_id, secret: entry.secret()?, rotation: None };
        keystore::write(&path, &stored)?;
    }
    let damaged = || crate::identity::Error::Damaged { path: path.clone(), detail: "it vanished".to_owned() };
    let stored = check_member(keystore::load(&path)?.ok_or_else(damaged)?, entry, &path)?;
    if stored.secret.public().to_hex() != entry.pubkey {
        // A rotation ended between its last two steps.
        config_json::replace_key(root, &entry.slug, &stored.secret)?;
        tracing::info!("config.json has the key of keypair.json again");
    }
    let identity = Identity::new(stored.mesh_id.clone(), stored.member_id.clone(), stored.into_key());
    let archive = Archive::load(&state.keypair_archive(), clock.now())?;
    identity.set_archived(archive.opening_keys());
    let next_path = state.keypair_next();
    if let Some(next) = keystore::load(&next_path)? {
        let next = check_member(next, entry, &next_path)?;
        if next.seq() == identity.current().seq() + 1 {
            tracing::info!(seq = next.seq(), "A rotation of the key was cut off and goes on");
            identity.begin_rotation(next.into_key());
        } else {
            tracing::warn!(seq = next.seq(), "A key that follows no key of this member was set aside");
            private_file::rename(&next_path, &next_path.with_extension("json.unused"))?;
        }
    }
    Ok(identity)
}

/// What members' certificates are checked against: the owner of the invite that
/// this member joined with. A member of before has none noted, and then nobody is
/// certified.
pub(super) fn trust(root: &Root, entry: &MeshEntry) -> peers::Trust {
    let owner = entry.owner_pubkey.as_deref().and_then(|key| MemberKey::parse(key).ok());
    peers::Trust { owner, own_file: root.certificate(&entry.mesh_id) }
}

fn check_member(stored: Stored, entry: &MeshEntry, path: &Path) -> Result<Stored, Error> {
    if stored.member_id.as_str() == entry.member_id && stored.mesh_id.as_str() == entry.mesh_id {
        return Ok(stored);
    }
    let (found, expected) = (stored.member_id.to_string(), entry.member_id.clone());
    Err(crate::identity::Error::OtherMember { path: path.to_owned(), found, expected }.into())
}

/// Which files with keys others could read until now. The daemon's own is
/// narrowed; `config.json` belongs to other programs too and is left alone.
pub(super) fn exposed_keys(root: &Root, state: &StateDir) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    if let Some(mode) = private_file::exposed(&state.keypair())? {
        private_file::narrow(&state.keypair())?;
        let path = state.keypair();
        found.push(format!(
            "{} could be read by others (mode {mode:04o}) and was narrowed to 0600; if others were on this host, join \
             again with a new key",
            path.display()
        ));
    }
    let path = root.config_json();
    if let Some(mode) = private_file::exposed(&path)? {
        let shown = path.display();
        found.push(format!("{shown} holds keys and can be read by others (mode {mode:04o}); run: chmod 600 {shown}"));
    }
    Ok(found)
}

/// The persistent id of this directory, told to the broker.
pub(super) fn instance_id(state: &StateDir, ids: &IdSource) -> Result<String, Error> {
    if let Some(id) = private_file::read_optional(&state.instance())?.map(|text| text.trim().to_owned())
        && ulid::Ulid::from_string(&id).is_ok()
    {
        return Ok(id);
    }
    let id = ids.ulid();
    private_file::write_atomic(&state.instance(), id.as_bytes(), PRIVATE)?;
    Ok(id)
}

/// What ties the key to this host.
pub(super) fn host_fingerprint(state: &StateDir, ids: &IdSource, clock: &Clock) -> Result<(), Error> {
    let facts = HostFacts::read();
    if facts == HostFacts::default() {
        tracing::warn!("fingerprint_unavailable: this host tells neither an id nor a hardware address");
    }
    Ok(host::write_once(&state.host_fingerprint(), &facts, &ids.ulid(), clock.now())?)
}

/// Refuses a directory that a newer version has written.
pub(super) fn check_schema_version(state: &StateDir) -> Result<(), Error> {
    let Some(text) = private_file::read_optional(&state.schema_version())? else { return Ok(()) };
    let found = text.trim();
    match found.parse::<u32>() {
        Ok(version) if version <= schema_version() => Ok(()),
        _ => Err(Error::SchemaNewer {
            path: state.schema_version().display().to_string(),
            found: found.chars().take(40).collect(),
            known: schema_version(),
        }),
    }
}

/// New rows come after those of earlier runs, whatever the clock showed then: lists
/// are read page by page in the order of their ids, and old runs of hooks removed.
pub(super) async fn continue_ids(databases: &Databases, ids: &IdSource) -> Result<(), Error> {
    let greatest = [
        (&databases.outbox, "SELECT max(id) FROM outbox"),
        (&databases.inbox, "SELECT max(id) FROM hook_run"),
        (&databases.inbox, "SELECT max(id) FROM inbox_waiting"),
    ];
    for (db, sql) in greatest {
        let row = db.readers().query_one_raw(Statement::from_string(DbBackend::Sqlite, sql)).await;
        let id = row.and_then(|row| row.map_or(Ok(None), |row| row.try_get_by_index::<Option<String>>(0)));
        if let Some(id) = id.map_err(|source| db.error("read the newest id", source))? {
            ids.continue_after(&id);
        }
    }
    Ok(())
}

/// Written only where it says something else: a start on a full disk has no room to
/// waste.
fn note_schema_version(state: &StateDir) -> Result<(), Error> {
    let version = schema_version().to_string();
    if private_file::read_optional(&state.schema_version())?.is_none_or(|text| text.trim() != version) {
        private_file::write_atomic(&state.schema_version(), version.as_bytes(), PUBLIC)?;
    }
    Ok(())
}

/// Checks, opens and migrates both databases, and puts back what a crash left
/// on its way. A damaged outbox stops the start, since sends that were answered
/// may be in it; a damaged inbox is set aside, since the broker's history and
/// the peers have its messages (R186, R187).
pub(super) async fn open_databases(
    state: &StateDir,
    mesh: &str,
    fsync: FsyncMode,
    clock: &Clock,
) -> Result<Databases, Error> {
    let outbox_path = state.outbox_db();
    if let Integrity::Damaged(complaint) = integrity_check(&outbox_path, Depth::Full).await? {
        let path = outbox_path.display().to_string();
        return Err(Error::OutboxCorrupt { path, complaint, mesh: mesh.to_owned() });
    }
    let inbox_path = state.inbox_db();
    let mut inbox_set_aside = None;
    if let Integrity::Damaged(complaint) = integrity_check(&inbox_path, Depth::Full).await? {
        let kept = quarantine(&inbox_path, clock.now())?;
        tracing::error!(
            complaint,
            kept = %kept.display(),
            "inbox_corruption_recovered: the inbox was damaged; it is kept as {} and a new one is begun",
            kept.display()
        );
        inbox_set_aside = Some(kept);
    }
    let outbox = open::<OutboxMigrator>(&outbox_path).await?;
    let inbox = open::<InboxMigrator>(&inbox_path).await?;
    if let Some(kept) = &inbox_set_aside {
        let salvaged = salvage(kept, &inbox, clock.now()).await?;
        tracing::warn!(ids = salvaged.ids, "{} ids were salvaged from the damaged inbox", salvaged.ids);
    }
    if fsync == FsyncMode::Off {
        tracing::warn!("[outbox] fsync_mode = \"off\": a power failure loses sends that were answered");
        let relaxed = outbox.writer().execute_unprepared("PRAGMA synchronous = OFF").await;
        relaxed.map_err(|source| outbox.error("relax its syncs", source))?;
    }
    note_schema_version(state)?;
    let recovered = outbox::repo::recover(outbox.writer(), clock.now(), RECOVER_PAUSE_MS)
        .await
        .map_err(|source| outbox.error("put interrupted sends back", source))?;
    if recovered > 0 {
        tracing::info!(sends = recovered, "{recovered} sends were on their way at the last end and go out again");
    }
    Ok(Databases { outbox, inbox, inbox_set_aside })
}

async fn open<M: MigratorTrait>(path: &Path) -> Result<Sqlite, Error> {
    let database = Sqlite::open(path, READERS).await?;
    migrate::migrate::<M>(database.writer(), &path.display().to_string()).await?;
    Ok(database)
}
