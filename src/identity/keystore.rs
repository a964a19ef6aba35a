//! `keypair.json`: the member's key pair on disk (R15).
//!
//! `keypair.next.json` has the same shape: the key of a rotation under way, with
//! the statement that brings it. Renaming it is the last step of a rotation.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Error, OwnKey};
use crate::crypto::keys::MemberSecret;
use crate::domain::ids::{MemberId, MeshId};
use crate::runtime::private_file;
use crate::wire::roster::RotationStatement;

const VERSION: u32 = 1;

/// A key pair with whose it is.
#[derive(Debug)]
pub struct Stored {
    /// The mesh.
    pub mesh_id: MeshId,
    /// The member.
    pub member_id: MemberId,
    /// The key pair.
    pub secret: MemberSecret,
    /// The rotation that brought it; `None` for the key of the join.
    pub rotation: Option<RotationStatement>,
}

/// The file's shape. Keys are hex; the x25519 half is derived from the other
/// and stored beside it, so that a reader needs no conversion.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    mesh_id: String,
    member_id: String,
    ed25519_pubkey: String,
    ed25519_secret_key: String,
    x25519_pubkey: String,
    x25519_secret_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotation: Option<RotationStatement>,
}

impl Drop for File {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.ed25519_secret_key.zeroize();
        self.x25519_secret_key.zeroize();
    }
}

/// Reads the member's key pair; `None` when there is no file yet.
pub fn load(path: &Path) -> Result<Option<Stored>, Error> {
    let Some(text) = private_file::read_optional(path)? else { return Ok(None) };
    let text = Zeroizing::new(text);
    let damaged = |detail: String| Error::Damaged { path: path.to_owned(), detail };
    let mut file: File = serde_json::from_str(&text).map_err(|error| damaged(describe(&error)))?;
    if file.version != VERSION {
        return Err(damaged(format!("its version is {}, this program knows {VERSION}", file.version)));
    }
    let secret = MemberSecret::from_libsodium_hex(&file.ed25519_secret_key)
        .map_err(|source| Error::Key { path: path.to_owned(), source })?;
    let halves_agree = secret.public().to_hex() == file.ed25519_pubkey
        && hex::encode(secret.box_public().as_bytes()) == file.x25519_pubkey
        && hex::encode(secret.box_secret().as_bytes()) == file.x25519_secret_key;
    if !halves_agree {
        return Err(damaged("its keys do not belong together".to_owned()));
    }
    let rotation = file.rotation.take();
    if rotation.as_ref().is_some_and(|rotation| rotation.new_pubkey != file.ed25519_pubkey) {
        return Err(damaged("its rotation belongs to another key".to_owned()));
    }
    let mesh_id = MeshId::parse(file.mesh_id.as_str()).map_err(|error| damaged(format!("mesh_id: {error}")))?;
    let member_id = MemberId::parse(file.member_id.as_str()).map_err(|error| damaged(format!("member_id: {error}")))?;
    Ok(Some(Stored { mesh_id, member_id, secret, rotation }))
}

/// Writes a key pair; the file and its directory are synced.
pub fn write(path: &Path, stored: &Stored) -> Result<(), Error> {
    let secret = &stored.secret;
    let file = File {
        version: VERSION,
        mesh_id: stored.mesh_id.to_string(),
        member_id: stored.member_id.to_string(),
        ed25519_pubkey: secret.public().to_hex(),
        ed25519_secret_key: secret.to_libsodium_hex().to_string(),
        x25519_pubkey: hex::encode(secret.box_public().as_bytes()),
        x25519_secret_key: hex::encode(secret.box_secret().as_bytes()),
        rotation: stored.rotation.clone(),
    };
    let json = serde_json::to_vec_pretty(&file)
        .map_err(|error| Error::Damaged { path: path.to_owned(), detail: describe(&error) })?;
    let json = Zeroizing::new(json);
    private_file::write_atomic(path, &json, private_file::PRIVATE)?;
    Ok(())
}

// === impl Stored ===

impl Stored {
    /// Number of the rotation that brought the key; 0 for the first.
    pub fn seq(&self) -> u64 {
        self.rotation.as_ref().map_or(0, |rotation| rotation.seq)
    }

    /// The key, to use it.
    pub fn into_key(self) -> OwnKey {
        let seq = self.seq();
        OwnKey::new(self.secret, seq)
    }
}

/// Where and what, without the content: the file holds a secret.
fn describe(error: &serde_json::Error) -> String {
    format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_damage_is_told_without_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keypair.json");
        assert!(load(&path).unwrap().is_none());
        let secret = MemberSecret::from_seed(&[1; 32]);
        let (mesh_id, member_id) = (MeshId::parse("MESH1").unwrap(), MemberId::parse("M1").unwrap());
        let mine = hex::encode(secret.box_public().as_bytes());
        let mut stored = Stored { mesh_id, member_id, secret, rotation: None };
        write(&path, &stored).unwrap();
        let loaded = load(&path).unwrap().unwrap();
        assert_eq!((loaded.secret.public(), &loaded.member_id), (stored.secret.public(), &stored.member_id));
        assert_eq!((loaded.seq(), loaded.into_key().seq()), (0, 0));

        let good = std::fs::read_to_string(&path).unwrap();
        let other = hex::encode(MemberSecret::from_seed(&[2; 32]).box_public().as_bytes());
        for bad in [good.replace(&mine, &other), good[..good.len() / 2].to_owned(), "{}".to_owned(), String::new()] {
            std::fs::write(&path, bad).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.contains("keypair.json") && !error.contains(&hex::encode([1_u8; 32])), "{error}");
        }

        let rotation = RotationStatement { seq: 3, new_pubkey: "ab".repeat(32), ..RotationStatement::default() };
        stored.rotation = Some(rotation);
        write(&path, &stored).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("another key"));
        let new_pubkey = stored.secret.public().to_hex();
        stored.rotation = Some(RotationStatement { seq: 3, new_pubkey, ..RotationStatement::default() });
        write(&path, &stored).unwrap();
        assert_eq!(load(&path).unwrap().unwrap().seq(), 3);
    }
}
