//! Answers on standard output, and where chains of them end.

use serde_json::{Value, json};

use super::{Rig, configure, ended, log_lines, metric, runs, script};
use crate::support::daemon::Pair;
use crate::support::wait;

const REPLY: &str = "cat > /dev/null; echo '{\"reply\": \"got it\"}'";

// Covers: R212, R221
#[tokio::test]
async fn a_reply_arrives_where_it_is_allowed() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    configure(&bob, "[on-dm]\nallow_reply = true\n[on-message]\nallow_reply = false\n");
    script(&bob, "on-dm", REPLY);
    script(&bob, "on-message", "cat > /dev/null; echo '{\"reply\": \"never seen\"}'");
    bob.cli(&["hook", "reload"]).await.ok();
    let id = alice.send("bob", "hello").await;
    let reply = alice.received("got it").await;
    assert_eq!((&reply["reply_to_id"], &reply["provenance"]["hops"]), (&json!(id), &json!(1)), "{reply}");
    assert_eq!(reply["sender_name"], "bob");
    let ran = ended(&bob, "on-dm", 1).await.remove(0);
    assert_eq!((&ran["replied"], &ran["exit_code"]), (&json!(true), &json!(0)), "{ran}");
    let ignored = ended(&bob, "on-message", 1).await.remove(0);
    assert_eq!(ignored["replied"], false, "{ignored}");
    assert_eq!(alice.inbox("").await.len(), 1);
}

#[tokio::test]
async fn only_a_good_answer_of_a_good_run_is_sent() {
    let settings = "[on-dm]\nallow_reply = true\n";
    let body = "cat > OUT/input; case $(cat OUT/input) in *failing*) echo '{\"reply\": \"no\"}'; exit 1;; *text*) echo no;; \
                *other*) echo '{\"answer\": \"no\"}';; esac";
    let mut rig = Rig::start(settings, &[("on-dm", body)]).await;
    for (count, text) in ["failing", "text", "other", "nothing"].iter().enumerate() {
        rig.push(text).await;
        ended(&rig.alice, "on-dm", count + 1).await;
    }
    let replied: Vec<Value> = runs(&rig.alice, "").await.into_iter().map(|run| run["replied"].clone()).collect();
    assert_eq!(replied, [false, false, false, false]);
    let waiting = rig.alice.cli(&["daemon", "outbox", "list", "--json"]).await.ok().json();
    assert_eq!(waiting["entries"], json!([]));
}

/// Two hosts that answer everything, automatic messages too.
#[tokio::test]
async fn a_chain_of_automatic_messages_ends_after_three() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    for (daemon, text) in [(&alice, "ping"), (&bob, "pong")] {
        configure(daemon, "[on-dm]\nallow_reply = true\naccept_auto = true\n");
        script(daemon, "on-dm", &format!("cat > /dev/null; echo '{{\"reply\": \"{text}\"}}'"));
        daemon.cli(&["hook", "reload"]).await.ok();
    }
    alice.send("bob", "start").await;
    wait::until("the chain to end", async || {
        (!log_lines(&alice, "three automatic messages led to it").is_empty()).then_some(())
    })
    .await;
    let hops = async |daemon: &crate::support::daemon::Daemon| -> Vec<Value> {
        daemon.inbox("").await.into_iter().map(|row| row["provenance"]["hops"].clone()).collect()
    };
    assert_eq!((hops(&bob).await, hops(&alice).await), (vec![json!(0), json!(2)], vec![json!(1), json!(3)]));
    assert_eq!(ended(&alice, "on-dm", 2).await[0]["replied"], false);
}

// Covers: R200
#[tokio::test]
async fn automatic_messages_run_no_hooks_unless_they_are_accepted() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    configure(&bob, "[on-dm]\nallow_reply = true\n");
    script(&bob, "on-dm", REPLY);
    configure(&alice, "[on-dm]\n[on-message]\naccept_auto = true\n");
    script(&alice, "on-dm", "cat > /dev/null");
    script(&alice, "on-message", "cat > /dev/null");
    for daemon in [&alice, &bob] {
        daemon.cli(&["hook", "reload"]).await.ok();
    }
    alice.send("bob", "hello").await;
    ended(&alice, "on-message", 1).await;
    bob.send("alice", "by hand").await;
    ended(&alice, "on-message", 2).await;
    let dm = ended(&alice, "on-dm", 1).await;
    let by_hand = alice.received("by hand").await;
    assert_eq!((dm.len(), &dm[0]["message_id"]), (1, &by_hand["id"]), "the reply ran nothing");
}

#[tokio::test]
async fn a_sender_that_is_too_busy_runs_nothing_for_a_while() {
    let config = "[hooks]\nsender_rate_per_min = 2\n";
    let mut rig = Rig::with_config(config, "[on-dm]\n", &[("on-dm", "cat > /dev/null")]).await;
    for number in 0..5 {
        rig.push(&format!("message {number}")).await;
    }
    let skipped = ["hook=\"on-dm\"", "exit=\"skipped\""];
    wait::until("three to be skipped", async || {
        (metric(&rig.alice, "cm_daemon_hook_invocations_total", &skipped).await as u64 == 3).then_some(())
    })
    .await;
    ended(&rig.alice, "on-dm", 2).await;
    assert_eq!(runs(&rig.alice, "").await.len(), 2);
    assert_eq!(log_lines(&rig.alice, "sender_rate_per_min").len(), 1, "said once");
    assert_eq!(rig.alice.inbox("").await.len(), 5, "and stored all the same");
}
