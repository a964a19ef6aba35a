//! `MessagingService`: sends.

use std::collections::HashSet;
use std::pin::Pin;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, Stream, StreamExt as _};

use super::Services;
use crate::api::convert;
use crate::api::deadline::Deadline;
use crate::api::limits::{MAX_BATCH, STREAM_WINDOW, StreamPermit};
use crate::api::status::Failure;
use crate::api::stream::bounded;
use crate::api::trace;
use crate::domain::ids::{MemberId, MemberKey};
use crate::domain::message::{Destination, SendRequest};
use crate::outbox::{Accepted, AcceptedState};
use crate::proto::pb;
use crate::proto::pb::send_stream_response::Result as Outcome;
use crate::telemetry::names::target;

type Answer = Pin<Box<dyn Future<Output = pb::SendStreamResponse> + Send>>;

/// A stream of sends under way.
struct SendFlow<S> {
    services: Services,
    requests: S,
    /// The caller sends no more.
    ended: bool,
    /// Indexes that await their answer.
    open: HashSet<u32>,
    answers: FuturesUnordered<Answer>,
    /// The caller has sent a batch, so it reads them.
    in_batches: bool,
    _place: StreamPermit,
}

// === impl Services ===

impl Services {
    /// Queues one message. `key` is the Idempotency-Key.
    pub async fn send(&self, request: pb::SendRequest, key: Option<String>) -> Result<pb::SendResponse, Failure> {
        let kind = kind_of(&request.to);
        let answer = self.queue(convert::send_request(request, key), kind).await;
        answer.map(|accepted| {
            let deps = &self.0.deps;
            let key = accepted.target_key.as_deref().and_then(|key| MemberKey::parse(key).ok());
            let online = key.and_then(|key| deps.peers.is_online(key));
            // Who sends to itself is there.
            let online = online.or((accepted.target_id == deps.identity.member_id().as_str()).then_some(true));
            convert::send_response(accepted, kind, online, &deps.peers.judge())
        })
    }

    /// Queues one message to a topic (R77). `key` is the Idempotency-Key (R146).
    pub async fn post_topic(
        &self,
        request: pb::PostTopicRequest,
        key: Option<String>,
    ) -> Result<pb::PostTopicResponse, Failure> {
        let request = convert::post_request(request, key);
        let accepted = self.queue(request, pb::MessageKind::Topic).await?;
        Ok(convert::post_response(accepted, &self.0.deps.peers.judge()))
    }

    /// Queues messages as they come and answers each with its index. It reads on
    /// while fewer than [`STREAM_WINDOW`] sends await their answer.
    pub fn send_stream<S>(
        &self,
        requests: S,
        deadline: Option<Deadline>,
    ) -> Result<impl Stream<Item = Result<pb::SendStreamResponse, Failure>> + Send + use<S>, Failure>
    where
        S: Stream<Item = Result<pb::SendStreamRequest, Failure>> + Send + Unpin + 'static,
    {
        let flow = SendFlow {
            services: self.clone(),
            requests,
            ended: false,
            open: HashSet::new(),
            answers: FuturesUnordered::new(),
            in_batches: false,
            _place: self.0.limits.open_send_stream()?,
        };
        let answers = futures_util::stream::unfold(Some(flow), |flow| async {
            let mut flow = flow?;
            match flow.next().await? {
                Ok(answer) => Some((Ok(answer), Some(flow))),
                // The caller has to start again; nothing follows.
                Err(failure) => Some((Err(failure), None)),
            }
        });
        Ok(bounded(Box::pin(answers), self.streams_stop(), deadline))
    }

    /// Adds what the inbox has under the id that the request answers.
    pub(super) async fn with_answered(&self, mut request: SendRequest) -> Result<SendRequest, Failure> {
        let deps = &self.0.deps;
        if let Some(id) = &request.reply_to_id {
            let senders: Vec<MemberId> = deps.peers.members().iter().map(|one| one.member_id.clone()).collect();
            request.answered = deps.inbox.answered(&deps.mesh, id, &senders).await?;
        }
        Ok(request)
    }

    async fn queue(&self, request: Result<SendRequest, Failure>, kind: pb::MessageKind) -> Result<Accepted, Failure> {
        let answer = match request {
            Ok(request) => match self.with_answered(request).await {
                Ok(request) => self.accept(request).await,
                Err(failure) => Err(failure),
            },
            Err(failure) => Err(failure),
        };
        let status = match &answer {
            Ok(accepted) => match accepted.state {
                AcceptedState::Duplicate => "duplicate",
                AcceptedState::Inflight => "inflight",
                AcceptedState::Queued => "queued",
            },
            Err(failure) => failure.code().name(),
        };
        self.0.deps.metrics.sent(name_of(kind), status);
        answer
    }
}

// === impl SendFlow ===

impl<S: Stream<Item = Result<pb::SendStreamRequest, Failure>> + Unpin> SendFlow<S> {
    async fn next(&mut self) -> Option<Result<pb::SendStreamResponse, Failure>> {
        loop {
            let reads = !self.ended && self.open.len() < STREAM_WINDOW;
            tokio::select! {
                biased;
                Some(answer) = self.answers.next() => return Some(Ok(self.answered(answer))),
                request = self.requests.next(), if reads => match request {
                    None => self.ended = true,
                    Some(Err(failure)) => return Some(Err(failure)),
                    Some(Ok(request)) => {
                        if let Err(failure) = self.take(request) {
                            return Some(Err(failure));
                        }
                    }
                },
                else => return None,
            }
        }
    }

    /// The answer, with those that are there as well when the caller reads batches.
    fn answered(&mut self, answer: pb::SendStreamResponse) -> pb::SendStreamResponse {
        self.open.remove(&answer.index);
        if !self.in_batches {
            return answer;
        }
        let mut batch = vec![answer];
        while batch.len() < MAX_BATCH
            && let Some(Some(answer)) = self.answers.next().now_or_never()
        {
            self.open.remove(&answer.index);
            batch.push(answer);
        }
        pb::SendStreamResponse { batch, ..pb::SendStreamResponse::default() }
    }

    fn take(&mut self, request: pb::SendStreamRequest) -> Result<(), Failure> {
        if request.batch.is_empty() {
            return self.begin(request);
        }
        self.in_batches = true;
        if request.send.is_some() {
            return Err(Failure::field("send", "it is absent in a message with a batch"));
        }
        if request.batch.len() > MAX_BATCH {
            let text = format!("it holds {} sends; at most {MAX_BATCH} are allowed", request.batch.len());
            return Err(Failure::field("batch", text));
        }
        for one in request.batch {
            if !one.batch.is_empty() {
                return Err(Failure::field("batch", "no batch is in a batch"));
            }
            self.begin(one)?;
        }
        Ok(())
    }

    fn begin(&mut self, request: pb::SendStreamRequest) -> Result<(), Failure> {
        let index = request.index;
        if !self.open.insert(index) {
            return Err(Failure::field("index", format!("{index} is used by a send that awaits its answer")));
        }
        let services = self.services.clone();
        self.answers.push(Box::pin(async move {
            let trace_id = trace::of_context(&request.trace_context).map(str::to_owned);
            let given = request.send.as_ref().map(|send| send.client_message_id.clone()).unwrap_or_default();
            let result = match request.send {
                Some(send) => services.send(send, None).await,
                None => Err(Failure::field("send", "it is missing or empty")),
            };
            log(&result, index, trace_id.as_deref());
            let outcome = result.map_or_else(
                |failure| {
                    let mut detail = failure.to_detail();
                    if !given.is_empty() {
                        detail.metadata.entry("client_message_id".to_owned()).or_insert(given);
                    }
                    Outcome::Error(detail)
                },
                Outcome::Response,
            );
            pb::SendStreamResponse { index, result: Some(outcome), ..pb::SendStreamResponse::default() }
        }));
        Ok(())
    }
}

fn kind_of(to: &str) -> pb::MessageKind {
    match Destination::parse(to) {
        Ok(Destination::Key(_) | Destination::NameOrPrefix(_)) => pb::MessageKind::Direct,
        Ok(Destination::Topic(_)) => pb::MessageKind::Topic,
        Ok(Destination::Everyone) => pb::MessageKind::Broadcast,
        Ok(Destination::Group(_)) => pb::MessageKind::Group,
        Err(_) => pb::MessageKind::Unspecified,
    }
}

/// The access log's line for one send of a stream, whose call has one line for all.
fn log(result: &Result<pb::SendResponse, Failure>, index: u32, trace_id: Option<&str>) {
    let (status, code) = match result {
        Ok(_) => ("ok", None),
        Err(failure) => ("refused", Some(failure.code().name())),
    };
    tracing::debug!(target: target::ACCESS, index, status, code, trace_id, "Send {index} of a stream: {status}");
}

/// The kind in the metrics.
fn name_of(kind: pb::MessageKind) -> &'static str {
    match kind {
        pb::MessageKind::Direct => "dm",
        pb::MessageKind::Topic => "topic",
        pb::MessageKind::Broadcast => "broadcast",
        pb::MessageKind::Group => "group",
        pb::MessageKind::File => "file",
        pb::MessageKind::Unspecified => "unknown",
    }
}
