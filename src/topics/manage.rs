//! What callers ask for: subscriptions, the list, new keys, admissions.

use std::time::Duration;

use super::keys::LIMIT;
use super::table::{Shown, Topic};
use super::{Error, Handle, View};
use crate::domain::ids::{MemberId, TopicId};
use crate::domain::roster::PinnedMember;
use crate::domain::time::UnixMillis;
use crate::domain::topics::{MAX_DESCRIPTION_BYTES, check_name};
use crate::wire::features::Feature;
use crate::wire::frame::{ClientFrame, ServerFrame};
use crate::wire::roster::Bare;
use crate::wire::topics::{TopicCreate, TopicRequest, TopicRow};

/// How long a new subscriber is waited for its key.
const KEY_LIMIT: Duration = Duration::from_secs(2);

/// A member who waits for a topic's key, because nobody vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The topic's name.
    pub topic: String,
    /// Who waits.
    pub member_id: MemberId,
    /// Since when, by the broker's clock.
    pub since: UnixMillis,
}

// === impl Handle ===

impl Handle {
    /// Makes an encrypted topic and subscribes to it.
    pub async fn create(&self, name: &str, description: &str) -> Result<View, Error> {
        let name = check_name(name)?.to_owned();
        check_description(description)?;
        let busy = self.turn().await?;
        if self.row_of(&name).await?.is_some() {
            return Err(Error::Exists(format!("#{name}")));
        }
        // Somebody else may have been faster.
        let (row, true) = Box::pin(self.make(&name, description)).await? else {
            return Err(Error::Exists(format!("#{name}")));
        };
        let id = self.enter(&name, row).await?;
        drop(busy);
        self.view_with_key(&id, &name).await
    }

    /// Subscribes to a topic that exists.
    pub async fn subscribe(&self, name: &str) -> Result<View, Error> {
        let name = check_name(name)?.to_owned();
        let busy = self.turn().await?;
        let row = self.row_of(&name).await?.ok_or_else(|| Error::NotFound(format!("#{name}")))?;
        let id = self.enter(&name, row).await?;
        drop(busy);
        self.view_with_key(&id, &name).await
    }

    /// Whether the mesh has a topic of that name, by the broker's word of now.
    pub async fn exists(&self, name: &str) -> bool {
        self.row_of(name).await.is_ok_and(|row| row.is_some())
    }

    async fn row_of(&self, name: &str) -> Result<Option<TopicRow>, Error> {
        Ok(self.rows().await?.into_iter().find(|row| row.name == name))
    }

    /// Joins a topic at the broker and takes what messages of it need.
    async fn enter(&self, name: &str, row: TopicRow) -> Result<TopicId, Error> {
        let id = TopicId::parse(row.id.as_str()).map_err(|error| Error::Refused(error.to_string()))?;
        self.check_row(&row)?;
        let was = self.read().get(&id).map(|topic| topic.subscribed);
        // Known before the broker begins to push: nothing of it is turned away.
        self.change(|table| {
            let mut topic = table.get(&id).cloned().unwrap_or_else(|| Topic::new(id.clone(), row.name.clone()));
            topic.subscribed = true;
            note_row(&mut topic, &row);
            table.put(topic);
            table.forget_others(&row.name, &id);
        })
        .await?;
        if !row.joined
            && let Err(error) = self.join(&row.id, name).await
        {
            if !matches!(error, Error::NoLink | Error::Link(_)) {
                self.change(|table| {
                    if let Some(topic) = table.get_mut(&id) {
                        topic.subscribed = was.unwrap_or(false);
                    }
                })
                .await?;
            }
            return Err(error);
        }
        if row.epoch > 0 {
            // Without a key it is subscribed all the same; the key comes later.
            if let Err(error) = self.sync(&id).await {
                tracing::warn!(error = %error, topic = name, "The keys of a topic could not be read: {error}");
            }
        }
        if let Some(why) = self.distrust_of(&id) {
            tracing::warn!(topic = name, reason = %why, "A topic cannot be read or posted to yet");
        }
        Ok(id)
    }

    async fn view_with_key(&self, id: &TopicId, name: &str) -> Result<View, Error> {
        self.wait_for_key(id).await;
        self.view_of(id).ok_or_else(|| Error::NotFound(format!("#{name}")))
    }

    /// Who holds the key and is there gives it at once to whom it is vouched for.
    async fn wait_for_key(&self, id: &TopicId) {
        let mut changes = self.changes();
        let waits = || self.view_of(id).is_some_and(|view| view.waiting_for_key);
        let wait = async { while waits() && changes.changed().await.is_ok() {} };
        // Whoever has none by then sees so in the answer.
        let _ = tokio::time::timeout(KEY_LIMIT, wait).await;
    }

    /// Ends a subscription. Says whether there was one.
    pub async fn unsubscribe(&self, name: &str) -> Result<bool, Error> {
        let name = check_name(name)?.to_owned();
        let _busy = self.turn().await?;
        let known = self.read().by_name(&name).map(|topic| (topic.id.clone(), topic.subscribed));
        // What could not be written down here must not happen at the broker: this
        // daemon would come back into the topic, and have missed what was posted.
        self.change(|_| ()).await?;
        let topic = known.as_ref().map_or_else(|| name.clone(), |(id, _)| id.to_string());
        let leave = |req_id| ClientFrame::TopicLeave(TopicRequest { topic, role: None, req_id: Some(req_id) });
        match self.request(&name, leave).await {
            Ok(_) => {}
            // Gone at the broker: what is left is here.
            Err(Error::NotFound(_)) if known.is_some() => {}
            Err(error) => return Err(error),
        }
        let Some((id, was_subscribed)) = known else { return Ok(false) };
        self.change(|table| {
            if let Some(topic) = table.get_mut(&id) {
                topic.subscribed = false;
                topic.shown = Shown::default();
            }
        })
        .await?;
        Ok(was_subscribed)
    }

    /// The topics of the mesh by name: as the broker shows them now, or without a
    /// link those that this daemon knows.
    pub async fn list(&self, subscribed_only: bool) -> Result<Vec<View>, Error> {
        let mut views: Vec<View> = match self.rows().await {
            Ok(rows) => rows.iter().map(|row| self.view_of_row(row)).collect(),
            Err(Error::NoLink | Error::Link(_)) => self.read().all().map(super::view).collect(),
            Err(error) => return Err(error),
        };
        views.retain(|view| view.subscribed || !subscribed_only);
        views.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(views)
    }

    /// Renews a topic's key. The new epoch, and for how many it was sealed.
    pub async fn rotate(&self, name: &str) -> Result<(u32, u32), Error> {
        let name = check_name(name)?.to_owned();
        let _busy = self.turn().await?;
        let id = self.usable(&name)?;
        self.sync(&id).await?;
        let topic = self.topic_with_key(&id)?;
        if !self.may_renew(&topic) {
            return Err(Error::NotAllowed(format!("#{name}")));
        }
        self.renew(&id).await
    }

    /// Who waits for a key that this member has, the longest waiting first.
    pub async fn waiting(&self, name: Option<&str>) -> Result<Vec<Waiting>, Error> {
        let name = name.map(check_name).transpose()?;
        let pending = |req_id| ClientFrame::TopicKeyPending(Bare { req_id: Some(req_id) });
        let ServerFrame::TopicPending(answer) = self.request(name.unwrap_or_default(), pending).await? else {
            return Err(Error::unexpected());
        };
        let table = self.read();
        if let Some(name) = name.filter(|name| table.by_name(name).is_none()) {
            return Err(Error::NotFound(format!("#{name}")));
        }
        let waiting = |row: crate::wire::topics::PendingRow| {
            let topic = table.by_text(&row.topic_id).filter(|topic| name.is_none_or(|name| topic.name == name))?;
            let member_id = MemberId::parse(row.member_id).ok()?;
            Some(Waiting { topic: topic.name.clone(), member_id, since: UnixMillis(row.since) })
        };
        Ok(answer.pending.into_iter().filter_map(waiting).collect())
    }

    /// Gives a topic's keys to a member who waits for them: those that new posts
    /// may be sealed with. Their epochs.
    pub async fn admit(&self, name: &str, member: &PinnedMember) -> Result<Vec<u32>, Error> {
        let name = check_name(name)?.to_owned();
        let _busy = self.turn().await?;
        let id = self.usable(&name)?;
        self.sync(&id).await?;
        let topic = self.topic_with_key(&id)?;
        let member_id = member.member_id.as_str();
        if !topic.shown.members.contains(member_id) {
            let text = member.display_name.clone();
            return Err(Error::NotWaiting { topic: format!("#{name}"), member: text });
        }
        self.change(|table| {
            if let Some(topic) = table.get_mut(&id) {
                topic.admitted.insert(member.member_id.clone());
            }
        })
        .await?;
        tracing::warn!(topic = name, member = member_id, "The operator admitted a member to a topic");
        let epoch = topic.epoch();
        if let Some(key) = topic.key(epoch) {
            let keys = self.seal_for(key, std::slice::from_ref(member));
            // Refused where the broker has no copy of this member's own.
            self.put_keys(&topic, epoch, keys).await.map_err(|error| match error {
                Error::NotAllowed(topic) => Error::NoKey { topic, why: "the broker knows of no copy".to_owned() },
                error => error,
            })?;
        }
        Ok(vec![epoch])
    }

    /// Reads the list, and notes what concerns subscriptions.
    pub(super) async fn rows(&self) -> Result<Vec<TopicRow>, Error> {
        let list = |req_id| ClientFrame::TopicList(Bare { req_id: Some(req_id) });
        match self.request("", list).await? {
            ServerFrame::TopicList(list) => Ok(list.topics),
            _ => Err(Error::unexpected()),
        }
    }

    /// Comes into a topic at the broker.
    pub(super) async fn join(&self, topic_id: &str, name: &str) -> Result<(), Error> {
        let topic = topic_id.to_owned();
        let join = |req_id| ClientFrame::TopicJoin(TopicRequest { topic, role: None, req_id: Some(req_id) });
        self.request(name, join).await.map(drop)
    }

    /// Makes a topic with its first key. False when somebody else had made it.
    async fn make(&self, name: &str, description: &str) -> Result<(TopicRow, bool), Error> {
        let id = TopicId::parse(self.0.deps.ids.ulid()).map_err(|error| Error::Crypto(error.to_string()))?;
        let mut topic = Topic::new(id.clone(), name.to_owned());
        let key = self.new_key()?;
        let statement = self.statement(&topic, 1, None, &key, std::iter::empty())?;
        topic.description = description.to_owned();
        topic.set_head(statement.clone(), [(1, key.commitment(id.as_str(), 1))].into());
        topic.keys.insert(1, key.clone());
        let keys = Some(vec![self.seal_own(&key)?]);
        // On disk before the broker hears of it, also when the answer is lost: then
        // the topic is found by its id.
        self.change(|table| table.put(topic)).await?;
        let create = |req_id| {
            let create = TopicCreate {
                name: name.to_owned(),
                description: Some(description.to_owned()).filter(|text| !text.is_empty()),
                visibility: None,
                statement: Some(statement),
                keys,
                req_id: Some(req_id),
            };
            ClientFrame::TopicCreate(Box::new(create))
        };
        match self.request(name, create).await {
            Ok(ServerFrame::TopicCreated(answer)) => Ok((answer.topic, answer.created)),
            Ok(_) => Err(Error::unexpected()),
            // Not that of the topic: there are as many as there may be.
            Err(Error::NotAllowed(_)) => Err(Error::Refused("the mesh has as many topics as it can have".to_owned())),
            Err(error) => Err(error),
        }
    }

    /// A row that does not fit what is known is not believed: a name belongs to one
    /// topic, and a topic does not lose its keys.
    fn check_row(&self, row: &TopicRow) -> Result<(), Error> {
        let table = self.read();
        let name = || format!("#{}", row.name);
        let other = |topic: &Topic| topic.id.as_str() != row.id && topic.subscribed;
        if table.by_name(&row.name).is_some_and(other) {
            return Err(Error::Distrusted { topic: name(), why: crate::domain::topics::Distrust::OtherName });
        }
        if row.epoch == 0 && table.by_name(&row.name).is_some_and(|topic| topic.encrypted) {
            return Err(Error::Distrusted { topic: name(), why: crate::domain::topics::Distrust::NotASuccessor });
        }
        Ok(())
    }

    fn view_of_row(&self, row: &TopicRow) -> View {
        let table = self.read();
        let known = table.by_text(&row.id);
        let encrypted = row.epoch > 0 || known.is_some_and(|topic| topic.encrypted);
        let subscribed = row.joined && known.is_some_and(|topic| topic.subscribed);
        let has_key = known.is_some_and(|topic| topic.epoch() >= row.epoch && topic.key(topic.epoch()).is_some());
        View {
            topic_id: row.id.clone(),
            name: row.name.clone(),
            description: row.description.clone().unwrap_or_default(),
            subscribed,
            unencrypted: !encrypted,
            epoch: row.epoch,
            waiting_for_key: subscribed && encrypted && !has_key,
            member_count: row.member_count,
        }
    }

    /// A subscribed topic with keys.
    fn usable(&self, name: &str) -> Result<TopicId, Error> {
        let table = self.read();
        let topic = table.by_name(name).ok_or_else(|| Error::NotFound(format!("#{name}")))?;
        match topic {
            topic if !topic.subscribed => Err(Error::NotSubscribed(format!("#{name}"))),
            topic if !topic.encrypted => Err(Error::Unencrypted(format!("#{name}"))),
            topic => Ok(topic.id.clone()),
        }
    }

    fn topic_with_key(&self, id: &TopicId) -> Result<Topic, Error> {
        let table = self.read();
        let topic = table.get(id).ok_or_else(|| Error::NotFound(id.to_string()))?;
        let name = || format!("#{}", topic.name);
        if let Some(why) = topic.shown.distrust {
            return Err(Error::Distrusted { topic: name(), why });
        }
        if topic.key(topic.epoch()).is_none() {
            let why = "no member who holds it has given it to this one".to_owned();
            return Err(Error::NoKey { topic: name(), why });
        }
        Ok(topic.clone())
    }

    /// Asks the broker about a topic.
    pub(super) async fn request(
        &self,
        topic: &str,
        make: impl FnOnce(String) -> ClientFrame,
    ) -> Result<ServerFrame, Error> {
        let link = &self.0.deps.link;
        let session = link.session().ok_or(Error::NoLink)?;
        if !session.negotiated.has(Feature::TopicE2e) || !session.negotiated.has(Feature::KeyEpoch) {
            return Err(Error::NotOffered);
        }
        let answer = link.request(make, LIMIT).await?;
        if let ServerFrame::Ack(ack) = &answer
            && let Some(failure) = ack.failure()
        {
            return Err(Error::of(topic, failure.refusal, failure.text, failure.retry_after_ms));
        }
        Ok(answer)
    }
}

/// What the broker shows of a topic.
pub(super) fn note_row(topic: &mut Topic, row: &TopicRow) {
    topic.description = row.description.clone().unwrap_or_default();
    topic.shown.epoch = topic.shown.epoch.max(row.epoch);
    topic.shown.member_count = row.member_count;
    topic.encrypted |= row.epoch > 0;
}

fn check_description(text: &str) -> Result<(), Error> {
    let reason = if text.len() > MAX_DESCRIPTION_BYTES {
        format!("it is {} bytes long, the limit is {MAX_DESCRIPTION_BYTES}", text.len())
    } else if text.chars().any(char::is_control) {
        "it holds a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::Field { field: "description", reason })
}
