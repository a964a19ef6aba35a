//! The files in a broker's directory beside its database.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::runtime::ids::{IdSource, RandomError};
use crate::runtime::private_file::{self, FileError, PRIVATE};
use crate::wire::text;

/// Who holds it may create meshes. Never printed.
pub struct AdminToken(Zeroizing<String>);

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// No random bytes for a new token.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The token file is too short to be a secret.
    #[error(
        "{} holds no usable token (it needs at least 32 characters); remove it, and the next start makes a new one",
        .0.display()
    )]
    ShortToken(PathBuf),
}

// === impl AdminToken ===

impl AdminToken {
    /// Reads `admin_token` in `dir`, or makes it: 32 random bytes, base64url,
    /// mode 0600.
    pub fn load_or_create(dir: &Path, ids: &IdSource) -> Result<Self, Error> {
        let path = dir.join("admin_token");
        if let Some(text) = private_file::read_optional(&path)? {
            let token = Zeroizing::new(text.trim().to_owned());
            if token.len() < 32 {
                return Err(Error::ShortToken(path));
            }
            return Ok(Self(token));
        }
        let token = Zeroizing::new(text::to_base64url(&ids.random::<32>()?));
        private_file::write_atomic(&path, token.as_bytes(), PRIVATE)?;
        Ok(Self(token))
    }

    /// Compares in a time that does not depend on where the texts differ.
    pub fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken([redacted])")
    }
}

/// Where the bound address is written while the broker listens.
pub fn addr_path(dir: &Path) -> PathBuf {
    dir.join("addr")
}

/// Writes the bound address, so that whoever let the system choose the port can
/// find it.
pub fn write_addr(dir: &Path, addr: SocketAddr) -> Result<(), FileError> {
    private_file::write_atomic(&addr_path(dir), addr.to_string().as_bytes(), PRIVATE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::Clock;

    #[test]
    fn a_token_that_could_be_guessed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ids = IdSource::new(Clock::system());
        let path = dir.path().join("admin_token");
        std::fs::write(&path, "x".repeat(31)).unwrap();
        assert!(matches!(AdminToken::load_or_create(dir.path(), &ids), Err(Error::ShortToken(found)) if found == path));
        std::fs::write(&path, "x".repeat(32)).unwrap();
        assert!(AdminToken::load_or_create(dir.path(), &ids).unwrap().is(&"x".repeat(32)));
    }
}
