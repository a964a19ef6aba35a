//! What this daemon knows of topics, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::crypto::topic::TopicKey;
use crate::domain::ids::{MemberId, TopicId};
use crate::domain::topics::Distrust;
use crate::wire::topics::EpochStatement;

/// Epochs whose keys are kept; what was stored needs none.
pub(super) const KEPT_EPOCHS: u32 = 200;

/// A topic: what counts here.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) id: TopicId,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) subscribed: bool,
    /// It was seen with keys. Never taken back: plaintext is refused from then on.
    pub(super) encrypted: bool,
    /// The newest epoch that a trusted member signed.
    pub(super) head: Option<EpochStatement>,
    /// What the key of each epoch up to there must hash to.
    pub(super) commitments: BTreeMap<u32, [u8; 32]>,
    /// Keys by epoch; one that no commitment fits is not used.
    pub(super) keys: BTreeMap<u32, TopicKey>,
    /// Whom the operator admitted.
    pub(super) admitted: BTreeSet<MemberId>,
    /// What the broker shows of it.
    pub(super) shown: Shown,
}

/// What the broker shows of a topic. Kept in memory only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// The newest epoch.
    pub(super) epoch: u32,
    /// The last epoch of the chain that begins at the newest one that counts, and
    /// what the next one has to name as its predecessor.
    pub(super) tip: Option<(u32, String)>,
    /// Why that one does not count, if so.
    pub(super) distrust: Option<Distrust>,
    /// How many are in it.
    pub(super) member_count: u32,
    /// Who is in it.
    pub(super) members: BTreeSet<String>,
    /// Who has the newest key.
    pub(super) holders: BTreeSet<String>,
    /// Who leads it.
    pub(super) lead: Option<String>,
    /// The link over which all of this was read; 0 before the first.
    pub(super) session: u64,
    /// How many members were known to be removed from the mesh before that.
    pub(super) removed: usize,
    /// When this member renewed the key by itself, by the monotonic clock.
    pub(super) renewed_at: Option<Duration>,
}

/// All topics that this daemon has had to do with.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    topics: BTreeMap<TopicId, Topic>,
}

// === impl Topic ===

impl Topic {
    /// A topic of which only the name is known.
    pub(super) fn new(id: TopicId, name: String) -> Self {
        Self {
            id,
            name,
            description: String::new(),
            subscribed: false,
            encrypted: false,
            head: None,
            commitments: BTreeMap::new(),
            keys: BTreeMap::new(),
            admitted: BTreeSet::new(),
            shown: Shown::default(),
        }
    }

    /// The newest epoch that counts; 0 for none.
    pub(super) fn epoch(&self) -> u32 {
        self.head.as_ref().map_or(0, |head| head.epoch)
    }

    /// The key of an epoch that counts.
    pub(super) fn key(&self, epoch: u32) -> Option<&TopicKey> {
        let key = self.keys.get(&epoch)?;
        let commitment = self.commitments.get(&epoch)?;
        (key.commitment(self.id.as_str(), epoch) == *commitment).then_some(key)
    }

    /// Takes over what a trusted member has signed.
    pub(super) fn set_head(&mut self, head: EpochStatement, commitments: BTreeMap<u32, [u8; 32]>) {
        let oldest = head.epoch.saturating_sub(KEPT_EPOCHS);
        self.encrypted = true;
        self.head = Some(head);
        self.commitments.extend(commitments);
        self.commitments.retain(|epoch, _| *epoch > oldest);
        // A key that lost its race is no key of this topic.
        let (id, commitments) = (self.id.clone(), &self.commitments);
        self.keys.retain(|epoch, key| {
            let fits = |commitment: &[u8; 32]| key.commitment(id.as_str(), *epoch) == *commitment;
            *epoch > oldest && commitments.get(epoch).is_none_or(fits)
        });
    }

    /// Everybody who may have the newest key.
    pub(super) fn readers(&self) -> BTreeSet<&str> {
        let signed = self.head.iter().flat_map(|head| head.members.iter());
        signed.chain(&self.shown.holders).map(String::as_str).collect()
    }
}

// === impl Table ===

impl Table {
    /// Puts a topic in, or in place of itself.
    pub(super) fn put(&mut self, topic: Topic) {
        self.topics.insert(topic.id.clone(), topic);
    }

    /// Takes out what was to be made under a name that belongs to this topic.
    pub(super) fn forget_others(&mut self, name: &str, id: &TopicId) {
        self.topics.retain(|other, topic| topic.name != name || other == id || topic.subscribed);
    }

    /// All topics by id.
    pub(super) fn all(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }

    /// The topic with that id.
    pub(super) fn get(&self, id: &TopicId) -> Option<&Topic> {
        self.topics.get(id)
    }

    /// The same, to change it.
    pub(super) fn get_mut(&mut self, id: &TopicId) -> Option<&mut Topic> {
        self.topics.get_mut(id)
    }

    /// The topic with that id as text.
    pub(super) fn by_text(&self, id: &str) -> Option<&Topic> {
        self.topics.get(&TopicId::parse(id).ok()?)
    }

    /// The same, to change it; made if it is not there.
    pub(super) fn entry(&mut self, id: &str, name: &str) -> Option<&mut Topic> {
        let id = TopicId::parse(id).ok()?;
        Some(self.topics.entry(id.clone()).or_insert_with(|| Topic::new(id, name.to_owned())))
    }

    /// The topic of that name; of several the one that is subscribed to.
    pub(super) fn by_name(&self, name: &str) -> Option<&Topic> {
        let of_name = || self.topics.values().filter(|topic| topic.name == name);
        of_name().find(|topic| topic.subscribed).or_else(|| of_name().next())
    }
}
