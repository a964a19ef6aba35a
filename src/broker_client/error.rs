//! Why the link is down, for now or for good. Each text is what `daemon status`
//! shows: what happened, where, and what to do.

use std::time::Duration;

use super::diagnosis;
use crate::domain::error_code::ErrorCode;
use crate::runtime::dial;
use crate::wire::close::{self, Terminal};

/// A try to connect, or a connection, failed. The next try comes by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error(transparent)]
    Dial(dial::Error),
    /// Something answers that is no broker.
    #[error("{address} is no claudemesh broker: {detail}; check the broker's address, which came with the invite")]
    NotABroker {
        /// Host and port.
        address: String,
        /// What it did.
        detail: String,
    },
    /// TLS on one side only, or a certificate that is not trusted.
    #[error("TLS with {address} failed: {detail}")]
    Tls {
        /// Host and port.
        address: String,
        /// What went wrong, and what helps.
        detail: String,
    },
    /// The upgrade to a WebSocket failed in another way.
    #[error("{address} did not open a WebSocket: {detail}; check that the broker runs well there")]
    Upgrade {
        /// Host and port.
        address: String,
        /// What went wrong.
        detail: String,
    },
    /// Something took too long.
    #[error("the broker did not answer within {0:?}; check that it runs and that the network lets it through")]
    NoAnswer(Duration),
    /// The broker refused the hello because of this host's clock.
    #[error("{}", clock_text(*.offset_ms))]
    ClockSkew {
        /// Broker time minus own time; `None` for brokers that do not tell.
        offset_ms: Option<i64>,
    },
    /// The broker refused the hello.
    #[error("{}", refused_text(broker, code, message))]
    Refused {
        /// The broker's URL.
        broker: String,
        /// The broker's code.
        code: String,
        /// The broker's words.
        message: String,
    },
    /// The socket was closed.
    #[error("{}{}", closed_text(*.code, reason), detail_text(detail))]
    Closed {
        /// WebSocket close code; 1006 when there was none.
        code: u16,
        /// Its reason.
        reason: String,
        /// The broker's words before it; empty when it gave none.
        detail: String,
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
    #[error("the link to the broker broke: {0}")]
    Broken(String),
    /// Nothing came for too long.
    #[error("the broker was silent for {0:?}, so the link counts as dead")]
    Silent(Duration),
    /// Nothing of what was written went out for too long.
    #[error("nothing could be written to the broker for {0:?}, so the link counts as dead")]
    Stalled(Duration),
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
}

// === impl Error ===

impl Error {
    /// The stable code of this failure.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotABroker { .. } => ErrorCode::NotABroker,
            Self::Tls { .. } | Self::Dial(dial::Error::Authorities(_)) => ErrorCode::BrokerTlsFailed,
            Self::ClockSkew { .. } => ErrorCode::ClockSkew,
            // The broker's own trouble, which passes.
            Self::Refused { code, .. } if matches!(code.as_str(), "internal" | "capacity") => {
                ErrorCode::BrokerUnreachable
            }
            Self::Refused { .. } => ErrorCode::HelloRefused,
            Self::FeatureMissing { .. } => ErrorCode::FeatureUnavailable,
            Self::Stopping => ErrorCode::DaemonShuttingDown,
            Self::Ended(end) => end.code(),
            Self::Dial(_)
            | Self::Upgrade { .. }
            | Self::NoAnswer(_)
            | Self::NotNegotiated { .. }
            | Self::Renewed
            | Self::Closed { .. }
            | Self::Broken(_)
            | Self::Silent(_)
            | Self::Stalled(_)
            | Self::LinkDown => ErrorCode::BrokerUnreachable,
        }
    }

    /// How a link ended that was up, in one word, for the metrics.
    pub fn kind_of_loss(&self) -> &'static str {
        match self {
            Self::Closed { .. } => "closed",
            Self::Silent(_) => "silent",
            Self::Renewed => "renewed",
            _ => "broken",
        }
    }

    /// The code of the WebSocket's close that ended the link; 0 when it broke
    /// without one.
    pub fn close_code(&self) -> u16 {
        match self {
            // Stands for no code at all.
            Self::Closed { code: 1006, .. } => 0,
            Self::Closed { code, .. } => *code,
            _ => 0,
        }
    }
}

impl From<dial::Error> for Error {
    fn from(error: dial::Error) -> Self {
        match error {
            dial::Error::Tls { address, fault } => diagnosis::of_tls(address, &fault),
            error => Self::Dial(error),
        }
    }
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

fn clock_text(offset_ms: Option<i64>) -> String {
    match offset_ms {
        Some(offset) => format!(
            "the broker refused the hello because this host's clock is {}; the next hello uses the broker's time, but \
             set the clock",
            offset_text(offset)
        ),
        None => "the broker refused the hello because this host's clock is more than a minute from its own, which it \
                 does not tell; set this host's clock"
            .to_owned(),
    }
}

/// A clock's offset (broker time minus own time) in words.
pub fn offset_text(offset_ms: i64) -> String {
    let side = if offset_ms > 0 { "behind" } else { "ahead of" };
    // To the second: the measure is no better.
    let span = Duration::from_secs(offset_ms.unsigned_abs().saturating_add(500) / 1000);
    format!("{} {side} the broker's", humantime::format_duration(span))
}

fn refused_text(broker: &str, code: &str, message: &str) -> String {
    match code {
        "unauthorized" => format!(
            "the broker at {broker} knows no member with this key in this mesh ({code}: {message}); check that this is \
             the mesh's broker, or ask an admin for a new invite"
        ),
        "capacity" => format!("the broker at {broker} has no place for more connections of this mesh ({message})"),
        "internal" => format!("the broker at {broker} failed ({message}); its log says more"),
        _ => format!("the broker at {broker} refused this member's hello ({code}: {message})"),
    }
}

fn closed_text(code: u16, reason: &str) -> String {
    match (code, reason) {
        (close::GOING_AWAY, _) => "the broker stops or restarts (close code 1001)".to_owned(),
        (1006, _) => "the broker closed the link without a word (close code 1006)".to_owned(),
        (close::TOO_LARGE, _) => {
            "the broker closed the link because a frame was too large (close code 1009)".to_owned()
        }
        (close::KICKED, _) => "an administrator of the broker closed the link (close code 4001)".to_owned(),
        (code, "") => format!("the broker closed the link with code {code}"),
        (code, reason) => format!("the broker closed the link with code {code}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_says_which_clock_is_ahead() {
        assert_eq!(offset_text(300_000), "5m behind the broker's");
        assert_eq!(offset_text(-65_000), "1m 5s ahead of the broker's");
    }

    #[test]
    fn a_refusal_has_the_code_of_its_cause() {
        let refused = |code: &str| Error::Refused { broker: "ws://b".into(), code: code.into(), message: "m".into() };
        assert_eq!(refused("unauthorized").code(), ErrorCode::HelloRefused);
        assert_eq!(refused("internal").code(), ErrorCode::BrokerUnreachable);
    }
}
