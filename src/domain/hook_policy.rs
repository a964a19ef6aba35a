//! Which hooks run for an event, and how far automatic messages may go.

use std::fmt;

use super::event::{MessageKind, StoredMessage};
use super::names;
use super::nearest::nearest;

/// Automatic sends that may lead to one another; the next one is refused.
pub const MAX_HOPS: u32 = 3;
/// Greatest length of a hook's name in bytes: with an event's id it still fits
/// into the id of a send.
pub const MAX_NAME_BYTES: usize = 80;

const FIXED: [(&str, HookKind); 8] = [
    ("on-message", HookKind::Message),
    ("on-dm", HookKind::Direct),
    ("on-mention", HookKind::Mention),
    ("on-file-share", HookKind::FileShare),
    ("on-disconnect", HookKind::Disconnect),
    ("on-reconnect", HookKind::Reconnect),
    ("on-startup", HookKind::Startup),
    ("pre-send", HookKind::PreSend),
];
const TOPIC: &str = "on-topic-";

/// What a hook runs for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// Every stored message (R200).
    Message,
    /// Direct messages (R201).
    Direct,
    /// Messages that name this member (R202).
    Mention,
    /// Posts of one topic (R203).
    Topic(String),
    /// Shared files (R204).
    FileShare,
    /// The link was lost (R205).
    Disconnect,
    /// The link is back (R206).
    Reconnect,
    /// The daemon is up (R207).
    Startup,
    /// A send, before it is accepted (R208).
    PreSend,
}

/// A text is no hook's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no hook{}", near.as_ref().map_or_else(String::new, |near| format!("; did you mean `{near}`?")))]
pub struct HookNameError {
    /// The text.
    pub name: String,
    /// The name that was perhaps meant.
    pub near: Option<String>,
}

/// Who this daemon is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Its display name.
    pub name: String,
    /// Its member id.
    pub member_id: String,
}

// === impl HookKind ===

impl HookKind {
    /// The hook of a name.
    pub fn parse(name: &str) -> Result<Self, HookNameError> {
        if let Some((_, kind)) = FIXED.iter().find(|(fixed, _)| *fixed == name) {
            return Ok(kind.clone());
        }
        let topic = name.strip_prefix(TOPIC).filter(|topic| !topic.is_empty());
        let is_plain = name.len() <= MAX_NAME_BYTES && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        match topic {
            Some(topic) if is_plain => Ok(Self::Topic(topic.to_owned())),
            _ => {
                let near = nearest(name, FIXED.iter().map(|(fixed, _)| *fixed)).first().map(|near| (*near).to_owned());
                Err(HookNameError { name: name.chars().take(MAX_NAME_BYTES).collect(), near })
            }
        }
    }

    /// Whether it runs for stored messages.
    pub fn is_for_messages(&self) -> bool {
        matches!(self, Self::Message | Self::Direct | Self::Mention | Self::Topic(_) | Self::FileShare)
    }

    /// Whether it runs for this message.
    pub fn takes(&self, message: &StoredMessage, own: &Own) -> bool {
        let is_file = message.kind == MessageKind::File;
        match self {
            Self::Message => !is_file,
            Self::Direct => message.kind == MessageKind::Direct,
            Self::Mention => !is_file && mentions(message, own),
            Self::Topic(topic) => message.kind == MessageKind::Topic && message.topic.as_deref() == Some(topic),
            Self::FileShare => is_file,
            Self::Disconnect | Self::Reconnect | Self::Startup | Self::PreSend => false,
        }
    }
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => write!(f, "{TOPIC}{topic}"),
            fixed => f.write_str(FIXED.iter().find(|(_, kind)| kind == fixed).map_or("", |(name, _)| name)),
        }
    }
}

/// Whether hooks run for a message at all. Not for one that is older than what the
/// inbox remembers, nor, unless it is wanted, for one from before the inbox was made
/// anew: what was done for them is not known any more.
pub fn fires(message: &StoredMessage, run_after_recovery: bool) -> bool {
    !message.stale && (run_after_recovery || !message.before_recovery)
}

/// Whether a hook runs for a message that so many automatic sends led to.
pub fn takes_automatic(auto_hops: u32, accept_auto: bool) -> bool {
    auto_hops == 0 || accept_auto
}

/// The hops of what a run sends for such a message; `None` when the chain ends here.
pub fn next_hop(auto_hops: u32) -> Option<u32> {
    auto_hops.checked_add(1).filter(|hops| *hops <= MAX_HOPS)
}

/// Whether a message names this member: by a mention, or by `@` and the name in its
/// text, whatever its case and width, with no further letter of a name behind it.
fn mentions(message: &StoredMessage, own: &Own) -> bool {
    if !own.member_id.is_empty() && message.mentions.contains(&own.member_id) {
        return true;
    }
    let name = names::key(&own.name);
    if name.is_empty() {
        return false;
    }
    let (wanted, text) = (format!("@{name}"), names::key(&message.body));
    let goes_on = |rest: &str| rest.chars().next().is_some_and(|next| next.is_alphanumeric() || next == '_');
    // `bob-2` is another name than `bob`; `bob-` and `bob.` end a word.
    let continues = |rest: &str| goes_on(rest) || rest.strip_prefix(['-', '.']).is_some_and(goes_on);
    text.match_indices(&wanted).any(|(at, _)| !continues(&text[at + wanted.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{EventId, MemberId, MemberKey};
    use crate::domain::message::Priority;
    use crate::domain::time::UnixMillis;

    fn message(kind: MessageKind, body: &str) -> StoredMessage {
        StoredMessage {
            id: "01J".to_owned(),
            event_id: EventId { generation: "g".to_owned(), seq: 1 },
            client_message_id: "c".to_owned(),
            broker_message_id: "b".to_owned(),
            history_id: None,
            mesh: "demo".to_owned(),
            topic: (kind == MessageKind::Topic).then(|| "ops".to_owned()),
            sender_member_id: MemberId::parse("m").unwrap(),
            sender_key: MemberKey([7; 32]),
            sender_name: "alice".to_owned(),
            body: body.to_owned(),
            meta: None,
            reply_to_id: None,
            mentions: Vec::new(),
            priority: Priority::Next,
            sent_at: None,
            received_at: UnixMillis(0),
            kind,
            unencrypted: false,
            stale: false,
            before_recovery: false,
            auto_hops: 0,
        }
    }

    fn hooks(message: &StoredMessage) -> Vec<String> {
        let own = Own { name: "Bob".to_owned(), member_id: "member-bob".to_owned() };
        let all = FIXED
            .iter()
            .map(|(_, kind)| kind.clone())
            .chain([HookKind::Topic("ops".to_owned()), HookKind::Topic("dev".to_owned())]);
        all.filter(|kind| kind.takes(message, &own)).map(|kind| kind.to_string()).collect()
    }

    // Covers: R200-R204
    #[test]
    fn each_kind_of_message_runs_its_hooks() {
        assert_eq!(hooks(&message(MessageKind::Direct, "hi")), ["on-message", "on-dm"]);
        assert_eq!(hooks(&message(MessageKind::Topic, "hi")), ["on-message", "on-topic-ops"]);
        assert_eq!(hooks(&message(MessageKind::Broadcast, "hi @bob")), ["on-message", "on-mention"]);
        assert_eq!(hooks(&message(MessageKind::Group, "hi")), ["on-message"]);
        assert_eq!(hooks(&message(MessageKind::File, "hi @bob")), ["on-file-share"]);
        let mut mentioned = message(MessageKind::Topic, "hi");
        mentioned.mentions = vec!["member-bob".to_owned()];
        assert_eq!(hooks(&mentioned), ["on-message", "on-mention", "on-topic-ops"]);
    }

    // Covers: R202
    #[test]
    fn a_mention_is_the_whole_name_in_any_case_and_width() {
        let is_mention = |text: &str| hooks(&message(MessageKind::Direct, text)).contains(&"on-mention".to_owned());
        for text in [
            "@bob",
            "hey @BOB!",
            "(@Bob)",
            "ask @bob.",
            "＠ｂｏｂ look",
            "x@bob",
            "@bobby and @bob",
            "@bob-",
            "@bob\u{2019}s",
        ] {
            assert!(is_mention(text), "{text}");
        }
        for text in ["bob", "@bobby", "@ bob", "@bob_2", "@bob-2", "@bob.example", "@bobü", ""] {
            assert!(!is_mention(text), "{text}");
        }
        let nobody = Own::default();
        assert!(!HookKind::Mention.takes(&message(MessageKind::Direct, "@ @"), &nobody), "no name is no mention");
    }

    #[test]
    fn names_are_those_of_the_list_or_of_a_topic() {
        for (name, kind) in FIXED {
            assert_eq!(HookKind::parse(name), Ok(kind.clone()));
            assert_eq!(kind.to_string(), name);
        }
        assert_eq!(HookKind::parse("on-topic-ops").unwrap().to_string(), "on-topic-ops");
        assert_eq!(HookKind::parse("on-mesage").unwrap_err().near.as_deref(), Some("on-message"));
        for wrong in ["on-topic-", "on-topic-a/b", "on-topic-ä", "", &format!("on-topic-{}", "x".repeat(80))] {
            assert!(HookKind::parse(wrong).is_err(), "{wrong}");
        }
    }

    // Covers: R200
    #[test]
    fn old_and_automatic_messages_run_hooks_only_when_it_is_wanted() {
        let mut old = message(MessageKind::Direct, "hi");
        assert!(fires(&old, false));
        old.before_recovery = true;
        assert!(!fires(&old, false) && fires(&old, true));
        old.stale = true;
        assert!(!fires(&old, true));
        assert!(takes_automatic(0, false) && !takes_automatic(1, false) && takes_automatic(3, true));
        assert_eq!((next_hop(0), next_hop(2), next_hop(3), next_hop(u32::MAX)), (Some(1), Some(3), None, None));
    }
}
