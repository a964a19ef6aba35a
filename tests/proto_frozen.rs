//! The frozen core: whatever `proto/frozen/v1.binpb` holds is still there,
//! under the same name, number and type.
//!
//! Additions pass. Clients in three languages are generated from these files,
//! so a field that is renamed breaks JSON callers, one that is renumbered
//! breaks everybody, and a message that moves to another file breaks the
//! Python stubs.
//!
//! How and when the frozen set may be cut anew stands in `proto/README.md`.

#[path = "proto_frozen/compare.rs"]
mod compare;
#[path = "proto_frozen/samples.rs"]
mod samples;
#[path = "proto_frozen/sdks.rs"]
mod sdks;
#[path = "proto_frozen/surface.rs"]
mod surface;

use std::path::{Path, PathBuf};

use prost::Message as _;
use prost_types::FileDescriptorSet;

fn proto_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto")
}

/// The core as it is in the tree: every file of the package `claudemesh.v1`.
fn core_now() -> FileDescriptorSet {
    let mut files: Vec<PathBuf> = std::fs::read_dir(proto_root().join("claudemesh/v1"))
        .expect("proto/claudemesh/v1 can be listed")
        .map(|entry| entry.expect("an entry of proto/claudemesh/v1").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "proto"))
        .collect();
    files.sort();
    let mut set = protox::compile(files, [proto_root()]).expect("the proto files compile");
    // Comments are no part of the contract.
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set
}

#[test]
fn nothing_of_the_frozen_core_is_removed_or_changed() {
    let path = proto_root().join("frozen/v1.binpb");
    let now = core_now();
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let frozen = FileDescriptorSet::decode(bytes.as_slice()).expect("the frozen set is a FileDescriptorSet");

    let surface = surface::Surface::of(&frozen);
    assert!(surface.methods.len() >= 10, "the frozen core holds only {} calls", surface.methods.len());
    let broken = compare::broken(&surface, &surface::Surface::of(&now));
    assert!(broken.is_empty(), "{} change(s) break existing clients:\n  {}", broken.len(), broken.join("\n  "));
}

#[test]
fn the_core_depends_on_nothing_but_itself_and_the_well_known_types() {
    for file in core_now().file {
        let name = file.name().to_owned();
        if !name.starts_with("claudemesh/") {
            continue;
        }
        assert_eq!(file.package(), "claudemesh.v1", "{name}");
        for import in &file.dependency {
            assert!(
                import.starts_with("claudemesh/v1/") || import.starts_with("google/protobuf/"),
                "{name} imports {import}: the frozen core must not depend on what is not frozen"
            );
        }
    }
}
