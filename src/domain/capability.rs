//! What the token of a hook run allows: three scopes, each tied to the event
//! that started the run. None of them reads (R238 to R242).

use std::fmt;

use super::ids::MemberKey;

/// The placeholder that stands for the sender of the event.
const SENDER: &str = "<sender_pubkey>";

/// One scope of a capability token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `reply:event`: an answer to the event, where the event came from.
    ReplyEvent,
    /// `dm:send:<sender_pubkey>`: a direct message to the event's sender.
    DirectToSender,
    /// `dm:send:<64 hex digits>`: a direct message to this member.
    DirectTo(MemberKey),
    /// `topic:<name>:post`: a post to this topic, when the event came from it.
    TopicPost(String),
}

/// A text is none of the three scopes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no scope; there are `reply:event`, `dm:send:<sender_pubkey>` (that very text, or a key of 64 hex digits in \
     its place) and `topic:<name>:post`"
)]
pub struct ScopeError(pub String);

/// What a run wants to send with its token.
#[derive(Clone, Copy, Debug)]
pub enum Wish<'a> {
    /// A direct message.
    Direct {
        /// The destination as the run wrote it.
        to: &'a str,
        /// The message that it answers; empty for none.
        reply_to: &'a str,
    },
    /// A topic post.
    Topic {
        /// The topic's name, without its sign.
        topic: &'a str,
        /// The message that it answers; empty for none.
        reply_to: &'a str,
    },
}

/// The event that started a run, as far as scopes look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trigger {
    /// Who sent it; `None` for events of this daemon.
    pub sender: Option<MemberKey>,
    /// The sender's id of the message; empty for events of this daemon.
    pub client_message_id: String,
    /// The broker's id of the message; empty for events of this daemon.
    pub broker_message_id: String,
    /// The topic that it came from, by name.
    pub topic: Option<String>,
    /// How many automatic sends led to it.
    pub auto_hops: u32,
}

// === impl Scope ===

impl Scope {
    /// Reads a scope as hooks.toml writes it.
    pub fn parse(text: &str) -> Result<Self, ScopeError> {
        let wrong = || ScopeError(text.to_owned());
        if text == "reply:event" {
            return Ok(Self::ReplyEvent);
        }
        if let Some(target) = text.strip_prefix("dm:send:") {
            return match target {
                SENDER => Ok(Self::DirectToSender),
                key => MemberKey::parse(key).map(Self::DirectTo).map_err(|_| wrong()),
            };
        }
        let topic = text.strip_prefix("topic:").and_then(|rest| rest.strip_suffix(":post")).ok_or_else(wrong)?;
        let name = topic.strip_prefix('#').unwrap_or(topic);
        if name.is_empty() || name.contains([':', '<', '>']) || name.contains(char::is_whitespace) {
            return Err(wrong());
        }
        Ok(Self::TopicPost(name.to_owned()))
    }

    fn allows(&self, wish: Wish<'_>, trigger: &Trigger) -> bool {
        let is_key = |to: &str, key: MemberKey| MemberKey::parse(to).is_ok_and(|to| to == key);
        match (self, wish) {
            // Where it came from: a post answers in its topic, everything else goes
            // to the sender alone.
            (Self::ReplyEvent, Wish::Direct { to, reply_to }) => {
                trigger.topic.is_none()
                    && is_reply(reply_to, trigger)
                    && trigger.sender.is_some_and(|sender| is_key(to, sender))
            }
            (Self::ReplyEvent, Wish::Topic { topic, reply_to }) => {
                is_reply(reply_to, trigger) && trigger.topic.as_deref() == Some(topic)
            }
            (Self::DirectToSender, Wish::Direct { to, .. }) => trigger.sender.is_some_and(|sender| is_key(to, sender)),
            (Self::DirectTo(key), Wish::Direct { to, .. }) => is_key(to, *key),
            (Self::TopicPost(name), Wish::Topic { topic, .. }) => {
                name == topic && trigger.topic.as_deref() == Some(topic)
            }
            (Self::DirectToSender | Self::DirectTo(_), Wish::Topic { .. })
            | (Self::TopicPost(_), Wish::Direct { .. }) => false,
        }
    }
}

fn is_reply(reply_to: &str, trigger: &Trigger) -> bool {
    !reply_to.is_empty() && reply_to == trigger.client_message_id
}

/// The scope that allows a wish; `None` when none does.
pub fn allowed_by<'s>(scopes: &'s [Scope], wish: Wish<'_>, trigger: &Trigger) -> Option<&'s Scope> {
    scopes.iter().find(|scope| scope.allows(wish, trigger))
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReplyEvent => f.write_str("reply:event"),
            Self::DirectToSender => write!(f, "dm:send:{SENDER}"),
            Self::DirectTo(key) => write!(f, "dm:send:{key}"),
            Self::TopicPost(name) => write!(f, "topic:{name}:post"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(digit: &str) -> String {
        digit.repeat(64)
    }

    fn trigger(topic: Option<&str>) -> Trigger {
        Trigger {
            sender: MemberKey::parse(&key("a")).ok(),
            client_message_id: "msg-1".to_owned(),
            broker_message_id: String::new(),
            topic: topic.map(str::to_owned),
            auto_hops: 0,
        }
    }

    fn dm<'a>(to: &'a str, reply_to: &'a str) -> Wish<'a> {
        Wish::Direct { to, reply_to }
    }

    fn allows(scope: &str, wish: Wish<'_>, trigger: &Trigger) -> bool {
        allowed_by(&[Scope::parse(scope).unwrap()], wish, trigger).is_some()
    }

    // Covers: R241
    #[test]
    fn there_are_three_scopes_and_no_other() {
        for text in ["reply:event", "dm:send:<sender_pubkey>", "topic:ops:post"] {
            assert_eq!(Scope::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Scope::parse(&format!("dm:send:{}", key("b"))).unwrap().to_string(),
            format!("dm:send:{}", key("b"))
        );
        for text in
            ["state:read", "reply", "dm:send:bob", "dm:send:", "topic::post", "topic:a:b:post", "topic:ops:read", ""]
        {
            assert_eq!(Scope::parse(text), Err(ScopeError(text.to_owned())), "{text}");
        }
    }

    // Covers: R238
    #[test]
    fn a_reply_goes_to_the_event_that_started_the_run() {
        let (sender, direct, post) = (key("a"), trigger(None), trigger(Some("ops")));
        assert!(allows("reply:event", dm(&sender, "msg-1"), &direct));
        assert!(allows("reply:event", dm(&sender.to_uppercase(), "msg-1"), &direct));
        for (to, reply_to) in
            [(key("b").as_str(), "msg-1"), (&sender, "msg-2"), (&sender, ""), ("alice", "msg-1"), ("*", "msg-1")]
        {
            assert!(!allows("reply:event", dm(to, reply_to), &direct), "{to} {reply_to}");
        }
        assert!(!allows("reply:event", dm(&sender, "msg-1"), &post), "a post is answered in its topic");
        assert!(allows("reply:event", Wish::Topic { topic: "ops", reply_to: "msg-1" }, &post));
        assert!(!allows("reply:event", Wish::Topic { topic: "dev", reply_to: "msg-1" }, &post));
        assert!(!allows("reply:event", dm("", ""), &Trigger::default()), "an event without a sender has no reply");
    }

    // Covers: R239
    #[test]
    fn a_direct_message_goes_to_the_named_member_alone() {
        let (event, other) = (trigger(None), key("b"));
        assert!(allows("dm:send:<sender_pubkey>", dm(&key("a"), ""), &event));
        assert!(!allows("dm:send:<sender_pubkey>", dm(&other, ""), &event));
        assert!(allows(&format!("dm:send:{other}"), dm(&other, ""), &event));
        assert!(!allows(&format!("dm:send:{other}"), dm(&key("a"), ""), &event));
        assert!(!allows("dm:send:<sender_pubkey>", Wish::Topic { topic: "ops", reply_to: "" }, &event));
    }

    // Covers: R240
    #[test]
    fn a_post_goes_to_the_topic_that_fired() {
        let post = |topic| Wish::Topic { topic, reply_to: "" };
        assert!(allows("topic:ops:post", post("ops"), &trigger(Some("ops"))));
        assert!(!allows("topic:ops:post", post("dev"), &trigger(Some("ops"))));
        assert!(!allows("topic:ops:post", post("ops"), &trigger(Some("dev"))), "not from another topic's event");
        assert!(!allows("topic:ops:post", post("ops"), &trigger(None)));
        assert!(!allows("topic:ops:post", Wish::Direct { to: &key("a"), reply_to: "msg-1" }, &trigger(Some("ops"))));
    }
}
