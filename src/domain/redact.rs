//! Removes the configured paths from what a hook reads (R220).

use serde_json::Value;
use serde_json_path::{JsonPath, PathElement};

/// Most expressions of one hook.
pub const MAX_PATHS: usize = 32;
/// Members that may hold a JSON object as text.
const TEXTS: [&str; 2] = ["body", "message"];

/// What is removed: JSONPath expressions (RFC 9535).
#[derive(Clone, Debug, Default)]
pub struct Redactions {
    paths: Vec<JsonPath>,
    /// Texts into which one of them points, as far as its spelling tells.
    into: Vec<&'static str>,
}

/// An expression is no JSONPath.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is no JSONPath such as `$.meta.token`: {reason}")]
pub struct RedactError {
    /// The expression.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A step from a value to one inside it. Ordered, so that what is removed from the
/// end of a list first does not move what is removed next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Name(String),
    Index(usize),
}

// === impl Redactions ===

impl Redactions {
    /// Reads the expressions.
    pub fn parse(paths: &[String]) -> Result<Self, RedactError> {
        let parse = |path: &String| {
            JsonPath::parse(path)
                .map_err(|error| RedactError { path: path.clone(), reason: error.message().to_owned() })
        };
        let into = TEXTS.into_iter().filter(|name| paths.iter().any(|path| points_into(path, name))).collect();
        Ok(Self { paths: paths.iter().map(parse).collect::<Result<_, _>>()?, into })
    }

    /// Removes every value that one of the expressions names. A text that is a JSON
    /// object is looked into as well: `$.body.password` takes the password out of a
    /// body that is JSON. One that only looks like an object is removed as a whole when
    /// an expression points into it: what it holds cannot be told.
    pub fn apply(&self, event: &mut Value) {
        if self.paths.is_empty() {
            return;
        }
        let texts = unfold(event);
        for name in &self.into {
            if event.get(name).and_then(Value::as_str).is_some_and(looks_like_object)
                && let Some(members) = event.as_object_mut()
            {
                members.remove(*name);
            }
        }
        let unfolded = event.clone();
        for path in &self.paths {
            remove_all(path, event);
        }
        for (name, text) in texts {
            let same = event.get(name) == unfolded.get(name);
            if let Some(value) = event.get_mut(name) {
                // What was not touched keeps its own spelling.
                *value = Value::String(if same { text } else { value.to_string() });
            }
        }
    }
}

/// Whether an expression may name something inside a member. In doubt it does.
fn points_into(path: &str, name: &str) -> bool {
    let path: String = path.chars().filter(|letter| !letter.is_whitespace()).collect();
    let Some(rest) = path.strip_prefix('$') else { return false };
    if rest.starts_with("..") {
        return true;
    }
    let (first, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len())),
        None => rest.split_at(rest.find(']').map_or(rest.len(), |end| end + 1)),
    };
    // By name, by any name, or by what only an evaluation tells.
    let is_member =
        first == name || (first.starts_with('[') && first.contains(name)) || first.contains(['*', '?', '\\']);
    is_member && !rest.is_empty()
}

fn looks_like_object(text: &str) -> bool {
    text.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '\u{feff}').starts_with('{')
}

/// Puts objects in the place of texts that hold them; gives the texts back.
fn unfold(event: &mut Value) -> Vec<(&'static str, String)> {
    let mut texts = Vec::new();
    for name in TEXTS {
        let Some(Value::String(text)) = event.get(name) else { continue };
        if let Ok(object @ Value::Object(_)) = serde_json::from_str(text) {
            texts.push((name, text.clone()));
            event[name] = object;
        }
    }
    texts
}

fn remove_all(path: &JsonPath, event: &mut Value) {
    let mut found: Vec<Vec<Step>> =
        path.query_located(event).locations().map(|location| location.iter().map(step).collect()).collect();
    found.sort();
    found.dedup();
    for steps in found.iter().rev() {
        remove(event, steps);
    }
}

fn step(element: &PathElement<'_>) -> Step {
    match element {
        PathElement::Name(name) => Step::Name((*name).to_owned()),
        PathElement::Index(index) => Step::Index(*index),
    }
}

fn remove(value: &mut Value, steps: &[Step]) {
    match (steps, value) {
        // The whole event.
        ([], value) => *value = Value::Object(serde_json::Map::new()),
        ([Step::Name(name)], Value::Object(fields)) => drop(fields.remove(name)),
        ([Step::Index(index)], Value::Array(items)) if *index < items.len() => drop(items.remove(*index)),
        ([Step::Name(name), rest @ ..], Value::Object(fields)) => {
            if let Some(inner) = fields.get_mut(name) {
                remove(inner, rest);
            }
        }
        ([Step::Index(index), rest @ ..], Value::Array(items)) => {
            if let Some(inner) = items.get_mut(*index) {
                remove(inner, rest);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn redacted(paths: &[&str], mut event: Value) -> Value {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        Redactions::parse(&paths).unwrap().apply(&mut event);
        event
    }

    // Covers: R220
    #[test]
    fn what_is_named_is_gone_and_the_rest_stays() {
        let event = json!({"body": "hi", "meta": {"token": "t", "list": [1, 2, 3, 4]}, "sender_name": "bob"});
        assert_eq!(redacted(&[], event.clone()), event);
        assert_eq!(redacted(&["$.nothing", "$.body.x"], event.clone()), event);
        assert_eq!(
            redacted(&["$.meta.token", "$.body"], event.clone()),
            json!({"meta": {"list": [1, 2, 3, 4]}, "sender_name": "bob"})
        );
        assert_eq!(redacted(&["$.meta.list[1,0,1]", "$..token"], event.clone())["meta"], json!({"list": [3, 4]}));
        assert_eq!(redacted(&["$.meta.list[::-1]"], event.clone())["meta"]["list"], json!([]));
        assert_eq!(redacted(&["$.meta.list[?@ > 2]"], event.clone())["meta"]["list"], json!([1, 2]));
        assert_eq!(redacted(&["$"], event), json!({}));
    }

    // Covers: R220
    #[test]
    fn a_body_that_is_json_is_looked_into() {
        let event = json!({"body": "{ \"user\": \"u\", \"password\": \"p\" }"});
        assert_eq!(redacted(&["$.body.password"], event.clone()), json!({"body": "{\"user\":\"u\"}"}));
        assert_eq!(redacted(&["$.body.none"], event.clone()), event, "its spelling stays");
        assert_eq!(redacted(&["$.body"], event), json!({}));
        assert_eq!(redacted(&["$.body.password"], json!({"body": "password"})), json!({"body": "password"}));
    }

    // Covers: R220
    #[test]
    fn a_text_that_only_looks_like_json_is_removed_when_something_inside_is_named() {
        for text in ["{\"password\": \"p\"} and more", "{'password': 'p'}", "\u{feff} {\"password\": \"p\"}"] {
            let event = json!({"body": text, "meta": {}});
            for path in ["$.body.password", "$['body'].password", "$[ \"body\" ][*]", "$..password", "$.*.password"] {
                assert_eq!(redacted(&[path], event.clone()), json!({"meta": {}}), "{path}: {text}");
            }
            for path in ["$.meta.password", "$.bodyx.password", "$.message.password", "$['meta'].x"] {
                assert_eq!(redacted(&[path], event.clone()), event, "{path}: {text}");
            }
        }
    }

    #[test]
    fn what_is_no_path_is_refused_by_name() {
        let error = Redactions::parse(&["body.password".to_owned()]).unwrap_err();
        assert_eq!(error.path, "body.password");
    }
}
