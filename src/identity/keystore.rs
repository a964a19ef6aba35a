//! `keypair.json`: the member's key pair on disk (R15).

use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Error, Identity};
use crate::crypto::keys::MemberSecret;
use crate::domain::ids::{MemberId, MeshId};
use crate::runtime::private_file;

const VERSION: u32 = 1;

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
}

impl Drop for File {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.ed25519_secret_key.zeroize();
        self.x25519_secret_key.zeroize();
    }
}

/// Reads the member's key pair; `None` when there is no file yet.
pub fn load(path: &Path) -> Result<Option<Identity>, Error> {
    let Some(text) = private_file::read_optional(path)? else { return Ok(None) };
    let text = Zeroizing::new(text);
    let damaged = |detail: String| Error::Damaged { path: path.to_owned(), detail };
    let file: File = serde_json::from_str(&text).map_err(|error| damaged(describe(&error)))?;
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
    let mesh_id = MeshId::parse(file.mesh_id.as_str()).map_err(|error| damaged(format!("mesh_id: {error}")))?;
    let member_id = MemberId::parse(file.member_id.as_str()).map_err(|error| damaged(format!("member_id: {error}")))?;
    Ok(Some(Identity::new(mesh_id, member_id, secret)))
}

/// Writes the file for a member that was just joined.
pub fn create(path: &Path, mesh_id: &MeshId, member_id: &MemberId, secret: &MemberSecret) -> Result<(), Error> {
    let file = File {
        version: VERSION,
        mesh_id: mesh_id.to_string(),
        member_id: member_id.to_string(),
        ed25519_pubkey: secret.public().to_hex(),
        ed25519_secret_key: secret.to_libsodium_hex().to_string(),
        x25519_pubkey: hex::encode(secret.box_public().as_bytes()),
        x25519_secret_key: hex::encode(secret.box_secret().as_bytes()),
    };
    let json = serde_json::to_vec_pretty(&file)
        .map_err(|error| Error::Damaged { path: path.to_owned(), detail: describe(&error) })?;
    let json = Zeroizing::new(json);
    private_file::write_atomic(path, &json, private_file::PRIVATE)?;
    Ok(())
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
        let (mesh, member) = (MeshId::parse("MESH1").unwrap(), MemberId::parse("M1").unwrap());
        create(&path, &mesh, &member, &secret).unwrap();
        let loaded = load(&path).unwrap().unwrap();
        assert_eq!((loaded.key(), loaded.member_id()), (secret.public(), &member));

        let good = std::fs::read_to_string(&path).unwrap();
        let other = hex::encode(MemberSecret::from_seed(&[2; 32]).box_public().as_bytes());
        let mine = hex::encode(secret.box_public().as_bytes());
        for bad in [good.replace(&mine, &other), good[..good.len() / 2].to_owned(), "{}".to_owned(), String::new()] {
            std::fs::write(&path, bad).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.contains("keypair.json") && !error.contains(&hex::encode([1_u8; 32])), "{error}");
        }
    }
}
