//! Leaving a mesh and joining it again.

use crate::support::broker::Broker;
use crate::support::daemon::Daemon;
use crate::support::mesh::Mesh;

#[tokio::test]
async fn who_comes_back_starts_anew_and_keeps_what_was_before() {
    let broker = Broker::start().await;
    let mesh = Mesh::create(&broker, "demo").await;
    let alice = Daemon::join(&broker, &mesh, "alice").await;
    let mut bob = Daemon::join(&broker, &mesh, "bob").await;
    alice.connected().await;
    alice.knows("bob").await;
    alice.send("bob", "before").await;
    bob.received("before").await;
    let before = bob.public();
    bob.cli(&["mesh", "leave", "demo"]).await.ok();
    assert_eq!(bob.ended().await, 14);
    let link = mesh.invite(&broker, 1).await.link();
    let joined = bob.cli(&["join", &link, "--display-name", "bob2"]).await.ok();
    assert!(joined.stderr.contains("is kept in"), "{}", joined.stderr);
    bob.start().await;
    bob.connected().await;
    assert_ne!(bob.public(), before);
    assert!(bob.inbox("").await.is_empty());
    let names = std::fs::read_dir(bob.home().join("daemon")).expect("a directory");
    let kept = names
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.display().to_string().contains("demo.left-"));
    assert!(kept.is_some_and(|kept| kept.join("inbox.db").exists()), "what was before is kept");
    // It is no mesh of its own.
    assert!(!bob.cli(&["daemon", "status"]).await.ok().all().contains("left-"));
    alice.knows("bob2").await;
    alice.send("bob2", "after").await;
    bob.received("after").await;
}
