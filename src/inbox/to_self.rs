//! Messages of this member to itself: nothing to open and nobody to tell but the
//! outbox.

use tokio::sync::oneshot;

use super::Error;
use super::open::{Opened, unique};
use super::pipeline::{Origin, Pipeline, Work};
use crate::domain::event::MessageKind;
use crate::domain::message::{OwnMessage, Priority};
use crate::wire::delivery::{Priority as WirePriority, Push};

/// Messages on their way in, and who waits until they are stored; dropped when they
/// could not be.
pub(super) type Kept = (Vec<OwnMessage>, oneshot::Sender<()>);

// === impl Pipeline ===

impl Pipeline {
    /// Stores messages of this member to itself. When they are not stored the outbox
    /// keeps them and brings them again.
    pub(super) async fn keep(&self, (messages, stored): Kept) {
        let mut work: Vec<Work> = messages.into_iter().map(|message| self.own_work(message)).collect();
        match self.store(&mut work).await {
            Ok(()) => {
                self.note_success();
                // The outbox may be stopping; it asks again at the next start.
                let _ = stored.send(());
            }
            Err(error) => {
                self.failed(&error).await;
            }
        }
    }

    fn own_work(&self, message: OwnMessage) -> Work {
        let identity = &self.deps.identity;
        let sender_member_id = identity.member_id().as_str().to_owned();
        let push = Push {
            mesh_id: identity.mesh_id().as_str().to_owned(),
            priority: match message.priority {
                Priority::Now => WirePriority::Now,
                Priority::Next => WirePriority::Next,
                Priority::Low => WirePriority::Low,
            },
            ..Push::default()
        };
        let opened = Opened {
            unique: unique(&sender_member_id, &message.client_message_id),
            client_message_id: message.client_message_id,
            sender_member_id,
            sender_key: identity.key(),
            sender_name: message.sender_name,
            kind: MessageKind::Direct,
            topic: None,
            body: message.body,
            meta: message.meta,
            reply_to_id: message.reply_to_id,
            mentions: message.mentions,
            sent_at: Some(message.sent_at),
            auto_hops: message.auto_hops,
            unencrypted: false,
            by_archived_key: false,
        };
        Work { push: Box::new(push), result: Ok(opened), origin: Origin::OwnMember }
    }
}

// === impl Handle ===

impl super::Handle {
    /// Stores messages of this member to itself, each once. Returns when they are.
    pub async fn keep(&self, messages: Vec<OwnMessage>) -> Result<(), Error> {
        let (reply, stored) = oneshot::channel();
        self.own.send((messages, reply)).await.map_err(|_| Error::NotStored)?;
        stored.await.map_err(|_| Error::NotStored)
    }
}
