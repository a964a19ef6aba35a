//! Meshes and members in memory, because every frame asks for them.
//!
//! A mesh is read once, at the first hello that names it. Whatever changes a
//! member writes the database first and then this copy, under one lock with
//! the reading, so that no reader can put back an older state.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use sea_orm::DbErr;

use super::store::entity::{member, mesh};
use super::store::{Store, members};
use crate::wire::certificate::MemberCertificate;
use crate::wire::features::{ConcurrencyPolicy, DedupeMode};
use crate::wire::hello::CapabilityStatement;
use crate::wire::presence::Shown;
use crate::wire::roster::{MAX_CHAIN, RotationStatement};

/// All meshes that were asked for. Unknown ones are not remembered: their ids
/// are chosen by strangers.
#[derive(Debug)]
pub struct Roster {
    store: Arc<Store>,
    // A std mutex: held for a look-up, never across an await.
    meshes: Mutex<HashMap<String, Arc<Mesh>>>,
    changing: tokio::sync::Mutex<()>,
}

/// Held while members are changed, so that no mesh is read meanwhile.
#[derive(Debug)]
pub struct Changing<'a> {
    _guard: tokio::sync::MutexGuard<'a, ()>,
}

/// A mesh and its members.
#[derive(Debug)]
pub struct Mesh {
    /// The mesh's id.
    pub id: String,
    /// Its short name.
    pub slug: String,
    /// The key that signs its invites.
    pub owner_pubkey: String,
    settings: RwLock<Settings>,
    members: RwLock<Members>,
}

/// What others have changed, as far as members who are connected here need to know.
#[derive(Debug, Default)]
pub struct News {
    /// Members who are none any more.
    pub revoked: Vec<(Arc<Mesh>, Arc<Member>)>,
    /// New keys, by mesh id.
    pub rotated: Vec<(String, RotationStatement)>,
    /// Meshes in which a member shows something else of itself.
    pub shown: BTreeSet<String>,
}

/// What the owner may change of a mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What happens on a second connection of a member.
    pub policy: ConcurrencyPolicy,
    /// How long ids are remembered.
    pub dedupe_mode: DedupeMode,
}

#[derive(Debug, Default)]
struct Members {
    by_id: HashMap<String, Arc<Member>>,
    by_key: HashMap<String, Key>,
    /// Changes of keys by member, oldest first; the last [`MAX_CHAIN`] of each.
    rotations: HashMap<String, Vec<RotationStatement>>,
    /// Ids in the order of joining.
    order: Vec<String>,
}

/// Whose key it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The member.
    pub member_id: String,
    /// When a newer key followed, Unix ms; `None` for the current key.
    pub rotated_out_at: Option<i64>,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id, which survives a change of its key.
    pub id: String,
    /// Its current key.
    pub pubkey: String,
    /// Its name.
    pub display_name: String,
    /// `admin` or `member`.
    pub role: String,
    /// Its newest capability statement.
    pub capabilities: Option<CapabilityStatement>,
    /// That the owner let it in.
    pub certificate: Option<MemberCertificate>,
    /// What it shows of itself.
    pub shown: Shown,
    /// Unix ms.
    pub joined_at: i64,
    /// Unix ms; `None` for a member in good standing.
    pub revoked_at: Option<i64>,
}

// === impl Roster ===

impl Roster {
    /// An empty roster over the store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, meshes: Mutex::default(), changing: tokio::sync::Mutex::default() }
    }

    /// The mesh, if there is one with that id.
    pub async fn mesh(&self, mesh_id: &str) -> Result<Option<Arc<Mesh>>, DbErr> {
        if let Some(mesh) = self.cached(mesh_id) {
            return Ok(Some(mesh));
        }
        let _changing = self.changing().await;
        if let Some(mesh) = self.cached(mesh_id) {
            return Ok(Some(mesh));
        }
        let Some(rows) = members::load_mesh(self.store.readers(), mesh_id).await? else { return Ok(None) };
        let mesh = Arc::new(Mesh::from_rows(rows));
        self.lock().insert(mesh_id.to_owned(), Arc::clone(&mesh));
        Ok(Some(mesh))
    }

    /// Waits until no mesh is being read. Whoever changes a member holds this
    /// from before the transaction until [`Mesh::put`].
    pub async fn changing(&self) -> Changing<'_> {
        Changing { _guard: self.changing.lock().await }
    }

    /// Takes over what was written since `since`, here or by another broker, for
    /// the meshes that are in memory.
    pub async fn refresh(&self, since: i64) -> Result<News, DbErr> {
        let changing = self.changing().await;
        let changed = members::changed(self.store.readers(), since).await?;
        for row in changed.meshes {
            if let Some(mesh) = self.cached(&row.id) {
                mesh.set_settings(&changing, Settings::of(&row));
            }
        }
        let mut news = News::default();
        for row in changed.members {
            let Some(mesh) = self.cached(&row.mesh_id) else { continue };
            let known = mesh.member(&row.id);
            let member = Member::from_row(row);
            if known.as_deref() == Some(&member) {
                continue;
            }
            if known.as_ref().is_some_and(|known| known.shown != member.shown) {
                news.shown.insert(mesh.id.clone());
            }
            let ended = member.revoked_at.is_some() && known.is_some_and(|known| known.revoked_at.is_none());
            let id = member.id.clone();
            mesh.put(&changing, member);
            if ended && let Some(member) = mesh.member(&id) {
                news.revoked.push((mesh, member));
            }
        }
        for row in changed.keys {
            if let Some(mesh) = self.cached(&row.mesh_id) {
                // Another broker has registered it.
                if let Some(statement) = row.statement.as_deref().and_then(|json| serde_json::from_str(json).ok()) {
                    news.rotated.extend(mesh.learn_rotation(&changing, &row.member_id, statement));
                }
                mesh.put_key(
                    &changing,
                    row.pubkey,
                    Key { member_id: row.member_id, rotated_out_at: row.rotated_out_at },
                );
            }
        }
        news.rotated.sort_by_key(|(_, statement)| statement.seq);
        Ok(news)
    }

    /// The mesh, if it is in memory.
    pub fn cached(&self, mesh_id: &str) -> Option<Arc<Mesh>> {
        self.lock().get(mesh_id).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Mesh>>> {
        self.meshes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Mesh ===

impl Mesh {
    fn from_rows(rows: members::MeshRows) -> Self {
        let settings = RwLock::new(Settings::of(&rows.mesh));
        let mesh::Model { id, slug, owner_pubkey, .. } = rows.mesh;
        let mut members = Members::default();
        for row in rows.members {
            members.order.push(row.id.clone());
            members.by_id.insert(row.id.clone(), Arc::new(Member::from_row(row)));
        }
        let mut keys = rows.keys;
        keys.sort_by_key(|key| key.seq);
        for key in keys {
            let statement = key.statement.as_deref().and_then(|json| serde_json::from_str(json).ok());
            if let Some(statement) = statement {
                members.note_rotation(&key.member_id, statement);
            }
            members.by_key.insert(key.pubkey, Key { member_id: key.member_id, rotated_out_at: key.rotated_out_at });
        }
        Self { id, slug, owner_pubkey, settings, members: RwLock::new(members) }
    }

    /// What the owner has set.
    pub fn settings(&self) -> Settings {
        *self.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens on a second connection of a member.
    pub fn policy(&self) -> ConcurrencyPolicy {
        self.settings().policy
    }

    /// Takes over settings that were written.
    pub fn set_settings(&self, _changing: &Changing<'_>, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// Takes over a key that was written.
    pub fn put_key(&self, _changing: &Changing<'_>, pubkey: String, key: Key) {
        self.members.write().unwrap_or_else(PoisonError::into_inner).by_key.insert(pubkey, key);
    }

    /// The member with that id.
    pub fn member(&self, id: &str) -> Option<Arc<Member>> {
        self.read().by_id.get(id).cloned()
    }

    /// The member whose current key it is.
    pub fn member_by_current_key(&self, pubkey: &str) -> Option<Arc<Member>> {
        let members = self.read();
        let key = members.by_key.get(pubkey).filter(|key| key.rotated_out_at.is_none())?;
        members.by_id.get(&key.member_id).cloned()
    }

    /// Whose key it is or was.
    pub fn key(&self, pubkey: &str) -> Option<Key> {
        self.read().by_key.get(pubkey).cloned()
    }

    /// All members in the order of joining, revoked ones included.
    pub fn all(&self) -> Vec<Arc<Member>> {
        let members = self.read();
        members.order.iter().filter_map(|id| members.by_id.get(id).cloned()).collect()
    }

    /// Takes over what was written for a member.
    pub fn put(&self, _changing: &Changing<'_>, member: Member) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        members
            .by_key
            .entry(member.pubkey.clone())
            .or_insert_with(|| Key { member_id: member.id.clone(), rotated_out_at: None });
        if members.by_id.insert(member.id.clone(), Arc::new(member.clone())).is_none() {
            members.order.push(member.id);
        }
    }

    /// Takes over a rotation that was written: the member's new key, and the
    /// statement that brought it.
    pub fn put_rotation(&self, changing: &Changing<'_>, member: Member, statement: RotationStatement, at: i64) {
        {
            let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(key) = members.by_key.get_mut(&statement.old_pubkey) {
                key.rotated_out_at = Some(at);
            }
            members.note_rotation(&member.id, statement);
        }
        self.put(changing, member);
    }

    /// Takes over a change that another broker of the same database registered.
    /// The mesh's id and the statement, if it is new.
    fn learn_rotation(
        &self,
        _: &Changing<'_>,
        member_id: &str,
        statement: RotationStatement,
    ) -> Option<(String, RotationStatement)> {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        members.note_rotation(member_id, statement.clone()).then(|| (self.id.clone(), statement))
    }

    /// The last changes of a member's key, oldest first.
    pub fn rotations(&self, member_id: &str) -> Vec<RotationStatement> {
        self.read().rotations.get(member_id).cloned().unwrap_or_default()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Members> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Members ===

impl Members {
    /// Whether it is new.
    fn note_rotation(&mut self, member_id: &str, statement: RotationStatement) -> bool {
        let chain = self.rotations.entry(member_id.to_owned()).or_default();
        let at = chain.partition_point(|one| one.seq < statement.seq);
        if chain.get(at) == Some(&statement) || (at == 0 && chain.len() == MAX_CHAIN) {
            return false;
        }
        chain.insert(at, statement);
        chain.drain(..chain.len().saturating_sub(MAX_CHAIN));
        true
    }
}

// === impl Settings ===

impl Settings {
    /// The stored settings.
    pub fn of(row: &mesh::Model) -> Self {
        let dedupe_mode =
            if row.dedupe_mode == "permanent" { DedupeMode::Permanent } else { DedupeMode::RetentionScoped };
        Self { policy: policy_of(&row.clone_concurrency_policy), dedupe_mode }
    }
}

// === impl Member ===

impl Member {
    /// A stored member. A statement or certificate that does not parse is left out.
    pub fn from_row(row: member::Model) -> Self {
        Self {
            id: row.id,
            pubkey: row.pubkey,
            display_name: row.display_name,
            role: row.role,
            capabilities: row.capabilities.and_then(|json| serde_json::from_str(&json).ok()),
            certificate: row.certificate.and_then(|json| serde_json::from_str(&json).ok()),
            shown: row.shown.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default(),
            joined_at: row.joined_at,
            revoked_at: row.revoked_at,
        }
    }
}

/// The policy as it is stored.
pub fn policy_name(policy: ConcurrencyPolicy) -> &'static str {
    match policy {
        ConcurrencyPolicy::PreferNewest => "prefer_newest",
        ConcurrencyPolicy::PreferOldest => "prefer_oldest",
        ConcurrencyPolicy::AllowConcurrent => "allow_concurrent",
    }
}

/// The mode as it is stored.
pub fn dedupe_mode_name(mode: DedupeMode) -> &'static str {
    match mode {
        DedupeMode::RetentionScoped => "retention_scoped",
        DedupeMode::Permanent => "permanent",
    }
}

fn policy_of(name: &str) -> ConcurrencyPolicy {
    match name {
        "prefer_oldest" => ConcurrencyPolicy::PreferOldest,
        "allow_concurrent" => ConcurrencyPolicy::AllowConcurrent,
        _ => ConcurrencyPolicy::PreferNewest,
    }
}
