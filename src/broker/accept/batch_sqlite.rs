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

use sea_orm::DbErr;

use super::commit::{Batch, Committed, Context, Receipt};
use super::rows::{Rows, accepted, concerned, history_row, refusals};
use crate::broker::store::sqlite_batch::{BatchWriter, MOST_ROWS, Writes};
use crate::domain::time::UnixMillis;

// === impl Context ===

impl Context<'_> {
    /// Commits the batch. `None` if it has to go the other way: nothing of it is
    /// written then.
    pub(super) async fn in_two_trips(
        &self,
        batch: &Batch<'_>,
        rows: &[Rows],
        now: UnixMillis,
        writer: &mut BatchWriter,
    ) -> Result<Option<Committed>, DbErr> {
        if !fits(batch, rows) {
            return Ok(None);
        }
        let committed = self.trips(writer, batch, rows, now).await?;
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
        let writes = Writes {
            messages: rows.iter().map(|rows| &*rows.message).collect(),
            histories: batch.accepts.iter().zip(rows).map(|(accept, rows)| history_row(accept, rows)).collect(),
            copies: rows.iter().flat_map(|rows| &rows.copies).collect(),
            // No fence: only this broker uses the database, and its registry knows
            // whose connections still count.
            settled: batch.settles.iter().flat_map(|settle| &settle.ids).map(String::as_str).collect(),
            // Of two pushes of one copy the later one stands.
            claims: claims.map(|(id, presence_id)| (id.as_str(), presence_id.as_str())).collect(),
            now: now.0,
            claimed_until: self.lease_end(now),
        };
        let ended = writer.finish(&writes).await?;
        let outcomes = rows.iter().map(|rows| accepted(rows, rows.copies.iter())).collect();
        Ok(Some(Committed { outcomes, ended, ..Committed::default() }))
    }
}

/// Whether the batch can be plain, as far as that is known before any trip.
fn fits(batch: &Batch<'_>, rows: &[Rows]) -> bool {
    rows.len() <= MOST_ROWS
        && rows.iter().map(|rows| rows.copies.len()).sum::<usize>() <= MOST_ROWS
        && rows.iter().all(|rows| rows.refusal.is_none())
        // Posts have a table of their own.
        && rows.iter().all(|rows| !rows.message.is_post())
        // Names have to be looked up, and the other receipts are rare.
        && batch.settles.iter().all(|settle| settle.named.is_empty() && settle.receipt == Receipt::Stored)
}
