//! `InboxService`: stored messages.

use super::Services;
use crate::api::convert;
use crate::api::page::{Encoding, Page};
use crate::api::status::Failure;
use crate::domain::ids::{EventId, IdError};
use crate::inbox::{self, Query};
use crate::proto::pb;

// === impl Services ===

impl Services {
    /// A page of stored messages.
    pub async fn list_messages(
        &self,
        mut request: pb::ListMessagesRequest,
        encoding: Encoding,
    ) -> Result<pb::ListMessagesResponse, Failure> {
        let page = Page::of(&mut request, encoding)?;
        let order = pb::MessageOrder::try_from(request.order)
            .map_err(|_| Failure::field("order", "it is neither oldest_first (1) nor newest_first (2)"))?;
        let from = match request.sender.as_str() {
            "" => None,
            text => Some(self.sender("sender", text)?),
        };
        let query = Query {
            since: request.since.map(|time| convert::unix_millis("since", time)).transpose()?,
            topic: self.topic_filter(&request.topic).await?,
            from,
            after: self.place("after", &request.after)?,
            limit: page.limit,
            page_token: page.after.clone(),
            newest_first: order == pb::MessageOrder::NewestFirst,
        };
        let found = self.0.deps.inbox.list(query).await?;
        let judge = self.0.deps.peers.judge();
        let items =
            found.messages.iter().map(|stored| (stored.event_id.to_string(), convert::inbox_message(stored, &judge)));
        let (messages, next_page_token) = page.fill(items, found.next_page_token.is_some());
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

impl From<inbox::Error> for Failure {
    fn from(error: inbox::Error) -> Self {
        match &error {
            inbox::Error::Position { field, reason } => Self::field(field, reason.as_str()),
            inbox::Error::Storage(_) | inbox::Error::NotStored | inbox::Error::NoRoom => {
                Self::new(error.code(), error.to_string())
            }
        }
    }
}
