//! The comparison, seen failing on each kind of change.

use prost_types::FileDescriptorSet;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::compare::broken;
use crate::surface::Surface;

const BASE: &str = r#"
syntax = "proto3";
package claudemesh.v1;
service MailService {
  rpc Send(SendRequest) returns (SendResponse);
  rpc Watch(SendRequest) returns (stream SendResponse);
}
enum Priority { PRIORITY_UNSPECIFIED = 0; PRIORITY_NOW = 1; }
message SendRequest {
  reserved 7, 9 to 10;
  reserved "old_name";
  string to = 1;
  optional uint32 limit = 2;
  repeated Priority priority = 3;
  oneof body { string text = 4; bytes data = 5; }
  message Inner { string a = 1; }
}
message SendResponse { string id = 1; }
"#;

/// One source under one path, beside the well-known types.
struct Source<'a>(&'a str, String);

impl FileResolver for Source<'_> {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == self.0 { File::from_source(name, &self.1) } else { Err(protox::Error::file_not_found(name)) }
    }
}

fn surface_at(path: &'static str, source: String) -> Surface {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Source(path, source));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.open_file(path).expect("the sample compiles");
    let set: FileDescriptorSet = compiler.file_descriptor_set();
    Surface::of(&set)
}

fn surface(source: String) -> Surface {
    surface_at("claudemesh/v1/mail.proto", source)
}

#[track_caller]
fn change(from: &str, to: &str) -> Vec<String> {
    let changed = BASE.replace(from, to);
    assert_ne!(changed, BASE, "the sample does not hold {from:?}");
    broken(&surface(BASE.to_owned()), &surface(changed))
}

#[test]
fn no_change_is_no_complaint() {
    assert_eq!(broken(&surface(BASE.to_owned()), &surface(BASE.to_owned())), Vec::<String>::new());
}

#[test]
fn additions_pass() {
    for (from, to) in [
        ("string to = 1;", "string to = 1; string note = 20;"),
        ("bytes data = 5;", "bytes data = 5; bool flag = 21;"),
        ("PRIORITY_NOW = 1;", "PRIORITY_NOW = 1; PRIORITY_LOW = 2;"),
        ("rpc Send(", "rpc Extra(SendRequest) returns (SendResponse); rpc Send("),
        ("message SendResponse", "message Other { string a = 1; } message SendResponse"),
        ("reserved 7,", "reserved 7, 30,"),
    ] {
        assert_eq!(change(from, to), Vec::<String>::new(), "{to}");
    }
}

#[test]
fn every_breaking_change_is_seen() {
    for (from, to, says) in [
        ("string to = 1;", "", "`claudemesh.v1.SendRequest` field 1 (`to`) is gone"),
        ("string to = 1;", "string target = 1;", "is now called `target`"),
        ("string to = 1;", "string to = 1 [json_name = \"dest\"];", "JSON name `dest`"),
        ("string to = 1;", "string to = 11;", "field 1 (`to`) is gone"),
        ("string to = 1;", "bytes to = 1;", "is now bytes, was string"),
        ("optional uint32 limit", "uint32 limit", "is now uint32, was optional uint32"),
        ("repeated Priority priority", "Priority priority", "was repeated .claudemesh.v1.Priority"),
        (
            "oneof body { string text = 4; bytes data = 5; }",
            "string text = 4; oneof body { bytes data = 5; }",
            "was in Some(\"body\")",
        ),
        ("PRIORITY_NOW = 1;", "PRIORITY_URGENT = 1;", "value 1 (`PRIORITY_NOW`) is gone or renamed"),
        ("rpc Send(SendRequest) returns (SendResponse);", "", "the call `claudemesh.v1.MailService/Send` is gone"),
        ("returns (stream SendResponse)", "returns (SendResponse)", "was (.claudemesh.v1.SendRequest) returns (stream"),
        ("message Inner { string a = 1; }", "", "`claudemesh.v1.SendRequest.Inner` is gone"),
        ("reserved 7, 9 to 10;", "reserved 9 to 10;", "no longer reserves 7"),
        ("reserved \"old_name\";", "", "no longer reserves old_name"),
    ] {
        let lines = change(from, to);
        assert!(lines.iter().any(|line| line.contains(says)), "{from} -> {to}: {lines:?} does not say {says:?}");
    }
}

#[test]
fn a_message_that_moves_to_another_file_is_seen() {
    let moved = surface_at("claudemesh/v1/other.proto", BASE.to_owned());
    let lines = broken(&surface(BASE.to_owned()), &moved);
    assert!(lines.iter().any(|line| line.contains("moved from claudemesh/v1/mail.proto")), "{lines:?}");
}
