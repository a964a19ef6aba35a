//! `hooks.toml`: one section for each hook, and what it may do (R216 to R228).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use super::source;
use crate::domain::capability::Scope;
use crate::domain::hook_policy::HookKind;
use crate::domain::redact::{MAX_PATHS, Redactions};

/// The file's name in the hooks directory.
pub const FILE: &str = "hooks.toml";
/// Most sections.
const MAX_HOOKS: usize = 256;
/// Most entries of a list of one section.
const MAX_ENTRIES: usize = 32;

/// What a hook may do on the network (R223).
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum NetworkPolicy {
    /// Nothing. The default.
    #[default]
    Deny,
    /// Everything.
    Allow,
    /// Only the hosts of `network_allowlist`.
    Allowlist,
}

/// What a hook may do in the file system (R225).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum FsPolicy {
    /// Read what its user may read.
    Readonly,
    /// What its user may.
    Rw,
    /// Only what the sandbox shows.
    Sandbox,
}

/// The sandbox of a hook (R228).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Sandbox {
    /// `bwrap`, on Linux.
    Bubblewrap,
    /// `sandbox-exec`, on macOS.
    SandboxExec,
}

/// A section as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    enabled: bool,
    timeout_s: Option<u32>,
    output_size_limit: u32,
    redact_payload: Vec<String>,
    allow_reply: bool,
    accept_auto: bool,
    capability_token_scope: Vec<String>,
    network_policy: NetworkPolicy,
    network_allowlist: Vec<String>,
    fs_policy: Option<FsPolicy>,
    killpg_on_timeout: bool,
    audit: bool,
    sandbox: Option<Sandbox>,
    pass_home: bool,
    user_cli: bool,
}

/// What a hook may do, checked.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What it runs for.
    pub kind: HookKind,
    /// It runs (R217).
    pub enabled: bool,
    /// How long a run may take (R218).
    pub timeout: Duration,
    /// Bytes of each output that are kept (R219).
    pub output_size_limit: usize,
    /// What is removed from its input, as written.
    pub redact_payload: Vec<String>,
    /// The same, read.
    pub redactions: Redactions,
    /// A reply on its standard output is queued (R221).
    pub allow_reply: bool,
    /// It also runs for messages that a hook sent.
    pub accept_auto: bool,
    /// Scopes of its token (R222).
    pub scopes: Vec<Scope>,
    /// What it may do on the network.
    pub network_policy: NetworkPolicy,
    /// Hosts that it may reach under `allowlist` (R224).
    pub network_allowlist: Vec<String>,
    /// What it may do in the file system.
    pub fs_policy: FsPolicy,
    /// Signals go to its whole process group (R226).
    pub killpg_on_timeout: bool,
    /// Its runs leave audit records (R227).
    pub audit: bool,
    /// Its sandbox.
    pub sandbox: Option<Sandbox>,
    /// It gets HOME.
    pub pass_home: bool,
    /// It gets HOME and the main socket.
    pub user_cli: bool,
}

/// All sections, by the name of their hook.
pub type Policies = BTreeMap<String, Policy>;

// === impl Section ===

impl Default for Section {
    fn default() -> Self {
        Self {
            enabled: true,
            timeout_s: None,
            output_size_limit: 65_536,
            redact_payload: Vec::new(),
            allow_reply: false,
            accept_auto: false,
            capability_token_scope: Vec::new(),
            network_policy: NetworkPolicy::Deny,
            network_allowlist: Vec::new(),
            fs_policy: None,
            killpg_on_timeout: true,
            audit: true,
            sandbox: None,
            pass_home: false,
            user_cli: false,
        }
    }
}

impl Section {
    /// Checks the section; what is wrong is told with its key.
    fn check(self, name: &str, default_timeout_s: u32) -> Result<Policy, String> {
        let kind = HookKind::parse(name).map_err(|error| error.to_string())?;
        let timeout_s = self.timeout_s.unwrap_or(default_timeout_s);
        if !(1..=3600).contains(&timeout_s) {
            return Err(format!("timeout_s = {timeout_s}: it must be from 1 to 3600"));
        }
        if !(1..=16 << 20).contains(&self.output_size_limit) {
            return Err(format!("output_size_limit = {}: it must be from 1 to 16777216", self.output_size_limit));
        }
        let lists = [
            ("redact_payload", self.redact_payload.len(), MAX_PATHS),
            ("capability_token_scope", self.capability_token_scope.len(), MAX_ENTRIES),
            ("network_allowlist", self.network_allowlist.len(), MAX_ENTRIES),
        ];
        if let Some((key, found, most)) = lists.into_iter().find(|(_, found, most)| found > most) {
            return Err(format!("{key} has {found} entries, the limit is {most}"));
        }
        let redactions = Redactions::parse(&self.redact_payload).map_err(|error| format!("redact_payload: {error}"))?;
        let scopes: Result<Vec<Scope>, _> = self.capability_token_scope.iter().map(|text| Scope::parse(text)).collect();
        let scopes = scopes.map_err(|error| format!("capability_token_scope: {error}"))?;
        if !scopes.is_empty() && !kind.is_for_messages() {
            return Err(
                "capability_token_scope: this hook runs for no message, so there is nobody to write to".to_owned()
            );
        }
        if !scopes.is_empty() && self.user_cli {
            return Err(
                "capability_token_scope: user_cli gives the main socket, which asks for no token; take one of them out"
                    .to_owned(),
            );
        }
        if self.user_cli && kind == HookKind::PreSend {
            return Err("user_cli: a send that this hook makes would ask the hook itself; take it out".to_owned());
        }
        let fs_policy = self.fs_policy()?;
        Ok(Policy {
            kind,
            enabled: self.enabled,
            timeout: Duration::from_secs(timeout_s.into()),
            output_size_limit: usize::try_from(self.output_size_limit).unwrap_or(usize::MAX),
            redact_payload: self.redact_payload,
            redactions,
            allow_reply: self.allow_reply,
            accept_auto: self.accept_auto,
            scopes,
            network_policy: self.network_policy,
            network_allowlist: self.network_allowlist,
            fs_policy,
            killpg_on_timeout: self.killpg_on_timeout,
            audit: self.audit,
            sandbox: self.sandbox,
            pass_home: self.pass_home,
            user_cli: self.user_cli,
        })
    }

    /// What it may do in the file system, with its sandbox.
    fn fs_policy(&self) -> Result<FsPolicy, String> {
        let (here, elsewhere) = if cfg!(target_os = "macos") {
            (Sandbox::SandboxExec, "bubblewrap is for Linux; use \"sandbox-exec\"")
        } else {
            (Sandbox::Bubblewrap, "sandbox-exec is for macOS; use \"bubblewrap\"")
        };
        match (self.sandbox, self.fs_policy) {
            (Some(sandbox), _) if sandbox != here => Err(format!("sandbox: {elsewhere}")),
            (Some(_), Some(FsPolicy::Rw)) => {
                Err("fs_policy: the sandbox's file system is read-only; take it out".to_owned())
            }
            (Some(_), _) if self.user_cli => {
                Err("user_cli: the sandbox hides the main socket; take one of them out".to_owned())
            }
            (None, Some(FsPolicy::Sandbox)) => Err("fs_policy: `sandbox` needs the key `sandbox`".to_owned()),
            (Some(_), policy) => Ok(policy.unwrap_or(FsPolicy::Readonly)),
            (None, policy) => Ok(policy.unwrap_or(FsPolicy::Rw)),
        }
    }
}

/// Reads the file of a hooks directory; `None` when there is none (R210).
pub fn load(directory: &Path, default_timeout_s: u32) -> Result<Option<Policies>, ConfigError> {
    let path = directory.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ConfigError::Unreadable { path, source }),
    };
    let sections: BTreeMap<String, Section> = toml::from_str(&text).map_err(|error| {
        let line = error.span().map(|span| source::line_at(&text, span.start));
        let detail = source::with_guess(&text, &error);
        let section = line.and_then(|line| source::section_of(&text, line));
        let detail = section.map_or_else(|| detail.clone(), |section| format!("[{section}]: {detail}"));
        ConfigError::Malformed { path: path.clone(), line, detail }
    })?;
    let wrong = |name: &str, detail: String| ConfigError::Malformed {
        path: path.clone(),
        line: source::line_of_section(&text, name),
        detail: format!("[{name}]: {detail}"),
    };
    if sections.len() > MAX_HOOKS {
        let detail = format!("it has {} sections, the limit is {MAX_HOOKS}", sections.len());
        return Err(ConfigError::Malformed { path, line: None, detail });
    }
    let mut policies = Policies::new();
    for (name, section) in sections {
        let policy = section.check(&name, default_timeout_s).map_err(|detail| wrong(&name, detail))?;
        policies.insert(name, policy);
    }
    Ok(Some(policies))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Policies>, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        load(dir.path(), 7)
    }

    // Covers: R216, R218, R219, R222, R226-R228
    #[test]
    fn each_section_has_its_own_policy_and_the_defaults() {
        let text = "[on-dm]\ntimeout_s = 2\nallow_reply = true\ncapability_token_scope = [\"reply:event\"]\n[on-topic-ops]\nenabled = false\n";
        let policies = read(text).unwrap().unwrap();
        let (dm, topic) = (&policies["on-dm"], &policies["on-topic-ops"]);
        assert_eq!((dm.timeout.as_secs(), dm.allow_reply, dm.scopes.len(), dm.enabled), (2, true, 1, true));
        assert_eq!(
            (topic.timeout.as_secs(), topic.allow_reply, topic.scopes.len(), topic.enabled),
            (7, false, 0, false)
        );
        assert_eq!((topic.output_size_limit, topic.killpg_on_timeout, topic.audit), (65_536, true, true));
        assert_eq!((topic.network_policy, topic.fs_policy, topic.sandbox), (NetworkPolicy::Deny, FsPolicy::Rw, None));
        assert!(load(Path::new("/nowhere"), 7).unwrap().is_none());
    }

    #[test]
    fn more_sections_than_hooks_may_be_are_refused() {
        let sections = |count| (0..count).map(|number| format!("[on-topic-t{number}]\n")).collect::<String>();
        assert_eq!(read(&sections(MAX_HOOKS)).unwrap().unwrap().len(), MAX_HOOKS);
        let refused = read(&sections(MAX_HOOKS + 1)).unwrap_err().to_string();
        assert!(refused.contains(&MAX_HOOKS.to_string()), "{refused}");
    }

    // Covers: R241
    #[test]
    fn what_is_wrong_is_named_with_file_section_and_key() {
        for (text, section, word) in [
            ("[on-dm]\ntimeout = 3", "[on-dm]", "timeout_s"),
            ("[on-dm]\nenabled = 1\n", "[on-dm]", "enabled"),
            ("[on-dm]\n[on-mesage]\n", "[on-mesage]", "on-message"),
            ("[on-dm]\ntimeout_s = 0", "[on-dm]", "timeout_s"),
            ("[on-dm]\noutput_size_limit = 0", "[on-dm]", "output_size_limit"),
            ("[on-dm]\nredact_payload = [\"nope\"]", "[on-dm]", "redact_payload"),
            ("[on-dm]\ncapability_token_scope = [\"state:read\"]", "[on-dm]", "state:read"),
            ("[pre-send]\ncapability_token_scope = [\"reply:event\"]", "[pre-send]", "capability_token_scope"),
            ("[on-dm]\nuser_cli = true\ncapability_token_scope = [\"reply:event\"]", "[on-dm]", "user_cli"),
            ("[pre-send]\nuser_cli = true", "[pre-send]", "user_cli"),
            ("[on-dm]\nnetwork_policy = \"alow\"", "[on-dm]", "allow"),
            ("[on-dm]\nfs_policy = \"sandbox\"", "[on-dm]", "sandbox"),
            ("[on-dm]\nsandbox = \"bubblewrap\"\nfs_policy = \"rw\"", "[on-dm]", "fs_policy"),
            ("[on-dm]\nsandbox = \"sandbox-exec\"", "[on-dm]", "macOS"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(FILE) && error.contains(section) && error.contains(word), "{text}: {error}");
        }
    }
}
