//! What a command ends with when it does not work: words for people, a code for
//! scripts.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::config::ConfigError;
use crate::domain::error_code::{ErrorCode, exit};
use crate::membership;
use crate::runtime::private_file::FileError;

/// A failed command. Printed as
///
/// ```text
/// error: what happened (code)
///   what to do next
/// ```
///
/// or, with `--json`, as one object with the fields in this order.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    code: Cow<'static, str>,
    #[serde(rename = "message")]
    what: String,
    next: Vec<String>,
    #[serde(rename = "exit_code")]
    exit: u8,
    /// The same command can succeed later.
    retryable: bool,
    /// Facts by stable names, such as `client_message_id`.
    metadata: BTreeMap<String, String>,
    /// Members that a destination may mean.
    candidates: Box<[Candidate]>,
}

/// A member that a destination may mean.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// Its pinned key.
    pub pubkey: String,
    /// Its name.
    pub name: String,
    /// Its id.
    pub member_id: String,
}

// === impl Failure ===

impl Failure {
    /// A failure with the code's name and exit code.
    pub fn new(code: ErrorCode, what: impl Into<String>) -> Self {
        Self {
            code: Cow::Borrowed(code.name()),
            what: what.into(),
            next: Vec::new(),
            exit: code.exit(),
            retryable: code.retryable(),
            metadata: BTreeMap::new(),
            candidates: Box::default(),
        }
    }

    /// A failure whose code only the daemon knows: it may be newer than this
    /// program.
    pub fn foreign(code: &str, what: impl Into<String>) -> Self {
        match ErrorCode::from_name(code) {
            Some(known) => Self::new(known, what),
            None => {
                let code = Cow::Owned(code.to_owned());
                Self { code, exit: exit::OTHER, retryable: false, ..Self::new(ErrorCode::InternalError, what) }
            }
        }
    }

    /// Whoever read the output has gone, as in `claudemesh inbox | head -1`. That
    /// is no failure and nothing is said.
    pub fn output_closed() -> Self {
        Self { code: Cow::Borrowed(""), exit: exit::OK, ..Self::new(ErrorCode::InternalError, "") }
    }

    /// Adds a line about what to do.
    #[must_use]
    pub fn next(mut self, line: impl Into<String>) -> Self {
        self.next.push(line.into());
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(name.to_owned(), value.into());
        self
    }

    /// Adds members that a destination may mean.
    #[must_use]
    pub fn candidates(mut self, candidates: Vec<Candidate>) -> Self {
        self.candidates = candidates.into();
        self
    }

    /// With another exit code than the code's own: that of a child process.
    #[must_use]
    pub fn with_exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// The exit code.
    pub fn exit(&self) -> u8 {
        self.exit
    }

    /// The code's name.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Whether there is nothing to say.
    pub fn is_silent(&self) -> bool {
        self.what.is_empty()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {} ({})", self.what.trim_end(), self.code)?;
        for line in &self.next {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Candidate {
    /// As the daemon writes it: the name and the first 16 digits of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.pubkey.get(..16).unwrap_or(&self.pubkey))
    }
}

impl From<membership::Error> for Failure {
    fn from(error: membership::Error) -> Self {
        Self::new(error.code(), error.to_string()).next(error.next_step())
    }
}

impl From<membership::names::SlugError> for Failure {
    fn from(error: membership::names::SlugError) -> Self {
        membership::Error::from(error).into()
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorCode::ConfigInvalid, error.to_string()).next(error.next_step())
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::new(ErrorCode::StateDirUnusable, error.to_string()).next(error.next_step())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_what_next_and_its_code() {
        let failure = Failure::new(ErrorCode::DaemonNotRunning, "no daemon runs for mesh \"demo\"")
            .next("start it: claudemesh daemon up --mesh demo");
        assert_eq!(
            failure.to_string(),
            "error: no daemon runs for mesh \"demo\" (daemon_not_running)\n  start it: claudemesh daemon up --mesh demo"
        );
        assert_eq!(failure.exit(), 3);
    }

    #[test]
    fn codes_of_a_newer_daemon_are_passed_on() {
        assert_eq!(Failure::foreign("unknown_peer", "x"), Failure::new(ErrorCode::UnknownPeer, "x"));
        let newer = Failure::foreign("made_up_later", "x");
        assert_eq!((newer.code(), newer.exit()), ("made_up_later", exit::OTHER));
    }
}
