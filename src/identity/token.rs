//! `local_token`: the bearer token of the local TCP interface (R14, R112).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::Error;
use crate::runtime::ids::IdSource;
use crate::runtime::private_file;

/// Length of the token in bytes before base64url.
const BYTES: usize = 32;

/// The daemon's bearer token. Cheap to clone.
#[derive(Clone)]
pub struct LocalToken {
    path: PathBuf,
    text: Arc<Zeroizing<String>>,
}

// === impl LocalToken ===

impl LocalToken {
    /// Reads the token, or makes it at the first start: 256 random bits as
    /// base64url without padding, mode 0600.
    pub fn load_or_create(path: &Path, ids: &IdSource) -> Result<Self, Error> {
        let token = |text| Self { path: path.to_owned(), text: Arc::new(Zeroizing::new(text)) };
        if let Some(text) = private_file::read_optional(path)? {
            let text = text.trim().to_owned();
            let is_token = BASE64_URL_SAFE_NO_PAD.decode(&text).is_ok_and(|bytes| bytes.len() == BYTES);
            if is_token {
                return Ok(token(text));
            }
            let detail = "it is not 32 bytes in base64url; remove it and start again for a new one".to_owned();
            return Err(Error::Damaged { path: path.to_owned(), detail });
        }
        let text = BASE64_URL_SAFE_NO_PAD.encode(ids.random::<BYTES>()?);
        private_file::write_atomic(path, text.as_bytes(), private_file::PRIVATE)?;
        Ok(token(text))
    }

    /// Whether a presented token is this one. Takes the same time wherever the
    /// two differ.
    pub fn verify(&self, presented: &str) -> bool {
        self.text.as_bytes().ct_eq(presented.as_bytes()).into()
    }

    /// The file that clients read it from.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for LocalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalToken([redacted] in {})", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::Clock;

    // Covers: R112
    #[test]
    fn a_token_has_256_bits_stays_the_same_and_differs_between_daemons() {
        let dir = tempfile::tempdir().unwrap();
        let ids = IdSource::new(Clock::system());
        let make = |name: &str| LocalToken::load_or_create(&dir.path().join(name), &ids).unwrap();
        let (one, again, two) = (make("one"), make("one"), make("two"));
        let text = std::fs::read_to_string(dir.path().join("one")).unwrap();
        assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(&text).unwrap().len(), 32);
        assert!(one.verify(&text) && again.verify(&text) && !two.verify(&text) && !one.verify(""));
        assert!(!format!("{one:?}").contains(&text));
    }
}
