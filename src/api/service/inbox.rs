//! `InboxService`: stored messages.

use super::{Services, topic_name};
use crate::api::convert;
use crate::api::status::Failure;
use crate::domain::ids::{EventId, IdError};
use crate::inbox::{self, Query};
use crate::proto::pb;

/// How large a page may get in the caller's encoding, so that no answer is
/// larger than its transport carries (R132).
#[derive(Clone, Copy)]
pub struct Measure {
    /// Greatest sum in bytes.
    pub limit: usize,
    /// Size of a message in bytes.
    pub size: fn(&pb::InboxMessage) -> usize,
}

// === impl Services ===

impl Services {
    /// A page of stored messages.
    pub async fn list_messages(
        &self,
        request: pb::ListMessagesRequest,
        measure: Measure,
    ) -> Result<pb::ListMessagesResponse, Failure> {
        let order = pb::MessageOrder::try_from(request.order)
            .map_err(|_| Failure::field("order", "it is neither oldest_first (1) nor newest_first (2)"))?;
        let from = match request.sender.as_str() {
            "" => None,
            text => Some(self.sender("sender", text)?),
        };
        let query = Query {
            since: request.since.map(|time| convert::unix_millis("since", time)).transpose()?,
            topic: topic_name(&request.topic),
            from,
            after: self.place("after", &request.after)?,
            limit: convert::limit(request.limit),
            page_token: Some(request.page_token).filter(|token| !token.is_empty()),
            newest_first: order == pb::MessageOrder::NewestFirst,
        };
        let page = self.0.deps.inbox.list(query).await?;
        let judge = self.0.deps.peers.judge();
        let (mut messages, mut bytes) = (Vec::with_capacity(page.messages.len()), 0);
        let mut next_page_token = page.next_page_token.unwrap_or_default();
        for stored in &page.messages {
            let message = convert::inbox_message(stored, &judge);
            bytes += (measure.size)(&message);
            if bytes > measure.limit
                && let Some(last) = messages.last()
            {
                // A page token is the place of the last message before it.
                next_page_token = event_id_of(last);
                break;
            }
            messages.push(message);
        }
        Ok(pb::ListMessagesResponse { messages, next_page_token })
    }

    /// The place that a request names; `None` when it names none. One of another
    /// inbox is refused: a list has no way to tell of the gap.
    fn place(&self, field: &'static str, text: &str) -> Result<Option<EventId>, Failure> {
        if text.is_empty() {
            return Ok(None);
        }
        let id: EventId = text.parse().map_err(|error: IdError| Failure::field(field, error.to_string()))?;
        if id.generation != self.0.deps.inbox.generation() {
            return Err(Failure::field(field, "it is a place of an inbox that was replaced"));
        }
        Ok(Some(id))
    }
}

fn event_id_of(message: &pb::InboxMessage) -> String {
    message.event_id.clone()
}

impl From<inbox::Error> for Failure {
    fn from(error: inbox::Error) -> Self {
        match &error {
            inbox::Error::Position { field, reason } => Self::field(field, reason.as_str()),
            inbox::Error::Storage(_) => Self::new(error.code(), error.to_string()),
        }
    }
}
