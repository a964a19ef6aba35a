//! `<root>/config.json`: the joined meshes and their member keys.
//!
//! Other programs of the mesh read and write the same file, so everything that
//! is not understood here stays as it was, and a write never replaces a version
//! that was not read (R426).

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::Error;
use super::secret_hex::SecretHex;
use crate::config::paths::Root;
use crate::crypto::keys::MemberSecret;
use crate::domain::ids::{MemberId, MemberKey, MeshId};
use crate::runtime::private_file;

/// The version of the file's shape that is understood here.
const VERSION: u64 = 1;
/// The file is read again when another program wrote it meanwhile, so often.
const WRITE_ATTEMPTS: usize = 5;
/// Greatest size of the file in bytes; thousands of meshes fit.
const MAX_BYTES: u64 = 4 << 20;

/// The file as it was read. Without a file: no meshes.
pub struct ConfigJson {
    path: PathBuf,
    document: Map<String, Value>,
}

/// One joined mesh. Keys that are not named here belong to other programs.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshEntry {
    /// The mesh by id.
    pub mesh_id: String,
    /// This member by id.
    pub member_id: String,
    /// The mesh's short name.
    pub slug: String,
    /// The mesh's name for people.
    #[serde(default)]
    pub name: String,
    /// The member's ed25519 public key, 64 hex digits.
    pub pubkey: String,
    /// Seed and public key, 128 hex digits.
    secret_key: SecretHex,
    /// The broker's WebSocket URL.
    pub broker_url: String,
    /// ISO 8601.
    #[serde(default)]
    pub joined_at: String,
    /// The version of the invite, 1 or 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite_version: Option<u32>,
    /// The name that this member joined with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// `admin` or `member`, as the invite said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The mesh owner's key, 64 hex digits, from the verified invite. What the
    /// broker says about ownership later is checked against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_pubkey: Option<String>,
    /// The key that signed the invite, 64 hex digits: who vouched for the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inviter_pubkey: Option<String>,
}

/// What a join learns beside the secret.
#[derive(Clone, Debug)]
pub struct NewMember<'a> {
    /// The mesh by id.
    pub mesh_id: &'a MeshId,
    /// The member by id.
    pub member_id: &'a MemberId,
    /// The mesh's short name.
    pub slug: &'a str,
    /// The broker's WebSocket URL.
    pub broker_url: &'a str,
    /// ISO 8601.
    pub joined_at: String,
    /// The member's name.
    pub display_name: &'a str,
    /// `admin` or `member`.
    pub role: &'a str,
    /// The key that owns the mesh and signed the invite.
    pub owner: MemberKey,
}

// === impl MeshEntry ===

impl MeshEntry {
    /// The entry of a member that has just joined.
    pub fn new(member: &NewMember<'_>, secret: &MemberSecret) -> Self {
        Self {
            mesh_id: member.mesh_id.to_string(),
            member_id: member.member_id.to_string(),
            slug: member.slug.to_owned(),
            name: member.slug.to_owned(),
            pubkey: secret.public().to_hex(),
            secret_key: SecretHex::of(secret),
            broker_url: member.broker_url.to_owned(),
            joined_at: member.joined_at.clone(),
            invite_version: Some(1),
            display_name: Some(member.display_name.to_owned()),
            role: Some(member.role.to_owned()),
            owner_pubkey: Some(member.owner.to_hex()),
            inviter_pubkey: Some(member.owner.to_hex()),
        }
    }

    /// The member's key pair.
    pub fn secret(&self) -> Result<MemberSecret, Error> {
        self.secret_key
            .read()
            .map_err(|source| Error::Key { what: format!("the key of mesh {:?} in config.json", self.slug), source })
    }
}

impl fmt::Debug for MeshEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshEntry")
            .field("mesh_id", &self.mesh_id)
            .field("member_id", &self.member_id)
            .field("slug", &self.slug)
            .field("pubkey", &self.pubkey)
            .field("broker_url", &self.broker_url)
            .finish_non_exhaustive()
    }
}

// === impl ConfigJson ===

impl ConfigJson {
    /// Reads the file.
    pub fn load(root: &Root) -> Result<Self, Error> {
        read(&root.config_json()).map(|(config, _)| config)
    }

    /// All joined meshes, in the file's order. An entry that cannot be read is an
    /// error: a mesh must not disappear because of a typing error.
    pub fn meshes(&self) -> Result<Vec<MeshEntry>, Error> {
        self.entries()?.iter().map(|entry| self.entry(entry)).collect()
    }

    /// The mesh with this slug. Damage in the entries of other meshes does not
    /// matter.
    pub fn mesh(&self, slug: &str) -> Result<Option<MeshEntry>, Error> {
        self.find("slug", slug)
    }

    /// The mesh with this id.
    pub fn mesh_by_id(&self, mesh_id: &str) -> Result<Option<MeshEntry>, Error> {
        self.find("meshId", mesh_id)
    }

    /// The name that other programs of the mesh use for this user.
    pub fn display_name(&self) -> Option<&str> {
        self.document.get("displayName").and_then(Value::as_str)
    }

    fn find(&self, key: &str, value: &str) -> Result<Option<MeshEntry>, Error> {
        let found = self.entries()?.iter().find(|entry| entry.get(key).and_then(Value::as_str) == Some(value));
        found.map(|entry| self.entry(entry)).transpose()
    }

    fn entries(&self) -> Result<&[Value], Error> {
        match self.document.get("meshes") {
            None => Ok(&[]),
            Some(Value::Array(entries)) => Ok(entries),
            Some(_) => Err(self.malformed("`meshes` is not a list")),
        }
    }

    fn entry(&self, value: &Value) -> Result<MeshEntry, Error> {
        let entry = MeshEntry::deserialize(value).map_err(|error| {
            let slug = value.get("slug").and_then(Value::as_str).unwrap_or("?");
            self.malformed(&format!("the entry of mesh {slug:?}: {error}"))
        })?;
        super::names::check_slug(&entry.slug).map_err(|error| self.malformed(&error.to_string()))?;
        Ok(entry)
    }

    fn malformed(&self, detail: &str) -> Error {
        Error::Malformed { path: self.path.clone(), detail: detail.to_owned() }
    }
}

/// Gives the member of a mesh another key, which its broker knows already.
/// Everything else in the file stays as it is.
pub fn replace_key(root: &Root, slug: &str, secret: &MemberSecret) -> Result<(), Error> {
    change(root, |config| {
        let Some(Value::Array(entries)) = config.document.get_mut("meshes") else { return Ok(()) };
        let entry = entries.iter_mut().find(|entry| entry.get("slug").and_then(Value::as_str) == Some(slug));
        if let Some(Value::Object(entry)) = entry {
            entry.insert("pubkey".to_owned(), Value::from(secret.public().to_hex()));
            entry.insert("secretKey".to_owned(), Value::from(secret.to_libsodium_hex().as_str()));
        }
        Ok(())
    })
}

/// Adds a mesh. Fails if one of its id or slug is there: a member key is never
/// replaced.
pub fn add(root: &Root, entry: &MeshEntry) -> Result<(), Error> {
    change(root, |config| {
        if config.mesh(&entry.slug)?.is_some() || config.mesh_by_id(&entry.mesh_id)?.is_some() {
            return Err(Error::SlugTaken { slug: entry.slug.clone() });
        }
        let value = serde_json::to_value(entry).map_err(|error| config.malformed(&error.to_string()))?;
        config.document.entry("version").or_insert(Value::from(VERSION));
        match config.document.entry("meshes").or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(entries) => entries.push(value),
            _ => return Err(config.malformed("`meshes` is not a list")),
        }
        Ok(())
    })
}

/// Takes a mesh out that was left. One that is not there is fine.
pub fn remove(root: &Root, mesh_id: &str) -> Result<(), Error> {
    change(root, |config| match config.document.get_mut("meshes") {
        Some(Value::Array(entries)) => {
            entries.retain(|entry| entry.get("meshId").and_then(Value::as_str) != Some(mesh_id));
            Ok(())
        }
        _ => Ok(()),
    })
}

/// Changes the file in one step. `edit` may run again when another program
/// wrote the file meanwhile.
fn change(root: &Root, edit: impl Fn(&mut ConfigJson) -> Result<(), Error>) -> Result<(), Error> {
    private_file::create_dir(root.path())?;
    // Holds off other commands of this program for the few milliseconds of the
    // write; other programs do not know the lock, the comparison below does.
    let lock_path = root.path().join(".config.json.lock");
    let lock = private_file::open(&lock_path, private_file::PRIVATE)?;
    lock.lock().map_err(|source| private_file::FileError { action: "lock", path: lock_path, source })?;
    let path = root.config_json();
    for _ in 0..WRITE_ATTEMPTS {
        let (mut config, before) = read(&path)?;
        edit(&mut config)?;
        let text = Zeroizing::new(
            serde_json::to_vec_pretty(&config.document)
                .map_err(|error| Error::Malformed { path: path.clone(), detail: error.to_string() })?,
        );
        let (_, now) = read(&path)?;
        if now == before {
            // Whoever keeps the file elsewhere and links to it goes on doing so.
            let target = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
            return Ok(private_file::write_atomic(&target, &text, private_file::PRIVATE)?);
        }
    }
    Err(Error::ConfigBusy { path })
}

/// The content and the bytes it was read from.
fn read(path: &Path) -> Result<(ConfigJson, Option<Zeroizing<String>>), Error> {
    let malformed = |detail: String| Error::Malformed { path: path.to_owned(), detail };
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() > MAX_BYTES) {
        return Err(malformed(format!("it is larger than {MAX_BYTES} bytes")));
    }
    let text = private_file::read_optional(path)?.map(Zeroizing::new);
    let document = match &text {
        None => Map::new(),
        Some(text) => serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?,
    };
    if let Some(version) = document.get("version").filter(|version| version.as_u64() != Some(VERSION)) {
        return Err(malformed(format!("its version is {version}, this program knows version {VERSION}")));
    }
    Ok((ConfigJson { path: path.to_owned(), document }, text))
}
