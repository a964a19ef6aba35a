//! Programs that some tests use to look at the daemon from another side.
//!
//! `make test` sets `CLAUDEMESH_TEST_TOOLS` to the directory where it put them;
//! then a missing one fails the test. Without it the test says that it was
//! skipped.

use std::path::{Path, PathBuf};

fn directory() -> Option<PathBuf> {
    std::env::var_os("CLAUDEMESH_TEST_TOOLS").map(PathBuf::from)
}

/// The program, or `None` (with a word about it) when it may be missing.
fn find(name: &str, candidates: &[PathBuf]) -> Option<PathBuf> {
    let found = candidates.iter().find(|path| path.is_file()).cloned();
    match (&found, directory()) {
        (None, Some(tools)) => panic!("{name} is missing below {} and in PATH", tools.display()),
        (None, None) => eprintln!("SKIPPED: {name} is not installed; `make test` fetches it"),
        _ => {}
    }
    found
}

fn in_path(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).collect()
}

/// Below the tools directory; beside the build when it is not set.
fn fetched(relative: &str) -> PathBuf {
    directory().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools")).join(relative)
}

/// `grpcurl`.
pub(crate) fn grpcurl() -> Option<PathBuf> {
    let mut candidates = vec![fetched("bin/grpcurl")];
    candidates.extend(in_path("grpcurl"));
    find("grpcurl", &candidates)
}

/// A Python that has grpcio, protobuf and PyNaCl.
pub(crate) fn python() -> Option<PathBuf> {
    find("the Python of the tests", &[fetched("venv/bin/python")])
}

/// A tool of the system that is used where it happens to be.
pub(crate) fn system_if_there(name: &str) -> Option<PathBuf> {
    let found = in_path(name).into_iter().find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: {name} is not installed");
    }
    found
}

/// A tool of the system.
pub(crate) fn system(name: &str) -> Option<PathBuf> {
    find(name, &in_path(name))
}

/// A tool of the system that may lie in one of these places first.
pub(crate) fn system_or(name: &str, mut places: Vec<PathBuf>) -> Option<PathBuf> {
    places.extend(in_path(name));
    find(name, &places)
}

/// The library that shows a process another time.
pub(crate) fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib");
    let found = folders.flatten().map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    found.into_iter().find(|path| path.exists()).expect("these tests need the package faketime")
}
