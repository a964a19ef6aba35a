//! A slow line: large messages take their time, small ones pass them, nothing is cut.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::broker::Broker;
use crate::support::daemon::Daemon;
use crate::support::mesh::Mesh;
use crate::support::slow_line::SlowLine;
use crate::support::wait;

/// How long a small message may take beside large ones.
const SMALL: Duration = Duration::from_secs(3);

struct Slow {
    _broker: Broker,
    line: SlowLine,
    /// Of the line when the links were up.
    connections: u32,
    slow: Daemon,
    bob: Daemon,
    carol: Daemon,
}

async fn slow_line(rate: u32) -> Slow {
    let broker = Broker::start().await;
    let line = SlowLine::to(broker.address(), rate, Duration::from_millis(100)).await;
    let mesh = Mesh { url: line.url(), ..Mesh::create(&broker, "demo").await };
    let slow = Daemon::join(&broker, &mesh, "slow").await;
    let direct = Mesh { url: broker.url(), ..mesh };
    let bob = Daemon::join(&broker, &direct, "bob").await;
    let carol = Daemon::join(&broker, &direct, "carol").await;
    for (one, others) in [(&slow, ["bob", "carol"]), (&bob, ["slow", "carol"]), (&carol, ["slow", "bob"])] {
        one.connected().await;
        for other in others {
            one.knows(other).await;
        }
    }
    let connections = line.connections();
    Slow { _broker: broker, line, connections, slow, bob, carol }
}

impl Slow {
    /// Large messages in both directions, and so many rounds of small ones in between;
    /// everything once.
    async fn exchange(&self, rate: u32, sizes: &[usize], rounds: u32) {
        let mut bytes = 0;
        for (number, size) in sizes.iter().enumerate() {
            let text = format!("{number} {}", "x".repeat(size - 8));
            bytes += text.len();
            for (from, to) in [(&self.bob, "slow"), (&self.slow, "bob")] {
                let answer = from.post_send(&json!({"to": to, "message": text})).await;
                assert_eq!(answer.status, 202, "{}", answer.text());
            }
        }
        // By now the large ones fill the line.
        for round in 0..rounds {
            for (from, to, name) in [(&self.carol, &self.slow, "slow"), (&self.slow, &self.carol, "carol")] {
                let began = Instant::now();
                let text = format!("small {round} to {name}");
                from.send(name, &text).await;
                to.received(&text).await;
                assert!(began.elapsed() < SMALL, "a small message took {:?}", began.elapsed());
            }
        }
        // Sealed and in base64 a text is more than a third longer.
        let limit = Duration::from_secs_f64(2.5 * bytes as f64 / f64::from(rate)) + Duration::from_secs(20);
        for (to, from) in [(&self.slow, "bob"), (&self.bob, "slow")] {
            let all = wait::until_within(limit, "every large message is there", || async {
                let all = to.inbox(&format!("from={from}")).await;
                (all.len() >= sizes.len()).then_some(all)
            })
            .await;
            let order: Vec<usize> = all.iter().filter_map(|row| number_of(row["body"].as_str()?)).collect();
            assert_eq!(order, (0..sizes.len()).collect::<Vec<_>>(), "each once, in order");
        }
        assert_eq!(self.line.connections(), self.connections, "the link was cut");
    }
}

fn number_of(text: &str) -> Option<usize> {
    text.split(' ').next()?.parse().ok()
}

/// `make soak` takes its time.
fn is_soak() -> bool {
    std::env::var_os("CLAUDEMESH_SOAK").is_some()
}

// Covers: D-C8
#[tokio::test]
async fn small_messages_pass_large_ones_and_no_link_is_cut() {
    let rate = 50_000;
    let mut sizes = vec![60_000; if is_soak() { 120 } else { 12 }];
    sizes.extend(vec![1_048_576; if is_soak() { 6 } else { 1 }]);
    slow_line(rate).await.exchange(rate, &sizes, 3).await;
}

// Covers: D-C8
#[tokio::test]
async fn a_large_message_takes_its_time() {
    let rate = 5_000;
    let size = if is_soak() { 1_048_576 } else { 150_000 };
    slow_line(rate).await.exchange(rate, &[size], 0).await;
}
