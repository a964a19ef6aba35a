//! What the brokers of one PostgreSQL database tell each other (`LISTEN` and `NOTIFY`).
//!
//! A notice only says where to look: the rows are the truth, and a scan finds what a lost
//! one would have told. It leaves with the commit of what it tells of.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{ConnectionTrait, DbErr};
use serde::{Deserialize, Serialize};

use super::deliveries::{Ended, Wake};

/// The channel.
pub const CHANNEL: &str = "claudemesh";
/// Rows named in one notice: the engine takes 8,000 bytes.
const ROWS: usize = 40;

/// Says what a transaction has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notice {
    /// The broker that says it.
    pub node: String,
    /// Members, topics or connections have changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub changed: bool,
    /// Copies that wait for their receivers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<Wake>,
    /// Receivers for whom less waits than before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drained: Vec<String>,
}

// === impl Notice ===

impl Notice {
    /// Members, topics or connections have changed.
    pub fn changed() -> Self {
        Self { changed: true, ..Self::default() }
    }

    /// These copies came to their end.
    pub fn drained<'a>(ended: impl Iterator<Item = &'a Ended>) -> Self {
        let receivers: BTreeSet<&String> = ended.map(|copy| &copy.recipient_member_id).collect();
        Self { drained: receivers.into_iter().cloned().collect(), ..Self::default() }
    }

    /// These copies were written: mesh, sender, receiver and copy. Also what was said
    /// before.
    pub fn and_copies<'a>(mut self, copies: impl Iterator<Item = (&'a str, &'a str, &'a str, &'a str)>) -> Self {
        let mut first: BTreeMap<(&str, &str, &str), &str> = BTreeMap::new();
        for (mesh, sender, receiver, id) in copies {
            let known = first.entry((mesh, sender, receiver)).or_insert(id);
            *known = id.min(*known);
        }
        self.copies.extend(first.into_iter().map(|((mesh, sender, receiver), id)| Wake {
            mesh_id: mesh.to_owned(),
            recipient_id: receiver.to_owned(),
            sender_id: sender.to_owned(),
            first: id.to_owned(),
        }));
        self
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        !self.changed && self.copies.is_empty() && self.drained.is_empty()
    }

    /// Leaves with the commit of `db`.
    pub(super) async fn send(&self, db: &impl ConnectionTrait, node: &str) -> Result<(), DbErr> {
        let count = self.copies.len().max(self.drained.len()).div_ceil(ROWS).max(1);
        let rows = |index: usize, len: usize| (index * ROWS).min(len)..((index + 1) * ROWS).min(len);
        for index in 0..count {
            let part = Self {
                node: node.to_owned(),
                changed: self.changed,
                copies: self.copies[rows(index, self.copies.len())].to_vec(),
                drained: self.drained[rows(index, self.drained.len())].to_vec(),
            };
            let text = serde_json::to_string(&part).unwrap_or_default();
            let values = [CHANNEL.into(), text.into()];
            db.execute_raw(sea_orm::Statement::from_sql_and_values(
                db.get_database_backend(),
                "SELECT pg_notify($1, $2)",
                values,
            ))
            .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_copy_of_each_pair_is_named() {
        let copies = [("m", "a", "r", "2"), ("m", "a", "r", "1"), ("m", "b", "r", "3")];
        let notice = Notice::default().and_copies(copies.into_iter());
        let named: Vec<_> = notice.copies.iter().map(|wake| (wake.sender_id.as_str(), wake.first.as_str())).collect();
        assert_eq!(named, [("a", "1"), ("b", "3")]);
        let wide = Wake {
            mesh_id: "m".repeat(26),
            recipient_id: "r".repeat(26),
            sender_id: "s".repeat(26),
            first: "f".repeat(26),
        };
        let full = Notice { copies: vec![wide; ROWS], drained: vec!["r".repeat(26); ROWS], ..Notice::changed() };
        assert!(serde_json::to_string(&full).unwrap().len() < 8_000, "the engine refuses a longer one");
    }
}
