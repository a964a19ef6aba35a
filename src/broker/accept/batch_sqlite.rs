//! A batch on SQLite in two trips to the engine's thread, where nothing is in
//! question.
//!
//! What it is for: on a fast disk the trips of [`super::commit`] cost as much as
//! its sync. Almost every batch holds only new ids between members who stand, and
//! for these the order of the statements is known beforehand.
//! What it guarantees: the same rows and the same results. Whoever stands is read
//! again and ids are taken in the transaction that writes the messages. As soon
//! as one send is not plain, the transaction is taken back and the whole batch
//! goes the other way from its beginning.
//! What it must not do: leave a transaction open. The pool's writer would wait
//! for its lock.

use std::collections::BTreeSet;

use sea_orm::DbErr;

use super::commit::{Batch, Committed, Context, Named, Receipt, receipts};
use super::rows::{Rows, accepted, concerned, history_row, refusals};
use crate::broker::store::sqlite_batch::{BatchWriter, MOST_ROWS, Receipts, Writes};
use crate::domain::time::UnixMillis;

// === impl Context ===

impl Context<'_> {
    /// Commits the batch. `None` if it has to go the other way: nothing of it is
    /// written then.
    pub(super) async fn in_two_trips(
        &self,
        batch: &Batch<'_>,
        rows: &[Rows],
        named: &Named,
        now: UnixMillis,
        writer: &mut BatchWriter,
    ) -> Result<Option<Committed>, DbErr> {
        if !fits(rows) {
            return Ok(None);
        }
        let committed = self.trips(writer, batch, rows, named, now).await?;
        if committed.is_none() {
            writer.roll_back().await;
        }
        Ok(committed)
    }

    /// `None` leaves a transaction to be taken back.
    async fn trips(
        &self,
        writer: &mut BatchWriter,
        batch: &Batch<'_>,
        rows: &[Rows],
        named: &Named,
        now: UnixMillis,
    ) -> Result<Option<Committed>, DbErr> {
        if !rows.is_empty() {
            let concerned = concerned(rows);
            let taken = self.dedupe_rows(batch.accepts.iter().zip(rows), now);
            let begun = writer.begin(&concerned, &taken).await?;
            let all_stand = concerned.iter().all(|id| begun.standing.contains(*id))
                && refusals(batch.accepts, rows, &begun.standing).iter().all(Option::is_none);
            if !all_stand || begun.won.len() < taken.len() {
                return Ok(None);
            }
        }
        let claims = batch.claims.iter().flat_map(|claim| claim.ids.iter().map(move |id| (id, &claim.presence_id)));
        let (mut parked, mut settled, mut rejected) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        // No fence: only this broker uses the database, and its registry knows
        // whose connections still count.
        for (receipt, ids) in receipts(batch.settles.iter(), named) {
            match receipt {
                Receipt::Waiting => parked = ids,
                Receipt::Stored => settled = ids,
                Receipt::Rejected(reason) => rejected.push((reason.name(), ids)),
            }
        }
        let writes = Writes {
            messages: rows.iter().map(|rows| &*rows.message).collect(),
            histories: batch.accepts.iter().zip(rows).map(|(accept, rows)| history_row(accept, rows)).collect(),
            copies: rows.iter().flat_map(|rows| &rows.copies).collect(),
            parked,
            settled,
            rejected,
            told: batch.told.iter().flat_map(|told| &told.ids).map(String::as_str).collect(),
            // Of two pushes of one copy the later one stands.
            claims: claims.map(|(id, presence_id)| (id.as_str(), presence_id.as_str())).collect(),
            now: now.0,
            claimed_until: self.lease_end(now),
        };
        let Receipts { ended, rejected, parked } = writer.finish(&writes).await?;
        let outcomes = rows.iter().map(|rows| accepted(rows, rows.copies.iter())).collect();
        Ok(Some(Committed { outcomes, ended, rejected, parked, ..Committed::default() }))
    }
}

/// Whether the batch can be plain, as far as that is known before any trip.
fn fits(rows: &[Rows]) -> bool {
    rows.len() <= MOST_ROWS
        && rows.iter().map(|rows| rows.copies.len()).sum::<usize>() <= MOST_ROWS
        && rows.iter().all(|rows| rows.refusal.is_none())
        // Posts have a table of their own.
        && rows.iter().all(|rows| !rows.message.is_post())
}
