//! `inbox -f` and `events -f`: nothing missed, nothing twice.

use std::time::Duration;

use crate::support::cli::Running;
use crate::support::daemon::{Pair, unique};

async fn body(followed: &mut Running) -> String {
    followed.json().await["body"].as_str().expect("a body").to_owned()
}

// Covers: R183
#[tokio::test]
async fn the_inbox_is_followed_over_a_killed_daemon() {
    let Pair { broker: _broker, mesh: _mesh, alice, mut bob } = Pair::start().await;
    let mut texts: Vec<String> = (0..6).map(|number| unique(&format!("text {number}"))).collect();
    for text in &texts[..3] {
        alice.send("bob", text).await;
        bob.received(text).await;
    }
    // Both names of the verb, the last two and what follows.
    let mut json = Running::start(bob.home(), &["daemon", "inbox", "-f", "-n", "2", "--json"]);
    let mut words = Running::start(bob.home(), &["inbox", "--follow", "--limit", "2"]);
    let texts = texts.split_off(1);
    for text in &texts[..2] {
        assert_eq!(&body(&mut json).await, text);
        assert!(words.line().await.ends_with(&format!("alice: {text}")));
    }
    alice.send("bob", &texts[2]).await;
    assert_eq!(&body(&mut json).await, &texts[2]);
    bob.kill9();
    alice.send("bob", &texts[3]).await;
    bob.start().await;
    bob.received(&texts[3]).await;
    alice.send("bob", &texts[4]).await;
    for text in &texts[3..] {
        assert_eq!(&body(&mut json).await, text, "in order, each once");
    }
    for text in &texts[2..] {
        assert!(words.line().await.ends_with(&format!("alice: {text}")));
    }
}

#[tokio::test]
async fn an_empty_inbox_is_followed_from_its_first_message() {
    let Pair { broker: _broker, mesh: _mesh, alice, mut bob } = Pair::start().await;
    let mut followed = Running::start(bob.home(), &["inbox", "-f", "--json"]);
    let mut events = Running::start(bob.home(), &["events", "-f", "--json", "--type", "message"]);
    // Whichever it was, before or after they had begun: they show it.
    alice.send("bob", "first").await;
    assert_eq!(body(&mut followed).await, "first");
    bob.received("first").await;
    // It follows from when it has begun, and that is when it shows something: killed
    // before, the daemon would be found absent.
    loop {
        alice.send("bob", "early").await;
        if tokio::time::timeout(Duration::from_secs(1), events.json()).await.is_ok() {
            break;
        }
    }
    bob.kill9();
    alice.send("bob", "second").await;
    bob.start().await;
    bob.received("second").await;
    while body(&mut followed).await != "second" {}
    while events.json().await["message"]["body"] != "second" {}
}

#[tokio::test]
async fn filters_hold_for_what_is_followed() {
    let Pair { broker, mesh, alice, bob } = Pair::start().await;
    let carol = crate::support::daemon::Daemon::join(&broker, &mesh, "carol").await;
    carol.connected().await;
    carol.knows("bob").await;
    bob.knows("carol").await;
    alice.send("bob", "from alice").await;
    bob.received("from alice").await;
    let mut followed = Running::start(bob.home(), &["inbox", "-f", "--from", "carol", "--json"]);
    alice.send("bob", "again from alice").await;
    bob.received("again from alice").await;
    carol.send("bob", "from carol").await;
    assert_eq!(body(&mut followed).await, "from carol");
}
