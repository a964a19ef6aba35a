//! The three files of topic state (R25).
//!
//! Keys are on disk before anything that names them, so a crash in between leaves
//! a key too many and never one too few. Each file names its topics in full, so one
//! that is lost takes nothing of the others with it; one that cannot be read is set
//! aside. The broker has a sealed copy of each newer key, the statements, and knows
//! who is subscribed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::Error;
use super::table::Table;
use crate::config::paths::StateDir;
use crate::crypto::topic::TopicKey;
use crate::domain::ids::MemberId;
use crate::domain::time::UnixMillis;
use crate::runtime::private_file::{self, FileError, PRIVATE};
use crate::wire::topics::EpochStatement;

/// The version of all three files.
const VERSION: u32 = 1;

/// Where the topic state lies.
#[derive(Clone, Debug)]
pub(super) struct Files {
    subscriptions: PathBuf,
    keys: PathBuf,
    epochs: PathBuf,
}

/// Any of the files.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File<T> {
    version: u32,
    /// What was subscribed to is not known in full; the broker has to be asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    incomplete: bool,
    #[serde(default = "Vec::new")]
    topics: Vec<T>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscription {
    topic_id: String,
    name: String,
    #[serde(default)]
    description: String,
    subscribed: bool,
    encrypted: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    topic_id: String,
    name: String,
    /// Epoch to 64 hex digits.
    keys: BTreeMap<u32, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Epochs {
    topic_id: String,
    name: String,
    /// The newest that counts here; 0 for none.
    epoch: u32,
    statement: Option<EpochStatement>,
    /// Epoch to what its key must hash to.
    commitments: BTreeMap<u32, String>,
    admitted: Vec<String>,
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.keys.values_mut().for_each(Zeroize::zeroize);
    }
}

// === impl Files ===

impl Files {
    /// Those of a state directory.
    pub(super) fn of(state: &StateDir) -> Self {
        Self { subscriptions: state.topic_subscriptions(), keys: state.topic_keys(), epochs: state.key_epoch() }
    }

    /// Reads all of them. Says also whether it is not known any more to which topics
    /// this member is subscribed.
    pub(super) fn load(&self, now: UnixMillis) -> Result<(Table, bool), FileError> {
        let mut table = Table::default();
        let (subscriptions, mut lost) = read::<Subscription>(&self.subscriptions, now)?;
        let is_first = !self.subscriptions.exists();
        for one in subscriptions {
            if let Some(topic) = table.entry(&one.topic_id, &one.name) {
                topic.description = one.description;
                topic.subscribed = one.subscribed;
                topic.encrypted = one.encrypted;
            }
        }
        for one in read::<Keys>(&self.keys, now)?.0 {
            let Some(topic) = table.entry(&one.topic_id, &one.name) else { continue };
            topic.encrypted = true;
            for (epoch, hex) in &one.keys {
                let mut bytes = Zeroizing::new([0; 32]);
                if hex::decode_to_slice(hex, bytes.as_mut_slice()).is_ok() {
                    topic.keys.insert(*epoch, TopicKey::from_bytes(*bytes));
                }
            }
        }
        for one in read::<Epochs>(&self.epochs, now)?.0 {
            let Some(topic) = table.entry(&one.topic_id, &one.name) else { continue };
            topic.encrypted = true;
            topic.head = one.statement;
            topic.admitted = one.admitted.into_iter().filter_map(|id| MemberId::parse(id).ok()).collect();
            topic.commitments = one
                .commitments
                .into_iter()
                .filter_map(|(epoch, hex)| Some((epoch, hex::decode(hex).ok()?.try_into().ok()?)))
                .collect();
        }
        // Somebody removed the list, or a crash came between it and the other files.
        lost |= is_first && table.all().next().is_some();
        Ok((table, lost))
    }

    /// Writes everything, and calls `then`. Away from the daemon's only thread, since
    /// each file is synced; and to its end, also when the caller goes away.
    pub(super) async fn save_all(
        &self,
        table: Table,
        incomplete: bool,
        then: impl FnOnce(Table) + Send + 'static,
    ) -> Result<(), Error> {
        let files = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            files.save_keys(&table)?;
            files.save(&table, incomplete)?;
            then(table);
            Ok::<_, FileError>(())
        });
        // Only a runtime that ends leaves it undone.
        Ok(written.await.map_err(|_| Error::Busy)??)
    }

    /// Writes the keys. First of all.
    fn save_keys(&self, table: &Table) -> Result<(), FileError> {
        let topics = table.all().filter(|topic| !topic.keys.is_empty()).map(|topic| {
            let keys = topic.keys.iter().map(|(epoch, key)| (*epoch, hex::encode(key.as_bytes()))).collect();
            Keys { topic_id: topic.id.to_string(), name: topic.name.clone(), keys }
        });
        write(&self.keys, topics, false)
    }

    /// Writes the rest, and whether subscriptions may be missing.
    pub(super) fn save(&self, table: &Table, incomplete: bool) -> Result<(), FileError> {
        let subscriptions = table.all().map(|topic| Subscription {
            topic_id: topic.id.to_string(),
            name: topic.name.clone(),
            description: topic.description.clone(),
            subscribed: topic.subscribed,
            encrypted: topic.encrypted,
        });
        write(&self.subscriptions, subscriptions, incomplete)?;
        let epochs = table.all().filter(|topic| topic.encrypted).map(|topic| Epochs {
            topic_id: topic.id.to_string(),
            name: topic.name.clone(),
            epoch: topic.epoch(),
            statement: topic.head.clone(),
            commitments: topic.commitments.iter().map(|(epoch, hash)| (*epoch, hex::encode(hash))).collect(),
            admitted: topic.admitted.iter().map(MemberId::to_string).collect(),
        });
        write(&self.epochs, epochs, false)
    }
}

/// What a file says, and whether it says all: not if it was set aside.
fn read<T: DeserializeOwned>(path: &Path, now: UnixMillis) -> Result<(Vec<T>, bool), FileError> {
    let Some(text) = private_file::read_optional(path)?.map(Zeroizing::new) else { return Ok((Vec::new(), false)) };
    match serde_json::from_str::<File<T>>(&text) {
        Ok(file) if file.version == VERSION => Ok((file.topics, file.incomplete)),
        other => {
            // Where and what, without the content: one of the files holds secrets.
            let detail = match other {
                Ok(file) => format!("its version is {}, this program knows {VERSION}", file.version),
                Err(error) => {
                    format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column())
                }
            };
            let mut aside = path.as_os_str().to_owned();
            aside.push(format!(".malformed-{}", now.0));
            private_file::rename(path, &PathBuf::from(&aside))?;
            tracing::error!(
                path = %path.display(),
                kept = %PathBuf::from(aside).display(),
                detail,
                "topic_state_malformed: the file was set aside; what it held is read from the broker again"
            );
            Ok((Vec::new(), true))
        }
    }
}

fn write<T: Serialize>(path: &Path, topics: impl Iterator<Item = T>, incomplete: bool) -> Result<(), FileError> {
    let file = File { version: VERSION, incomplete, topics: topics.collect() };
    let json = serde_json::to_vec_pretty(&file).map(Zeroizing::new).map_err(|error| FileError {
        action: "write",
        path: path.to_owned(),
        source: error.into(),
    })?;
    private_file::write_atomic(path, &json, PRIVATE)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::domain::ids::TopicId;
    use crate::topics::table::Topic;

    // Covers: R25
    #[test]
    fn what_was_written_is_read_and_damage_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files {
            subscriptions: dir.path().join("s.json"),
            keys: dir.path().join("k.json"),
            epochs: dir.path().join("e.json"),
        };
        let now = UnixMillis(7);
        let (table, lost) = files.load(now).unwrap();
        assert!(!lost && table.all().count() == 0);
        let mut topic = Topic::new(TopicId::parse("T1").unwrap(), "ops".to_owned());
        let key = TopicKey::from_bytes([8; 32]);
        topic.subscribed = true;
        let statement = EpochStatement { topic_id: "T1".to_owned(), epoch: 1, ..EpochStatement::default() };
        topic.set_head(statement, [(1, key.commitment("T1", 1))].into());
        topic.admitted.insert(MemberId::parse("B").unwrap());
        topic.keys.insert(1, key);
        let mut table = Table::default();
        table.put(topic);
        files.save_keys(&table).unwrap();
        files.save(&table, false).unwrap();
        for path in [&files.subscriptions, &files.keys, &files.epochs] {
            assert_eq!(private_file::exposed(path).unwrap(), None, "{}", path.display());
        }
        let (read, _) = files.load(now).unwrap();
        let topic = read.by_name("ops").unwrap();
        assert!(topic.subscribed && topic.encrypted);
        assert_eq!((topic.epoch(), topic.key(1).map(|key| *key.as_bytes())), (1, Some([8; 32])));
        assert_eq!(topic.admitted.len(), 1);

        std::fs::write(&files.keys, "{").unwrap();
        let (read, lost) = files.load(now).unwrap();
        assert!(!lost && read.by_name("ops").unwrap().keys.is_empty());
        assert!(dir.path().join("k.json.malformed-7").exists() && !files.keys.exists());

        // Without the list of subscriptions a topic keeps its keys, and is still
        // known to be encrypted.
        files.save_keys(&table).unwrap();
        std::fs::write(&files.subscriptions, "[]").unwrap();
        let (read, lost) = files.load(now).unwrap();
        let topic = read.by_name("ops").unwrap();
        assert!(lost && topic.encrypted && topic.key(1).is_some() && !topic.subscribed);
        // A restart before the broker was asked does not forget that.
        let (read, lost) = files.load(now).unwrap();
        assert!(lost);
        files.save(&read, true).unwrap();
        assert!(files.load(now).unwrap().1);
        files.save(&read, false).unwrap();
        assert!(!files.load(now).unwrap().1);
    }

    #[tokio::test]
    async fn files_are_written_away_from_this_thread_and_to_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files {
            subscriptions: dir.path().join("s.json"),
            keys: dir.path().join("k.json"),
            epochs: dir.path().join("e.json"),
        };
        let mut table = Table::default();
        table.put(Topic::new(TopicId::parse("T1").unwrap(), "ops".to_owned()));
        let (done, written) = tokio::sync::oneshot::channel();
        let here = std::thread::current().id();
        let then = move |_| done.send(std::thread::current().id()).unwrap();
        // Its caller goes away at once.
        assert!(files.save_all(table, false, then).now_or_never().is_none());
        assert_ne!(written.await.unwrap(), here);
        assert!(files.load(UnixMillis(7)).unwrap().0.by_name("ops").is_some());
    }
}
