//! The trace that a request belongs to, as the caller's tracing says it (W3C Trace
//! Context), so that its log lines can be found from a trace.
//!
//! Nothing depends on it: what is not of the form is passed over.

use std::collections::HashMap;

use http::HeaderMap;

/// The header, the metadata and the entry that hold it.
const TRACEPARENT: &str = "traceparent";
/// Length of the form's first version; more is not looked at.
const LENGTH: usize = 55;
/// Greatest size of a `trace_context` in bytes.
const MAX_CONTEXT: usize = 1024;

/// The trace id of a call, from its one `traceparent`.
pub fn of_headers(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    trace_id(value.to_str().ok()?)
}

/// The trace id in the `trace_context` of one send of a stream.
pub fn of_context(context: &HashMap<String, String>) -> Option<&str> {
    let size: usize = context.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MAX_CONTEXT {
        return None;
    }
    trace_id(context.get(TRACEPARENT)?)
}

/// The trace id in `<version>-<trace id>-<parent id>-<flags>`.
fn trace_id(traceparent: &str) -> Option<&str> {
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_set = |text: &str| is_hex(text) && text.bytes().any(|byte| byte != b'0');
    let parts: Vec<&str> = traceparent.split('-').collect();
    let [version, trace, parent, flags] = parts.as_slice() else { return None };
    let is_form = traceparent.len() == LENGTH && trace.len() == 32 && parent.len() == 16 && flags.len() == 2;
    (is_form && is_hex(version) && *version != "ff" && is_set(trace) && is_set(parent) && is_hex(flags))
        .then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_id_is_read_and_all_else_is_passed_over() {
        assert_eq!(trace_id(PARENT), Some(TRACE));
        assert_eq!(trace_id(&PARENT.replacen("00", "01", 1)), Some(TRACE));
        let zero_trace = PARENT.replace(TRACE, &"0".repeat(32));
        let zero_parent = PARENT.replace("00f067aa0ba902b7", &"0".repeat(16));
        let upper = PARENT.to_uppercase();
        let longer = format!("{PARENT}-00");
        let newest = PARENT.replacen("00", "ff", 1);
        let other_cut = "00-4bf92f3577b34da6a3ce929d0e0e47-3600f067aa0ba902b7-01";
        let no_hex = PARENT.replace("4bf9", "4bfg");
        for bad in ["", "x", &PARENT[..54], &zero_trace, &zero_parent, &upper, &longer, &newest, other_cut, &no_hex] {
            assert_eq!(trace_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_call_has_one_traceparent() {
        let headers = |values: &[&str]| -> HeaderMap {
            values.iter().map(|value| (http::HeaderName::from_static(TRACEPARENT), value.parse().unwrap())).collect()
        };
        assert_eq!(of_headers(&headers(&[PARENT])), Some(TRACE));
        assert_eq!(of_headers(&headers(&[])), None);
        assert_eq!(of_headers(&headers(&[PARENT, PARENT])), None);
    }

    #[test]
    fn a_large_context_is_passed_over() {
        let mut context = HashMap::from([(TRACEPARENT.to_owned(), PARENT.to_owned())]);
        assert_eq!(of_context(&context), Some(TRACE));
        let room = MAX_CONTEXT - TRACEPARENT.len() - LENGTH - "tracestate".len();
        context.insert("tracestate".to_owned(), "x".repeat(room));
        assert_eq!(of_context(&context), Some(TRACE));
        context.insert("tracestate".to_owned(), "x".repeat(room + 1));
        assert_eq!(of_context(&context), None);
        assert_eq!(of_context(&HashMap::new()), None);
    }
}
