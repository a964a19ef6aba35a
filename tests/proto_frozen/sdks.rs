//! What the SDKs are made of: the frozen core, at the daemon's version.

use std::collections::BTreeSet;
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The names of the files below a folder up to their first `.` or `_`, where they are
/// source code.
fn sources(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "__pycache__" {
                sources(&path, into);
            }
        } else if !name.starts_with("__init__") {
            into.insert(name.split(['.', '_']).next().unwrap_or_default().to_owned());
        }
    }
}

// Covers: R322
#[test]
fn the_sdks_offer_the_frozen_core_and_nothing_for_operators() {
    let mut core = BTreeSet::new();
    sources(&root().join("proto/claudemesh/v1"), &mut core);
    for (package, generated) in [
        ("sdk/python/src/claudemesh", "sdk/python/src/claudemesh/v1"),
        ("sdk/go/gen/claudemesh", "sdk/go/gen/claudemesh/v1"),
        ("sdk/ts/src/gen/claudemesh", "sdk/ts/src/gen/claudemesh/v1"),
    ] {
        let mut found = BTreeSet::new();
        sources(&root().join(generated), &mut found);
        assert_eq!(found, core, "{generated}");
        assert!(!root().join(package).join("admin").exists(), "{package}");
    }
}

// Covers: R329
#[test]
fn the_sdks_have_the_version_of_the_daemon() {
    let version = env!("CARGO_PKG_VERSION");
    for (file, line) in [
        ("sdk/python/pyproject.toml", format!("version = \"{version}\"")),
        ("sdk/python/src/claudemesh/__init__.py", format!("__version__ = \"{version}\"")),
        ("sdk/go/mesh.go", format!("const Version = \"{version}\"")),
        ("sdk/ts/package.json", format!("\"version\": \"{version}\"")),
    ] {
        let text = read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(&line), "{file} does not say {line}");
    }
}
