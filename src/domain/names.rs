//! Display names: one spelling for comparison, and which are refused.

use unicode_normalization::UnicodeNormalization as _;
use unicode_properties::UnicodeEmoji as _;

/// Greatest length of a display name in characters.
pub const MAX_CHARS: usize = 64;

/// Signs that lists of members are made of: `bob (8f1c…), eve`, `bob?8f1c…`.
const RESERVED: [char; 4] = [',', '(', ')', '?'];
/// Signs that begin destinations of other kinds.
const BEGINS_OTHERS: [char; 3] = ['#', '@', '*'];
/// Ends the name of a session.
const ENDS_SESSION: char = '~';
/// Makes one picture of several emoji.
const JOINER: char = '\u{200D}';
/// Asks for the picture of a sign that has a plain form too.
const EMOJI_PICTURE: char = '\u{FE0F}';

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
    /// It begins with a sign that marks another kind of destination, or holds one
    /// that lists of members are made of.
    #[error("a display name must not begin with `#`, `@` or `*`, end with `~`, nor hold `,`, `(`, `)` or `?`")]
    ReservedSign,
}

/// Checks a name and returns it in composed form, with one space between its words.
pub fn check(text: &str) -> Result<String, NameError> {
    let name = composed(text);
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    let chars = name.chars().count();
    if chars > MAX_CHARS {
        return Err(NameError::TooLong(chars));
    }
    if marked(&name, is_unprintable).any(|(_, refused)| refused) {
        return Err(NameError::Unprintable);
    }
    if name.starts_with(BEGINS_OTHERS) || name.ends_with(ENDS_SESSION) || name.contains(RESERVED) {
        return Err(NameError::ReservedSign);
    }
    if looks_like_key(&name) {
        return Err(NameError::LooksLikeKey);
    }
    Ok(name)
}

/// A name of another program's making without what none may hold; `None` when
/// nothing usable is left.
pub fn cleaned(text: &str) -> Option<String> {
    let allowed = marked(text, |c| is_unprintable(c) || RESERVED.contains(&c)).filter(|(_, refused)| !refused);
    let text: String = allowed.map(|(c, _)| c).collect();
    let text = text.trim_start_matches(BEGINS_OTHERS).trim_end_matches(ENDS_SESSION).trim();
    let text: String = text.chars().take(MAX_CHARS).collect();
    check(&text).ok()
}

/// A name as it is shown, whoever chose it: cut, and with a mark for each character that
/// none may hold, so that it cannot look like several names or like a name and a key.
pub fn shown(text: &str) -> String {
    let text = text.trim();
    let end = text.char_indices().nth(MAX_CHARS).map_or(text.len(), |(at, _)| at);
    replace(&text[..end], |c| is_unprintable(c) || RESERVED.contains(&c))
}

/// The name of a session: its own word, never in the form of a member's.
pub fn session(text: &str) -> String {
    format!("{}{ENDS_SESSION}", shown(text))
}

/// A text with a mark in place of each character that is refused. Those that hold an
/// emoji together are let through.
pub fn replace(text: &str, is_refused: impl Fn(char) -> bool) -> String {
    marked(text, is_refused).map(|(c, refused)| if refused { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The form in which names are compared: compatibility-composed, without case and
/// without the choice of an emoji's picture. Upper case comes first, because some
/// letters meet there only (`ß` and `SS`, the two forms of a small sigma).
pub fn key(text: &str) -> String {
    let plain = composed(text);
    let plain = plain.chars().filter(|c| *c != EMOJI_PICTURE);
    plain.flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkc().collect()
}

/// The compared form of a name, if it can be one.
pub fn claimed(text: &str) -> Option<String> {
    check(text).is_ok().then(|| key(text))
}

fn composed(text: &str) -> String {
    let composed: String = text.nfkc().collect();
    composed.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The characters of a text, each with whether it is refused where it stands.
fn marked(text: &str, is_refused: impl Fn(char) -> bool) -> impl Iterator<Item = (char, bool)> {
    let mut before = None;
    text.char_indices().map(move |(at, c)| {
        let after = text[at + c.len_utf8()..].chars().next();
        let refused = is_refused(c) && !is_in_emoji(before, c, after);
        before = Some(c);
        (c, refused)
    })
}

/// Whether a character without a shape holds an emoji together.
fn is_in_emoji(before: Option<char>, c: char, after: Option<char>) -> bool {
    let is_emoji = |c: char| !c.is_ascii() && c.is_emoji_char();
    match c {
        EMOJI_PICTURE => before.is_some_and(|c| c.is_emoji_char()),
        JOINER => before.is_some_and(|c| c == EMOJI_PICTURE || is_emoji(c)) && after.is_some_and(is_emoji),
        _ => false,
    }
}

fn is_unprintable(c: char) -> bool {
    c.is_control() || changes_direction(c) || is_invisible(c)
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
    fn emoji_are_names_and_hide_nothing() {
        let family = "\u{1F469}\u{200D}\u{1F467}";
        for name in ["\u{1F980}", family, "\u{2764}\u{FE0F}\u{200D}\u{1F525} ops", "1\u{FE0F}\u{20E3}"] {
            assert_eq!(check(name).as_deref(), Ok(name));
            assert_eq!(shown(name), name);
        }
        assert_eq!(key("\u{2764}\u{FE0F}"), key("\u{2764}"));
        assert_ne!(key(family), key("\u{1F469}"));
        for hidden in ["b\u{200D}ob", "bob\u{200D}", "bob\u{FE0F}", "\u{1F469}\u{200D}", "\u{200D}\u{1F469}"] {
            assert_eq!(check(hidden), Err(NameError::Unprintable), "{hidden:?}");
        }
    }

    #[test]
    fn foreign_names_are_cleaned_or_marked() {
        assert_eq!(cleaned(" Bob\u{7} (laptop)? ").as_deref(), Some("Bob laptop"));
        assert_eq!(cleaned("#ops").as_deref(), Some("ops"));
        assert_eq!(cleaned(&"x".repeat(99)), Some("x".repeat(64)));
        assert_eq!((cleaned("(?)"), cleaned("deadbeefdeadbeef")), (None, None));
        assert_eq!(shown("eve, bob (8f1c)"), "eve\u{FFFD} bob \u{FFFD}8f1c\u{FFFD}");
        assert_eq!(shown(" a\u{202E}b "), "a\u{FFFD}b");
        assert_eq!((shown(&"x".repeat(99)), session("bob")), ("x".repeat(64), "bob~".to_owned()));
    }

    #[test]
    fn names_that_could_mislead_are_refused() {
        assert_eq!(check(" build \u{A0} host "), Ok("build host".to_owned()));
        assert_eq!(check("deadbeef"), Ok("deadbeef".to_owned()));
        assert_eq!(check("deadbeefdeadbeef"), Err(NameError::LooksLikeKey));
        assert_eq!(check("a\u{202E}b"), Err(NameError::Unprintable));
        assert_eq!(check("a\u{AD}b"), Err(NameError::Unprintable));
        assert_eq!(check("ab\u{E0041}"), Err(NameError::Unprintable));
        assert_eq!(check("a\u{7}b"), Err(NameError::Unprintable));
        for sign in ["#ops", "eve, bob", "bob (842f37f184132194)", "bob\u{FF1F}d5c1bafc", "a)", "bob~"] {
            assert_eq!(check(sign), Err(NameError::ReservedSign), "{sign}");
        }
        assert_eq!(check("   "), Err(NameError::Empty));
        assert_eq!(check(&"x".repeat(65)), Err(NameError::TooLong(65)));
    }
}
