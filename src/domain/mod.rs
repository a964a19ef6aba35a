//! Pure decisions and the vocabulary they are made in.
//!
//! What it is for: every rule of the product that can be a plain function or a
//! table lives here, so that it can be read and tested without a socket, a
//! clock or a database.
//! What runs here: nothing. No task, no await.
//! What it guarantees: the same input gives the same output; "now" and random
//! bytes are arguments.
//! What it must not do: read a clock, draw random numbers, touch files, the
//! network, the environment, or name a framework type.

pub mod accept;
pub mod age_limit;
pub mod capability;
pub mod certificate;
pub mod clock_trust;
pub mod dedupe;
pub mod error_code;
pub mod event;
pub mod fingerprint;
pub mod foreign;
pub mod holds;
pub mod hook_input;
pub mod hook_policy;
pub mod hook_rate;
pub mod ids;
pub mod key_chain;
pub mod message;
pub mod names;
pub mod nearest;
pub mod negotiation;
pub mod operator;
pub mod outbox;
pub mod pace;
pub mod pinning;
pub mod pressure;
pub mod profile;
pub mod provenance;
pub mod redact;
pub mod reply;
pub mod retry;
pub mod roster;
pub mod sweep_guard;
pub mod time;
pub mod topics;
pub mod trust;
