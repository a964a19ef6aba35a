//! `TopicService`, and the keys of topics in `KeysService`.

use std::time::Duration;

use super::{Services, named_topic, topic_name};
use crate::api::convert::timestamp;
use crate::api::page::{Encoding, Page};
use crate::api::status::Failure;
use crate::proto::{admin, pb};
use crate::topics::{Error, View};

// === impl Services ===

impl Services {
    /// Makes a topic and subscribes this member to it.
    pub async fn create_topic(&self, request: pb::CreateTopicRequest) -> Result<pb::CreateTopicResponse, Failure> {
        let view = self.0.deps.topics.create(&required(&request.topic)?, &request.description).await?;
        Ok(pb::CreateTopicResponse { topic: Some(topic(view)) })
    }

    /// Subscribes this member to a topic (R78).
    pub async fn subscribe_topic(
        &self,
        request: pb::SubscribeTopicRequest,
    ) -> Result<pb::SubscribeTopicResponse, Failure> {
        let view = self.0.deps.topics.subscribe(&required(&request.topic)?).await?;
        Ok(pb::SubscribeTopicResponse { topic: Some(topic(view)) })
    }

    /// Ends a subscription (R79).
    pub async fn unsubscribe_topic(
        &self,
        request: pb::UnsubscribeTopicRequest,
    ) -> Result<pb::UnsubscribeTopicResponse, Failure> {
        let was_subscribed = self.0.deps.topics.unsubscribe(&required(&request.topic)?).await?;
        Ok(pb::UnsubscribeTopicResponse { was_subscribed })
    }

    /// A page of topics by name (R80).
    pub async fn list_topics(
        &self,
        mut request: pb::ListTopicsRequest,
        encoding: Encoding,
    ) -> Result<pb::ListTopicsResponse, Failure> {
        let page = Page::of(&mut request, encoding)?;
        let views = self.0.deps.topics.list(request.subscribed_only).await?;
        let rest = views.into_iter().filter(|view| page.takes(&view.name));
        let (topics, next_page_token) = page.fill(rest.map(|view| (view.name.clone(), topic(view))), false);
        Ok(pb::ListTopicsResponse { topics, next_page_token })
    }

    /// A new key for a topic.
    pub async fn rotate_topic_key(
        &self,
        request: admin::RotateTopicKeyRequest,
    ) -> Result<admin::RotateTopicKeyResponse, Failure> {
        let (epoch, sealed_for) = self.0.deps.topics.rotate(&required(&request.topic)?).await?;
        Ok(admin::RotateTopicKeyResponse { epoch, sealed_for })
    }

    /// A page of members who wait for a topic's key.
    pub async fn list_topic_admissions(
        &self,
        mut request: admin::ListTopicAdmissionsRequest,
        encoding: Encoding,
    ) -> Result<admin::ListTopicAdmissionsResponse, Failure> {
        let page = Page::of(&mut request, encoding)?;
        let name = named_topic(&request.topic)?;
        let waiting = self.0.deps.topics.waiting(name.as_deref()).await?;
        let members = self.0.deps.peers.members();
        let mut admissions: Vec<admin::TopicAdmission> = waiting
            .into_iter()
            .filter_map(|one| {
                let member = members.iter().find(|member| member.member_id == one.member_id)?;
                Some(admin::TopicAdmission {
                    topic: one.topic,
                    member: Some(self.pinned_member(member, &members)),
                    waiting_since: Some(timestamp(one.since)),
                })
            })
            .filter(|one| page.takes(&place(one)))
            .collect();
        admissions.sort_by_cached_key(place);
        let (admissions, next_page_token) = page.fill(admissions.into_iter().map(|one| (place(&one), one)), false);
        Ok(admin::ListTopicAdmissionsResponse { admissions, next_page_token })
    }

    /// Gives a topic's keys to a member who waits for them.
    pub async fn admit_topic_member(
        &self,
        request: admin::AdmitTopicMemberRequest,
    ) -> Result<admin::AdmitTopicMemberResponse, Failure> {
        let name = required(&request.topic)?;
        let member = self.member("member", &request.member)?;
        let epochs = self.0.deps.topics.admit(&name, &member).await?;
        Ok(admin::AdmitTopicMemberResponse { epochs })
    }
}

fn topic(view: View) -> pb::Topic {
    pb::Topic {
        id: view.topic_id,
        name: view.name,
        description: view.description,
        subscribed: view.subscribed,
        unencrypted: view.unencrypted,
        epoch: view.epoch,
        waiting_for_key: view.waiting_for_key,
        member_count: view.member_count,
    }
}

fn required(text: &str) -> Result<String, Failure> {
    topic_name(text).ok_or_else(|| Failure::field("topic", "it is missing or empty"))
}

/// Where an entry stands in its list: the longest waiting first.
fn place(one: &admin::TopicAdmission) -> String {
    let since = one.waiting_since.and_then(|since| since.to_unix_ms()).unwrap_or(0);
    let member = one.member.as_ref().map(|member| member.member_id.as_str()).unwrap_or_default();
    format!("{since:020}\n{}\n{member}", one.topic)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let failure = Self::new(error.code(), error.to_string());
        match error {
            Error::Name(why) => failure.violation("topic", why.to_string()),
            Error::Field { field, reason } => failure.violation(field, reason),
            Error::TooSoon { after_ms, .. } => failure.retry_after(Duration::from_millis(after_ms)),
            _ => failure,
        }
    }
}
