//! From a request to a row.

use std::path::Path;

use sea_orm::ConnectionTrait;

use super::entity::Model;
use super::{Accepted, Error, answer, repo};
use crate::broker_client;
use crate::db::Sqlite;
use crate::domain::fingerprint::{self, LocalFingerprint};
use crate::domain::ids::ClientMessageId;
use crate::domain::message::{Destination, MAX_BODY_BYTES, MessageError, SendRequest};
use crate::domain::outbox::OutboxState;
use crate::domain::reply::{self, Match};
use crate::domain::roster::{Candidate, PinnedMember, ResolveError, Resolved, find, resolve};
use crate::identity::Identity;
use crate::peers;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::topics;

/// Bytes of a frame around its ciphertext: keys, ids, field names.
const FRAME_OVERHEAD: usize = 2048;
/// Bytes of an envelope around text, metadata and mentions.
const ENVELOPE_OVERHEAD: usize = 512;
/// What a post's has more: the topic's id, the author's signature.
const POST_OVERHEAD: usize = 256;
/// Bytes of a mention in an envelope at most.
const MENTION_BYTES: usize = 136;

/// Turns requests into rows. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Prepare {
    /// The mesh's slug.
    pub mesh: String,
    /// Who sends.
    pub identity: Identity,
    /// Its name, until the broker has told it.
    pub name: String,
    /// Who may be sent to.
    pub peers: peers::Handle,
    /// Where may be posted.
    pub topics: topics::Handle,
    /// What the broker takes.
    pub link: broker_client::Handle,
    /// Row ids grow with time.
    pub ids: IdSource,
    /// Now.
    pub clock: Clock,
}

/// Where a request goes.
enum Target {
    /// To a member.
    Member(Resolved),
    /// To this member itself.
    Own(Resolved),
    /// To whoever is in a topic.
    Topic { id: String, name: String, encrypted: bool },
}

/// What a request turned into.
#[derive(Debug)]
pub(super) enum Prepared {
    /// Its id is known; this is the answer.
    Known(Box<Accepted>),
    /// A row to insert.
    New(Box<Model>),
}

// === impl Prepare ===

impl Prepare {
    /// Checks a request and makes a row, or answers it from the row that holds its
    /// id. Nothing that fails here consumes the id. `room` says whether one more row
    /// is allowed.
    pub(super) async fn run(
        &self,
        db: &Sqlite,
        mut request: SendRequest,
        written: Option<LocalFingerprint>,
        room: impl Fn(&ClientMessageId) -> Result<(), Error>,
    ) -> Result<Prepared, Error> {
        let destination = request.validate()?;
        let fingerprint = written.unwrap_or_else(|| LocalFingerprint::of(&self.mesh, destination.kind(), &request));
        let given = request.client_message_id.take();
        let is_given = given.is_some();
        let id = match given {
            Some(id) => id,
            None => ClientMessageId::parse(self.ids.ulid()).map_err(|error| Error::Read(error.to_string()))?,
        };
        let own = match &request.reply_to_id {
            Some(written) => self.own_matches(db.readers(), written).await?,
            None => Vec::new(),
        };
        request.answered.extend(own);
        let admit = || {
            let target = match self.own(&destination) {
                // No frame has to hold it.
                Some(own) => Target::Own(own),
                None => {
                    self.check_size(&request)?;
                    self.resolve(&destination, &request)?
                }
            };
            let mentions = self.mentioned(&request)?;
            let reply_to_id = answered(&request, &target)?;
            room(&id)?;
            Ok((target, mentions, reply_to_id))
        };
        let (target, mentions, reply_to_id) = match admit() {
            // Whether the id is taken shows when the row is inserted.
            Ok(admitted) => admitted,
            Err(error) => {
                // A retry gets its answer, whatever has become of its receiver or of
                // the room since.
                if is_given && let Some(answer) = Box::pin(known(db.readers(), &id, &fingerprint)).await? {
                    return Ok(Prepared::Known(Box::new(answer)));
                }
                if !Box::pin(self.may_have_joined(&error)).await {
                    let error = Box::pin(self.unless_listed(error, &destination)).await;
                    return Err(self.unless_full(error, &id, db.path()));
                }
                admit()?
            }
        };
        request.reply_to_id = reply_to_id;
        Ok(Prepared::New(Box::new(self.row(id, request, &destination, &target, mentions, &fingerprint))))
    }

    /// The fingerprint of a request, and the answer from its row.
    pub(super) async fn lookup(
        &self,
        db: &Sqlite,
        request: &SendRequest,
    ) -> Result<(LocalFingerprint, Option<Accepted>), Error> {
        let fingerprint = LocalFingerprint::of(&self.mesh, request.validate()?.kind(), request);
        let Some(id) = &request.client_message_id else { return Ok((fingerprint, None)) };
        Ok((fingerprint, known(db.readers(), id, &fingerprint).await?))
    }

    /// The broker's limit binds the frame: the sealed text in base64 and what
    /// stands around it.
    pub(super) fn check_size(&self, request: &SendRequest) -> Result<(), Error> {
        let Some(session) = self.link.session() else { return Ok(()) };
        let frame = usize::try_from(session.negotiated.max_frame_bytes).unwrap_or(usize::MAX);
        let meta = request.meta.as_ref().map_or(0, |meta| meta.as_str().len());
        let post = if request.to.starts_with('#') { POST_OVERHEAD } else { 0 };
        let overhead = ENVELOPE_OVERHEAD + post + meta + request.mentions.len() * MENTION_BYTES;
        let max = (frame.saturating_sub(FRAME_OVERHEAD) / 4 * 3).saturating_sub(overhead).min(MAX_BODY_BYTES);
        if request.body.len() > max {
            return Err(MessageError::TooLarge { got: request.body.len(), max }.into());
        }
        Ok(())
    }

    /// The failure, or that the disk is full when that is why nobody is known.
    fn unless_full(&self, error: Error, id: &ClientMessageId, path: &Path) -> Error {
        match error {
            Error::Destination(ResolveError::Unknown { .. }) if self.peers.is_disk_full() => {
                Error::DiskFull { client_message_id: id.clone(), path: path.display().to_string() }
            }
            error => error,
        }
    }

    /// This member, when the destination means it: by its key of now, else as the
    /// pinned list says. Before the first roster it is not on that list.
    fn own(&self, destination: &Destination) -> Option<Resolved> {
        if !matches!(destination, Destination::Key(_) | Destination::NameOrPrefix(_)) {
            return None;
        }
        let (member_id, key) = (self.identity.member_id(), self.identity.key());
        let members = self.peers.members();
        let pinned = members.iter().find(|member| member.member_id == *member_id);
        let is_own = match find(destination, &members) {
            Ok(member) => member.member_id == *member_id,
            Err(ResolveError::Unknown { .. }) => {
                let name = if pinned.is_none() { self.name.as_str() } else { "" };
                let own = PinnedMember::new(member_id.clone(), key, name);
                find(destination, std::slice::from_ref(&own)).is_ok()
            }
            Err(_) => false,
        };
        let display_name = pinned.map_or_else(|| self.name.clone(), |own| own.display_name.clone());
        is_own.then(|| Resolved { member_id: member_id.clone(), key, display_name })
    }

    /// The failure, or that this member is not subscribed when the mesh has the topic
    /// that nothing is known of here.
    async fn unless_listed(&self, error: Error, destination: &Destination) -> Error {
        match (error, destination) {
            (Error::Topic(topics::Error::NotFound(topic)), Destination::Topic(name))
                if self.topics.exists(name).await =>
            {
                topics::Error::NotSubscribed(topic).into()
            }
            (error, _) => error,
        }
    }

    /// Finds the member among those that are known, or the topic among those that
    /// this member is subscribed to.
    fn resolve(&self, destination: &Destination, request: &SendRequest) -> Result<Target, Error> {
        match destination {
            Destination::Topic(name) => {
                let topic = self.topics.resolve(name, request.allow_unencrypted)?;
                Ok(Target::Topic { id: topic.topic_id, name: topic.name, encrypted: !topic.unencrypted })
            }
            Destination::Everyone => Err(Error::NotServed { what: "sends to everybody" }),
            Destination::Group(_) => Err(Error::NotServed { what: "sends to groups" }),
            Destination::Key(_) | Destination::NameOrPrefix(_) => {
                Ok(Target::Member(resolve(destination, &self.peers.members())?))
            }
        }
    }

    /// The ids of the members that a request mentions.
    fn mentioned(&self, request: &SendRequest) -> Result<Vec<String>, Error> {
        let members = self.peers.members();
        let mentioned = |text: &String| Ok(find(&Destination::parse(text)?, &members)?.member_id.to_string());
        request.mentions.iter().map(mentioned).collect()
    }

    /// Own sends that a reply may mean.
    async fn own_matches(&self, db: &impl ConnectionTrait, written: &str) -> Result<Vec<Match>, Error> {
        let found = repo::operator::answered(db, written).await.map_err(|error| Error::Read(error.to_string()))?;
        let own = self.peers.members().iter().find(|member| member.member_id == *self.identity.member_id()).cloned();
        let sender = Candidate {
            member_id: self.identity.member_id().clone(),
            key: self.identity.key(),
            name: own.map(|own| own.display_name).unwrap_or_default(),
            removed: false,
        };
        let matches = found.into_iter().map(|send| Match {
            client_message_id: send.client_message_id,
            broker_message_id: send.broker_message_id.unwrap_or_default(),
            sender: sender.clone(),
            only_in: send.by_own_id.then_some(send.target_id),
        });
        Ok(matches.collect())
    }

    /// Whether another look can find whom nobody knows: who has just joined may be
    /// missing from the list, so it is fetched once more.
    async fn may_have_joined(&self, error: &Error) -> bool {
        matches!(error, Error::Destination(ResolveError::Unknown { .. }))
            && self.link.session().is_some()
            && self.peers.refresh().await
    }

    fn row(
        &self,
        client_message_id: ClientMessageId,
        request: SendRequest,
        destination: &Destination,
        target: &Target,
        mentions: Vec<String>,
        fingerprint: &LocalFingerprint,
    ) -> Model {
        let now = self.clock.now();
        let degraded = self.degraded(&request, target);
        let (target_id, target_key, target_name) = match target {
            Target::Member(member) | Target::Own(member) => {
                (member.member_id.to_string(), Some(member.key.to_hex()), member.display_name.clone())
            }
            Target::Topic { id, name, .. } => (id.clone(), None, name.clone()),
        };
        Model {
            id: self.ids.ulid(),
            wire_fingerprint: self.identity.wire_fingerprint(&client_message_id, fingerprint),
            client_message_id: client_message_id.into_string(),
            payload: request.body.into_bytes(),
            enqueued_at: now.0,
            attempts: 0,
            next_attempt_at: now.0,
            status: OutboxState::Pending.name().to_owned(),
            last_error: None,
            delivered_at: None,
            broker_message_id: None,
            request_fingerprint: fingerprint.0.to_vec(),
            fingerprint_version: fingerprint::VERSION,
            mesh: self.mesh.clone(),
            sender_key: self.identity.key().to_hex(),
            destination_kind: destination.kind().to_owned(),
            destination_ref: request.to,
            target_id,
            target_key,
            target_name: Some(target_name),
            reply_to_id: request.reply_to_id,
            priority: request.priority.name().to_owned(),
            mentions: (!mentions.is_empty()).then(|| serde_json::to_string(&mentions).unwrap_or_default()),
            meta: request.meta.map(|meta| meta.as_str().to_owned()),
            auto_hops: i32::try_from(request.auto_hops).unwrap_or(i32::MAX),
            allow_unencrypted: request.allow_unencrypted,
            history_id: None,
            degraded,
            first_transmit_at: None,
            accepted_at: None,
            receiver_stored_at: None,
            requeued_at: None,
            dead_at: None,
            dead_reason: None,
            aborted_at: None,
            aborted_by: None,
            superseded_by: None,
            rejected_at: None,
            reject_reason: None,
            expired_at: None,
            delivered_count: 0,
            to_self: matches!(target, Target::Own(_)),
        }
    }

    /// What receivers that cannot read envelopes will not be told, as a JSON array;
    /// `None` when they can read them.
    fn degraded(&self, request: &SendRequest, target: &Target) -> Option<String> {
        let fields = [
            ("meta", request.meta.is_some()),
            ("reply_to_id", request.reply_to_id.is_some()),
            ("mentions", !request.mentions.is_empty()),
        ];
        if !fields.iter().any(|(_, given)| *given) {
            return None;
        }
        let is_told = match target {
            Target::Member(member) => {
                self.peers.by_key(member.key).is_some_and(|member| reads_envelopes(&member.capabilities))
            }
            Target::Topic { encrypted, .. } => *encrypted,
            Target::Own(_) => true,
        };
        let lost: Vec<&str> = fields.into_iter().filter_map(|(field, given)| given.then_some(field)).collect();
        (!is_told).then(|| serde_json::to_string(&lost).unwrap_or_default())
    }
}

/// The message that a request answers, by the id that goes out.
fn answered(request: &SendRequest, target: &Target) -> Result<Option<String>, Error> {
    let Some(written) = &request.reply_to_id else { return Ok(None) };
    let here = match target {
        Target::Member(member) | Target::Own(member) => member.member_id.as_str(),
        Target::Topic { id, .. } => id,
    };
    let resolved = reply::resolve(written, &request.answered, here);
    resolved.map(Some).map_err(|candidates| Error::AmbiguousReply { written: written.clone(), candidates })
}

/// The answer from the row that holds the id, if there is one.
async fn known(
    db: &impl ConnectionTrait,
    id: &ClientMessageId,
    fingerprint: &LocalFingerprint,
) -> Result<Option<Accepted>, Error> {
    let found = repo::find(db, &[id.as_str()]).await.map_err(|error| Error::Read(error.to_string()))?;
    found.first().map(|row| answer::from_existing(row, fingerprint)).transpose()
}

/// Whether a member's daemon reads sealed envelopes.
pub(super) fn reads_envelopes(capabilities: &[String]) -> bool {
    capabilities.iter().any(|name| name == crate::identity::ENVELOPE)
}

/// The id of a row that is about to be written.
pub(super) fn id_of(row: &Model) -> Result<ClientMessageId, Error> {
    ClientMessageId::parse(row.client_message_id.as_str()).map_err(|error| Error::Read(error.to_string()))
}
