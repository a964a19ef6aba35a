//! Leaving a mesh and joining it again.

use crate::support::broker::Broker;
use crate::support::daemon::Daemon;
use crate::support::mesh::Mesh;
use crate::support::wait;

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
    let joined = bob.cli(&["join", &link, "--display-name", "bob"]).await.ok();
    assert!(joined.stderr.contains("is kept in"), "{}", joined.stderr);
    assert!(joined.stderr.contains("another member is or was called bob too"), "{}", joined.stderr);
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
    // The name was another key's: what is printed tells how to give it to this one.
    let key = bob.public();
    wait::until("the new member", async || {
        let list = alice.cli(&["peer", "list"]).await.ok().stdout;
        list.contains(&key[..16]).then_some(())
    })
    .await;
    let refused = alice.cli(&["send", "bob", "after"]).await.stderr;
    assert!(refused.contains(&format!("claudemesh verify {} --accept", &key[..16])), "{refused}");
    assert!(refused.contains(&format!("bob ({}, removed)", &before[..16])), "{refused}");
    alice.cli(&["verify", &key[..16], "--accept"]).await.ok();
    alice.send("bob", "after").await;
    bob.received("after").await;
}
