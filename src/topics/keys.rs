//! Keeping up with one topic: its epochs, this member's keys, and the keys of
//! others.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::chain::Chain;
use super::table::Topic;
use super::{Error, Handle};
use crate::crypto::direct::NONCE_BYTES;
use crate::crypto::keys::BoxPublic;
use crate::crypto::sign;
use crate::crypto::topic::TopicKey;
use crate::domain::ids::{MemberKey, TopicId};
use crate::domain::roster::PinnedMember;
use crate::wire::frame::{ClientFrame, ServerFrame};
use crate::wire::text;
use crate::wire::topics::{
    EpochStatement, MAX_SEALED_KEYS, OwnSealedKey, SealedKey, TopicEpochNew, TopicKeyGet, TopicKeyPut, TopicKeys,
};

/// How long the broker may take.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// Pages of statements of one topic that are read at most.
const MAX_PAGES: usize = 1_000;
/// Between two renewals that nobody asked for, whatever the broker shows.
const RENEWAL_PAUSE: Duration = Duration::from_secs(30);

// === impl Handle ===

impl Handle {
    /// Reads what the broker has of a topic, and does what this member owes to the
    /// others: keys for who waits, and a new key when somebody has gone.
    pub(super) async fn sync(&self, id: &TopicId) -> Result<(), Error> {
        let Some(session) = self.0.deps.link.session() else { return Err(Error::NoLink) };
        self.know_roster(session.number).await?;
        let mesh = self.0.deps.identity.mesh_id().as_str();
        let Some(mut topic) = self.read().get(id).cloned() else { return Ok(()) };
        let before = (topic.epoch(), topic.keys.len());
        let removed = self.removed();
        let mut chain = Chain::of(&topic, mesh);
        let mut shown = TopicKeys::default();
        for _ in 0..MAX_PAGES {
            // Who knows nothing of it needs no key of before.
            let after = if topic.head.is_none() && chain.epoch() == 0 {
                topic.shown.epoch.saturating_sub(1)
            } else {
                chain.epoch()
            };
            shown = self.ask(id, after, None).await?;
            let mut followed = false;
            for statement in std::mem::take(&mut shown.epochs) {
                topic.shown.epoch = topic.shown.epoch.max(statement.epoch);
                followed = self.follow(&mut topic, &mut chain, statement).is_ok();
                if !followed {
                    break;
                }
            }
            if !shown.more || !followed {
                break;
            }
        }
        chain.end(&mut topic);
        if let Some(distrust) = topic.shown.distrust {
            tracing::warn!(topic = topic.name, reason = %distrust, "An epoch of a topic's key does not count here");
        }
        topic.shown.members = shown.members.into_iter().collect();
        topic.shown.holders = shown.holders.into_iter().collect();
        topic.shown.member_count = u32::try_from(topic.shown.members.len()).unwrap_or(u32::MAX);
        topic.shown.lead = shown.lead;
        topic.shown.session = session.number;
        topic.shown.removed = removed;
        let mut broken = Vec::new();
        for copy in shown.keys {
            match self.open_copy(&topic, &copy) {
                Some(Ok(key)) => {
                    topic.keys.insert(copy.epoch, key);
                }
                Some(Err(())) => broken.push(copy.epoch),
                None => {}
            }
        }
        if (topic.epoch(), topic.keys.len()) == before {
            self.note(topic);
        } else {
            self.change(|table| table.put(topic)).await?;
        }
        for epoch in broken {
            let text = "The copy of a topic's key does not hold it; another one is asked for";
            tracing::warn!(topic_id = id.as_str(), epoch, "{text}");
            self.ask(id, u32::MAX, Some(epoch)).await?;
        }
        self.give_keys(id).await?;
        self.renew_if_spent(id).await
    }

    /// Who was removed while there was no link has to be known before anything is
    /// sealed over this one.
    async fn know_roster(&self, session: u64) -> Result<(), Error> {
        if self.0.roster_of.load(Ordering::Acquire) == session {
            return Ok(());
        }
        if !self.0.deps.peers.refresh().await {
            return Err(Error::NoLink);
        }
        self.0.roster_of.store(session, Ordering::Release);
        Ok(())
    }

    async fn ask(&self, id: &TopicId, after_epoch: u32, broken: Option<u32>) -> Result<TopicKeys, Error> {
        let name = self.read().get(id).map(|topic| topic.name.clone()).unwrap_or_default();
        let get = |req_id| {
            let get = TopicKeyGet { topic_id: id.to_string(), after_epoch, broken, req_id: Some(req_id) };
            ClientFrame::TopicKeyGet(get)
        };
        match self.request(&name, get).await? {
            ServerFrame::TopicKeys(keys) if keys.topic_id == id.as_str() => Ok(keys),
            _ => Err(Error::unexpected()),
        }
    }

    /// This member's copy of a key; `None` when it is not needed, `Err` when it
    /// does not hold the key of its epoch.
    fn open_copy(&self, topic: &Topic, copy: &OwnSealedKey) -> Option<Result<TopicKey, ()>> {
        if topic.key(copy.epoch).is_some() || !topic.commitments.contains_key(&copy.epoch) {
            return None;
        }
        let sealed = text::from_base64(&copy.sealed).unwrap_or_default();
        let nonce = text::nonce_from_base64(&copy.nonce).unwrap_or_default();
        let fits =
            |key: &TopicKey| topic.commitments.get(&copy.epoch) == Some(&key.commitment(topic.id.as_str(), copy.epoch));
        let own = self.0.deps.identity.opening_keys();
        let opened = own.iter().find_map(|own| own.open_topic_key(&sealed, &nonce).ok().filter(fits));
        Some(opened.ok_or(()))
    }

    /// Seals the newest key for members who wait for it and may have it.
    async fn give_keys(&self, id: &TopicId) -> Result<(), Error> {
        let Some(topic) = self.read().get(id).cloned() else { return Ok(()) };
        let epoch = topic.epoch();
        let Some(key) = topic.key(epoch).cloned() else { return Ok(()) };
        let own = self.0.deps.identity.member_id().as_str();
        if topic.shown.epoch > epoch || !topic.shown.holders.contains(own) {
            return Ok(());
        }
        let mut waiting = self.admissible(&topic);
        waiting.retain(|member| !topic.shown.holders.contains(member.member_id.as_str()));
        for chunk in waiting.chunks(MAX_SEALED_KEYS) {
            self.put_keys(&topic, epoch, self.seal_for(&key, chunk)).await?;
            tracing::info!(topic = topic.name, epoch, members = chunk.len(), "A topic's key was given to members");
        }
        Ok(())
    }

    /// Hands sealed copies over, and notes who has one now.
    pub(super) async fn put_keys(&self, topic: &Topic, epoch: u32, keys: Vec<SealedKey>) -> Result<(), Error> {
        let given: Vec<String> = keys.iter().map(|key| key.member_id.clone()).collect();
        let put = |req_id| {
            let put = TopicKeyPut { topic_id: topic.id.to_string(), epoch, keys, req_id: Some(req_id) };
            ClientFrame::TopicKeyPut(put)
        };
        self.request(&topic.name, put).await?;
        let known = self.read().get(&topic.id).cloned();
        if let Some(mut topic) = known.filter(|topic| topic.epoch() == epoch) {
            topic.shown.holders.extend(given);
            self.note(topic);
        }
        Ok(())
    }

    /// Renews the key where that is due and this member's to do.
    async fn renew_if_spent(&self, id: &TopicId) -> Result<(), Error> {
        let Some(topic) = self.read().get(id).cloned() else { return Ok(()) };
        let now = self.0.deps.clock.monotonic();
        let lately = topic.shown.renewed_at.is_some_and(|at| now.saturating_sub(at) < RENEWAL_PAUSE);
        let has_key = topic.key(topic.epoch()).is_some();
        // Who never had the key waits for it while somebody is there to give it.
        let due = if has_key { self.is_spent(&topic) } else { self.is_orphaned(&topic) };
        if lately || !due || !self.may_renew(&topic) {
            return Ok(());
        }
        let mut noted = topic;
        noted.shown.renewed_at = Some(now);
        self.note(noted);
        match Box::pin(self.renew(id)).await {
            // Another one may be faster; its epoch comes with the next look.
            Ok(_) | Err(Error::TooSoon { .. } | Error::Raced(_) | Error::NotAllowed(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Begins a new epoch. Its number, and for how many the key was sealed.
    pub(super) async fn renew(&self, id: &TopicId) -> Result<(u32, u32), Error> {
        let topic = self.read().get(id).cloned().ok_or_else(|| Error::NotFound(id.to_string()))?;
        let others = self.admissible(&topic);
        let key = self.new_key()?;
        let (last, predecessor) = topic.shown.tip.clone().ok_or_else(|| Error::NotFound(id.to_string()))?;
        let epoch = last.checked_add(1).ok_or_else(Error::unexpected)?;
        let members = others.iter().map(|member| member.member_id.to_string());
        let statement = self.statement(&topic, epoch, Some(predecessor), &key, members)?;
        // On disk before anybody hears of it.
        self.change(|table| {
            if let Some(topic) = table.get_mut(id) {
                topic.keys.insert(epoch, key.clone());
            }
        })
        .await?;
        let mut keys = vec![self.seal_own(&key)?];
        keys.extend(self.seal_for(&key, others.get(..MAX_SEALED_KEYS - 1).unwrap_or(&others)));
        let holders: BTreeSet<String> = keys.iter().map(|key| key.member_id.clone()).collect();
        let sent = statement.clone();
        let new = |req_id| {
            ClientFrame::TopicEpochNew(Box::new(TopicEpochNew { statement: sent, keys, req_id: Some(req_id) }))
        };
        let answer = match self.request(&topic.name, new).await? {
            ServerFrame::TopicEpoch(answer) => answer,
            _ => return Err(Error::unexpected()),
        };
        if !answer.accepted {
            // The winner's epoch is adopted in place of this one.
            return Err(Error::Raced(format!("#{}", topic.name)));
        }
        let sealed_for = u32::try_from(holders.len()).unwrap_or(u32::MAX);
        tracing::info!(topic = topic.name, epoch, members = sealed_for, "A topic has a new key");
        let mut chain = Chain::of(&topic, self.0.deps.identity.mesh_id().as_str());
        let commitment = key.commitment(id.as_str(), epoch);
        self.change(|table| {
            if let Some(topic) = table.get_mut(id) {
                if chain.epoch().checked_add(1) == Some(epoch) {
                    // The usual case: it follows the newest that counts.
                    let _ = self.follow(topic, &mut chain, statement);
                    chain.end(topic);
                } else {
                    topic.shown.epoch = topic.shown.epoch.max(epoch);
                    topic.set_head(statement, [(epoch, commitment)].into());
                    topic.shown.distrust = None;
                }
                topic.shown.holders = holders;
            }
        })
        .await?;
        Ok((epoch, sealed_for))
    }

    /// 32 random bytes.
    pub(super) fn new_key(&self) -> Result<TopicKey, Error> {
        let random = self.0.deps.ids.random().map_err(|error| Error::Crypto(error.to_string()))?;
        Ok(TopicKey::from_bytes(random))
    }

    /// The signed beginning of an epoch.
    pub(super) fn statement(
        &self,
        topic: &Topic,
        epoch: u32,
        predecessor: Option<String>,
        key: &TopicKey,
        members: impl Iterator<Item = String>,
    ) -> Result<EpochStatement, Error> {
        let deps = &self.0.deps;
        let (mesh, own) = (deps.identity.mesh_id().as_str(), deps.identity.current());
        let mut members: BTreeSet<String> = members.collect();
        members.insert(deps.identity.member_id().to_string());
        let mut statement = EpochStatement {
            topic_id: topic.id.to_string(),
            name: topic.name.clone(),
            epoch,
            predecessor,
            commitment: hex::encode(key.commitment(topic.id.as_str(), epoch)),
            members: members.into_iter().collect(),
            signer: deps.identity.member_id().to_string(),
            signer_key: own.public().to_hex(),
            ts: deps.clock.now().0,
            signature: String::new(),
        };
        let text = statement.signed_text(mesh).ok_or_else(|| Error::Crypto("the statement has no text".to_owned()))?;
        statement.signature = hex::encode(sign::sign(own.secret(), text.as_bytes()));
        Ok(statement)
    }

    /// This member's own copy of a key, for its own key and no other that is shown
    /// for it.
    pub(super) fn seal_own(&self, key: &TopicKey) -> Result<SealedKey, Error> {
        let identity = &self.0.deps.identity;
        self.seal(key, identity.member_id().as_str(), identity.key()).map_err(Error::Crypto)
    }

    /// A copy of a key for each of these members.
    pub(super) fn seal_for(&self, key: &TopicKey, members: &[PinnedMember]) -> Vec<SealedKey> {
        let keep = |member: &PinnedMember| match self.seal(key, member.member_id.as_str(), member.key) {
            Ok(copy) => Some(copy),
            // It goes on waiting; the others do not wait for it.
            Err(error) => {
                tracing::warn!(member = member.member_id.as_str(), error, "A topic's key could not be sealed: {error}");
                None
            }
        };
        members.iter().filter_map(keep).collect()
    }

    fn seal(&self, key: &TopicKey, member_id: &str, member_key: MemberKey) -> Result<SealedKey, String> {
        let own = self.0.deps.identity.current();
        let nonce: [u8; NONCE_BYTES] = self.0.deps.ids.random().map_err(|error| error.to_string())?;
        let public = BoxPublic::of(member_key).map_err(|error| error.to_string())?;
        let sealed = key.seal_copy(own.secret(), &public, &nonce).map_err(|error| error.to_string())?;
        Ok(SealedKey {
            member_id: member_id.to_owned(),
            sealed: BASE64_STANDARD.encode(sealed),
            nonce: BASE64_STANDARD.encode(nonce),
        })
    }
}
