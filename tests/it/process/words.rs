//! What the product says of itself.

use std::path::Path;

use crate::support::cli::every_help_text;

/// Every text that is written for users. The specification is left out: it
/// quotes the claim in order to forbid it.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open: Vec<_> = ["docs", "proto", "sdk"].iter().map(|name| root.join(name)).collect();
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        if path == root.join("docs/spec") || path.ends_with("node_modules") {
            continue;
        }
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()));
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            found.push((path.display().to_string(), text));
        }
    }
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "Cargo.toml"] {
        if let Ok(text) = std::fs::read_to_string(root.join(name)) {
            found.push((name.to_owned(), text));
        }
    }
    found
}

// Covers: R3
#[tokio::test]
async fn nothing_claims_what_cannot_be_promised() {
    let mut texts = every_help_text().await;
    assert!(texts.len() > 8, "only {} help texts were found", texts.len());
    let documents = documents();
    assert!(documents.len() > 8, "only {} documents were found", documents.len());
    texts.extend(documents);
    for (place, text) in texts {
        let plain = text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
        for claim in ["exactly-once", "exactly once deliver", "delivered exactly once", "guaranteed delivery"] {
            assert!(!plain.contains(claim), "{place} says {claim:?}");
        }
    }
}
