//! What is measured, one file for each question.

mod end_to_end;
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
}

/// All of them, in the order in which a round asks them.
pub const ALL: [Scenario; 3] = [Scenario::Send, Scenario::EndToEnd, Scenario::Small];

// === impl Scenario ===

impl Scenario {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::EndToEnd => "end-to-end",
            Self::Small => "small",
        }
    }

    /// Measures once.
    pub async fn round(self, run: &mut Run, _round: u32) -> Result<()> {
        match self {
            Self::Send => send::round(run).await,
            Self::EndToEnd => end_to_end::round(run).await,
            Self::Small => small::round(run).await,
        }
    }
}
