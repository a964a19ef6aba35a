//! What this daemon knows of topics, in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::crypto::topic::TopicKey;
use crate::domain::ids::{MemberId, TopicId};
use crate::domain::topics::Distrust;
use crate::wire::topics::EpochStatement;

/// A topic. What the broker shows of it stands beside what counts here.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) id: TopicId,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) subscribed: bool,
    /// It was seen with keys. Never taken back: plaintext is refused from then on.
    pub(super) encrypted: bool,
    /// Who signed the first epoch.
    pub(super) lead: Option<MemberId>,
    /// The newest epoch that counts here.
    pub(super) head: Option<EpochStatement>,
    /// What the key of each epoch that counts must hash to.
    pub(super) commitments: BTreeMap<u32, [u8; 32]>,
    /// Keys by epoch; one that no commitment fits is not used.
    pub(super) keys: BTreeMap<u32, TopicKey>,
    /// Whom the operator admitted.
    pub(super) admitted: BTreeSet<MemberId>,
    /// Why the next epoch that the broker shows does not count.
    pub(super) distrust: Option<Distrust>,
    /// The newest epoch that the broker shows.
    pub(super) shown_epoch: u32,
    /// How many are in it, as the broker shows it.
    pub(super) member_count: u32,
    /// Who is in it, as the broker shows it.
    pub(super) members: BTreeSet<String>,
    /// Who has the newest key, as the broker shows it.
    pub(super) holders: BTreeSet<String>,
}

/// All topics that this daemon has had to do with.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    topics: BTreeMap<TopicId, Topic>,
    names: HashMap<String, TopicId>,
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
            lead: None,
            head: None,
            commitments: BTreeMap::new(),
            keys: BTreeMap::new(),
            admitted: BTreeSet::new(),
            distrust: None,
            shown_epoch: 0,
            member_count: 0,
            members: BTreeSet::new(),
            holders: BTreeSet::new(),
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

    /// Everybody who may have the newest key.
    pub(super) fn readers(&self) -> BTreeSet<&str> {
        let signed = self.head.iter().flat_map(|head| head.members.iter());
        signed.chain(&self.holders).map(String::as_str).collect()
    }
}

// === impl Table ===

impl Table {
    /// Puts a topic in, or in place of itself.
    pub(super) fn put(&mut self, topic: Topic) {
        self.names.insert(topic.name.clone(), topic.id.clone());
        self.topics.insert(topic.id.clone(), topic);
    }

    /// Takes a topic out that was never made.
    pub(super) fn forget(&mut self, id: &TopicId) {
        self.topics.remove(id);
        self.names.retain(|_, named| named != id);
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

    /// The same, to change it.
    pub(super) fn by_text_mut(&mut self, id: &str) -> Option<&mut Topic> {
        self.topics.get_mut(&TopicId::parse(id).ok()?)
    }

    /// The topic of that name.
    pub(super) fn by_name(&self, name: &str) -> Option<&Topic> {
        self.topics.get(self.names.get(name)?)
    }
}
