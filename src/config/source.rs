//! Where settings come from beside files, so that tests never touch the
//! environment of the process.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// A set of named texts.
pub trait Source {
    /// The value of `name`; `None` when it is not set.
    fn get(&self, name: &str) -> Option<OsString>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnv;

// === impl Source ===

impl Source for ProcessEnv {
    #[expect(clippy::disallowed_methods, reason = "this is the source that the ban points to")]
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }
}

impl Source for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<OsString> {
        BTreeMap::get(self, name).map(OsString::from)
    }
}
