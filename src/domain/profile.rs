//! What a member shows of itself, and what of another member's words is shown.

use super::names;

/// Greatest length of a summary in bytes of UTF-8.
pub const MAX_SUMMARY_BYTES: usize = 1024;

/// What a member is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Free.
    #[default]
    Idle,
    /// Busy.
    Working,
    /// Does not want to be disturbed.
    Dnd,
}

/// What this member shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What it works on, in its own words; empty when it does not say.
    pub summary: String,
    /// What it is doing.
    pub status: Status,
    /// Others see it in their lists.
    pub visible: bool,
}

/// What to change of a profile; the rest stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// A new summary; empty clears it.
    pub summary: Option<String>,
    /// A new status.
    pub status: Option<Status>,
    /// Whether others see the member.
    pub visible: Option<bool>,
}

/// Why a text cannot be a summary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SummaryError {
    /// Too long.
    #[error("a summary has at most {MAX_SUMMARY_BYTES} bytes of UTF-8, this one has {0}")]
    TooLong(usize),
    /// It could not be shown on one line as it is.
    #[error("a summary is one line without control and text-direction characters")]
    Unprintable,
}

// === impl Status ===

impl Status {
    /// As the link and the profile's file write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Working => "working",
            Self::Dnd => "dnd",
        }
    }

    /// The status of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Idle, Self::Working, Self::Dnd].into_iter().find(|one| one.name() == name)
    }
}

// === impl Profile ===

impl Default for Profile {
    fn default() -> Self {
        Self { summary: String::new(), status: Status::default(), visible: true }
    }
}

impl Profile {
    /// The profile after a change.
    pub fn changed(&self, change: Change) -> Result<Self, SummaryError> {
        Ok(Self {
            summary: change.summary.map_or_else(|| Ok(self.summary.clone()), |text| check_summary(&text))?,
            status: change.status.unwrap_or(self.status),
            visible: change.visible.unwrap_or(self.visible),
        })
    }
}

/// Checks an own summary and returns it trimmed.
fn check_summary(text: &str) -> Result<String, SummaryError> {
    let text = text.trim();
    if text.len() > MAX_SUMMARY_BYTES {
        return Err(SummaryError::TooLong(text.len()));
    }
    if text.chars().any(is_unprintable) {
        return Err(SummaryError::Unprintable);
    }
    Ok(text.to_owned())
}

/// What is kept of another member's summary: as much as one may have, with a mark
/// for each character that none may have.
pub fn shown_summary(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(MAX_SUMMARY_BYTES)];
    cut.chars().map(|c| if is_unprintable(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Joiners are let through: they hold emoji together, and a summary is compared
/// with nothing.
fn is_unprintable(c: char) -> bool {
    let ends_a_line = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    ends_a_line || (names::changes_direction(c) && !matches!(c, '\u{200C}' | '\u{200D}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(text: &str) -> Result<String, SummaryError> {
        let change = Change { summary: Some(text.to_owned()), ..Change::default() };
        Profile::default().changed(change).map(|profile| profile.summary)
    }

    // Covers: R84
    #[test]
    fn only_what_is_given_changes() {
        let change =
            Change { summary: Some(" the build ".to_owned()), status: Some(Status::Dnd), visible: Some(false) };
        let set = Profile::default().changed(change).unwrap();
        assert_eq!(set, Profile { summary: "the build".to_owned(), status: Status::Dnd, visible: false });
        assert_eq!(set.changed(Change::default()).unwrap(), set);
        let cleared = set.changed(Change { summary: Some(String::new()), ..Change::default() }).unwrap();
        assert_eq!(cleared, Profile { summary: String::new(), ..set });
    }

    #[test]
    fn a_summary_is_bounded_in_bytes_and_one_printable_line() {
        assert!(summary(&"ü".repeat(512)).is_ok());
        assert_eq!(summary(&format!("{}x", "ü".repeat(512))), Err(SummaryError::TooLong(1025)));
        for bad in ["a\nb", "a\tb", "a\u{1b}[31m", "a\u{202E}b", "a\u{2066}b", "a\u{85}b", "a\u{2028}b"] {
            assert_eq!(summary(bad), Err(SummaryError::Unprintable), "{bad:?}");
        }
        let emoji = "\u{1F469}\u{200D}\u{1F4BB}";
        assert_eq!(summary(emoji).as_deref(), Ok(emoji));
    }

    #[test]
    fn what_another_member_says_is_cut_and_marked() {
        assert_eq!(shown_summary("a\u{1b}[31m\u{202E}b\nc"), "a\u{FFFD}[31m\u{FFFD}b\u{FFFD}c");
        assert_eq!(shown_summary(&"ü".repeat(600)), "ü".repeat(512));
        // Two bytes a letter from an odd place: the cut is before the letter.
        assert_eq!(shown_summary(&format!("x{}", "ü".repeat(600))).len(), 1023);
    }
}
