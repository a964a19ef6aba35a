//! What the broker does with a client message id that it may have seen.
//!
//! | stored row | fingerprint | decision |
//! |---|---|---|
//! | none | any | first |
//! | some | the same | duplicate: answer with the stored ids, write nothing |
//! | some | another | mismatch: refuse, name the stored ids to its owner |

/// What the broker remembers of an accepted id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The fingerprint of the first accepted request.
    pub fingerprint: String,
    /// The message it became.
    pub broker_message_id: String,
    /// Its place in the history.
    pub history_id: String,
    /// When it was accepted, Unix ms.
    pub first_seen_at: i64,
    /// Whether the message can still be read back.
    pub history_available: bool,
}

/// What to do with a request that carries an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The id is new: accept.
    First,
    /// The same request again: it is accepted already.
    Duplicate(Seen),
    /// Another request under the same id.
    Mismatch(Seen),
}

/// Decides by the stored row and the new request's fingerprint. Fingerprints
/// are opaque: they are compared, never computed here.
pub fn decide(stored: Option<Seen>, fingerprint: &str) -> Decision {
    match stored {
        None => Decision::First,
        Some(seen) if seen.fingerprint == fingerprint => Decision::Duplicate(seen),
        Some(seen) => Decision::Mismatch(seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Covers: R149
    #[test]
    fn the_whole_table() {
        let seen = Seen {
            fingerprint: "aa".to_owned(),
            broker_message_id: "m1".to_owned(),
            history_id: "m1".to_owned(),
            first_seen_at: 7,
            history_available: true,
        };
        assert_eq!(decide(None, "aa"), Decision::First);
        assert_eq!(decide(Some(seen.clone()), "aa"), Decision::Duplicate(seen.clone()));
        assert_eq!(decide(Some(seen.clone()), "ab"), Decision::Mismatch(seen));
    }
}
