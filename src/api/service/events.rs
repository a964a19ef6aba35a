//! `EventService`: what is stored, then what happens, in one stream.

use futures_util::Stream;

use super::Services;
use crate::api::convert;
use crate::api::deadline::Deadline;
use crate::api::limits::StreamPermit;
use crate::api::status::Failure;
use crate::api::stream::bounded;
use crate::domain::error_code::ErrorCode;
use crate::domain::event::MeshEvent;
use crate::domain::ids::EventId;
use crate::domain::pressure::Level;
use crate::events::Timed;
use crate::inbox::{EventStream, GapReason, Item, Query, Start};
use crate::proto::pb;
use crate::proto::pb::stream_events_response::Event;

/// One subscriber's events. Holds its place among the open streams.
struct EventFlow {
    services: Services,
    stream: EventStream,
    filter: Filter,
    /// The `after` of the request, for gaps.
    requested: String,
    _place: StreamPermit,
}

/// Which events a subscriber wants.
struct Filter {
    /// Numbers of [`pb::EventType`]; empty: all.
    types: Vec<i32>,
    topic: Option<String>,
    /// A member's id, or another way to name it.
    from: Option<String>,
}

// === impl Services ===

impl Services {
    /// Subscribes. The subscription is in force when this returns; it ends when
    /// the daemon stops, the deadline passes or the inbox cannot be read.
    pub async fn stream_events(
        &self,
        request: pb::StreamEventsRequest,
        deadline: Option<Deadline>,
    ) -> Result<impl Stream<Item = Result<pb::StreamEventsResponse, Failure>> + Send + use<>, Failure> {
        let pressure = self.0.deps.outbox.pressure();
        if pressure.level == Level::Full {
            let text = format!(
                "the outbox is {:.0} % full ({}), so no new event stream is opened; make room or wait until it drains",
                pressure.used_pct,
                pressure.measure.setting()
            );
            return Err(Failure::new(ErrorCode::InsufficientStorage, text).with("measure", pressure.measure.name()));
        }
        let start = match (request.after.as_str(), request.from_start) {
            ("", false) => Start::Live,
            ("", true) => Start::Oldest,
            (_, true) => return Err(Failure::field("from_start", "it cannot be used together with `after`")),
            // A text that was never a place is treated as one that is gone: the
            // caller is told by a gap and gets everything.
            (text, false) => Start::After(text.parse().unwrap_or(EventId { generation: String::new(), seq: 0 })),
        };
        for number in &request.types {
            if pb::EventType::try_from(*number).is_err() {
                return Err(Failure::field("types", format!("{number} is no type of event")));
            }
        }
        let from = match request.sender.as_str() {
            "" => None,
            text => Some(self.sender("sender", text)?),
        };
        let filter = Filter { types: request.types, topic: self.topic_filter(&request.topic).await?, from };
        let place = self.0.limits.open_event_stream()?;
        let stream = self.0.deps.inbox.follow(start);
        let flow = EventFlow { services: self.clone(), stream, filter, requested: request.after, _place: place };
        Ok(bounded(Box::pin(flow.into_stream()), self.streams_stop(), deadline))
    }
}

// === impl EventFlow ===

impl EventFlow {
    fn into_stream(self) -> impl Stream<Item = Result<pb::StreamEventsResponse, Failure>> + Send + 'static {
        futures_util::stream::unfold(Some(self), |flow| async {
            let mut flow = flow?;
            match flow.next().await? {
                Ok(event) => Some((Ok(event), Some(flow))),
                Err(failure) => Some((Err(failure), None)),
            }
        })
    }

    async fn next(&mut self) -> Option<Result<pb::StreamEventsResponse, Failure>> {
        loop {
            match self.stream.next().await? {
                Err(error) => return Some(Err(error.into())),
                Ok(Item::Gap { reason, dropped }) => return Some(Ok(self.gap(reason, dropped).await)),
                Ok(Item::CaughtUp(place)) => {
                    return Some(Ok(self.of_stream(place.to_string(), Event::CaughtUp(pb::CaughtUp {}))));
                }
                Ok(Item::Event(timed)) if self.filter.takes(&timed) => {
                    return Some(Ok(convert::event(&timed, &self.services.0.deps.peers.judge())));
                }
                Ok(Item::Event(_)) => {}
            }
        }
    }

    async fn gap(&self, reason: GapReason, dropped: u64) -> pb::StreamEventsResponse {
        let (reason, is_position) = match reason {
            GapReason::UnknownPosition => (pb::GapReason::UnknownPosition, true),
            GapReason::Pruned => (pb::GapReason::Pruned, true),
            GapReason::LiveEventsDropped => (pb::GapReason::LiveEventsDropped, false),
        };
        let deps = &self.services.0.deps;
        let oldest = deps.inbox.list(Query { limit: 1, ..Query::default() }).await;
        let oldest_event_id = oldest
            .ok()
            .and_then(|page| page.messages.first().map(|message| message.event_id.to_string()))
            .unwrap_or_default();
        let gap = pb::Gap {
            reason: reason.into(),
            requested_after: if is_position { self.requested.clone() } else { String::new() },
            oldest_event_id,
            dropped: u32::try_from(dropped).unwrap_or(u32::MAX),
        };
        self.of_stream(String::new(), Event::Gap(gap))
    }

    /// An event about the stream itself, which no filter holds back.
    fn of_stream(&self, event_id: String, event: Event) -> pb::StreamEventsResponse {
        let time = Some(convert::timestamp(self.services.0.deps.clock.now()));
        pb::StreamEventsResponse { event_id, time, event: Some(event) }
    }
}

// === impl Filter ===

impl Filter {
    fn takes(&self, timed: &Timed) -> bool {
        if !self.types.is_empty() {
            let name = format!("EVENT_TYPE_{}", timed.event.name().to_uppercase());
            let number = pb::EventType::from_str_name(&name).map(i32::from);
            if !number.is_some_and(|number| self.types.contains(&number)) {
                return false;
            }
        }
        let MeshEvent::Message(message) = &*timed.event else { return true };
        let is_from = |from: &String| {
            message.sender_member_id.as_str() == from
                || message.sender_key.to_hex() == *from
                || message.sender_name == *from
        };
        (self.topic.is_none() || self.topic == message.topic) && self.from.as_ref().is_none_or(is_from)
    }
}
