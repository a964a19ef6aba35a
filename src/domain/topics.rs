//! Topics: their names, whom a key is given to, and whose epochs count.
//!
//! A broker stands between the members and could invent some of them. So a key
//! goes only to whom the mesh's owner certified or the operator admitted, and an
//! epoch counts only when such a member signed it. What counts depends on the
//! signed statement and on whom this daemon trusts, never on who is shown to be in
//! the topic now: all daemons come to the same end, whenever they look.

use super::certificate::CertifiedRole;

/// Greatest length of a topic's name, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Greatest length of a topic's description, in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 256;

/// Why a text cannot be a topic's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a topic's name is 1 to {MAX_NAME_BYTES} characters of a-z, 0-9, `-`, `_` and `.`, and begins with a letter or a digit"
)]
pub struct NameError;

/// What this daemon knows of a member, as far as keys are concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// It is this daemon's own member.
    pub is_own: bool,
    /// What the mesh's owner let it do.
    pub certified: Option<CertifiedRole>,
    /// The operator compared its safety number, or admitted it to the topic.
    pub admitted: bool,
    /// It is no member any more, or its key is in question.
    pub is_out: bool,
}

/// Why an epoch is not adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Nobody who is known signed it.
    #[error("its key was made by somebody whom this daemon does not know")]
    UnknownSigner,
    /// Neither the owner nor the operator vouches for the signer.
    #[error(
        "its key was made by a member without the owner's certificate; compare safety numbers with \
         `claudemesh verify`, and it counts"
    )]
    UncertifiedSigner,
    /// It does not follow the epoch before, or is not signed.
    #[error("its key does not follow the one before, or is not signed by who made it")]
    NotASuccessor,
    /// The name is another one than this daemon knows.
    #[error("the broker shows it under another name")]
    OtherName,
}

// === impl Standing ===

impl Standing {
    /// Whether a topic's key may be given to it, and its word on a topic counts.
    pub fn is_trusted(&self) -> bool {
        !self.is_out && (self.is_own || self.admitted || self.certified.is_some())
    }
}

/// Checks a name and gives it in its one spelling, without the sign.
pub fn check_name(text: &str) -> Result<&str, NameError> {
    let name = text.strip_prefix('#').unwrap_or(text);
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let begins = name.bytes().next().is_some_and(is_plain);
    let fits = name.len() <= MAX_NAME_BYTES && name.bytes().all(|byte| is_plain(byte) || b"-_.".contains(&byte));
    if begins && fits { Ok(name) } else { Err(NameError) }
}

/// Whether an epoch counts, by what is known of the member who signed it with a
/// key of that member; `None` if nothing is.
pub fn counts(signer: Option<Standing>) -> Result<(), Distrust> {
    match signer {
        None => Err(Distrust::UnknownSigner),
        Some(standing) if standing.is_trusted() => Ok(()),
        Some(_) => Err(Distrust::UncertifiedSigner),
    }
}

/// Whether this member begins epochs: the lead, admins, and where no lead is left
/// anybody whose word the others take, if there is one. What others do is not
/// decided by it.
pub fn may_begin(own: Standing, is_lead: bool, lead_is_there: bool, others_certified: bool) -> bool {
    let stands_in = !lead_is_there && (own.certified.is_some() || !others_certified);
    own.is_trusted() && (is_lead || own.certified == Some(CertifiedRole::Admin) || stands_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFIED: Standing =
        Standing { is_own: false, certified: Some(CertifiedRole::Member), admitted: false, is_out: false };

    #[test]
    fn names_have_one_spelling() {
        for (text, name) in [("ops", "ops"), ("#ops", "ops"), ("a.b-c_9", "a.b-c_9"), ("9", "9")] {
            assert_eq!(check_name(text), Ok(name));
        }
        for bad in ["", "#", "Ops", "-a", ".", "a b", "a|b", "ö", "##a", &"a".repeat(65)] {
            assert_eq!(check_name(bad), Err(NameError), "{bad}");
        }
    }

    // Covers: D-E3, D-E4
    #[test]
    fn an_epoch_counts_when_its_signer_is_vouched_for() {
        assert_eq!(counts(None), Err(Distrust::UnknownSigner));
        assert_eq!(counts(Some(Standing::default())), Err(Distrust::UncertifiedSigner));
        assert_eq!(counts(Some(CERTIFIED)), Ok(()));
        assert_eq!(counts(Some(Standing { is_out: true, ..CERTIFIED })), Err(Distrust::UncertifiedSigner));
        assert_eq!(counts(Some(Standing { is_own: true, ..Standing::default() })), Ok(()));
        assert_eq!(counts(Some(Standing { admitted: true, ..Standing::default() })), Ok(()));
    }

    #[test]
    fn the_lead_and_admins_renew_and_without_a_lead_whose_word_counts_for_most() {
        let admin = Standing { certified: Some(CertifiedRole::Admin), ..CERTIFIED };
        let own = Standing { is_own: true, ..Standing::default() };
        assert!(may_begin(CERTIFIED, true, true, true) && may_begin(admin, false, true, true));
        assert!(!may_begin(CERTIFIED, false, true, false) && may_begin(CERTIFIED, false, false, true));
        assert!(may_begin(own, true, true, true) && may_begin(own, false, false, false));
        assert!(!may_begin(own, false, false, true), "the certified ones renew");
        assert!(!may_begin(Standing { is_out: true, ..admin }, true, false, false));
    }
}
