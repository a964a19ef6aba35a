//! The JSON form of the API's types.

use prost::Message as _;
use serde_json::json;

use super::wkt::{Struct, Timestamp, Value};
use super::{admin, pb};

fn read(value: serde_json::Value) -> Result<pb::SendRequest, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[test]
fn enums_are_written_short_and_read_in_every_form() {
    for form in [json!("now"), json!("PRIORITY_NOW"), json!(1)] {
        assert_eq!(read(json!({ "priority": form })).unwrap().priority(), pb::Priority::Now);
    }
    for wrong in [json!("NOW"), json!("soon"), json!(9), json!(-1), json!(true), json!(1.5)] {
        let error = read(json!({ "priority": wrong })).unwrap_err();
        assert!(error.contains("one of `now`, `next`, `low`"), "{error}");
    }
    let written = serde_json::to_value(pb::SendRequest { priority: 3, ..Default::default() }).unwrap();
    assert_eq!(written["priority"], "low");
}

#[test]
fn names_are_snake_case_and_camel_case_is_read() {
    let request = read(json!({ "to": "bob", "message": "hi", "replyToId": "a", "client_message_id": "b" })).unwrap();
    assert_eq!((request.reply_to_id.as_str(), request.client_message_id.as_str()), ("a", "b"));
    let written = serde_json::to_value(&request).unwrap();
    assert_eq!(written["reply_to_id"], "a");
    assert_eq!(written["allow_unencrypted"], false, "defaults are printed");
    let filter: pb::ListMessagesRequest = serde_json::from_value(json!({ "sender": "bob" })).unwrap();
    assert_eq!(filter.sender, "bob");
}

#[test]
fn unknown_fields_are_refused() {
    assert!(read(json!({ "to": "bob", "massage": "hi" })).unwrap_err().contains("massage"));
    let error = serde_json::from_value::<pb::SetProfileRequest>(json!({ "name": "x" })).unwrap_err();
    assert!(error.to_string().contains("name"), "{error}");
}

#[test]
fn null_is_absence_only_where_absence_means_something() {
    assert_eq!(read(json!({ "meta": null })).unwrap().meta, None);
    assert!(read(json!({ "message": null })).unwrap_err().contains("null"));
    let profile: pb::SetProfileRequest = serde_json::from_value(json!({ "summary": null })).unwrap();
    assert_eq!(profile.summary, None);
}

#[test]
fn times_end_in_z_and_any_offset_is_read() {
    for (written, read) in
        [("2026-11-23T12:00:00Z", "2026-11-23T12:00:00Z"), ("2026-11-23T12:00:00.250Z", "2026-11-23T14:00:00.25+02:00")]
    {
        let time: Timestamp = serde_json::from_value(json!(read)).unwrap();
        assert_eq!(serde_json::to_value(time).unwrap(), written);
        assert_eq!(Timestamp::from_unix_ms(time.to_unix_ms().unwrap()), time);
    }
    assert_eq!(serde_json::to_value(Timestamp::from_unix_ms(-1)).unwrap(), "1969-12-31T23:59:59.999Z");
    for bad in ["yesterday", "2026-11-23", "2026-11-23T12:00:00"] {
        assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
    }
    assert_eq!(Timestamp { seconds: i64::MAX, nanos: 0 }.to_unix_ms(), None);
    assert_eq!(Timestamp { seconds: 0, nanos: -1 }.to_unix_ms(), None);
}

#[test]
fn sizes_beyond_32_bits_are_strings() {
    let pruned = admin::PruneOutboxResponse { entries: 1, freed_bytes: 5, confirmed: true };
    assert_eq!(serde_json::to_value(pruned).unwrap(), json!({ "entries": 1, "freed_bytes": "5", "confirmed": true }));
}

#[test]
fn metadata_comes_back_as_it_was_written() {
    let text = r#"{"a":1,"b":[true,null,-2.5,"x",{}],"c":{"d":9007199254740992}}"#;
    let read: Struct = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    let decoded = Struct::decode(read.encode_to_vec().as_slice()).unwrap();
    assert_eq!(decoded, read);
}

#[test]
fn an_integer_that_a_double_would_change_is_refused() {
    for inexact in ["9007199254740993", "-9007199254740993", "18446744073709551615"] {
        let error = serde_json::from_str::<Struct>(&format!(r#"{{"a":{inexact}}}"#)).unwrap_err().to_string();
        assert!(error.contains("write it as a string"), "{error}");
    }
    let infinite = Struct { fields: [("a".to_owned(), Value::from(f64::INFINITY))].into() };
    assert!(serde_json::to_string(&infinite).is_err());
}
