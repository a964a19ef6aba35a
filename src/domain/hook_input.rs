//! What a hook reads: an event as one JSON object, within a bound (R211, R245).

use serde_json::{Map, Value};

/// Members that may be long, the one that is cut first; the others are left out
/// as a whole when the bound is smaller than what stands around them.
const LONG: [&str; 2] = ["body", "message"];
/// The mark of an event that was cut.
pub const TRUNCATED: &str = "_truncated";

/// The event as JSON text of at most `max` bytes. One that does not fit loses the
/// end of its text, then what else is large, and says so by `_truncated`.
pub fn bounded(event: &Value, max: usize) -> String {
    let text = event.to_string();
    if text.len() <= max {
        return text;
    }
    let Value::Object(fields) = event else { return "{}".to_owned() };
    let mut cut: Map<String, Value> = fields.clone();
    cut.insert(TRUNCATED.to_owned(), Value::Bool(true));
    let long = LONG.into_iter().find(|name| cut.get(*name).is_some_and(Value::is_string));
    let body = long.and_then(|name| cut.insert(name.to_owned(), Value::String(String::new())));
    for name in largest_first(&cut) {
        if length(&cut) <= max {
            break;
        }
        cut.remove(&name);
    }
    if let (Some(name), Some(Value::String(body))) = (long, body)
        && cut.contains_key(name)
    {
        let room = max.saturating_sub(length(&cut));
        cut.insert(name.to_owned(), Value::String(prefix(&body, room).to_owned()));
    }
    Value::Object(cut).to_string()
}

fn length(fields: &Map<String, Value>) -> usize {
    Value::Object(fields.clone()).to_string().len()
}

/// The members that may go, without those that tell one event from another.
fn largest_first(fields: &Map<String, Value>) -> Vec<String> {
    let kept = ["event", "message_id", "event_id", "client_message_id", TRUNCATED];
    let mut names: Vec<(usize, String)> = fields
        .iter()
        .filter(|(name, _)| !kept.contains(&name.as_str()))
        .map(|(name, value)| (value.to_string().len(), name.clone()))
        .collect();
    names.sort_by(|one, other| other.cmp(one));
    names.into_iter().map(|(_, name)| name).collect()
}

/// The longest beginning of a text whose JSON form, without its quotes, has at
/// most so many bytes.
fn prefix(text: &str, room: usize) -> &str {
    let mut used = 0;
    for (at, letter) in text.char_indices() {
        used += match letter {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            letter if letter < ' ' => 6,
            letter => letter.len_utf8(),
        };
        if used > room {
            return &text[..at];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // Covers: R211, R245
    #[test]
    fn an_event_is_whole_or_cut_to_valid_json_and_marked() {
        let small = json!({"event": "message", "event_id": "x", "body": "hi"});
        assert_eq!(bounded(&small, 1000), small.to_string());
        for filler in ["x", "\"", "ü", "\u{1}", "\u{1F600}", "\n"] {
            let event =
                json!({"event": "message", "event_id": "x", "client_message_id": "c", "body": filler.repeat(5000)});
            let text = bounded(&event, 1024);
            assert!(text.len() <= 1024 && text.len() > 1010, "{filler:?}: {}", text.len());
            let cut: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&cut[TRUNCATED], &cut["client_message_id"]), (&json!(true), &json!("c")));
            assert!(
                cut["body"]
                    .as_str()
                    .is_some_and(|body| body.len() > 100 && event["body"].as_str().unwrap().starts_with(body))
            );
        }
    }

    #[test]
    fn what_is_large_beside_the_text_goes_as_a_whole() {
        let event = json!({"event": "message", "event_id": "x", "body": "short", "meta": {"a": "y".repeat(3000)}});
        let cut: Value = serde_json::from_str(&bounded(&event, 1024)).unwrap();
        assert_eq!(cut, json!({"event": "message", "event_id": "x", "body": "short", "_truncated": true}));
    }
}
