//! `GET /v1/inbox`: filters, pages and order.

use serde_json::Value;

use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::{keys, wait};

fn bodies(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["body"].as_str().expect("a body").to_owned()).collect()
}

/// One page.
async fn page(daemon: &Daemon, query: &str) -> Value {
    daemon.http().get(&format!("/v1/inbox?{query}")).send().await.expect(200).json()
}

fn rows(page: &Value) -> Vec<Value> {
    page["messages"].as_array().expect("messages").clone()
}

// Covers: R81, R181
#[tokio::test]
async fn each_filter_alone_and_together() {
    let Pair { broker, mesh, alice, bob } = Pair::start().await;
    let carol = Daemon::join(&broker, &mesh, "carol").await;
    carol.knows("bob").await;
    let mut expected = Vec::new();
    let mut middle = String::new();
    for number in 0..6 {
        let (sender, name) = if number % 2 == 0 { (&alice, "alice") } else { (&carol, "carol") };
        let text = unique(&format!("{name} {number}"));
        sender.send("bob", &text).await;
        let row = bob.received(&text).await;
        if number == 3 {
            middle = row["received_at"].as_str().expect("a time").to_owned();
        }
        expected.push(text);
    }
    assert_eq!(bodies(&rows(&page(&bob, "").await)), expected, "oldest first");
    let newest = bodies(&rows(&page(&bob, "order=newest_first").await));
    assert_eq!(newest, expected.iter().rev().cloned().collect::<Vec<_>>());

    let of_alice: Vec<String> = expected.iter().step_by(2).cloned().collect();
    for who in ["alice", &alice.public(), &alice.public()[..16]] {
        assert_eq!(bodies(&rows(&page(&bob, &format!("from={who}")).await)), of_alice, "{who}");
    }
    let since = middle.replace('+', "%2B");
    assert_eq!(bodies(&rows(&page(&bob, &format!("since={since}")).await)), expected[3..], "at or after");
    assert_eq!(bodies(&rows(&page(&bob, &format!("since={since}&from=alice")).await)), [expected[4].clone()]);
    let future = "since=2999-01-01T00:00:00Z";
    assert_eq!(rows(&page(&bob, future).await), Vec::<Value>::new());
    assert_eq!(bodies(&rows(&page(&bob, "limit=2").await)), expected[..2]);

    // Pages: no gap, no repeat, whatever arrives meanwhile.
    let first = page(&bob, "limit=2").await;
    let late = unique("late");
    alice.send("bob", &late).await;
    bob.received(&late).await;
    let mut seen = bodies(&rows(&first));
    let mut token = first["next_page_token"].as_str().expect("a token").to_owned();
    while !token.is_empty() {
        let next = page(&bob, &format!("limit=2&page_token={token}")).await;
        seen.extend(bodies(&rows(&next)));
        token = next["next_page_token"].as_str().expect("a token").to_owned();
    }
    expected.push(late);
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_query_that_means_nothing_is_refused() {
    let Pair { broker: _broker, bob, .. } = Pair::start().await;
    for query in [
        "since=yesterday",
        "limit=0x10",
        "limit=-1",
        "page_token=forged",
        "after=nonsense",
        "order=random",
        "unknown=1",
    ] {
        let refused = bob.http().get(&format!("/v1/inbox?{query}")).send().await;
        assert_eq!(refused.status, 400, "{query}: {}", refused.text());
        assert!(refused.json()["code"].is_string(), "{query}");
    }
    let nobody = bob.http().get("/v1/inbox?from=nobody").send().await.expect(404).json();
    assert_eq!(nobody["code"], "unknown_peer");
}

/// A list has no way to tell that what follows is not what was asked for.
#[tokio::test]
async fn a_place_of_another_inbox_is_refused() {
    let Pair { broker: _broker, alice, bob, .. } = Pair::start().await;
    let text = unique("placed");
    alice.send("bob", &text).await;
    let row = bob.received(&text).await;
    let id = row["event_id"].as_str().expect("an event id");
    let (generation, seq) = id.rsplit_once('-').expect("generation and place");
    bob.http().get(&format!("/v1/inbox?after={id}")).send().await.expect(200);
    let other = format!("01J0000000000000000000000A-{seq}");
    assert_ne!(generation, "01J0000000000000000000000A");
    let refused = bob.http().get(&format!("/v1/inbox?after={other}")).send().await.expect(400).json();
    assert_eq!(refused["code"], "invalid_argument", "{refused}");
}

// Covers: R82, R104
#[tokio::test]
async fn search_is_not_there() {
    let Pair { broker: _broker, bob, .. } = Pair::start().await;
    let refused = bob.http().get("/v1/inbox/search?q=x").send().await.expect(404).json();
    assert_eq!(refused["code"], "capability_disabled", "{refused}");
    assert!(refused.to_string().contains("inbox_fts"), "the switch is named: {refused}");
    let unknown = bob.http().get("/v1/search?q=x").send().await.expect(404).json();
    assert_eq!(unknown["code"], "route_not_found", "{unknown}");
    // No verb promises what is not there.
    for verb in [&["inbox", "search", "x"][..], &["daemon", "search", "x"][..], &["search", "x"][..]] {
        let refused = bob.cli(verb).await.exits(2);
        assert!(refused.stderr.contains("usage_error"), "{verb:?}: {refused:?}");
    }
}

// Covers: R132
#[tokio::test]
async fn a_large_inbox_is_cut_with_a_cursor() {
    let Pair { broker: _broker, alice, bob, .. } = Pair::start().await;
    // 14 messages of 900 KB: more than the 10 MB of one answer.
    let filler = "x".repeat(900_000);
    let mut expected = Vec::new();
    for number in 0..14 {
        let text = format!("{number:02} {} {filler}", hex::encode(keys::random_bytes(4)));
        alice.send("bob", &text).await;
        expected.push(text);
    }
    wait::until("14 messages", async || {
        let db = bob.inbox_db().await;
        let count = db.number("SELECT count(*) FROM inbox").await;
        db.close().await;
        (count == 14).then_some(())
    })
    .await;
    let mut seen = Vec::new();
    let mut path = "/v1/inbox?limit=1000".to_owned();
    let mut pages = 0;
    loop {
        let answer = bob.http().get(&path).send().await.expect(200);
        assert!(answer.body.len() <= 10_000_000 + 1_000, "{} bytes", answer.body.len());
        pages += 1;
        seen.extend(bodies(&rows(&answer.json())));
        let Some(link) = answer.header("link") else { break };
        assert!(link.contains("rel=\"next\""), "{link}");
        path = link.split_once('<').and_then(|(_, rest)| rest.split_once('>')).expect("a URL").0.to_owned();
        assert!(path.starts_with("/v1/inbox?"), "{path}");
    }
    assert!(pages >= 2, "{pages} page(s)");
    assert_eq!(seen, expected);
    // The command line reads on until it has what it was asked for.
    let printed = bob.cli(&["inbox", "-n", "13"]).await.ok().stdout;
    assert_eq!(printed.lines().count(), 13);
    let listed = bob.cli(&["inbox", "-n", "13", "--json"]).await.ok().json();
    assert_eq!(bodies(listed["messages"].as_array().expect("messages")), expected[1..]);
}
