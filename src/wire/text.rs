//! Spellings that frames share: base64, base64url, hex signatures, ISO times.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, SecondsFormat};

use crate::domain::time::UnixMillis;

/// Standard alphabet with padding: nonces, ciphertexts, sealed keys.
pub fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Reads the standard alphabet with padding; `None` for any other text.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Reads a nonce: base64 of exactly 24 bytes.
pub fn nonce_from_base64(text: &str) -> Option<[u8; 24]> {
    // 24 bytes are exactly 32 digits: anything else needs no buffer.
    if text.len() != 32 {
        return None;
    }
    from_base64(text)?.try_into().ok()
}

/// URL-safe alphabet without padding: invite tokens, root keys.
pub fn to_base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads the URL-safe alphabet without padding; `None` for any other text.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Reads a signature: 128 hex digits.
pub fn signature_from_hex(text: &str) -> Option<[u8; 64]> {
    let mut bytes = [0_u8; 64];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// `2026-06-14T12:00:00.000Z`. A time outside the calendar's range is written
/// as 1970.
pub fn to_iso(time: UnixMillis) -> String {
    DateTime::from_timestamp_millis(time.0).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Reads an ISO 8601 time with any offset; `None` for any other text.
pub fn from_iso(text: &str) -> Option<UnixMillis> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| UnixMillis(time.timestamp_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_round_trip_and_refuse_others() {
        assert_eq!(to_base64(&[7; 24]), "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH");
        assert_eq!(nonce_from_base64("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH"), Some([7; 24]));
        assert_eq!(nonce_from_base64("BwcH"), None);
        assert_eq!(to_base64url(&[9; 32]), "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk");
        assert_eq!(from_base64("_w=="), None);
        assert_eq!(from_base64("/w"), None);
        assert_eq!(from_base64url("_w").as_deref(), Some(&[0xff][..]));
        assert_eq!(signature_from_hex("00"), None);
        assert_eq!(signature_from_hex(&"ab".repeat(64)), Some([0xab; 64]));
    }

    #[test]
    fn times_are_written_as_javascript_writes_them() {
        assert_eq!(to_iso(UnixMillis(1_700_000_000_001)), "2023-11-14T22:13:20.001Z");
        assert_eq!(from_iso("2023-11-14T23:13:20.001+01:00"), Some(UnixMillis(1_700_000_000_001)));
        assert_eq!(from_iso("yesterday"), None);
        assert_eq!(to_iso(UnixMillis(i64::MAX)), "1970-01-01T00:00:00.000Z");
    }
}
