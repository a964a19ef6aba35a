//! The keys of the meshes that this user owns: `<root>/owners/<mesh_id>.json`.
//!
//! Only these keys make invites. They never leave this host, so losing the file
//! means that nobody can be invited any more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::names::fits_file_name;
use super::secret_hex::SecretHex;
use super::{Env, Error};
use crate::config::paths::Root;
use crate::crypto::keys::MemberSecret;
use crate::domain::ids::MeshId;
use crate::runtime::private_file::{self, FileError, PRIVATE};
use crate::wire::text;

/// A mesh and the key that owns it.
#[derive(Debug)]
pub struct Owner {
    /// The mesh by id.
    pub mesh_id: MeshId,
    /// The mesh's short name.
    pub slug: String,
    /// The broker's WebSocket URL.
    pub broker_url: String,
    /// The key that signs invites.
    pub secret: MemberSecret,
    /// 32 bytes, base64url; a field of every invite.
    pub root_key: Zeroizing<String>,
}

/// The file's content; a mesh that is being created has no id yet.
#[derive(Serialize, Deserialize)]
struct File {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mesh_id: Option<String>,
    slug: String,
    owner_pubkey: String,
    owner_secret_key: SecretHex,
    root_key: String,
    broker_url: String,
}

/// The key of a mesh that the broker does not have yet. It is on disk before
/// the broker hears of it: a creation whose answer was lost is repeated with the
/// same key, and no mesh is left without an owner.
pub(super) struct Draft {
    path: PathBuf,
    file: File,
    pub(super) secret: MemberSecret,
}

// === impl Draft ===

impl Draft {
    /// The draft of an earlier attempt, or a new one, written to disk.
    pub(super) fn open(env: &Env, slug: &str, broker_url: &str) -> Result<Self, Error> {
        let dir = env.root.owners_dir();
        private_file::create_dir(&dir)?;
        let path = dir.join(format!("{slug}.draft"));
        let file = match read(&path)? {
            Some(file) => File { broker_url: broker_url.to_owned(), ..file },
            None => {
                let secret = MemberSecret::from_seed(&Zeroizing::new(env.ids.random::<32>()?));
                File {
                    mesh_id: None,
                    slug: slug.to_owned(),
                    owner_pubkey: secret.public().to_hex(),
                    owner_secret_key: SecretHex::of(&secret),
                    root_key: text::to_base64url(&*Zeroizing::new(env.ids.random::<32>()?)),
                    broker_url: broker_url.to_owned(),
                }
            }
        };
        let secret = secret_of(&path, &file)?;
        write(&path, &file)?;
        Ok(Self { path, file, secret })
    }

    /// Makes it the key of the mesh that the broker created.
    pub(super) fn finish(self, root: &Root, mesh_id: &MeshId) -> Result<Owner, Error> {
        if !fits_file_name(mesh_id.as_str()) {
            return Err(Error::Id("mesh id that the broker gave"));
        }
        let file = File { mesh_id: Some(mesh_id.to_string()), ..self.file };
        let path = root.owner_key(mesh_id.as_str());
        write(&path, &file)?;
        private_file::remove_if_there(&self.path)?;
        owner_of(&path, file)
    }
}

/// The owner key of the mesh with this slug, if this user has it.
pub fn find(root: &Root, slug: &str) -> Result<Option<Owner>, Error> {
    let dir = root.owners_dir();
    let listing = match fs::read_dir(&dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError { action: "list", path: dir, source }.into()),
    };
    for found in listing {
        let path = found.map_err(|source| FileError { action: "list", path: dir.clone(), source })?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read(&path)? {
            Some(file) if file.slug == slug => return owner_of(&path, file).map(Some),
            _ => {}
        }
    }
    Ok(None)
}

fn owner_of(path: &Path, file: File) -> Result<Owner, Error> {
    let secret = secret_of(path, &file)?;
    let mesh_id = file.mesh_id.as_deref().and_then(|id| MeshId::parse(id).ok()).ok_or_else(|| Error::Malformed {
        path: path.to_owned(),
        detail: "`mesh_id` is missing or no id".to_owned(),
    })?;
    Ok(Owner { mesh_id, slug: file.slug, broker_url: file.broker_url, secret, root_key: Zeroizing::new(file.root_key) })
}

fn secret_of(path: &Path, file: &File) -> Result<MemberSecret, Error> {
    let secret = file
        .owner_secret_key
        .read()
        .map_err(|source| Error::Key { what: format!("the owner key in {}", path.display()), source })?;
    if secret.public().to_hex() != file.owner_pubkey {
        return Err(Error::Malformed {
            path: path.to_owned(),
            detail: "`owner_pubkey` is not the public half of `owner_secret_key`".to_owned(),
        });
    }
    Ok(secret)
}

fn read(path: &Path) -> Result<Option<File>, Error> {
    let Some(text) = private_file::read_optional(path)?.map(Zeroizing::new) else { return Ok(None) };
    let file = serde_json::from_str(&text);
    file.map(Some).map_err(|error| Error::Malformed { path: path.to_owned(), detail: error.to_string() })
}

fn write(path: &Path, file: &File) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(file)
        .map_err(|error| Error::Malformed { path: path.to_owned(), detail: error.to_string() })?;
    Ok(private_file::write_atomic(path, &Zeroizing::new(text), PRIVATE)?)
}
