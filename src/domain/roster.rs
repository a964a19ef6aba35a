//! Who a destination means: the pinned list of all members, hidden and offline
//! ones included, decides; never a live lookup at the broker.

use std::fmt;
use std::time::Duration;

use super::error_code::ErrorCode;
use super::ids::{MemberId, MemberKey};
use super::key_chain::{self, PreviousKey};
use super::message::{Destination, MIN_PREFIX_DIGITS};
use super::names;
use super::nearest::nearest;
use super::time::UnixMillis;

/// Names that a member had and that are kept for it.
const MAX_FORMER_NAMES: usize = 8;

/// A member as this daemon has pinned it at first sight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedMember {
    /// Its id, which survives key rotation.
    pub member_id: MemberId,
    /// The key that this daemon trusts for it.
    pub key: MemberKey,
    /// The name that the broker gave last.
    pub display_name: String,
    /// The compared form of that name; `None` when it is no usable one.
    pub name_key: Option<String>,
    /// The name, in its compared form, that the operator gave to this member alone.
    pub accepted_name: Option<String>,
    /// The broker shows this other key without a rotation statement; nothing is
    /// sent to the member until the operator accepts it.
    pub changed_key: Option<MemberKey>,
    /// The broker says that the member was removed.
    pub revoked: bool,
    /// What the member's daemon can read, from statements signed by its key.
    /// Nothing is ever taken out.
    pub capabilities: Vec<String>,
    /// What the broker shows of it now.
    pub shown_capabilities: Vec<String>,
    /// Names that it had before, in their compared form, the newest first. They
    /// still mean it, as long as nobody else has them.
    pub former_names: Vec<String>,
    /// Number of the rotation that brought the key; 0 for the first.
    pub seq: u64,
    /// Keys before this one, the newest first.
    pub previous: Vec<PreviousKey>,
    /// The key that the operator verified. After a rotation it is another one
    /// than `key`.
    pub verified_key: Option<MemberKey>,
    /// When.
    pub verified_at: Option<UnixMillis>,
    /// When it was pinned.
    pub first_seen_at: UnixMillis,
}

/// Whose key it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder<'a> {
    /// The key of that member.
    Current(&'a PinnedMember),
    /// A key that the member rotated out so recently that messages under it may
    /// still be on their way.
    InGrace(&'a PinnedMember),
    /// A key that the member rotated out longer ago.
    Retired(&'a PinnedMember),
}

// === impl PinnedMember ===

impl PinnedMember {
    /// A member of that key and name, with nothing else known of it.
    pub fn new(member_id: MemberId, key: MemberKey, display_name: &str) -> Self {
        Self {
            member_id,
            key,
            display_name: display_name.to_owned(),
            name_key: names::claimed(display_name),
            accepted_name: None,
            changed_key: None,
            revoked: false,
            capabilities: Vec::new(),
            shown_capabilities: Vec::new(),
            former_names: Vec::new(),
            seq: 0,
            previous: Vec::new(),
            verified_key: None,
            verified_at: None,
            first_seen_at: UnixMillis(0),
        }
    }

    /// Its names of now and before, in their compared form.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let all = self.name_key.iter().chain(&self.former_names).chain(&self.accepted_name);
        all.map(String::as_str)
    }

    /// Whether it has or had the name, in its compared form.
    pub fn holds_name(&self, name: &str) -> bool {
        self.names().any(|held| held == name)
    }

    /// Takes another name. The one before stays its own too, so that nobody can take
    /// a name over that its bearer has given up.
    pub fn rename(&mut self, display_name: &str) {
        display_name.clone_into(&mut self.display_name);
        let before = std::mem::replace(&mut self.name_key, names::claimed(display_name));
        self.former_names.splice(0..0, before);
        let mut seen: Vec<String> = self.name_key.iter().cloned().collect();
        self.former_names.retain(|former| {
            let is_new = !seen.contains(former);
            seen.push(former.clone());
            is_new
        });
        self.former_names.truncate(MAX_FORMER_NAMES);
    }

    /// Whether the operator has verified the key of this moment.
    pub fn is_verified(&self) -> bool {
        self.verified_key == Some(self.key) && self.changed_key.is_none()
    }

    /// Whether a key is or was the member's, or is shown as such.
    pub fn is_known_by(&self, key: MemberKey) -> bool {
        self.key == key || self.changed_key == Some(key) || self.previous.iter().any(|previous| previous.key == key)
    }
}

/// Who a destination means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The member.
    pub member_id: MemberId,
    /// Its pinned key.
    pub key: MemberKey,
    /// Its name, for people.
    pub display_name: String,
}

/// A member that a destination may mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The member.
    pub member_id: MemberId,
    /// Its pinned key.
    pub key: MemberKey,
    /// Its name.
    pub name: String,
    /// It was removed from the mesh.
    pub removed: bool,
}

/// Stands between a name that does not mean one member alone and the first digits of
/// that member's key, where it is printed: `bob?8f1c22ab`.
pub const MARK: char = '?';
/// How many digits.
pub const MARK_DIGITS: usize = 8;

/// Candidates that an error carries at most.
pub const MAX_CANDIDATES: usize = 10;
/// Members that a text names when none is near to what was written.
const MAX_EXAMPLES: usize = 8;

/// Why a destination means nobody, or not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Nobody matches.
    #[error("no member of the mesh matches `{to}`{}{}", short_prefix_hint(to), offer(candidates, examples))]
    Unknown {
        /// The destination as written.
        to: String,
        /// The members that are written alike, the nearest first.
        candidates: Vec<Candidate>,
        /// Without any, some that there are.
        examples: Vec<Candidate>,
    },
    /// Several have or had the name, and the operator has given it to none of them.
    #[error(
        "several members have or had the name `{to}`{}{}; write the key of the one that is meant, or give it the name \
         for good: claudemesh verify {} --accept",
        list(": ", candidates), and_more(*.others), to_accept(candidates)
    )]
    SharedName {
        /// The name as written.
        to: String,
        /// Whose it is or was; those who are in the mesh come first.
        candidates: Vec<Candidate>,
        /// How many more.
        others: usize,
    },
    /// Several keys begin like this.
    #[error("several members match `{to}`{}{}; write more of the key", list(": ", candidates), and_more(*.others))]
    Ambiguous {
        /// The destination as written.
        to: String,
        /// Those that match.
        candidates: Vec<Candidate>,
        /// How many more match.
        others: usize,
    },
    /// The broker shows another key for the member.
    #[error(
        "the broker shows another key for {name} than the one pinned here, so nothing is sent to it; ask its owner \
         whether the key was changed, then see `claudemesh verify`"
    )]
    KeyChanged {
        /// The member's name.
        name: String,
    },
    /// The member was removed from the mesh.
    #[error("{name} was removed from the mesh, so nothing is sent to it")]
    Revoked {
        /// The member's name.
        name: String,
    },
}

// === impl ResolveError ===

impl ResolveError {
    /// The stable code of this failure.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unknown { .. } | Self::Revoked { .. } => ErrorCode::UnknownPeer,
            Self::SharedName { .. } | Self::Ambiguous { .. } => ErrorCode::AmbiguousPeer,
            Self::KeyChanged { .. } => ErrorCode::MemberKeyChanged,
        }
    }

    /// The members that the destination may mean.
    pub fn candidates(&self) -> &[Candidate] {
        match self {
            Self::Unknown { candidates, .. }
            | Self::SharedName { candidates, .. }
            | Self::Ambiguous { candidates, .. } => candidates,
            Self::KeyChanged { .. } | Self::Revoked { .. } => &[],
        }
    }
}

// === impl Candidate ===

impl Candidate {
    fn of(member: &PinnedMember) -> Self {
        let (member_id, name) = (member.member_id.clone(), member.display_name.clone());
        Self { member_id, key: member.key, name, removed: member.revoked }
    }

    fn digits(&self) -> String {
        hex::encode(&self.key.0[..MIN_PREFIX_DIGITS / 2])
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let removed = if self.removed { ", removed" } else { "" };
        write!(f, "{} ({}{removed})", names::shown(&self.name), self.digits())
    }
}

/// Finds the member that a direct destination means, and decides whether it may
/// be sent to.
pub fn resolve(destination: &Destination, members: &[PinnedMember]) -> Result<Resolved, ResolveError> {
    check(find(destination, members)?)
}

/// Whose key it is, if any member's.
pub fn holder(members: &[PinnedMember], key: MemberKey, now: UnixMillis, grace: Duration) -> Option<Holder<'_>> {
    if let Some(member) = members.iter().find(|member| member.key == key) {
        return Some(Holder::Current(member));
    }
    members.iter().find_map(|member| {
        let previous = member.previous.iter().find(|previous| previous.key == key)?;
        let counts = key_chain::in_grace(previous, now, grace);
        Some(if counts { Holder::InGrace(member) } else { Holder::Retired(member) })
    })
}

/// The members that a name, in its compared form, may mean, of those that hold it:
/// the one alone that the operator gave it to, while it is in the mesh, else each.
pub fn meant_by<'a>(name: &str, holders: Vec<&'a PinnedMember>) -> Vec<&'a PinnedMember> {
    let accepted = holders.iter().copied().find(|one| !one.revoked && one.accepted_name.as_deref() == Some(name));
    accepted.map_or(holders, |one| vec![one])
}

/// Finds the member that a direct destination means: full key, then name, then a name
/// and the digits that mark it where it is printed, then the first 16 to 63 digits of
/// a key.
pub fn find<'a>(destination: &Destination, members: &'a [PinnedMember]) -> Result<&'a PinnedMember, ResolveError> {
    let (text, found) = match destination {
        Destination::Key(key) => (key.to_hex(), members.iter().filter(|member| member.key == *key).collect::<Vec<_>>()),
        Destination::NameOrPrefix(text) => (text.clone(), by_name_or_prefix(text, members)),
        Destination::Topic(name) => {
            return Err(unknown(format!("#{name}")));
        }
        Destination::Everyone => return Err(unknown("*".to_owned())),
        Destination::Group(name) => {
            return Err(unknown(format!("@{name}")));
        }
    };
    match found.as_slice() {
        [] => {
            let candidates = near(&text, members);
            let live = members.iter().filter(|member| !member.revoked && candidates.is_empty());
            let examples = live.take(MAX_EXAMPLES).map(Candidate::of).collect();
            Err(ResolveError::Unknown { to: text, candidates, examples })
        }
        [member] => Ok(member),
        several => {
            let mut several = several.to_vec();
            several.sort_by_key(|one| one.revoked);
            let others = several.len().saturating_sub(MAX_CANDIDATES);
            let candidates = several.iter().take(MAX_CANDIDATES).map(|one| Candidate::of(one)).collect();
            let name = names::key(&text);
            Err(if several.iter().any(|one| one.holds_name(&name)) {
                ResolveError::SharedName { to: text, candidates, others }
            } else {
                ResolveError::Ambiguous { to: text, candidates, others }
            })
        }
    }
}

/// Decides whether a member may be sent to.
fn check(member: &PinnedMember) -> Result<Resolved, ResolveError> {
    let name = Candidate::of(member).to_string();
    if member.revoked {
        return Err(ResolveError::Revoked { name });
    }
    if member.changed_key.is_some() {
        return Err(ResolveError::KeyChanged { name });
    }
    Ok(Resolved { member_id: member.member_id.clone(), key: member.key, display_name: member.display_name.clone() })
}

fn by_name_or_prefix<'a>(text: &str, members: &'a [PinnedMember]) -> Vec<&'a PinnedMember> {
    let wanted = names::key(text);
    let named: Vec<_> = members.iter().filter(|member| member.holds_name(&wanted)).collect();
    if !named.is_empty() {
        return meant_by(&wanted, named);
    }
    let starts = |member: &&PinnedMember, digits: &str| member.key.to_hex().starts_with(&digits.to_ascii_lowercase());
    if let Some((name, digits)) = text.rsplit_once(MARK).filter(|(_, digits)| digits.len() >= MARK_DIGITS) {
        let name = names::key(name);
        let is_shown = |member: &&PinnedMember| names::key(&names::shown(&member.display_name)) == name;
        return members.iter().filter(is_shown).filter(|member| starts(member, digits)).collect();
    }
    if !names::looks_like_key(text) {
        return Vec::new();
    }
    members.iter().filter(|member| starts(member, text)).collect()
}

fn unknown(to: String) -> ResolveError {
    ResolveError::Unknown { to, candidates: Vec::new(), examples: Vec::new() }
}

/// The members whose name or key is near to what was written, the nearest first.
fn near(text: &str, members: &[PinnedMember]) -> Vec<Candidate> {
    let live = || members.iter().filter(|member| !member.revoked);
    let by_key = live().filter(|member| is_short_prefix(text) && member.key.to_hex().starts_with(text));
    let mut near: Vec<&PinnedMember> = by_key.collect();
    let names: Vec<&str> = live().map(|member| member.display_name.as_str()).collect();
    for name in nearest(text, names) {
        for member in live().filter(|member| member.display_name == name) {
            if !near.iter().any(|one| one.member_id == member.member_id) {
                near.push(member);
            }
        }
    }
    near.into_iter().take(MAX_CANDIDATES).map(Candidate::of).collect()
}

/// Digits of a key, but fewer than name a member.
fn is_short_prefix(text: &str) -> bool {
    (4..MIN_PREFIX_DIGITS).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn short_prefix_hint(to: &str) -> String {
    if !is_short_prefix(to) {
        return String::new();
    }
    format!(" (to name a member by its key, write {MIN_PREFIX_DIGITS} or more of its digits; these are {})", to.len())
}

fn offer(candidates: &[Candidate], examples: &[Candidate]) -> String {
    match (candidates, examples) {
        ([], []) => "; no other member is known here yet".to_owned(),
        ([], examples) => list("; its members are ", examples),
        (candidates, _) => format!("{}?", list("; did you mean ", candidates)),
    }
}

fn list(before: &str, items: &[Candidate]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    if items.is_empty() { String::new() } else { format!("{before}{}", items.join(", ")) }
}

/// Whom the name may be given to: the one that is in the mesh, or a place to fill in.
fn to_accept(candidates: &[Candidate]) -> String {
    let mut present = candidates.iter().filter(|one| !one.removed);
    match (present.next(), present.next()) {
        (Some(only), None) => only.digits(),
        _ => "KEY".to_owned(),
    }
}

fn and_more(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" and {others} more") }
}

#[cfg(test)]
mod tests;
