//! Joining a mesh with an invite.
//!
//! The new member's key is on disk before the broker hears of it. A join whose
//! answer was lost is repeated with the same key; the broker then says that the
//! member exists, and no use of the invite is spent twice.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::config_json::{self, ConfigJson, MeshEntry, NewMember};
use super::http::Broker;
use super::names::{check_slug, fits_file_name};
use super::{Env, Error, certificate, invite};
use crate::crypto::keys::MemberSecret;
use crate::crypto::sign::Statement;
use crate::domain::foreign;
use crate::domain::ids::{MemberId, MeshId};
use crate::domain::names;
use crate::domain::time::UnixMillis;
use crate::runtime::private_file::{self, FileError, PRIVATE};
use crate::wire::certificate::LinkKey;
use crate::wire::hello::CapabilityStatement;
use crate::wire::join::{JoinRequest, JoinResponse, token_of};
use crate::wire::text;

/// What this program's daemon reads from its peers, whatever it is told later.
const CAPABILITIES: [&str; 1] = ["envelope_v3"];

/// How to join.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The new member's name; config.json's, or the host's, if absent.
    pub display_name: Option<String>,
}

/// A join that left the mesh joined.
#[derive(Debug)]
pub enum Outcome {
    /// The mesh is joined now.
    Joined {
        /// The member.
        entry: MeshEntry,
        /// The broker says that another member has or had its name.
        name_taken: bool,
    },
    /// It was before; nothing was sent.
    AlreadyJoined(MeshEntry),
}

/// Joins the mesh of an invite link.
pub fn join(env: &Env, link: &str, options: &Options) -> Result<Outcome, Error> {
    let (payload, owner) = invite::verify(link, env.clock.now())?;
    check_slug(&payload.mesh_slug)?;
    let mesh_id = MeshId::parse(&payload.mesh_id).map_err(|_| Error::Id("mesh id of the invite"))?;
    if !fits_file_name(mesh_id.as_str()) {
        return Err(Error::Id("mesh id of the invite"));
    }
    // A damaged link is told of before it costs anything.
    LinkKey::of_link(link)?;
    let broker = Broker::new(env, &payload.broker_url)?;

    let mut draft = Draft::open(env, &mesh_id, &payload.mesh_slug)?;
    // Read under the draft's lock: a join that has just ended is seen.
    let config = ConfigJson::load(&env.root)?;
    if let Some(entry) = config.mesh_by_id(mesh_id.as_str())? {
        draft.discard()?;
        certificate::catch_up(env, &entry, link, &payload)?;
        return Ok(Outcome::AlreadyJoined(entry));
    }
    if config.mesh(&payload.mesh_slug)?.is_some() {
        return Err(Error::SlugTaken { slug: payload.mesh_slug });
    }
    let display_name = match &options.display_name {
        Some(name) => names::check(name)?,
        None => default_name(&config),
    };

    let secret = draft.secret(env)?;
    let now = env.clock.now();
    let certificate = certificate::of_link(link, &payload, owner, secret.public())?;
    let request = JoinRequest {
        invite_token: token_of(link)?.to_owned(),
        invite_payload: payload,
        peer_pubkey: secret.public().to_hex(),
        display_name,
        capabilities: Some(capability_statement(&mesh_id, &secret, now)?),
        certificate,
    };
    let (member_id, name_taken) = enrol(&broker, &request)?;

    let entry = MeshEntry::new(
        &NewMember {
            mesh_id: &mesh_id,
            member_id: &member_id,
            slug: &request.invite_payload.mesh_slug,
            broker_url: &request.invite_payload.broker_url,
            joined_at: text::to_iso(now),
            display_name: &request.display_name,
            role: &request.invite_payload.role,
            owner,
        },
        &secret,
    );
    // First: with the entry there, nothing is made any more.
    if let Some(certificate) = &request.certificate {
        certificate::write(&env.root, mesh_id.as_str(), certificate)?;
    }
    config_json::add(&env.root, &entry)?;
    draft.discard()?;
    Ok(Outcome::Joined { entry, name_taken })
}

/// `POST /join`. The broker's word is the status and `ok` together.
fn enrol(broker: &Broker, request: &JoinRequest) -> Result<(MemberId, bool), Error> {
    let answer = broker.post("/join", None, request)?;
    match answer.json::<JoinResponse>() {
        Some(JoinResponse { ok: true, member_id: Some(id), name_taken, .. }) if answer.is_success() => {
            let id = MemberId::parse(id).map_err(|_| answer.unexpected())?;
            // It becomes a field of signed texts.
            if id.as_str().contains('|') {
                return Err(answer.unexpected());
            }
            Ok((id, name_taken == Some(true)))
        }
        Some(JoinResponse { ok: false, error: Some(reason), .. }) if answer.status < 500 => {
            Err(Error::JoinRefused { address: broker.address().to_owned(), reason: foreign::said(&reason) })
        }
        _ => Err(answer.unexpected()),
    }
}

fn capability_statement(
    mesh_id: &MeshId,
    secret: &MemberSecret,
    now: UnixMillis,
) -> Result<CapabilityStatement, Error> {
    let statement = Statement::capabilities(mesh_id.as_str(), secret.public(), CAPABILITIES, now)?;
    Ok(CapabilityStatement {
        capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
        ts: now.0,
        signature: hex::encode(statement.sign(secret)),
    })
}

/// The first of these that is a usable name: what other programs of this user
/// call themselves, the host's name.
fn default_name(config: &ConfigJson) -> String {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    let short = host.split('.').next().unwrap_or_default();
    let candidates = [config.display_name().unwrap_or_default(), short];
    candidates.iter().find_map(|name| names::check(name).ok()).unwrap_or_else(|| "member".to_owned())
}

/// The key of a join that has not ended: `<root>/joining/<mesh_id>`, locked
/// while a process works with it.
struct Draft {
    path: PathBuf,
    file: File,
}

// === impl Draft ===

impl Draft {
    fn open(env: &Env, mesh_id: &MeshId, slug: &str) -> Result<Self, Error> {
        let dir = env.root.path().join("joining");
        private_file::create_dir(&dir)?;
        let path = dir.join(mesh_id.as_str());
        let file = private_file::open(&path, PRIVATE)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, file }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy { slug: slug.to_owned() }),
            Err(TryLockError::Error(source)) => Err(FileError { action: "lock", path, source }.into()),
        }
    }

    /// The key of an earlier attempt, or a new one, synced to disk.
    fn secret(&mut self, env: &Env) -> Result<MemberSecret, Error> {
        let error = |source| FileError { action: "write", path: self.path.clone(), source };
        let mut seed = Zeroizing::new([0_u8; 32]);
        // A shorter file was never used: its key is synced before it is sent.
        if self.file.read_exact(seed.as_mut_slice()).is_err() {
            *seed = env.ids.random::<32>()?;
            self.file
                .rewind()
                .and_then(|()| self.file.write_all(seed.as_slice()))
                .and_then(|()| self.file.sync_all())
                .map_err(error)?;
        }
        Ok(MemberSecret::from_seed(&seed))
    }

    /// Removes the file. Still locked: a process that opened it meanwhile finds
    /// the mesh joined.
    fn discard(self) -> Result<(), Error> {
        Ok(private_file::remove_if_there(&self.path)?)
    }
}
