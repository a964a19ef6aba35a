//! What is measured, one file for each question.

mod backlog;
mod broker;
mod end_to_end;
mod inbox;
mod memory;
mod nodes;
mod send;
mod small;

use anyhow::Result;

use crate::Run;

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// How fast is a send that is durable?
    Send,
    /// How long until it is at the other host, and how many arrive?
    EndToEnd,
    /// How long do a start and a command take?
    Small,
    /// How does the inbox grow?
    Inbox,
    /// How does the broker grow?
    Broker,
    /// How fast does what waited arrive?
    Backlog,
    /// What does a second broker cost?
    Nodes,
    /// What does a daemon hold?
    Memory,
}

/// All of them, in the order in which a round asks them.
pub const ALL: [Scenario; 8] = [
    Scenario::Send,
    Scenario::EndToEnd,
    Scenario::Small,
    Scenario::Inbox,
    Scenario::Broker,
    Scenario::Backlog,
    Scenario::Nodes,
    Scenario::Memory,
];

// === impl Scenario ===

impl Scenario {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::EndToEnd => "end-to-end",
            Self::Small => "small",
            Self::Inbox => "inbox",
            Self::Broker => "broker",
            Self::Backlog => "backlog",
            Self::Nodes => "nodes",
            Self::Memory => "memory",
        }
    }

    /// Measures once. What takes minutes, and hardly varies, is measured in the first
    /// round only.
    pub async fn round(self, run: &mut Run, round: u32) -> Result<()> {
        match self {
            Self::Inbox | Self::Broker | Self::Backlog | Self::Nodes | Self::Memory if round > 1 => Ok(()),
            Self::Inbox => inbox::round(run).await,
            Self::Broker => broker::round(run).await,
            Self::Backlog => backlog::round(run).await,
            Self::Nodes => nodes::round(run).await,
            Self::Memory => memory::round(run).await,
            Self::Send => send::round(run).await,
            Self::EndToEnd => end_to_end::round(run).await,
            Self::Small => small::round(run).await,
        }
    }
}
