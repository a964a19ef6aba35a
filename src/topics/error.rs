//! Why a call about a topic fails.

use crate::broker_client;
use crate::domain::error_code::ErrorCode;
use crate::domain::topics::{Distrust, NameError};
use crate::runtime::private_file::FileError;
use crate::wire::refusal::Refusal;

/// A call about a topic failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text cannot be a topic's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A field is not usable.
    #[error("`{field}`: {reason}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The mesh has no such topic.
    #[error(
        "the mesh has no topic {0}; `claudemesh topic list` shows those it has, `claudemesh topic create` makes one"
    )]
    NotFound(String),
    /// There is one of this name already.
    #[error("the mesh has a topic {0} already; see it with `claudemesh topic list`")]
    Exists(String),
    /// This member is not subscribed.
    #[error("this member is not subscribed to {0}; `claudemesh topic subscribe '{0}'` does that")]
    NotSubscribed(String),
    /// The topic has no keys.
    #[error(
        "{0} is not encrypted: the broker can read what is posted there. Allow it for this message \
         (`allow_unencrypted`), or use another topic"
    )]
    Unencrypted(String),
    /// There is no link now.
    #[error("there is no link to the broker now; try again later")]
    NoLink,
    /// The broker has no encrypted topics.
    #[error("the broker does not offer topic_e2e: it has no encrypted topics")]
    NotOffered,
    /// Not by this member.
    #[error("only the member who leads {0}, or an admin of the mesh, may do this")]
    NotAllowed(String),
    /// The topic's key is not here yet.
    #[error("this member has no key of {topic} yet: {why}")]
    NoKey {
        /// The topic.
        topic: String,
        /// What it waits for.
        why: String,
    },
    /// The broker shows an epoch that does not count.
    #[error("{topic} cannot be used: {why}")]
    Distrusted {
        /// The topic.
        topic: String,
        /// Why.
        why: Distrust,
    },
    /// Nobody of that name waits.
    #[error("{member} does not wait for a key of {topic}; `claudemesh topic admissions` lists who does")]
    NotWaiting {
        /// The topic.
        topic: String,
        /// Who was named.
        member: String,
    },
    /// The key was renewed a moment ago.
    #[error("the key of {topic} was renewed less than 10 minutes ago, and nobody has left since")]
    TooSoon {
        /// The topic.
        topic: String,
        /// Milliseconds until it can be renewed again.
        after_ms: u64,
    },
    /// Another member renewed the key at the same moment.
    #[error("another member renewed the key of {0} at the same moment; that one counts")]
    Raced(String),
    /// The broker cannot do it now.
    #[error("the broker cannot do it now: {0}")]
    NotNow(String),
    /// Others change topics, and take long.
    #[error("other calls about topics wait for the broker; try again")]
    Busy,
    /// The broker refused.
    #[error("the broker refused: {0}")]
    Refused(String),
    /// The broker did not answer.
    #[error(transparent)]
    Link(#[from] broker_client::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// No random bytes, or a key that does not seal.
    #[error("a key could not be made or sealed: {0}")]
    Crypto(String),
}

// === impl Error ===

impl Error {
    /// The stable code of this failure.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Name(_) | Self::Field { .. } => ErrorCode::InvalidArgument,
            Self::NotFound(_) => ErrorCode::TopicNotFound,
            Self::Exists(_) => ErrorCode::TopicExists,
            Self::NotSubscribed(_) => ErrorCode::TopicNotSubscribed,
            Self::Unencrypted(_) => ErrorCode::UnencryptedNotAllowed,
            Self::NoLink | Self::Link(_) | Self::NotNow(_) => ErrorCode::BrokerUnreachable,
            Self::Busy => ErrorCode::DaemonBusy,
            Self::NotOffered => ErrorCode::FeatureUnavailable,
            Self::NotAllowed(_) | Self::Refused(_) => ErrorCode::PermissionDenied,
            Self::NoKey { .. } | Self::Distrusted { .. } => ErrorCode::TopicKeyMissing,
            Self::NotWaiting { .. } => ErrorCode::NoPendingChange,
            Self::TooSoon { .. } | Self::Raced(_) => ErrorCode::RateLimited,
            Self::File(error) if error.is_full() => ErrorCode::InsufficientStorage,
            Self::File(_) => ErrorCode::StorageFailed,
            Self::Crypto(_) => ErrorCode::InternalError,
        }
    }

    /// Whether the same may go well in a moment.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::NotNow(_) | Self::Busy | Self::File(_))
    }

    /// What a refusal of the broker means for a request about a topic.
    pub(super) fn of(topic: &str, refusal: Option<Refusal>, text: &str, retry_after_ms: Option<u64>) -> Self {
        let topic = format!("#{topic}");
        match refusal {
            Some(Refusal::TopicNotFound) => Self::NotFound(topic),
            Some(Refusal::FeatureUnavailable) => Self::NotOffered,
            Some(Refusal::Forbidden) => Self::NotAllowed(topic),
            Some(Refusal::RateLimit) => Self::TooSoon { topic, after_ms: retry_after_ms.unwrap_or(0) },
            Some(refusal) if refusal.retryable() => Self::NotNow(text.to_owned()),
            _ => Self::Refused(text.to_owned()),
        }
    }

    /// The broker's answer is none to what was asked.
    pub(super) fn unexpected() -> Self {
        Self::NotNow("it answered something else".to_owned())
    }
}
