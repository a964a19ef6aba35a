//! `keypair-archive.json`: rotated-out keys that still open messages (R24).
//!
//! Only the half that opens is kept. The file is written before a rotation does
//! anything else: once it is on disk, nothing that was sealed for the old key
//! can be lost by what follows.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Archived, Error, OpeningKey, OwnKey};
use crate::crypto::keys::{BoxPublic, BoxSecret};
use crate::domain::clock_trust::EARLIEST;
use crate::domain::ids::MemberKey;
use crate::domain::time::UnixMillis;
use crate::runtime::private_file;

const SCHEMA_VERSION: u32 = 1;
/// Keys that are kept at most.
pub const MAX_KEYS: usize = 8;
/// No file of eight keys comes near this size.
const MAX_BYTES: u64 = 64 << 10;

/// The rotated-out keys, the newest last.
#[derive(Debug, Default)]
pub struct Archive {
    keys: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema_version: u32,
    max_archived_keys: usize,
    keys: Vec<Entry>,
}

/// One rotated-out key. Times are Unix milliseconds.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    ed25519_pubkey: String,
    x25519_pubkey: String,
    x25519_privkey: String,
    key_id: String,
    created_at: i64,
    rotated_out_at: i64,
    expires_at: i64,
}

/// Why a file is not an archive.
struct Malformed {
    name: &'static str,
    detail: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.x25519_privkey.zeroize();
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({} of {})", self.key_id, self.ed25519_pubkey)
    }
}

// === impl Archive ===

impl Archive {
    /// Reads the archive. A file that is none is set aside under another name,
    /// and the archive is empty: a daemon without its old keys is worth more
    /// than none.
    pub fn load(path: &Path, now: UnixMillis) -> Result<Self, Error> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => {
                let path = path.to_owned();
                return Err(private_file::FileError { action: "read", path, source }.into());
            }
        };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            tracing::warn!(mode = format!("{mode:o}"), "keypair_archive_perms: the archive is readable to others");
        }
        let read = if metadata.len() > MAX_BYTES {
            Err(Malformed { name: "keypair_archive_malformed", detail: format!("it is larger than {MAX_BYTES} bytes") })
        } else {
            match fs::read_to_string(path).map(Zeroizing::new) {
                Ok(text) => Self::parse(&text),
                Err(error) => Err(Malformed { name: "keypair_archive_malformed", detail: error.to_string() }),
            }
        };
        read.or_else(|malformed| {
            let aside = path.with_file_name(format!("keypair-archive.json.malformed-{}", now.0));
            fs::rename(path, &aside).map_err(|source| private_file::FileError {
                action: "rename",
                path: path.to_owned(),
                source,
            })?;
            tracing::error!(
                detail = malformed.detail,
                kept = %aside.display(),
                "{}: the archive of old keys cannot be used and is kept as {}; messages sealed for them do not open",
                malformed.name,
                aside.display()
            );
            Ok(Self::default())
        })
    }

    fn parse(text: &str) -> Result<Self, Malformed> {
        let malformed = |detail: String| Malformed { name: "keypair_archive_malformed", detail };
        let file: File = serde_json::from_str(text)
            // Where and what, without the content: the file holds secrets.
            .map_err(|error| malformed(format!("{:?} error at line {}", error.classify(), error.line())))?;
        if file.schema_version != SCHEMA_VERSION {
            return Err(malformed(format!("its schema_version is {}, this program knows 1", file.schema_version)));
        }
        if file.keys.len() > MAX_KEYS {
            return Err(malformed(format!("it holds {} keys, at most {MAX_KEYS} are kept", file.keys.len())));
        }
        let mut ids = HashSet::new();
        for entry in &file.keys {
            if !ids.insert(entry.key_id.as_str()) {
                let detail = format!("two keys are called {}", entry.key_id);
                return Err(Malformed { name: "keypair_archive_duplicate_key_id", detail });
            }
            entry.check().map_err(|detail| malformed(format!("key {}: {detail}", entry.key_id)))?;
        }
        let mut keys = file.keys;
        keys.sort_by_key(|entry| entry.rotated_out_at);
        Ok(Self { keys })
    }

    /// Puts a key in that is about to be rotated out. Returns the ids of keys
    /// that had to go before their time.
    pub fn add(&mut self, key: &OwnKey, key_id: String, now: UnixMillis, grace: Duration) -> Vec<String> {
        // A rotation that was cut off has left it here already.
        let public = key.public().to_hex();
        self.keys.retain(|entry| entry.ed25519_pubkey != public);
        let created_at = self.keys.last().map_or(now.0, |entry| entry.rotated_out_at);
        self.keys.push(Entry {
            ed25519_pubkey: public,
            x25519_pubkey: hex::encode(key.opening.secret().public().as_bytes()),
            x25519_privkey: hex::encode(key.opening.secret().as_bytes()),
            key_id,
            created_at,
            rotated_out_at: now.0,
            expires_at: now.plus(grace).0,
        });
        let excess = self.keys.len().saturating_sub(MAX_KEYS);
        self.keys.drain(..excess).map(|entry| entry.key_id.clone()).collect()
    }

    /// Takes out the keys whose time is over. Returns how many. One that was rotated
    /// out while the clock showed a time before this program has its grace from now.
    pub fn erase_expired(&mut self, now: UnixMillis) -> usize {
        for entry in self.keys.iter_mut().filter(|entry| entry.rotated_out_at < EARLIEST.0) {
            entry.expires_at = entry.expires_at.saturating_add(now.0.saturating_sub(entry.rotated_out_at));
            entry.rotated_out_at = now.0;
        }
        let before = self.keys.len();
        self.keys.retain(|entry| entry.expires_at > now.0);
        before - self.keys.len()
    }

    /// Writes the archive; an empty one has no file. What is no longer in it is
    /// gone from the live file; earlier copies on the disk are not sought out.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        if self.keys.is_empty() {
            return Ok(private_file::remove_if_there(path)?);
        }
        let file = File { schema_version: SCHEMA_VERSION, max_archived_keys: MAX_KEYS, keys: self.keys.clone() };
        let json = serde_json::to_vec_pretty(&file)
            .map_err(|error| Error::Damaged { path: path.to_owned(), detail: error.to_string() })?;
        Ok(private_file::write_atomic(path, &Zeroizing::new(json), private_file::PRIVATE)?)
    }

    /// The keys that open, the newest first.
    pub fn opening_keys(&self) -> Vec<Archived> {
        self.keys.iter().rev().filter_map(Entry::opening_key).collect()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

// === impl Entry ===

impl Entry {
    /// Whether the halves belong together.
    fn check(&self) -> Result<(), String> {
        let public = MemberKey::parse(&self.ed25519_pubkey).map_err(|error| format!("ed25519_pubkey: {error}"))?;
        let secret = self.secret().ok_or("x25519_privkey is not 64 hexadecimal digits")?;
        if hex::encode(secret.public().as_bytes()) != self.x25519_pubkey {
            return Err("its two halves do not belong together".to_owned());
        }
        let converted = BoxPublic::of(public).map_err(|error| format!("ed25519_pubkey: {error}"))?;
        if converted != secret.public() {
            return Err("it does not belong to its ed25519_pubkey".to_owned());
        }
        Ok(())
    }

    fn secret(&self) -> Option<BoxSecret> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        hex::decode_to_slice(&self.x25519_privkey, bytes.as_mut_slice()).ok()?;
        Some(BoxSecret::from_bytes(*bytes))
    }

    fn opening_key(&self) -> Option<Archived> {
        let public = MemberKey::parse(&self.ed25519_pubkey).ok()?;
        let key = Arc::new(OpeningKey::new(public, self.secret()?));
        Some(Archived { key, expires_at: UnixMillis(self.expires_at) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::MemberSecret;

    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    fn key(seed: u8) -> OwnKey {
        OwnKey::new(MemberSecret::from_seed(&[seed; 32]), 0)
    }

    fn at(ms: i64) -> UnixMillis {
        UnixMillis(EARLIEST.0 + ms)
    }

    fn archive_of(seeds: std::ops::Range<u8>) -> Archive {
        let mut archive = Archive::default();
        for seed in seeds {
            archive.add(&key(seed), format!("k_{seed}"), at(i64::from(seed)), WEEK);
        }
        archive
    }

    #[test]
    fn what_was_written_is_read_and_an_empty_archive_has_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keypair-archive.json");
        let mut archive = archive_of(1..4);
        archive.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Archive::load(&path, UnixMillis(9)).unwrap();
        let publics: Vec<MemberKey> = read.opening_keys().iter().map(|one| one.key.public()).collect();
        assert_eq!(publics, [key(3).public(), key(2).public(), key(1).public()]);
        assert_eq!(archive.erase_expired(at(0).plus(WEEK)), 0);
        assert_eq!(archive.erase_expired(at(3).plus(WEEK)), 3);
        archive.save(&path).unwrap();
        assert!(!path.exists() && Archive::load(&path, UnixMillis(9)).unwrap().is_empty());
    }

    #[test]
    fn a_key_rotated_out_in_1970_has_its_grace_from_the_right_time() {
        let mut archive = Archive::default();
        archive.add(&key(1), "k_1".to_owned(), UnixMillis(600_000), WEEK);
        assert_eq!(archive.erase_expired(at(0)), 0);
        assert_eq!(archive.erase_expired(at(-1).plus(WEEK)), 0);
        assert_eq!(archive.erase_expired(at(0).plus(WEEK)), 1);
    }

    #[test]
    fn the_oldest_goes_when_there_are_more_than_eight() {
        let mut archive = archive_of(1..9);
        assert_eq!(archive.add(&key(9), "k_9".to_owned(), UnixMillis(9), WEEK), ["k_1"]);
        assert_eq!(archive.len(), MAX_KEYS);
        // The same key again is the same entry.
        assert_eq!(archive.add(&key(9), "k_10".to_owned(), UnixMillis(10), WEEK), Vec::<String>::new());
        assert_eq!(archive.len(), MAX_KEYS);
    }

    #[test]
    fn a_malformed_file_is_set_aside_with_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keypair-archive.json");
        archive_of(1..3).save(&path).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let other = hex::encode(key(7).opening.secret().as_bytes());
        let own = hex::encode(key(1).opening.secret().as_bytes());
        let bad = [
            String::new(),
            "{}".to_owned(),
            good[..good.len() / 2].to_owned(),
            good.replace("k_2", "k_1"),
            good.replace(&own, &other),
            good.replace("\"schema_version\": 1", "\"schema_version\": 2"),
            "x".repeat(70_000),
        ];
        for (at, text) in bad.iter().enumerate() {
            fs::write(&path, text).unwrap();
            let now = UnixMillis(i64::try_from(at).unwrap());
            assert!(Archive::load(&path, now).unwrap().is_empty());
            let aside = dir.path().join(format!("keypair-archive.json.malformed-{at}"));
            assert_eq!(&fs::read_to_string(aside).unwrap(), text);
            assert!(!path.exists());
        }
        // A wide mode is told and the file is read all the same.
        fs::write(&path, good).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Archive::load(&path, UnixMillis(0)).unwrap().len(), 2);
    }
}
