//! `host_fingerprint.json`: which host a key was first used on (R16).
//!
//! Written once, at the first start. It recognises accidents, such as a copied
//! home directory, and is no defence against someone who copies it too.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Error;
use crate::domain::time::UnixMillis;
use crate::runtime::private_file;

/// The formula of the hash: host id, then the address, with separators.
const VERSION: u32 = 2;

/// The file's shape.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct HostFingerprint {
    /// Formula of `hash`.
    pub version: u32,
    /// 64 hex digits: SHA-256 of `v2`, 0, host id, 0, address.
    pub hash: String,
    /// The operating system's id of the host; empty when it has none.
    pub host_id: String,
    /// The address of the first physical interface; empty when there is none.
    pub mac: String,
    /// When it was written, Unix ms.
    pub created_at: i64,
}

/// What tells this host from others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The operating system's id.
    pub host_id: Option<String>,
    /// First physical interface's address.
    pub mac: Option<String>,
}

/// Writes the fingerprint at the first start; an existing file stays.
pub fn write_once(path: &Path, facts: &HostFacts, fallback: &str, now: UnixMillis) -> Result<(), Error> {
    if private_file::read_optional(path)?.is_some() {
        return Ok(());
    }
    let fingerprint = facts.fingerprint(fallback, now);
    let json = serde_json::to_vec_pretty(&fingerprint)
        .map_err(|error| Error::Damaged { path: path.to_owned(), detail: error.to_string() })?;
    private_file::write_atomic(path, &json, private_file::PRIVATE)?;
    Ok(())
}

// === impl HostFacts ===

impl HostFacts {
    /// Reads this host's facts.
    pub fn read() -> Self {
        Self { host_id: host_id(), mac: first_stable_mac(Path::new("/sys/class/net")) }
    }

    /// The fingerprint; `fallback` stands in when the host tells nothing.
    pub fn fingerprint(&self, fallback: &str, now: UnixMillis) -> HostFingerprint {
        let host_id = match (&self.host_id, &self.mac) {
            (Some(id), _) => id.clone(),
            (None, Some(_)) => String::new(),
            (None, None) => fallback.to_owned(),
        };
        let mac = self.mac.clone().unwrap_or_default();
        let mut hash = Sha256::new();
        hash.update(b"v2\0");
        hash.update(host_id.as_bytes());
        hash.update([0]);
        hash.update(mac.as_bytes());
        HostFingerprint { version: VERSION, hash: hex::encode(hash.finalize()), host_id, mac, created_at: now.0 }
    }
}

fn host_id() -> Option<String> {
    ["/etc/machine-id", "/var/lib/dbus/machine-id"].into_iter().find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        let id = text.trim();
        (!id.is_empty()).then(|| id.to_owned())
    })
}

/// The address of the first interface by name that is neither loopback nor
/// virtual and whose address was not made up by the system.
fn first_stable_mac(directory: &Path) -> Option<String> {
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(directory).ok()?.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    names.sort();
    names.into_iter().find_map(|path| {
        let name = path.file_name()?.to_str()?;
        if is_virtual(name) {
            return None;
        }
        let mac = std::fs::read_to_string(path.join("address")).ok()?.trim().to_ascii_lowercase();
        is_burned_in(&mac).then_some(mac)
    })
}

fn is_virtual(name: &str) -> bool {
    const PREFIXES: [&str; 17] = [
        "lo",
        "docker",
        "br-",
        "bridge",
        "veth",
        "tap",
        "tun",
        "tailscale",
        "wg",
        "utun",
        "ppp",
        "vboxnet",
        "vmnet",
        "awdl",
        "llw",
        "anpi",
        "virbr",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Neither empty nor all zeros nor locally administered (bit 0x02 of the first
/// byte), as addresses chosen at random are.
fn is_burned_in(mac: &str) -> bool {
    let first = mac.get(..2).and_then(|byte| u8::from_str_radix(byte, 16).ok());
    mac.len() == 17 && mac != "00:00:00:00:00:00" && first.is_some_and(|byte| byte & 0x02 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_physical_interface_counts() {
        let dir = tempfile::tempdir().unwrap();
        for (name, mac) in [
            ("br-1", "00:11:22:33:44:01"),
            ("docker0", "00:11:22:33:44:02"),
            ("eth1", "00:11:22:33:44:55"),
            ("eth0", "02:11:22:33:44:66"),
            ("lo", "00:00:00:00:00:00"),
            ("veth9", "00:11:22:33:44:03"),
        ] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("address"), format!("{mac}\n")).unwrap();
        }
        assert_eq!(first_stable_mac(dir.path()).as_deref(), Some("00:11:22:33:44:55"));
    }

    #[test]
    fn the_hash_is_host_id_then_address() {
        let facts = HostFacts { host_id: Some("abc".to_owned()), mac: Some("00:11:22:33:44:55".to_owned()) };
        let expected = hex::encode(Sha256::digest(b"v2\0abc\x0000:11:22:33:44:55"));
        assert_eq!(facts.fingerprint("unused", UnixMillis(1)).hash, expected);
        assert_eq!(HostFacts::default().fingerprint("fallback", UnixMillis(1)).host_id, "fallback");
    }
}
