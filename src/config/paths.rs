//! Where every file lies.

use std::path::{Path, PathBuf};

use super::ConfigError;
use super::source::Source;

/// The user's root directory: `$CLAUDEMESH_HOME`, else `~/.claudemesh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(PathBuf);

/// The state directory of one mesh's daemon (R10 to R25).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir(PathBuf);

// === impl Root ===

impl Root {
    /// Finds the root directory.
    pub fn find(source: &dyn Source) -> Result<Self, ConfigError> {
        if let Some(home) = source.var("CLAUDEMESH_HOME") {
            return Ok(Self(std::path::absolute(&home).unwrap_or_else(|_| PathBuf::from(home))));
        }
        let home = source.var("HOME").ok_or(ConfigError::NoHome)?;
        if !Path::new(&home).is_absolute() {
            // Which directory it means would depend on where each command runs.
            let reason = "the home directory must be an absolute path".to_owned();
            return Err(ConfigError::Variable { name: "HOME".to_owned(), value: home, reason });
        }
        Ok(Self(Path::new(&home).join(".claudemesh")))
    }

    /// A root at a given place.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The joined meshes and their member keys.
    pub fn config_json(&self) -> PathBuf {
        self.0.join("config.json")
    }

    /// The key of a mesh that this user owns.
    pub fn owner_key(&self, mesh_id: &str) -> PathBuf {
        self.0.join("owners").join(format!("{mesh_id}.json"))
    }

    /// Keys of the meshes that this user owns.
    pub fn owners_dir(&self) -> PathBuf {
        self.0.join("owners")
    }

    /// That the owner of a mesh let this user's member in.
    pub fn certificate(&self, mesh_id: &str) -> PathBuf {
        self.path().join("certificates").join(format!("{mesh_id}.json"))
    }

    /// The broker's directory.
    pub fn broker_dir(&self) -> PathBuf {
        self.0.join("broker")
    }

    /// The directory above all state directories.
    pub fn daemons_dir(&self) -> PathBuf {
        self.0.join("daemon")
    }

    /// The state directory of a mesh's daemon.
    pub fn state_dir(&self, slug: &str) -> StateDir {
        StateDir(self.daemons_dir().join(slug))
    }
}

// === impl StateDir ===

macro_rules! files {
    ($($(#[$doc:meta])* $name:ident => $file:literal;)*) => {
        impl StateDir {
            $($(#[$doc])* pub fn $name(&self) -> PathBuf { self.0.join($file) })*
        }
    };
}

files! {
    /// Held by the live daemon.
    lock => "lock";
    /// The live daemon's process id (R11).
    pid => "pid";
    /// The Unix socket (R12).
    sock => "sock";
    /// The loopback port (R13).
    http_port => "http.port";
    /// The bearer token (R14).
    local_token => "local_token";
    /// The member's key pair (R15).
    keypair => "keypair.json";
    /// The key of a rotation under way.
    keypair_next => "keypair.next.json";
    /// Rotated-out keys that still open messages (R24).
    keypair_archive => "keypair-archive.json";
    /// What this member shows of itself.
    profile => "profile.json";
    /// Which features the broker granted last.
    broker_features => "broker_features.json";
    /// Which topics this member is subscribed to (R25).
    topic_subscriptions => "topic_subscriptions.json";
    /// The keys of topics (R25).
    topic_keys => "topic_keys.json";
    /// The newest epoch of each topic's key (R25).
    key_epoch => "key_epoch.json";
    /// What ties the key to this host (R16).
    host_fingerprint => "host_fingerprint.json";
    /// The settings (R17).
    config => "config.toml";
    /// The outbound queue (R18).
    outbox_db => "outbox.db";
    /// The inbound history (R19).
    inbox_db => "inbox.db";
    /// The version of both databases' schema (R20).
    schema_version => "schema_version";
    /// The log (R21).
    log => "daemon.log";
    /// The log before, once that was large.
    older_log => "daemon.log.1";
    /// Hook scripts (R23).
    hooks => "hooks";
    /// The sockets of hook runs.
    run => "run";
    /// The id of this state directory, told to the broker.
    instance => "instance";
    /// Room on the disk that is held back.
    ballast => "ballast";
    /// Why the daemon ended last.
    last_exit => "last_exit.json";
}

impl StateDir {
    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::MapSource;

    #[test]
    fn the_root_follows_its_variable_then_the_home() {
        let root = |pairs: &[(&str, &str)]| {
            Root::find(&MapSource(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()))
        };
        assert_eq!(root(&[("HOME", "/h")]).unwrap().path(), Path::new("/h/.claudemesh"));
        assert!(root(&[("HOME", "h")]).unwrap_err().to_string().contains("HOME=h"));
        assert_eq!(root(&[("HOME", "/h"), ("CLAUDEMESH_HOME", "/x")]).unwrap().path(), Path::new("/x"));
        assert!(root(&[]).is_err());
        assert_eq!(Root::at("/x").state_dir("demo").sock(), Path::new("/x/daemon/demo/sock"));
    }
}
