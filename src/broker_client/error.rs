//! Why the link is down, for now or for good.

use std::time::Duration;

use crate::domain::error_code::ErrorCode;
use crate::wire::close::Terminal;

/// A try to connect, or a connection, failed. The next try comes by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is not one of a broker.
    #[error("the broker URL {url} cannot be used: {reason}")]
    Url {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No TCP connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Host and port.
        address: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// No WebSocket: TLS or upgrade failed.
    #[error("{address} does not speak the broker's protocol: {detail}")]
    Upgrade {
        /// Host and port.
        address: String,
        /// What went wrong.
        detail: String,
    },
    /// Something took too long.
    #[error("the broker did not answer within {0:?}")]
    NoAnswer(Duration),
    /// The broker refused the hello.
    #[error("the broker refused this member: {code} {message}")]
    Refused {
        /// The broker's code.
        code: String,
        /// The broker's words.
        message: String,
    },
    /// The socket was closed.
    #[error("the broker closed the link: {code} {reason}")]
    Closed {
        /// WebSocket close code; 1006 when there was none.
        code: u16,
        /// Its reason.
        reason: String,
    },
    /// The broker lacks a required feature.
    #[error("the broker does not offer the required feature {feature}: {detail}")]
    FeatureMissing {
        /// The first of them.
        feature: String,
        /// What is wrong with it.
        detail: String,
        /// All of them.
        missing: Vec<String>,
    },
    /// The broker did not answer the question for features.
    #[error("the broker did not say within {limit:?} which features it offers")]
    NotNegotiated {
        /// How long it had.
        limit: Duration,
        /// It answered a ping meanwhile, so the link was not the reason.
        ping_answered: bool,
    },
    /// The connection was ended to make a new one.
    #[error("the link is made anew")]
    Renewed,
    /// The socket failed.
    #[error("the link broke: {0}")]
    Broken(String),
    /// Nothing came for too long.
    #[error("the link was silent for {0:?}")]
    Silent(Duration),
    /// There is no link now.
    #[error("there is no link to the broker now")]
    LinkDown,
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
    /// It makes no sense to come back.
    #[error("{0}")]
    Ended(End),
}

/// Why the link is down for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The broker closed with a code that says not to come back.
    #[error("{}{}", describe(.terminal), detail_text(.detail))]
    Closed {
        /// Which code.
        terminal: Terminal,
        /// The broker's words; empty when it gave none.
        detail: String,
    },
    /// The broker lacks a required feature.
    #[error("the broker does not offer the required feature {feature}: {detail}")]
    FeatureUnavailable {
        /// Which feature.
        feature: String,
        /// What is wrong with it.
        detail: String,
        /// Every required feature that is missing.
        missing: Vec<String>,
    },
    /// The broker's URL can never be used.
    #[error("{0}")]
    Url(String),
}

// === impl End ===

impl End {
    /// The stable code, which also gives the exit code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Closed { terminal, .. } => match terminal {
                Terminal::Banned | Terminal::Revoked => ErrorCode::MemberRevoked,
                Terminal::Replaced => ErrorCode::ReplacedByNewerConnection,
                Terminal::AlreadyConnected => ErrorCode::MemberAlreadyConnected,
                Terminal::FeatureUnavailable => ErrorCode::FeatureUnavailable,
            },
            Self::FeatureUnavailable { .. } => ErrorCode::FeatureUnavailable,
            Self::Url(_) => ErrorCode::ConfigInvalid,
        }
    }
}

fn detail_text(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" (the broker says: {detail})") }
}

fn describe(terminal: &Terminal) -> &'static str {
    match terminal {
        Terminal::Banned => "the broker banned this member",
        Terminal::Revoked => "this member was revoked",
        Terminal::Replaced => {
            "another connection of this member took over; if this host is not a copy, find the other one that uses its key"
        }
        Terminal::AlreadyConnected => "another connection holds this member",
        Terminal::FeatureUnavailable => "the broker does not offer a required feature",
    }
}
