//! Creating a mesh: the owner's key, the mesh at the broker, the first member.

use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::config_json::{ConfigJson, MeshEntry};
use super::http::Broker;
use super::invite::{self, Role, Terms};
use super::names::check_new_slug;
use super::owner::{self, Owner};
use super::{Env, Error, certificate, join};
use crate::domain::ids::MeshId;
use crate::domain::names;
use crate::runtime::private_file;
use crate::wire::join::{CreateMeshRequest, CreateMeshResponse};

/// How to create a mesh.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The broker's WebSocket URL; the one that runs from this user's root if
    /// absent.
    pub broker_url: Option<String>,
    /// The file with the broker's admin token; the local broker's if absent.
    pub admin_token_file: Option<PathBuf>,
    /// The mesh's name for people; the slug if absent.
    pub name: Option<String>,
    /// The creator's name as a member.
    pub display_name: Option<String>,
}

/// A creation that left the mesh created and joined.
#[derive(Debug)]
pub enum Outcome {
    /// It is now.
    Created(MeshEntry),
    /// It was before; nothing was sent.
    AlreadyThere(MeshEntry),
}

/// Creates a mesh and joins it as an admin. A call that was cut off anywhere is
/// repeated with the same arguments and goes on where it ended.
pub fn create(env: &Env, slug: &str, options: &Options) -> Result<Outcome, Error> {
    check_new_slug(slug)?;
    if let Some(name) = &options.display_name {
        names::check(name)?;
    }
    let owned = owner::find(&env.root, slug)?;
    if let Some(entry) = ConfigJson::load(&env.root)?.mesh(slug)? {
        return match owned {
            Some(owner) if owner.mesh_id.as_str() == entry.mesh_id => {
                certificate::of_creator(env, &owner, &entry)?;
                Ok(Outcome::AlreadyThere(entry))
            }
            _ => Err(Error::SlugTaken { slug: slug.to_owned() }),
        };
    }
    let owner = match owned {
        Some(owner) => owner,
        None => register(env, slug, options)?,
    };
    let terms = Terms { role: Role::Admin, uses: 1, lifetime: Duration::from_secs(3600), plain: false };
    let invite = invite::make(env, &owner, &terms)?;
    let joining = join::Options { display_name: options.display_name.clone() };
    match join::join(env, &invite.link, &joining)? {
        join::Outcome::Joined { entry, .. } | join::Outcome::AlreadyJoined(entry) => Ok(Outcome::Created(entry)),
    }
}

/// `POST /v1/meshes`.
fn register(env: &Env, slug: &str, options: &Options) -> Result<Owner, Error> {
    let url = match &options.broker_url {
        Some(url) => url.clone(),
        None => local_broker(env)?,
    };
    let broker = Broker::new(env, &url)?;
    let token_path = match &options.admin_token_file {
        Some(path) => path.clone(),
        None => env.root.broker_dir().join("admin_token"),
    };
    let token = read_token(&token_path)?;
    let draft = owner::Draft::open(env, slug, &url)?;
    let request = CreateMeshRequest {
        slug: slug.to_owned(),
        name: options.name.clone(),
        owner_pubkey: draft.secret.public().to_hex(),
        concurrency_policy: None,
    };
    let answer = broker.post("/v1/meshes", Some(token.trim()), &request)?;
    match answer.status {
        200..=299 => {
            let response: CreateMeshResponse = answer.json().ok_or_else(|| answer.unexpected())?;
            let mesh_id = MeshId::parse(response.mesh_id).map_err(|_| Error::Id("mesh id that the broker gave"))?;
            draft.finish(&env.root, &mesh_id)
        }
        401 | 403 => Err(Error::AdminTokenRefused { address: broker.address().to_owned() }),
        409 => Err(Error::MeshExists { address: broker.address().to_owned(), slug: slug.to_owned() }),
        _ => Err(answer.unexpected()),
    }
}

/// The URL of the broker that runs from this user's root. It writes its address
/// when it listens and removes it when it stops.
fn local_broker(env: &Env) -> Result<String, Error> {
    let dir = env.root.broker_dir();
    match private_file::read_optional(&dir.join("addr"))? {
        Some(address) => Ok(format!("ws://{}/ws", address.trim())),
        None => Err(Error::NoBroker { dir }),
    }
}

fn read_token(path: &Path) -> Result<Zeroizing<String>, Error> {
    let token = private_file::read_optional(path)?.map(Zeroizing::new);
    token.ok_or_else(|| Error::AdminTokenMissing { path: path.to_owned() })
}
