//! Display names: one spelling for comparison, and which are refused.

use unicode_normalization::UnicodeNormalization as _;

/// Greatest length of a display name in characters.
pub const MAX_CHARS: usize = 64;

/// Why a text cannot be a display name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing but white space.
    #[error("a display name must not be empty")]
    Empty,
    /// Too long.
    #[error("a display name has at most {MAX_CHARS} characters, this one has {0}")]
    TooLong(usize),
    /// A control, direction-changing or invisible character, which could make
    /// one name look like another.
    #[error("a display name must not hold control, text-direction or invisible characters")]
    Unprintable,
    /// It could be read as digits of a key.
    #[error("a display name must not look like the beginning of a key (16 or more hex digits)")]
    LooksLikeKey,
    /// It begins with a sign that marks another kind of destination.
    #[error("a display name must not begin with `#`, `@` or `*`")]
    ReservedSign,
}

/// Checks a name and returns it trimmed, in composed form.
pub fn check(text: &str) -> Result<String, NameError> {
    let name: String = text.trim().nfkc().collect();
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    let chars = name.chars().count();
    if chars > MAX_CHARS {
        return Err(NameError::TooLong(chars));
    }
    if name.chars().any(|c| c.is_control() || changes_direction(c) || is_invisible(c)) {
        return Err(NameError::Unprintable);
    }
    if name.starts_with(['#', '@', '*']) {
        return Err(NameError::ReservedSign);
    }
    if looks_like_key(&name) {
        return Err(NameError::LooksLikeKey);
    }
    Ok(name)
}

/// The form in which names are compared: compatibility-composed and without
/// case. Upper case comes first, because some letters meet there only (`ß` and
/// `SS`, the two forms of a small sigma).
pub fn key(text: &str) -> String {
    text.trim().nfkc().flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkc().collect()
}

/// Whether a text could be the first digits of a key.
pub fn looks_like_key(text: &str) -> bool {
    text.len() >= super::message::MIN_PREFIX_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Marks that reorder or hide text when it is shown.
pub fn changes_direction(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{061C}' | '\u{FEFF}')
}

/// Characters without a shape of their own.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{00AD}'
            | '\u{034F}'
            | '\u{115F}'
            | '\u{1160}'
            | '\u{17B4}'
            | '\u{17B5}'
            | '\u{180B}'..='\u{180F}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{3164}'
            | '\u{FE00}'..='\u{FE0F}'
            | '\u{FFF9}'..='\u{FFFB}'
            | '\u{E0000}'..='\u{E0FFF}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_case_and_width() {
        assert_eq!(key("  Bob "), key("BOB"));
        assert_eq!(key("ｂｏｂ"), "bob");
        assert_eq!(key("Straße"), key("STRASSE"));
        assert_eq!(key("ΣΊΣΥΦΟΣ"), key("σίσυφος"));
        assert_ne!(key("bob"), key("bob2"));
    }

    #[test]
    fn names_that_could_mislead_are_refused() {
        assert_eq!(check(" build host "), Ok("build host".to_owned()));
        assert_eq!(check("deadbeef"), Ok("deadbeef".to_owned()));
        assert_eq!(check("deadbeefdeadbeef"), Err(NameError::LooksLikeKey));
        assert_eq!(check("a\u{202E}b"), Err(NameError::Unprintable));
        assert_eq!(check("a\u{AD}b"), Err(NameError::Unprintable));
        assert_eq!(check("ab\u{E0041}"), Err(NameError::Unprintable));
        assert_eq!(check("a\u{7}b"), Err(NameError::Unprintable));
        assert_eq!(check("#ops"), Err(NameError::ReservedSign));
        assert_eq!(check("   "), Err(NameError::Empty));
        assert_eq!(check(&"x".repeat(65)), Err(NameError::TooLong(65)));
    }
}
