//! The answer of a hook: a JSON object on its standard output.

use serde_json::{Map, Value};

use super::token::send_id;
use crate::domain::capability::Trigger;
use crate::domain::hook_policy::next_hop;
use crate::domain::ids::ClientMessageId;
use crate::domain::message::{Priority, SendRequest};
use crate::domain::reply::known_id;

/// The object on a hook's standard output; `None` for anything else.
pub(super) fn object(stdout: &[u8]) -> Option<Map<String, Value>> {
    let text = std::str::from_utf8(stdout).ok()?.trim();
    if text.is_empty() {
        return None;
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// The text of `{"reply": ".."}`.
pub(super) fn text(object: &Map<String, Value>) -> Option<&str> {
    object.get("reply").and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The reply as a send: to where the event came from, marked as automatic, under an
/// id that a repeated run gives again. `None` when there is nobody to answer, or when
/// the chain of automatic messages ends here.
pub(super) fn request(hook: &str, message_id: &str, trigger: &Trigger, text: &str) -> Option<SendRequest> {
    let to = match (&trigger.topic, trigger.sender) {
        (Some(topic), _) => format!("#{topic}"),
        (None, Some(sender)) => sender.to_hex(),
        (None, None) => return None,
    };
    Some(SendRequest {
        client_message_id: ClientMessageId::parse(send_id(message_id, hook, 0)).ok(),
        to,
        body: text.to_owned(),
        priority: Priority::Next,
        meta: None,
        answered: Vec::new(),
        reply_to_id: Some(known_id(&trigger.client_message_id, &trigger.broker_message_id).to_owned()),
        mentions: Vec::new(),
        allow_unencrypted: false,
        auto_hops: next_hop(trigger.auto_hops)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::MemberKey;

    // Covers: R212
    #[test]
    fn only_an_object_is_an_answer() {
        for (stdout, reply) in [
            ("{\"reply\": \"hi\"}\n", Some("hi")),
            ("  {\"reply\": \"\"}", None),
            ("{\"reply\": 1}", None),
            ("{}", None),
        ] {
            assert_eq!(object(stdout.as_bytes()).as_ref().and_then(text), reply, "{stdout}");
        }
        for stdout in ["", "hi", "[\"reply\"]", "{\"reply\": \"hi\"} and more", "\"reply\""] {
            assert_eq!(object(stdout.as_bytes()), None, "{stdout}");
        }
        assert_eq!(object(b"\xff{}"), None);
    }

    #[test]
    fn a_reply_goes_where_the_event_came_from() {
        let sender = Some(MemberKey([3; 32]));
        let mut trigger = Trigger { sender, client_message_id: "c".to_owned(), ..Trigger::default() };
        let reply = request("on-dm", "01J", &trigger, "hi").unwrap();
        assert_eq!(
            (reply.to.as_str(), reply.auto_hops, reply.reply_to_id.as_deref()),
            ("03".repeat(32).as_str(), 1, Some("c"))
        );
        assert_eq!(reply.client_message_id.unwrap().as_str(), "hook:01J:on-dm:0");
        // Who sent it knows it by the broker's id, and gave it no other.
        let legacy =
            Trigger { client_message_id: "b:B-1".to_owned(), broker_message_id: "B-1".to_owned(), ..trigger.clone() };
        assert_eq!(request("on-dm", "01J", &legacy, "hi").unwrap().reply_to_id.as_deref(), Some("B-1"));
        trigger.topic = Some("ops".to_owned());
        assert_eq!(request("on-dm", "01J", &trigger, "hi").unwrap().to, "#ops");
        trigger.auto_hops = 3;
        assert!(request("on-dm", "01J", &trigger, "hi").is_none(), "the chain ends");
        assert!(request("on-startup", "01J", &Trigger::default(), "hi").is_none());
    }
}
