//! What one answer of the broker, or the lack of it, means for a row.

use std::time::Duration;

use super::entity::Model;
use super::reporter::LIMITER_PAUSE;
use super::sender::Sender;
use crate::broker_client::Transmit;
use crate::wire::delivery::Ack;
use crate::wire::refusal::Refusal;

/// What becomes of a row after one transmit.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The broker has it.
    Accepted(Box<Ack>),
    /// Too many came at once; it was not the row's fault.
    TooMany {
        /// The broker's pause.
        after: Option<Duration>,
        /// For people.
        text: String,
    },
    /// Its receiver has no room.
    ReceiverFull {
        /// The broker's pause.
        after: Option<Duration>,
        /// For people.
        text: String,
    },
    /// Again later.
    Again {
        /// The broker's pause.
        after: Option<Duration>,
        /// For people.
        text: String,
    },
    /// The link was lost before an answer came.
    LinkLost {
        /// Because something was too large.
        too_large: bool,
    },
    /// No retry mends it.
    Final {
        /// For people.
        text: String,
    },
}

// === impl Verdict ===

impl Verdict {
    /// Reads an answer. Decides by codes, never by words.
    pub(super) fn of(answer: Transmit) -> Self {
        let ack = match answer {
            Transmit::LinkLost { too_large } => return Self::LinkLost { too_large },
            Transmit::Answered(ack) => ack,
        };
        let Some(failure) = ack.failure() else { return Self::Accepted(ack) };
        let after = failure.retry_after_ms.map(Duration::from_millis);
        let text = failure.text.to_owned();
        match failure.refusal {
            // Whatever else the broker says of them: time mends both.
            Some(Refusal::RateLimit) => Self::TooMany { after, text },
            Some(Refusal::RecipientQueueFull) => Self::ReceiverFull { after, text },
            _ if failure.retryable => Self::Again { after, text },
            _ => Self::Final { text },
        }
    }
}

// === impl Sender ===

impl Sender {
    /// Notes what an answer says of the broker and of receivers. Gives the
    /// verdict that counts.
    pub(super) fn learn(&mut self, row: &Model, verdict: Verdict, alone: bool) -> Verdict {
        let now = self.clock.monotonic();
        let target = row.target_id.as_str();
        match &verdict {
            Verdict::Accepted(_) => {
                self.flow.holds.release(target);
                self.flow.settled(&row.id);
            }
            Verdict::TooMany { after, .. } => {
                self.flow.pace.refused(now, after.unwrap_or(LIMITER_PAUSE));
                self.flow.holds.probe_again(target, now);
            }
            Verdict::ReceiverFull { after, .. } => {
                let failures = self.flow.holds.failures(target);
                let pause = after.unwrap_or_else(|| self.deps.backoff.pause(failures, self.deps.ids.jitter(1000)));
                self.flow.holds.refused(target, now, pause);
                self.flow.settled(&row.id);
            }
            Verdict::Again { .. } | Verdict::LinkLost { too_large: false } => {
                self.flow.holds.probe_again(target, now);
            }
            Verdict::Final { .. } => {
                self.flow.holds.probe_again(target, now);
                self.flow.settled(&row.id);
            }
            Verdict::LinkLost { too_large: true } => {
                self.flow.holds.probe_again(target, now);
                if self.flow.too_large(&row.id, alone, now) {
                    let text = "payload_too_large: the broker closed the link twice because of it (1009)".to_owned();
                    return Verdict::Final { text };
                }
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limiter_and_a_full_receiver_are_never_final() {
        for refusal in [Refusal::RateLimit, Refusal::RecipientQueueFull] {
            let ack = Ack { retryable: Some(false), ..Ack::refused("id", refusal) };
            let verdict = Verdict::of(Transmit::Answered(Box::new(ack)));
            assert!(matches!(verdict, Verdict::TooMany { .. } | Verdict::ReceiverFull { .. }), "{verdict:?}");
        }
    }

    #[test]
    fn every_other_refusal_follows_its_own_word() {
        for refusal in Refusal::ALL {
            let verdict = Verdict::of(Transmit::Answered(Box::new(Ack::refused("id", *refusal))));
            let is_final = matches!(verdict, Verdict::Final { .. });
            assert_eq!(is_final, !refusal.retryable(), "{refusal:?}");
        }
        let accepted = Ack { message_id: "m".to_owned(), queued: true, ..Ack::default() };
        assert!(matches!(Verdict::of(Transmit::Answered(Box::new(accepted))), Verdict::Accepted(_)));
    }
}
