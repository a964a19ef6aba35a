//! Close codes, and the table that says which of them end a daemon.
//!
//! The exit code of each terminal cause is the daemon's matter; here stands
//! only whether to come back.

/// Normal; a newer connection of the same session, or an administrator.
pub const NORMAL: u16 = 1000;
/// The broker stops.
pub const GOING_AWAY: u16 = 1001;
/// The hello was refused; the reason is the error code.
pub const POLICY: u16 = 1008;
/// A frame was above the limit.
pub const TOO_LARGE: u16 = 1009;
/// An administrator threw the connection out; it may come back.
pub const KICKED: u16 = 4001;
/// The member is banned.
pub const BANNED: u16 = 4002;
/// A newer connection of the member took over (R66).
pub const REPLACED: u16 = 4003;
/// The member is connected and the policy keeps the older connection.
pub const ALREADY_CONNECTED: u16 = 4004;
/// The member was revoked.
pub const REVOKED: u16 = 4005;
/// A required feature bit is missing (R404).
pub const FEATURE_UNAVAILABLE: u16 = 4010;

/// Longest reason that a WebSocket close frame can hold, in bytes.
pub const MAX_REASON_BYTES: usize = 123;

/// Why a daemon gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Terminal {
    /// Close 4002, or a refusal as banned.
    Banned,
    /// Close 4003. The next start says hello with `yield`.
    Replaced,
    /// Close 4004.
    AlreadyConnected,
    /// Close 4005, or a refusal as revoked.
    Revoked,
    /// Close 4010. Where the bits were granted before, the caller waits out a
    /// grace first: one node of a broker may be older for a moment.
    FeatureUnavailable,
}

/// Why a daemon comes back, as far as it changes what it does first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Back off and connect.
    Backoff,
    /// Connect with a send window of 1, to find the frame that was too large.
    OneAtATime,
    /// Compare the clock with the broker's.
    ClockSkew,
    /// Make a new attestation first.
    NewAttestation,
}

/// What follows from a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reaction {
    /// Stop; coming back would fail again or evict somebody.
    Terminal(Terminal),
    /// Come back.
    Retry(Retry),
}

/// What follows from a close with this code and reason. A code that is not in
/// the table is retried: stopping for good needs a known cause.
pub fn reaction(code: u16, reason: &str) -> Reaction {
    match (code, reason) {
        (BANNED, _) | (POLICY, "banned") => Reaction::Terminal(Terminal::Banned),
        (REVOKED, _) | (POLICY, "revoked" | "keypair_revoked" | "member_revoked") => {
            Reaction::Terminal(Terminal::Revoked)
        }
        (REPLACED, _) => Reaction::Terminal(Terminal::Replaced),
        (ALREADY_CONNECTED, _) => Reaction::Terminal(Terminal::AlreadyConnected),
        (FEATURE_UNAVAILABLE, _) => Reaction::Terminal(Terminal::FeatureUnavailable),
        (TOO_LARGE, _) => Reaction::Retry(Retry::OneAtATime),
        (POLICY, "timestamp_skew") => Reaction::Retry(Retry::ClockSkew),
        (POLICY, "expired" | "ttl_too_long") => Reaction::Retry(Retry::NewAttestation),
        _ => Reaction::Retry(Retry::Backoff),
    }
}

/// The reason text that our broker sends with a code.
pub const fn reason(code: u16) -> &'static str {
    match code {
        GOING_AWAY => "shutting down",
        KICKED => "kicked",
        BANNED => "banned",
        REPLACED => "replaced_by_newer_connection",
        ALREADY_CONNECTED => "member_already_connected",
        REVOKED => "member_revoked",
        FEATURE_UNAVAILABLE => "feature_unavailable",
        _ => "",
    }
}

/// The part of a text that fits into a close frame.
pub fn fit_reason(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_REASON_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_reactions() {
        use Reaction::{Retry as R, Terminal as T};
        let table = [
            (1000, "session_replaced", R(Retry::Backoff)),
            (1000, "disconnected", R(Retry::Backoff)),
            (1001, "shutting down", R(Retry::Backoff)),
            (1006, "", R(Retry::Backoff)),
            (1008, "timestamp_skew", R(Retry::ClockSkew)),
            (1008, "bad_signature", R(Retry::Backoff)),
            (1008, "unauthorized", R(Retry::Backoff)),
            (1008, "capacity", R(Retry::Backoff)),
            (1008, "expired", R(Retry::NewAttestation)),
            (1008, "ttl_too_long", R(Retry::NewAttestation)),
            (1008, "revoked", T(Terminal::Revoked)),
            (1009, "", R(Retry::OneAtATime)),
            (4001, "kicked", R(Retry::Backoff)),
            (4002, "banned", T(Terminal::Banned)),
            (4003, "replaced_by_newer_connection", T(Terminal::Replaced)),
            (4004, "member_already_connected", T(Terminal::AlreadyConnected)),
            (4005, "member_revoked", T(Terminal::Revoked)),
            (4010, "feature_unavailable", T(Terminal::FeatureUnavailable)),
            (4011, "", R(Retry::Backoff)),
        ];
        for (code, text, expected) in table {
            assert_eq!(reaction(code, text), expected, "{code} {text}");
        }
    }

    #[test]
    fn reasons_fit_into_a_close_frame() {
        let text = "é".repeat(100);
        assert_eq!(fit_reason(&text).len(), 122);
        assert_eq!(fit_reason("short"), "short");
    }
}
