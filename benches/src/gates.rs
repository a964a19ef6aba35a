//! What must hold: ratios of what was measured in one run.

use crate::load::Sample;
use crate::report::Report;

/// A bound.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// The figure is this or more.
    AtLeast(f64),
    /// The figure is this or less.
    AtMost(f64),
}

/// How a figure is made.
#[derive(Clone, Copy, Debug)]
enum Figure {
    /// The rate of one step over the rate of another.
    Rates(&'static str, &'static str),
    /// The median latency of one step over that of another.
    Medians(&'static str, &'static str),
    /// The 99th percentile of a step over its median.
    Tail(&'static str),
    /// The median latency over three commits, two WebSocket hops and two calls.
    Parts(&'static str),
    /// The median latency in milliseconds.
    Milliseconds(&'static str),
    /// The amount itself.
    Amount(&'static str),
}

/// A figure and its bound.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// What is compared.
    pub what: &'static str,
    /// What must hold.
    pub rule: Rule,
    figure: Figure,
}

// === impl Rule ===

impl Rule {
    /// Whether a figure is within it.
    pub fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound) => figure >= bound,
            Self::AtMost(bound) => figure <= bound,
        }
    }
}

// === impl Gate ===

impl Gate {
    /// The figure; `None` where a step of it was not measured.
    pub fn figure(&self, report: &Report) -> Option<f64> {
        let rate = |name| report.of(name, |sample| sample.per_s);
        let p50 = |name| report.of(name, Sample::p50);
        Some(match self.figure {
            Figure::Rates(subject, peer) => rate(subject)? / rate(peer)?,
            Figure::Medians(subject, peer) => p50(subject)? / p50(peer)?,
            Figure::Tail(step) => report.of(step, |sample| sample.quantile(0.99) / sample.p50())?,
            Figure::Parts(step) => {
                // An echo is two hops.
                let parts = 3.0 * p50("part/commit")? + p50("part/websocket")? + 2.0 * p50("part/call")?;
                p50(step)? / parts
            }
            Figure::Milliseconds(step) => p50(step)? / 1000.0,
            Figure::Amount(step) => rate(step)?,
        })
    }
}

/// All of them.
pub fn gates() -> Vec<Gate> {
    use Figure::{Amount, Medians, Milliseconds, Parts, Rates, Tail};
    use Rule::{AtLeast, AtMost};
    let gate = |what, rule, figure| Gate { what, rule, figure };
    vec![
        gate("Send, 1 caller / NATS JetStream, synced", AtLeast(0.8), Rates("send/grpc/1", "nats/1")),
        gate("Send, 16 callers / NATS JetStream, synced", AtLeast(2.5), Rates("send/grpc/16", "nats/16")),
        gate("Send, 64 callers / NATS JetStream, synced", AtLeast(4.5), Rates("send/grpc/64", "nats/64")),
        gate("Send, 1 caller / PostgreSQL INSERT", AtLeast(0.45), Rates("send/grpc/1", "postgres/1")),
        gate("Send, 16 callers / PostgreSQL INSERT", AtLeast(0.7), Rates("send/grpc/16", "postgres/16")),
        gate("Send, 64 callers / PostgreSQL INSERT", AtLeast(1.1), Rates("send/grpc/64", "postgres/64")),
        gate("SendStream, 64 in flight / Redis XADD, synced", AtLeast(0.7), Rates("send/stream/64", "redis/64")),
        gate("SendStream, 64 in flight / NATS JetStream, synced", AtLeast(6.0), Rates("send/stream/64", "nats/64")),
        gate("Send, 1 caller, p50 / a synced append", AtMost(3.2), Medians("send/grpc/1", "disk")),
        gate("Send, 64 callers, p99 / its p50", AtMost(3.0), Tail("send/grpc/64")),
        gate("REST, 1 caller / gRPC", AtLeast(1.0), Rates("send/rest/1", "send/grpc/1")),
        gate("REST, 16 callers / gRPC", AtLeast(1.0), Rates("send/rest/16", "send/grpc/16")),
        gate("REST, 64 callers / gRPC", AtLeast(1.0), Rates("send/rest/64", "send/grpc/64")),
        gate("end to end, 1 in flight, p50 / the sum of its parts", AtMost(1.5), Parts("e2e/1")),
        gate(
            "end to end, 64 in flight / the broker's commits alone",
            AtLeast(0.6),
            Rates("e2e/64", "part/broker-ceiling"),
        ),
        gate("daemon up until it answers, ms", AtMost(50.0), Milliseconds("start")),
        gate("claudemesh send, whole process / curl", AtMost(1.5), Medians("cli/send", "cli/curl")),
        gate("20,000 that waited / live", AtLeast(0.8), Rates("backlog/drain", "backlog/live")),
        gate("the same behind 300,000 for others / live", AtLeast(0.8), Rates("backlog/drain-behind", "backlog/live")),
        gate("a message through two brokers / through one, p50", AtMost(1.5), Medians("nodes/two/1", "nodes/one/1")),
        gate("20,000 that waited / live, through two", AtLeast(0.8), Rates("nodes/two/drain", "nodes/two/live")),
        gate("a daemon that has sent 10,000 messages, MB", AtMost(20.0), Amount("memory/sender")),
        gate("a daemon that has received them, MB", AtMost(20.0), Amount("memory/receiver")),
        gate("newest page of 1 M messages / of 10 k", AtMost(1.3), Medians("inbox/newest/1M", "inbox/newest/10k")),
        gate("page from a time on, 1 M / 10 k", AtMost(1.3), Medians("inbox/since/1M", "inbox/since/10k")),
        gate("newest page of one sender, 1 M / 10 k", AtMost(1.3), Medians("inbox/from/1M", "inbox/from/10k")),
        gate("broker with 10,000 connections, MB", AtMost(1074.0), Amount("broker/memory/10000")),
        gate(
            "a message among 1,000 members / among 10",
            AtMost(1.3),
            Rates("broker/message/10", "broker/message/1000"),
        ),
        gate(
            "a message among 10,000 members / among 10",
            AtMost(1.3),
            Rates("broker/message/10", "broker/message/10000"),
        ),
    ]
}
