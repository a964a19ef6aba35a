//! `--clock`: the time of the mesh is moved.

use serde_json::{Value, json};

use super::{Dev, Member};
use crate::support::daemon::unique;

const DAY: i64 = 86_400;

/// Seconds since 1970 of a message in the inbox, as the member saw the time.
async fn received_at(member: &Member, text: &str) -> i64 {
    member.received(text).await;
    let answer = member.http().get("/v1/inbox?limit=1000").send().await.expect(200).json();
    let rows = answer["messages"].as_array().expect("messages");
    let row = rows.iter().find(|row| row["body"] == text).expect("the message");
    let at = row["received_at"].as_str().expect("a time");
    at.parse::<chrono::DateTime<chrono::Utc>>().expect("a time").timestamp()
}

async fn uptime(member: &Member) -> i64 {
    member.health().await["uptime_s"].as_i64().expect("a number")
}

#[tokio::test]
async fn both_clocks_of_all_processes_are_moved() {
    let mut dev = Dev::ready(&["--clock"]).await;
    let (alice, bob) = (dev.member("alice"), dev.member("bob"));
    let now = chrono::Utc::now().timestamp();
    let before = unique("before");
    alice.send("bob", &before).await;
    assert!((received_at(&bob, &before).await - now).abs() < 60, "at first it is the time that it is");
    for moved in [DAY, 10 * DAY] {
        let step = if moved == DAY { DAY } else { 9 * DAY };
        dev.ok(json!({ "do": "clock", "advance_s": step })).await;
        for member in [&alice, &bob] {
            assert!(uptime(member).await >= moved, "{}", member.text("name"));
        }
        let text = unique("then");
        alice.send("bob", &text).await;
        let at = received_at(&bob, &text).await;
        assert!((at - now - moved).abs() < 120, "{at} is not {moved} s after {now}");
    }
    // Also of what is started or joins later.
    let carol = Member(dev.ok(json!({ "do": "add", "member": "carol" })).await["member"].clone());
    let bob = Member(dev.act("restart", "bob").await["member"].clone());
    for (from, to) in [(&carol, &bob), (&bob, &carol)] {
        let text = unique("later");
        from.send(to.text("name"), &text).await;
        assert!((received_at(to, &text).await - now - 10 * DAY).abs() < 120);
    }
}

#[tokio::test]
async fn a_clock_goes_forward_and_not_too_far() {
    let mut dev = Dev::ready(&["--clock", "--members", "alice"]).await;
    let refused: [Value; 4] = [json!(-1), json!(1e12), json!("1"), Value::Null];
    for advance in refused {
        dev.refused(json!({ "do": "clock", "advance_s": advance }), "invalid_argument").await;
    }
    dev.ok(json!({ "do": "clock", "advance_s": 3000 * DAY })).await;
    dev.refused(json!({ "do": "clock", "advance_s": 3000 * DAY }), "invalid_argument").await;
    assert!(uptime(&dev.member("alice")).await < 3001 * DAY);
    let mut other = Dev::ready(&["--members", "alice"]).await;
    let said = other.refused(json!({ "do": "clock", "advance_s": 1 }), "invalid_argument").await;
    assert!(said.contains("--clock"), "{said}");
}
