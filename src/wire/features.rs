//! Feature negotiation: what a broker can do, bit by bit, with parameters.
//!
//! The list of bits is the agreement; versions are information (R395 to R405).
//! A parameter that is missing, out of range or of an unknown version makes its
//! bit as good as missing, which [`NegotiationResponse::params_of`] reports as
//! an error. What follows from that is decided by the reader.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

macro_rules! features {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A thing that a broker can do and a client can ask for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Feature {
            $($(#[$doc])* $variant,)*
        }

        impl Feature {
            /// Every bit that this version knows.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The bit as it is written in frames and in the configuration.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The bit of that name; `None` for a name of another version.
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

features! {
    /// The broker dedupes on `client_message_id`.
    ClientMessageIdDedupe = "client_message_id_dedupe",
    /// The broker honours the mesh's policy for a second connection.
    ConcurrentConnectionPolicy = "concurrent_connection_policy",
    /// The broker announces rotated keys.
    MemberKeypairRotatedEvent = "member_keypair_rotated_event",
    /// Topic keys have epochs.
    KeyEpoch = "key_epoch",
    /// The broker states its size limits.
    MaxPayload = "max_payload",
    /// The broker waits for the receiver's acknowledgement and pushes again.
    DeliveryAck = "delivery_ack",
    /// The broker tells apart what waits for a key, what was set aside and what was
    /// delivered, and names the receiver.
    DeliveryOutcome = "delivery_outcome",
    /// Topics are encrypted end to end.
    TopicE2e = "topic_e2e",
    /// The broker keeps sealed history.
    History = "history",
    /// Files are encrypted end to end.
    FilesV3 = "files_v3",
    /// The broker states its rate limit.
    RateLimit = "rate_limit",
    /// Large frames go in pieces, and small ones between them.
    FramePieces = "frame_pieces",
    /// The broker tells when there is room for a receiver again.
    ReceiverReady = "receiver_ready",
}

/// What happens when a member connects while it is connected (R66 to R71).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConcurrencyPolicy {
    /// The older connection is closed with 4003.
    #[default]
    PreferNewest,
    /// The newer connection is closed with 4004.
    PreferOldest,
    /// Both stay as siblings.
    AllowConcurrent,
}

/// How long the broker remembers ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DedupeMode {
    /// For `dedupe_retention_days`.
    #[default]
    RetentionScoped,
    /// For ever.
    Permanent,
}

/// Parameters of [`Feature::ClientMessageIdDedupe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DedupeParams {
    /// Always 1.
    pub version: u32,
    /// How long ids are kept.
    pub mode: DedupeMode,
    /// Days; at least 1. Required unless the mode is `permanent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe_retention_days: Option<u32>,
}

/// Parameters of [`Feature::ConcurrentConnectionPolicy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConcurrencyParams {
    /// Always 1.
    pub version: u32,
    /// The mesh's policy.
    pub default_policy: ConcurrencyPolicy,
}

/// Parameters of [`Feature::KeyEpoch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEpochParams {
    /// Always 1.
    pub version: u32,
    /// Epochs of a topic that new messages may use; at least 1.
    pub max_concurrent_epochs: u32,
}

/// Parameters of [`Feature::MaxPayload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxPayloadParams {
    /// Always 1.
    pub version: u32,
    /// Largest text frame in bytes; at least 4096.
    pub inline_bytes: u64,
    /// Largest file in bytes; 0 when the broker stores none.
    pub blob_bytes: u64,
}

/// Parameters of [`Feature::RateLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimitParams {
    /// Always 1.
    pub version: u32,
    /// Sends per second and member; at least 1.
    pub per_s: u32,
    /// Sends at once; at least 1.
    pub burst: u32,
}

/// Parameters of a bit that has none beside its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionOnly {
    /// Always 1.
    pub version: u32,
}

/// A parameter block of one bit.
pub trait Params: Serialize + DeserializeOwned {
    /// What is wrong with the values, if anything.
    fn defect(&self) -> Option<&'static str>;
}

/// Why a bit's parameters cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// The bit is not in `supported`.
    #[error("the broker does not support {0}")]
    Unsupported(&'static str),
    /// The block is absent.
    #[error("the broker sent no parameters for {0}")]
    Missing(&'static str),
    /// The block has another shape or a value out of range.
    #[error("the broker's parameters for {feature} are not usable: {detail}")]
    Invalid {
        /// The bit.
        feature: &'static str,
        /// What is wrong.
        detail: String,
    },
}

/// `feature_negotiation_request`: sent right after `hello_ack`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NegotiationRequest {
    /// Bits without which the client will not go on.
    #[serde(default)]
    pub require: Vec<String>,
    /// Bits that the client would use.
    #[serde(default)]
    pub optional: Vec<String>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `feature_negotiation_response`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NegotiationResponse {
    /// Bits that the broker has; may hold more than were asked for.
    pub supported: Vec<String>,
    /// Parameters by bit.
    #[serde(default)]
    pub params: BTreeMap<String, Value>,
    /// Required bits that the broker lacks.
    #[serde(default)]
    pub missing_required: Vec<String>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `close_reason`: goes before a deliberate close, because the close frame
/// itself has room for 123 bytes only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseReason {
    /// Stable, lower_snake.
    pub kind: String,
    /// The bit that was missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature: Option<String>,
    /// For people.
    #[serde(default)]
    pub detail: String,
    /// The close code that follows.
    #[serde(default)]
    pub code: u16,
    /// Whether a new connection can succeed without an operator's action.
    #[serde(default)]
    pub retryable: bool,
}

/// `drain`: the broker is about to restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Milliseconds until a new connection makes sense; the client adds jitter.
    pub reconnect_after_ms: u64,
}

// === impl NegotiationResponse ===

impl NegotiationResponse {
    /// Whether the broker has the bit.
    pub fn supports(&self, feature: Feature) -> bool {
        self.supported.iter().any(|name| name == feature.as_str())
    }

    /// Adds a bit with its parameters (broker side).
    pub fn grant<P: Params>(&mut self, feature: Feature, params: &P) {
        self.supported.push(feature.as_str().to_owned());
        if let Ok(value) = serde_json::to_value(params) {
            self.params.insert(feature.as_str().to_owned(), value);
        }
    }

    /// The checked parameters of a bit (daemon side).
    pub fn params_of<P: Params>(&self, feature: Feature) -> Result<P, ParamError> {
        let name = feature.as_str();
        if !self.supports(feature) {
            return Err(ParamError::Unsupported(name));
        }
        let value = self.params.get(name).ok_or(ParamError::Missing(name))?;
        let params =
            P::deserialize(value).map_err(|error| ParamError::Invalid { feature: name, detail: error.to_string() })?;
        match params.defect() {
            None => Ok(params),
            Some(detail) => Err(ParamError::Invalid { feature: name, detail: detail.to_owned() }),
        }
    }

    /// The mesh's policy for a second connection; the default when the broker
    /// does not say. It is no required parameter: an unknown one is an error
    /// that leaves its bit in force.
    pub fn default_policy(&self) -> Result<ConcurrencyPolicy, String> {
        let params = self.params.get(Feature::ConcurrentConnectionPolicy.as_str());
        match params.and_then(|params| params.get("default_policy")) {
            None => Ok(ConcurrencyPolicy::default()),
            Some(value) => ConcurrencyPolicy::deserialize(value).map_err(|error| format!("default_policy: {error}")),
        }
    }
}

// === impl Params ===

const UNKNOWN_VERSION: &str = "the version is not 1";

impl Params for DedupeParams {
    fn defect(&self) -> Option<&'static str> {
        match (self.version, self.mode, self.dedupe_retention_days) {
            (1, DedupeMode::Permanent, _) | (1, DedupeMode::RetentionScoped, Some(1..)) => None,
            (1, DedupeMode::RetentionScoped, _) => Some("dedupe_retention_days is not at least 1"),
            _ => Some(UNKNOWN_VERSION),
        }
    }
}

impl Params for ConcurrencyParams {
    fn defect(&self) -> Option<&'static str> {
        (self.version != 1).then_some(UNKNOWN_VERSION)
    }
}

impl Params for KeyEpochParams {
    fn defect(&self) -> Option<&'static str> {
        match (self.version, self.max_concurrent_epochs) {
            (1, 1..) => None,
            (1, _) => Some("max_concurrent_epochs is not at least 1"),
            _ => Some(UNKNOWN_VERSION),
        }
    }
}

impl Params for MaxPayloadParams {
    fn defect(&self) -> Option<&'static str> {
        match (self.version, self.inline_bytes) {
            (1, 4096..) => None,
            (1, _) => Some("inline_bytes is not at least 4096"),
            _ => Some(UNKNOWN_VERSION),
        }
    }
}

impl Params for RateLimitParams {
    fn defect(&self) -> Option<&'static str> {
        match (self.version, self.per_s, self.burst) {
            (1, 1.., 1..) => None,
            (1, ..) => Some("per_s and burst are not at least 1"),
            _ => Some(UNKNOWN_VERSION),
        }
    }
}

impl Params for VersionOnly {
    fn defect(&self) -> Option<&'static str> {
        (self.version != 1).then_some(UNKNOWN_VERSION)
    }
}
