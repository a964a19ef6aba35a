//! The way of a send past the pre-send hook, and that of a hook's own sends.

use tokio::sync::oneshot;

use super::Services;
use crate::api::convert;
use crate::api::status::Failure;
use crate::domain::error_code::ErrorCode;
use crate::domain::ids::ClientMessageId;
use crate::domain::message::SendRequest;
use crate::hooks::{Allowed, Denied, Flight};
use crate::outbox::Accepted;
use crate::proto::pb;
use crate::runtime::task_kind::TaskKind;

// === impl Services ===

impl Services {
    /// Makes a send durable; the pre-send hook, where there is one, has its say before
    /// (R208).
    pub(super) async fn accept(&self, request: SendRequest) -> Result<Accepted, Failure> {
        if self.0.deps.hooks.has_pre_send() {
            return Box::pin(self.accept_after_hook(request)).await;
        }
        Ok(self.0.deps.outbox.accept(request).await?)
    }

    /// The hook is asked, and the row written, by a task of their own: a caller that
    /// goes away must not leave half a run behind, and its repeat finds what became of
    /// the first. One request of an id is under way at a time; the others wait here,
    /// so that those who went away leave nothing behind that waits.
    async fn accept_after_hook(&self, mut request: SendRequest) -> Result<Accepted, Failure> {
        let deps = &self.0.deps;
        let id = match &request.client_message_id {
            Some(id) => id.clone(),
            None => ClientMessageId::parse(deps.ids.ulid()).map_err(|_| Failure::internal())?,
        };
        request.client_message_id = Some(id.clone());
        let flight = deps.hooks.flight(id.as_str()).await;
        let (answer, answered) = oneshot::channel();
        let services = self.clone();
        deps.supervisor.spawn(TaskKind::HookRun, "pre-send", async move {
            // Nobody may be there to hear it any more.
            let _ = answer.send(services.decide(flight, id, request).await);
        });
        answered.await.unwrap_or_else(|_| Err(Failure::internal()))
    }

    /// The id is looked up first: a retry is answered from its row and never asks the
    /// hook. What tells a retry from another request is what the caller wrote, not what
    /// the hook made of it.
    async fn decide(
        &self,
        mut flight: Flight,
        id: ClientMessageId,
        mut request: SendRequest,
    ) -> Result<Accepted, Failure> {
        let deps = &self.0.deps;
        let (fingerprint, known) = deps.outbox.lookup(&request).await?;
        if let Some(known) = known {
            return Ok(known);
        }
        deps.hooks
            .pre_send(&mut flight, fingerprint, &mut request)
            .await
            .map_err(|error| Failure::from(&*error).with("client_message_id", id.as_str()))?;
        Ok(deps.outbox.accept_as(request, fingerprint).await?)
    }

    /// Queues what a hook run sends with its token: marked as automatic, and past the
    /// pre-send hook.
    pub async fn send_of_hook(
        &self,
        request: pb::SendRequest,
        key: Option<String>,
        allowed: Allowed,
    ) -> Result<pb::SendResponse, Failure> {
        let kind = if request.to.starts_with('#') { pb::MessageKind::Topic } else { pb::MessageKind::Direct };
        let accepted = self.accept_of_hook(convert::send_request(request, key)?, allowed).await?;
        Ok(convert::send_response(accepted, kind, None, &self.0.deps.peers.judge()))
    }

    /// The same for what it posts.
    pub async fn post_of_hook(
        &self,
        request: pb::PostTopicRequest,
        key: Option<String>,
        allowed: Allowed,
    ) -> Result<pb::PostTopicResponse, Failure> {
        let accepted = self.accept_of_hook(convert::post_request(request, key)?, allowed).await?;
        Ok(convert::post_response(accepted, &self.0.deps.peers.judge()))
    }

    async fn accept_of_hook(&self, request: SendRequest, allowed: Allowed) -> Result<Accepted, Failure> {
        let mut request = self.with_answered(request).await?;
        request.auto_hops = allowed.hops;
        let outbox = &self.0.deps.outbox;
        if request.client_message_id.is_some() {
            return Ok(outbox.accept(request).await?);
        }
        let numbered = allowed.numbered(|id| {
            request.client_message_id = ClientMessageId::parse(id).ok();
            outbox.accept(request)
        });
        Ok(Box::pin(numbered).await?)
    }
}

impl From<crate::hooks::Error> for Failure {
    fn from(error: crate::hooks::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&crate::hooks::Error> for Failure {
    fn from(error: &crate::hooks::Error) -> Self {
        let failure = Self::new(error.code(), error.to_string());
        if error.code().retryable() { failure.retry_after(std::time::Duration::from_secs(1)) } else { failure }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Scope => Self::new(
                ErrorCode::HookCallDenied,
                "no scope of the token allows it: `to` must be a key of 64 hex digits, and a reply needs `reply_to_id`; \
                 see capability_token_scope of the hook",
            ),
            Denied::Hops => Self::new(
                ErrorCode::HookHopLimit,
                format!(
                    "{} automatic messages led to this one, which is the limit; nothing was sent",
                    crate::domain::hook_policy::MAX_HOPS
                ),
            ),
        }
    }
}
