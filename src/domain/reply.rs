//! Which message a `reply_to_id` means.

use super::roster::Candidate;

/// Most messages that are looked at for one reply: as many as an error names.
pub const MAX_MATCHES: u64 = 10;

/// A stored message or an own send that has the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Its sender's id of it, by which a reply names it.
    pub client_message_id: String,
    /// The broker's id of it.
    pub broker_message_id: String,
    /// Who sent it.
    pub sender: Candidate,
    /// The conversation that it belongs to, by the id of the member or the topic, when
    /// it is known by its sender's id alone: other ids name one message wherever it is.
    pub only_in: Option<String>,
}

/// The id of a message that both sides know: its sender's, or the broker's where the
/// sender has none and the inbox calls it by the broker's (`b:`).
pub fn known_id<'a>(client_message_id: &'a str, broker_message_id: &'a str) -> &'a str {
    match client_message_id.strip_prefix("b:") {
        Some(id) if id == broker_message_id => id,
        _ => client_message_id,
    }
}

/// The id that goes out in the conversation with this member or topic: that of the
/// one message that matches, or what was written where none does. Several are an
/// error that names their senders.
pub fn resolve(written: &str, matches: &[Match], here: &str) -> Result<String, Vec<Candidate>> {
    let mut found: Vec<&Match> = Vec::new();
    for one in matches.iter().filter(|one| one.only_in.as_ref().is_none_or(|only| only == here)) {
        let same = |other: &&Match| {
            other.client_message_id == one.client_message_id && other.sender.member_id == one.sender.member_id
        };
        if !found.iter().any(same) {
            found.push(one);
        }
    }
    match found.as_slice() {
        [] => Ok(written.to_owned()),
        [one] => Ok(known_id(&one.client_message_id, &one.broker_message_id).to_owned()),
        several => Err(several.iter().map(|one| one.sender.clone()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{MemberId, MemberKey};

    fn message(id: &str, sender: u8, only_in: Option<&str>) -> Match {
        let sender = Candidate {
            member_id: MemberId::parse(format!("m{sender}")).unwrap(),
            key: MemberKey([sender; 32]),
            name: format!("member {sender}"),
            removed: false,
        };
        let only_in = only_in.map(str::to_owned);
        Match { client_message_id: id.to_owned(), broker_message_id: format!("B-{id}"), sender, only_in }
    }

    #[test]
    fn one_message_is_meant_or_the_id_goes_out_as_it_is() {
        assert_eq!(resolve("x", &[], "m2"), Ok("x".to_owned()));
        assert_eq!(resolve("row", &[message("c", 2, None)], "t1"), Ok("c".to_owned()));
        let without_id = Match { broker_message_id: "1".to_owned(), ..message("b:1", 2, None) };
        assert_eq!(resolve("row", &[without_id], "t1"), Ok("1".to_owned()));
        // Of another conversation, and the same message found twice.
        let elsewhere = message("c", 3, Some("t1"));
        let here = message("c", 2, Some("m2"));
        assert_eq!(resolve("c", &[elsewhere, here.clone(), here], "m2"), Ok("c".to_owned()));
    }

    #[test]
    fn several_are_named_by_their_senders() {
        let matches = [message("c", 2, Some("t1")), message("c", 3, Some("t1"))];
        let names: Vec<String> = resolve("c", &matches, "t1").unwrap_err().into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["member 2", "member 3"]);
    }
}
