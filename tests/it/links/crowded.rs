//! A link over which others come and go all the time.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::fake_broker::{Client, FakeBroker};
use crate::support::wait;

/// More than the daemon keeps before it leaves the socket unread.
const FLOOD: usize = 2_000;

async fn linked() -> (FakeBroker, Daemon, Client) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let client = fake.link(&alice).await;
    (fake, alice, client)
}

fn somebody_came(client: &Client, number: usize) -> Value {
    json!({
        "type": "push", "messageId": format!("m{number}"), "meshId": client.hello["meshId"],
        "senderPubkey": "system", "priority": "low", "nonce": "", "ciphertext": "",
        "createdAt": "2026-01-01T00:00:00.000Z", "subtype": "system", "event": "peer_returned",
        "eventData": {"name": format!("somebody {number}"), "pubkey": format!("{number:064x}")},
    })
}

/// The lists are read while the others still come: their coming does not put it off.
#[tokio::test]
async fn comings_and_goings_do_not_put_off_the_reading_of_the_lists() {
    let (_fake, _alice, mut client) = linked().await;
    client.carol = Some(crate::support::keys::Key::random().public());
    wait::soon("the lists to be read", async {
        let mut number = 0;
        loop {
            number += 1;
            let came = somebody_came(&client, number);
            client.send(&came).await;
            // Far less than the time in which changes are read together.
            let pause = std::time::Duration::from_millis(10);
            if client.frames_within(pause).await.iter().any(|frame| frame["type"] == "member_list") {
                return;
            }
        }
    })
    .await;
}

/// The answer to a question comes behind more news than the daemon keeps.
#[tokio::test]
async fn the_lists_are_read_behind_any_number_of_news() {
    let (_fake, alice, mut client) = linked().await;
    client.carol = Some(crate::support::keys::Key::random().public());
    let came = somebody_came(&client, 0);
    client.send(&came).await;
    let asked = loop {
        let frame = client.next().await.expect("a frame");
        if frame["type"] == "list_peers" {
            break frame;
        }
    };
    for number in 1..FLOOD {
        let came = somebody_came(&client, number);
        client.send(&came).await;
    }
    let began = std::time::Instant::now();
    client.answer_lists(&asked).await;
    let answering = async {
        loop {
            let frame = client.next().await.expect("a frame");
            client.answer_lists(&frame).await;
        }
    };
    tokio::select! {
        () = alice.knows("carol") => {}
        () = answering => unreachable!("it answers for ever"),
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(4), "the link was blocked for {:?}", began.elapsed());
}
