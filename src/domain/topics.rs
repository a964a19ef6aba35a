//! Topics: their names, who may begin an epoch of a key, and who may be given one.
//!
//! A broker stands between the members and could invent some of them. So a key
//! goes only to whom the mesh's owner certified or the operator admitted, and an
//! epoch counts only when such a member signed it.

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
    /// It neither leads the topic nor administers the mesh.
    #[error("its key was made by a member who neither leads the topic nor administers the mesh")]
    NotAllowed,
    /// It does not follow the epoch before, or is not signed.
    #[error("its key does not follow the one before, or is not signed by who made it")]
    NotASuccessor,
    /// The name is another one than this daemon knows.
    #[error("the broker shows it under another name")]
    OtherName,
}

/// Who begins an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signer {
    /// What is known of it; `None` if nothing is.
    pub standing: Option<Standing>,
    /// It began the topic's first epoch.
    pub is_lead: bool,
    /// The epoch before was for it.
    pub was_in: bool,
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

/// Whether the first epoch of a topic counts: its signer leads the topic.
pub fn may_found(signer: Option<Standing>) -> Result<(), Distrust> {
    match signer {
        None => Err(Distrust::UnknownSigner),
        Some(standing) if standing.is_trusted() => Ok(()),
        Some(_) => Err(Distrust::UncertifiedSigner),
    }
}

/// Whether a later epoch counts. `lead_is_there` says whether the lead is still a
/// member of mesh and topic; without one, whoever had the key before may go on.
pub fn may_follow(signer: Signer, lead_is_there: bool) -> Result<(), Distrust> {
    let standing = signer.standing.ok_or(Distrust::UnknownSigner)?;
    if !standing.is_trusted() {
        return Err(Distrust::UncertifiedSigner);
    }
    let is_admin = standing.certified == Some(CertifiedRole::Admin);
    if signer.is_lead || is_admin || (!lead_is_there && signer.was_in) { Ok(()) } else { Err(Distrust::NotAllowed) }
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

    #[test]
    fn only_who_is_vouched_for_founds_a_topic() {
        assert_eq!(may_found(None), Err(Distrust::UnknownSigner));
        assert_eq!(may_found(Some(Standing::default())), Err(Distrust::UncertifiedSigner));
        assert_eq!(may_found(Some(CERTIFIED)), Ok(()));
        assert_eq!(may_found(Some(Standing { is_out: true, ..CERTIFIED })), Err(Distrust::UncertifiedSigner));
        assert_eq!(may_found(Some(Standing { is_own: true, ..Standing::default() })), Ok(()));
        assert_eq!(may_found(Some(Standing { admitted: true, ..Standing::default() })), Ok(()));
    }

    // Covers: D-E3
    #[test]
    fn a_later_epoch_is_the_leads_or_an_admins() {
        let signer = |standing, is_lead, was_in| Signer { standing: Some(standing), is_lead, was_in };
        let admin = Standing { certified: Some(CertifiedRole::Admin), ..CERTIFIED };
        let verified = Standing { admitted: true, ..Standing::default() };
        assert_eq!(may_follow(signer(CERTIFIED, true, true), true), Ok(()));
        assert_eq!(may_follow(signer(verified, true, true), true), Ok(()));
        assert_eq!(may_follow(signer(admin, false, false), true), Ok(()));
        assert_eq!(may_follow(signer(CERTIFIED, false, true), true), Err(Distrust::NotAllowed));
        assert_eq!(may_follow(signer(CERTIFIED, false, true), false), Ok(()));
        assert_eq!(may_follow(signer(CERTIFIED, false, false), false), Err(Distrust::NotAllowed));
        assert_eq!(may_follow(signer(Standing::default(), true, true), true), Err(Distrust::UncertifiedSigner));
        let out = Standing { is_out: true, ..admin };
        assert_eq!(may_follow(signer(out, true, true), true), Err(Distrust::UncertifiedSigner));
        let nobody = Signer { standing: None, is_lead: true, was_in: true };
        assert_eq!(may_follow(nobody, false), Err(Distrust::UnknownSigner));
    }
}
