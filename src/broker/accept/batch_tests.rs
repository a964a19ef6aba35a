//! Batches against a SQLite store: which go the short way, and that the results
//! are those of the long one.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::EntityTrait as _;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::commit::{self, Batch, Claim, Committed, Context, Named, Outcome, Receipt, Settle, Told, Writing};
use super::queue::QueueSizes;
use super::turned_away::TurnedAway;
use super::{Accept, Answer};
use crate::broker::fanout::{Audience, Fanout, Outbound, Route};
use crate::broker::roster::Roster;
use crate::broker::session::peer::Peer;
use crate::broker::session::terms::{Facts, Identity, Kind, Profile};
use crate::broker::store::deliveries::{Claimed, Ended};
use crate::broker::store::entity::{dedupe, delivery, history, member, mesh, message};
use crate::broker::store::sqlite_batch::BatchWriter;
use crate::broker::store::{Store, members};
use crate::config::broker::BrokerConfig;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::wire::delivery::RejectReason;
use crate::wire::refusal::Refusal;

/// Nobody is connected.
#[derive(Debug)]
struct Nobody;

impl Fanout for Nobody {
    fn is_online(&self, _: &str, _: &str) -> bool {
        false
    }

    fn taker(&self, _: &str, _: &str, _: &str, _: &Route) -> Option<String> {
        None
    }

    fn copies(&self, _: &str, _: Vec<Outbound>) {}

    fn event(&self, _: &str, _: &Audience, _: &Utf8Bytes) -> usize {
        0
    }
}

/// A store with the members `a` and `b`, and `gone`, which is revoked.
struct Base {
    store: Arc<Store>,
    config: BrokerConfig,
    ids: IdSource,
    peer: Arc<Peer>,
    writing: Writing,
    _dir: tempfile::TempDir,
}

impl Base {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = BrokerConfig::new(dir.path());
        let clock = Clock::system();
        let store = Arc::new(Store::open(&config.database, clock.clone()).await.expect("a store"));
        let mesh = mesh::Model {
            id: "mesh".to_owned(),
            slug: "demo".to_owned(),
            name: "demo".to_owned(),
            owner_pubkey: String::new(),
            clone_concurrency_policy: "prefer_newest".to_owned(),
            created_at: 0,
            dedupe_mode: "retention_scoped".to_owned(),
            changed_at: 0,
        };
        members::insert_mesh(store.writer(), mesh).await.expect("a mesh");
        for id in ["a", "b", "gone"] {
            let row = member::Model {
                id: id.to_owned(),
                mesh_id: "mesh".to_owned(),
                pubkey: id.to_owned(),
                display_name: id.to_owned(),
                role: "member".to_owned(),
                capabilities: None,
                joined_at: 0,
                last_seen_at: None,
                revoked_at: (id == "gone").then_some(1),
                changed_at: 0,
                certificate: None,
                shown: None,
            };
            members::insert_member(store.writer(), row).await.expect("a member");
        }
        let mesh = Roster::new(Arc::clone(&store)).mesh("mesh").await.expect("it reads").expect("it is there");
        let identity = Identity {
            presence_id: "p".to_owned(),
            mesh,
            member_id: "a".to_owned(),
            member_pubkey: "a".to_owned(),
            kind: Kind::Member,
            facts: Facts::default(),
            connected_at: clock.now(),
            generation: 0,
            profile: Profile::default(),
        };
        let (peer, _queues) = Peer::new(identity, Duration::ZERO);
        let writing =
            Writing { sizes: QueueSizes::default(), turned_away: TurnedAway::default(), batches: store.batch_writer() };
        Self { store, config, ids: IdSource::new(clock), peer, writing, _dir: dir }
    }

    fn send(&self, to: &str, id: Option<&str>, fingerprint: &str) -> Accept {
        let message = message::Model {
            id: String::new(),
            mesh_id: "mesh".to_owned(),
            sender_member_id: "a".to_owned(),
            sender_pubkey: "a".to_owned(),
            sender_member_pubkey: "a".to_owned(),
            sender_name: "a".to_owned(),
            target_spec: to.to_owned(),
            priority: "next".to_owned(),
            nonce: vec![0; 24],
            ciphertext: vec![1, 2, 3],
            client_message_id: id.map(str::to_owned),
            request_fingerprint: Some(fingerprint.to_owned()),
            reply_to_id: None,
            created_at: 0,
            key_epoch: None,
        };
        Accept {
            message,
            kind: "dm",
            route: Arc::new(Route::Member),
            recipients: vec![to.to_owned()],
            keyless: Vec::new(),
            fingerprint: fingerprint.to_owned(),
            forgets_id: true,
            charged: false,
            answer: Answer { peer: Arc::clone(&self.peer), id: String::new(), req_id: None },
        }
    }

    fn parts(&mut self) -> (Context<'_>, &mut Writing) {
        (Context { store: &self.store, config: &self.config, ids: &self.ids, fanout: &Nobody }, &mut self.writing)
    }

    async fn run(&mut self, accepts: &[Accept], settles: &[Settle], claims: &[Claim]) -> Committed {
        let (context, writing) = self.parts();
        let batch = Batch { accepts, settles, claims, ..Batch::default() };
        Box::pin(commit::run(context, &batch, writing)).await.expect("it commits")
    }

    /// Whether the batch went the short way, which is then committed.
    async fn is_plain(&mut self, accepts: &[Accept], settles: &[Settle]) -> bool {
        let (context, writing) = self.parts();
        let batch = Batch { accepts, settles, ..Batch::default() };
        let now = context.store.now();
        let rows: Vec<_> = accepts.iter().map(|accept| context.rows(accept, now, &mut writing.sizes)).collect();
        let batches = writing.batches.as_mut().expect("it is SQLite");
        Box::pin(context.in_two_trips(&batch, &rows, &Named::default(), now, batches))
            .await
            .expect("no error")
            .is_some()
    }

    /// Rows of messages, places in the history, ids and copies.
    async fn counts(&self) -> [usize; 4] {
        let db = self.store.readers();
        [
            message::Entity::find().all(db).await.expect("it reads").len(),
            history::Entity::find().all(db).await.expect("it reads").len(),
            dedupe::Entity::find().all(db).await.expect("it reads").len(),
            delivery::Entity::find().all(db).await.expect("it reads").len(),
        ]
    }
}

fn settle(ids: &[&str]) -> Settle {
    Settle { member_id: "b".to_owned(), ids: ids.iter().map(|id| (*id).to_owned()).collect(), ..Settle::default() }
}

fn copy_of(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted(accepted) => accepted.copies[0].0.clone(),
        other => panic!("not accepted: {other:?}"),
    }
}

#[tokio::test]
async fn only_what_is_plain_goes_the_short_way() {
    let mut base = Base::new().await;
    let new = [base.send("b", Some("m1"), "f"), base.send("b", None, "f")];
    assert!(base.is_plain(&new, &[]).await);
    assert_eq!(base.counts().await, [2, 2, 1, 2]);
    let again = [base.send("b", Some("m2"), "f"), base.send("b", Some("m1"), "f")];
    assert!(!base.is_plain(&again, &[]).await, "a duplicate");
    let twice = [base.send("b", Some("m3"), "f"), base.send("b", Some("m3"), "f")];
    assert!(!base.is_plain(&twice, &[]).await, "one id twice");
    let revoked = [base.send("gone", Some("m4"), "f")];
    assert!(!base.is_plain(&revoked, &[]).await, "a member who is gone");
    assert_eq!(base.counts().await, [2, 2, 1, 2], "nothing of these is left");
    assert!(base.writing.batches.as_ref().is_some_and(BatchWriter::is_open), "taken back, not closed");
    let named = Settle { named: vec![Claimed::Message("x".to_owned())], ..settle(&[]) };
    for receipt in [Receipt::Stored, Receipt::Waiting, Receipt::Rejected(RejectReason::Invalid)] {
        let settles = [Settle { receipt, ..settle(&["x"]) }, named.clone()];
        assert!(base.is_plain(&[], &settles).await, "no sends: {receipt:?}");
    }
}

#[tokio::test]
async fn a_duplicate_among_new_ones_is_told_apart() {
    let mut base = Base::new().await;
    let first = [base.send("b", Some("m1"), "f")];
    let first = base.run(&first, &[], &[]).await;
    let Outcome::Accepted(first) = &first.outcomes[0] else { panic!("not accepted: {first:?}") };
    let accepts = [
        base.send("b", Some("m2"), "f"),
        base.send("b", Some("m1"), "f"),
        base.send("b", Some("m1"), "other"),
        base.send("b", None, "f"),
        base.send("b", Some("m2"), "f"),
    ];
    let done = base.run(&accepts, &[], &[]).await;
    let [Outcome::Accepted(new), Outcome::Duplicate(same), Outcome::Mismatch(other), Outcome::Accepted(_), last] =
        &done.outcomes[..]
    else {
        panic!("{done:?}")
    };
    assert_eq!((&same.broker_message_id, &other.broker_message_id), (&first.message.id, &first.message.id));
    assert!(matches!(last, Outcome::Duplicate(seen) if seen.broker_message_id == new.message.id), "{last:?}");
    assert_eq!(base.counts().await, [3, 3, 2, 3]);
}

#[tokio::test]
async fn a_revoked_member_refuses_and_harms_no_other() {
    let mut base = Base::new().await;
    let accepts = [base.send("gone", Some("m1"), "f"), base.send("b", Some("m2"), "f")];
    let done = base.run(&accepts, &[], &[]).await;
    let [Outcome::Refused(refused), Outcome::Accepted(accepted)] = &done.outcomes[..] else { panic!("{done:?}") };
    assert_eq!(refused.refusal, Refusal::RecipientRevoked);
    assert_eq!(accepted.copies.len(), 1);
    assert_eq!(base.counts().await, [1, 1, 1, 1], "the refused id is free");
}

#[tokio::test]
async fn copies_end_once_and_only_open_ones_are_claimed() {
    let mut base = Base::new().await;
    let accepts = [base.send("b", Some("m1"), "f"), base.send("b", Some("m2"), "f")];
    let done = base.run(&accepts, &[], &[]).await;
    let (one, two) = (copy_of(&done.outcomes[0]), copy_of(&done.outcomes[1]));
    let claim = Claim { ids: vec![one.clone(), two.clone()], presence_id: "p".to_owned(), holder: None };
    let later = Claim { ids: vec![two.clone()], presence_id: "later".to_owned(), holder: None };
    let more = [base.send("b", Some("m3"), "f")];
    let done = base.run(&more, &[settle(&[&one, &one]), settle(&[&one])], &[claim, later]).await;
    assert_eq!(done.outcomes.len(), 1);
    let [ended] = &done.ended[..] else { panic!("{done:?}") };
    assert_eq!((&ended.id, ended.client_message_id.as_deref(), ended.bytes), (&one, Some("m1"), 27));
    assert_eq!((ended.mesh_id.as_str(), ended.sender_member_id.as_str()), ("mesh", "a"));
    assert_eq!(ended.recipient_member_id, "b");
    assert!(base.run(&[], &[settle(&[&one])], &[]).await.ended.is_empty(), "once");

    let rows = delivery::Entity::find().all(base.store.readers()).await.expect("it reads");
    let claims: Vec<Option<&str>> = rows.iter().map(|row| row.claim_id.as_deref()).collect();
    assert_eq!(claims, [None, Some("later"), None], "what has ended is not claimed");
}

/// Whatever receivers say goes the short way, and leaves what the long one leaves.
#[tokio::test]
async fn receipts_of_every_kind_are_written_the_short_way() {
    let mut written = Vec::new();
    for short in [true, false] {
        let mut base = Base::new().await;
        let accepts: Vec<Accept> = (0..6).map(|n| base.send("b", Some(&format!("m{n}")), "f")).collect();
        let done = base.run(&accepts, &[], &[]).await;
        let ids: Vec<String> = done.outcomes.iter().map(copy_of).collect();
        let Outcome::Accepted(last) = &done.outcomes[5] else { panic!("{done:?}") };
        let message = last.message.id.clone();
        if !short {
            base.writing.batches = None;
        }
        let said = |receipt, ids: &[&str]| Settle { receipt, ..settle(ids) };
        let (invalid, unreadable) =
            (Receipt::Rejected(RejectReason::Invalid), Receipt::Rejected(RejectReason::Unreadable));
        let named =
            |member: &str, claimed| Settle { member_id: member.to_owned(), named: vec![claimed], ..Settle::default() };
        let settles = [
            said(Receipt::Waiting, &[&ids[0], &ids[1]]),
            said(invalid, &[&ids[2]]),
            said(unreadable, &[&ids[3]]),
            settle(&[&ids[1]]),
            named("b", Claimed::Message(message)),
            named("a", Claimed::Delivery(ids[4].clone())),
        ];
        let done = base.run(&[], &settles, &[]).await;
        let of = |copies: &[Ended]| {
            let place = |copy: &Ended| ids.iter().position(|id| *id == copy.id);
            let mut all: Vec<_> =
                copies.iter().map(|copy| (place(copy), copy.had_left, copy.reject_reason.clone())).collect();
            all.sort();
            all
        };
        assert_eq!(of(&done.parked), [(Some(0), false, None), (Some(1), false, None)]);
        assert_eq!(of(&done.ended), [(Some(1), true, None), (Some(5), false, None)], "not of another's copy");
        let (two, three) = (Some("invalid".to_owned()), Some("unreadable".to_owned()));
        assert_eq!(of(&done.rejected), [(Some(2), false, two), (Some(3), false, three)]);

        // Another device has stored one of those; the sender knows of the other one.
        let told = Told { ids: vec![ids[3].clone()], peer: Arc::clone(&base.peer) };
        let settles = [settle(&[&ids[2]])];
        let (context, writing) = base.parts();
        let batch = Batch { settles: &settles, told: &[told], ..Batch::default() };
        let done = Box::pin(commit::run(context, &batch, writing)).await.expect("it commits");
        assert_eq!(of(&done.ended), [(Some(2), true, None)]);
        let rows = delivery::Entity::find().all(base.store.readers()).await.expect("it reads");
        let mut states: Vec<_> = rows
            .iter()
            .map(|row| {
                let times = [row.waiting_at, row.delivered_at, row.expired_at, row.expiry_told_at];
                (ids.iter().position(|id| *id == row.id), times.map(|at| at.is_some()), row.reject_reason.clone())
            })
            .collect();
        states.sort();
        written.push(states);
    }
    assert_eq!(written[0], written[1]);
    assert_eq!(written[0][2], (Some(2), [true, true, false, false], None));
    assert_eq!(written[0][3], (Some(3), [false, false, true, true], Some("unreadable".to_owned())));
}
