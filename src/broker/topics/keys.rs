//! Making topics, the epochs of their keys, and the sealed copies.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::ConnectionTrait;

use super::legacy::{find, row};
use super::{Answered, Denied, tell};
use crate::broker::holdings::MEMBER_TOPICS;
use crate::broker::session::peer::Peer;
use crate::broker::session::terms::Kind;
use crate::broker::shared::Shared;
use crate::broker::store::entity::{topic, topic_epoch, topic_key, topic_member};
use crate::broker::store::topics as store;
use crate::crypto::sign;
use crate::domain::ids::MemberKey;
use crate::wire::event::SystemEvent;
use crate::wire::features::Feature;
use crate::wire::frame::ServerFrame;
use crate::wire::refusal::Refusal;
use crate::wire::text;
use crate::wire::topics::{
    EpochStatement, MAX_DESCRIPTION_BYTES, MAX_EPOCHS_OF_A_PAGE, MAX_PENDING, MAX_SEALED_KEYS, MAX_TOPIC_MEMBERS,
    MAX_TOPIC_NAME_BYTES, OwnSealedKey, PendingRow, SealedKey, TopicCreate, TopicCreated, TopicEpoch, TopicEpochNew,
    TopicKeyGet, TopicKeyPut, TopicKeys, TopicPending,
};

/// Topics of one mesh at most.
const MAX_TOPICS: usize = 1_000;
/// Bytes of a sealed copy: the sealer's key, a MAC, the topic's key.
const SEALED_BYTES: usize = 80;
/// Shortest time between two epochs of a topic, unless somebody has gone.
const EPOCH_PAUSE: Duration = Duration::from_secs(600);
/// Epochs of a topic that are kept. Who comes later needs none of before.
const KEPT_EPOCHS: i64 = 200;
/// Statements of one answer, in bytes, so that it fits into a frame.
const MAX_PAGE_BYTES: usize = 500_000;

/// Makes a topic, or answers with the one that has its name.
pub(super) async fn create(shared: &Arc<Shared>, peer: &Arc<Peer>, request: TopicCreate) -> Answered {
    let TopicCreate { name, description, visibility, statement, keys, .. } = request;
    let description = description.filter(|text| !text.is_empty());
    let visibility = visibility.unwrap_or_else(|| "public".to_owned());
    let is_usable = is_name(&name)
        && matches!(visibility.as_str(), "public" | "private" | "dm")
        && description.as_ref().is_none_or(|text| text.len() <= MAX_DESCRIPTION_BYTES);
    if !is_usable {
        return Err(Refusal::Invalid.into());
    }
    if let Some(statement) = &statement {
        check(peer, statement)?;
        if statement.epoch != 1 || statement.predecessor.is_some() || statement.name != name {
            return Err(Refusal::Invalid.into());
        }
    }
    let now = shared.store.now().0;
    let transaction = shared.store.begin().await?;
    if let Some(topic) = store::by_name(&transaction, &peer.mesh.id, &name).await? {
        let members = store::members(&transaction, &topic.id).await?;
        let joined = members.iter().any(|member| member.member_id == peer.member_id);
        let mut answer = row(topic, i64::try_from(members.len()).unwrap_or(i64::MAX), joined);
        // What it asked for, as older clients know it.
        answer.visibility = visibility;
        return Ok(Some(ServerFrame::TopicCreated(TopicCreated { topic: answer, created: false, req_id: None })));
    }
    let all = store::list(&transaction, &peer.mesh.id).await?;
    let own = all.iter().filter(|topic| topic.created_by_member_id.as_ref() == Some(&peer.member_id)).count();
    if all.len() >= MAX_TOPICS || own >= MEMBER_TOPICS {
        return Err(Refusal::Forbidden.into());
    }
    let topic = topic::Model {
        id: statement.as_ref().map_or_else(|| shared.ids.ulid(), |statement| statement.topic_id.clone()),
        mesh_id: peer.mesh.id.clone(),
        name,
        description,
        visibility,
        created_by_member_id: Some(peer.member_id.clone()),
        created_at: now,
        archived_at: None,
        epoch: i64::from(statement.is_some()),
        changed_at: now,
    };
    if !store::insert(&transaction, topic.clone()).await? {
        // Its id is taken, or its name was a moment ago.
        return Err(Denied::Later(Refusal::Busy, 100));
    }
    let lead = topic_member::Model {
        topic_id: topic.id.clone(),
        member_id: peer.member_id.clone(),
        role: "lead".to_owned(),
        joined_at: now,
        last_read_at: None,
    };
    store::join(&transaction, lead).await?;
    if let Some(statement) = statement {
        begin(&transaction, &statement, now).await?;
        let own: HashSet<&str> = HashSet::from([peer.member_id.as_str()]);
        put_copies(&transaction, &topic.id, 1, keys.unwrap_or_default(), &own, now).await?;
    }
    transaction.commit().await?;
    tracing::info!(mesh_id = topic.mesh_id, topic_id = topic.id, encrypted = topic.epoch > 0, "A topic was created");
    let topic = row(topic, 1, true);
    Ok(Some(ServerFrame::TopicCreated(TopicCreated { topic, created: true, req_id: None })))
}

/// Goes on to a new key, if nobody was faster.
pub(super) async fn new_epoch(shared: &Arc<Shared>, peer: &Arc<Peer>, request: TopicEpochNew) -> Answered {
    let TopicEpochNew { statement, keys, .. } = request;
    check(peer, &statement)?;
    let topic = find(shared, peer, &statement.topic_id).await?;
    if topic.id != statement.topic_id || topic.name != statement.name || topic.epoch == 0 {
        return Err(Refusal::Invalid.into());
    }
    let now = shared.store.now().0;
    let transaction = shared.store.begin().await?;
    let members = store::members(&transaction, &topic.id).await?;
    let standing: HashSet<&str> = members
        .iter()
        .map(|member| member.member_id.as_str())
        .filter(|id| peer.mesh.member(id).is_none_or(|member| member.revoked_at.is_none()))
        .collect();
    let holders = store::holders(&transaction, &topic.id, topic.epoch).await?;
    may_begin(peer, &members, &standing, &holders)?;
    let newest = store::epoch(&transaction, &topic.id, topic.epoch).await?;
    let Some(newest) = newest else { return Err(Refusal::Internal.into()) };
    let before: EpochStatement = serde_json::from_str(&newest.statement).map_err(|_| Refusal::Internal)?;
    let predecessor = before.hash(&peer.mesh.id);
    let follows = u32::try_from(topic.epoch + 1) == Ok(statement.epoch) && statement.predecessor == predecessor;
    if !follows || !store::advance(&transaction, &topic.id, topic.epoch, now).await? {
        let statement = newest_of(&transaction, &topic.id).await?.unwrap_or(before);
        let answer = TopicEpoch { statement, accepted: false, req_id: None };
        return Ok(Some(ServerFrame::TopicEpoch(Box::new(answer))));
    }
    if !statement.members.iter().all(|member| standing.contains(member.as_str())) {
        return Err(Refusal::Invalid.into());
    }
    let has_lost_one = holders.iter().chain(&before.members).any(|holder| !standing.contains(holder.as_str()));
    let pause = i64::try_from(EPOCH_PAUSE.as_millis()).unwrap_or(i64::MAX);
    let wait = newest.created_at.saturating_add(pause) - now;
    if !has_lost_one && wait > 0 {
        return Err(Denied::Later(Refusal::RateLimit, u64::try_from(wait).unwrap_or(0)));
    }
    begin(&transaction, &statement, now).await?;
    store::forget_epochs(&transaction, &topic.id, topic.epoch - KEPT_EPOCHS).await?;
    put_copies(&transaction, &topic.id, statement.epoch, keys, &standing, now).await?;
    transaction.commit().await?;
    tracing::info!(topic_id = topic.id, epoch = statement.epoch, "A topic has a new key");
    let topic = topic::Model { epoch: topic.epoch + 1, ..topic };
    let told: Vec<String> = standing.into_iter().filter(|id| *id != peer.member_id).map(str::to_owned).collect();
    tell(shared, &topic, told, SystemEvent::TopicEpoch);
    let answer = TopicEpoch { statement, accepted: true, req_id: None };
    Ok(Some(ServerFrame::TopicEpoch(Box::new(answer))))
}

/// Keeps copies of a key for members who wait for it.
pub(super) async fn put(shared: &Arc<Shared>, peer: &Arc<Peer>, request: TopicKeyPut) -> Answered {
    require(peer)?;
    let topic = find(shared, peer, &request.topic_id).await?;
    let transaction = shared.store.begin().await?;
    let holders = store::holders(&transaction, &topic.id, i64::from(request.epoch)).await?;
    if !holders.contains(&peer.member_id) {
        return Err(Refusal::Forbidden.into());
    }
    let members = store::members(&transaction, &topic.id).await?;
    let waiting: HashSet<&str> = members.iter().map(|member| member.member_id.as_str()).collect();
    let now = shared.store.now().0;
    let given: Vec<String> = request.keys.iter().map(|key| key.member_id.clone()).collect();
    put_copies(&transaction, &topic.id, request.epoch, request.keys, &waiting, now).await?;
    store::touch(&transaction, &topic.id, now).await?;
    transaction.commit().await?;
    tell(shared, &topic, given, SystemEvent::TopicKeyAvailable);
    Ok(Some(super::done()))
}

/// Answers with the epochs of a topic and the asker's copies.
pub(super) async fn get(shared: &Arc<Shared>, peer: &Arc<Peer>, request: TopicKeyGet) -> Answered {
    require(peer)?;
    let topic = find(shared, peer, &request.topic_id).await?;
    let db = shared.store.readers();
    let rows = store::members(db, &topic.id).await?;
    let stands = |id: &str| peer.mesh.member(id).is_none_or(|member| member.revoked_at.is_none());
    let lead = rows.iter().find(|row| row.role == "lead" && stands(&row.member_id)).map(|row| row.member_id.clone());
    let members: Vec<String> = rows.into_iter().map(|row| row.member_id).filter(|id| stands(id)).collect();
    if !members.contains(&peer.member_id) {
        return Err(Refusal::TopicNotJoined.into());
    }
    if let Some(broken) = request.broken {
        let transaction = shared.store.begin().await?;
        let dropped = store::drop_key(&transaction, &topic.id, i64::from(broken), &peer.member_id).await?;
        if dropped {
            store::touch(&transaction, &topic.id, shared.store.now().0).await?;
        }
        transaction.commit().await?;
        if dropped {
            tracing::warn!(topic_id = topic.id, member_id = peer.member_id, broken, "A topic's key did not open");
            tell(shared, &topic, members.clone(), SystemEvent::TopicMembersChanged);
        }
    }
    let page = MAX_EPOCHS_OF_A_PAGE as u64;
    let rows = store::epochs(db, &topic.id, i64::from(request.after_epoch), page + 1).await?;
    let (mut bytes, mut epochs, count) = (0, Vec::new(), rows.len());
    for row in rows.into_iter().take(MAX_EPOCHS_OF_A_PAGE) {
        bytes += row.statement.len();
        if !epochs.is_empty() && bytes > MAX_PAGE_BYTES {
            break;
        }
        let statement: EpochStatement = serde_json::from_str(&row.statement).map_err(|_| Refusal::Internal)?;
        epochs.push(statement);
    }
    let more = epochs.len() < count;
    let keys = store::own_keys(db, &topic.id, &peer.member_id, page).await?;
    let keys = keys.into_iter().map(|key| OwnSealedKey {
        epoch: u32::try_from(key.epoch).unwrap_or(u32::MAX),
        sealed: key.sealed,
        nonce: key.nonce,
    });
    let holders = store::holders(db, &topic.id, topic.epoch).await?;
    let answer =
        TopicKeys { topic_id: topic.id, epochs, keys: keys.collect(), more, members, holders, lead, req_id: None };
    Ok(Some(ServerFrame::TopicKeys(answer)))
}

/// Lists who waits for a key that the asker has.
pub(super) async fn pending(shared: &Arc<Shared>, peer: &Arc<Peer>) -> Answered {
    require(peer)?;
    let rows = store::waiting(shared.store.readers(), &peer.member_id, MAX_PENDING as u64).await?;
    let pending = rows
        .into_iter()
        .filter(|row| peer.mesh.member(&row.member_id).is_none_or(|member| member.revoked_at.is_none()))
        .map(|row| PendingRow {
            topic_id: row.topic_id,
            epoch: u32::try_from(row.epoch).unwrap_or(u32::MAX),
            member_id: row.member_id,
            since: row.since,
        })
        .collect();
    Ok(Some(ServerFrame::TopicPending(TopicPending { pending, req_id: None })))
}

/// Whether the asker may speak for its member about keys.
fn require(peer: &Peer) -> Result<(), Denied> {
    // A session speaks for itself and not for its member.
    if peer.kind != Kind::Member || !peer.has(Feature::TopicE2e) {
        return Err(Refusal::FeatureUnavailable.into());
    }
    Ok(())
}

/// Whether a statement is the asker's own, with its current key, and signed.
fn check(peer: &Peer, statement: &EpochStatement) -> Result<(), Denied> {
    require(peer)?;
    let signed = statement.signed_text(&peer.mesh.id).is_some_and(|text| {
        let (key, signature) =
            (MemberKey::parse(&statement.signer_key), text::signature_from_hex(&statement.signature));
        matches!((key, signature), (Ok(key), Some(signature)) if sign::verify(key, text.as_bytes(), &signature))
    });
    let own = statement.signer == peer.member_id
        && peer.mesh.member(&peer.member_id).is_some_and(|member| member.pubkey == statement.signer_key);
    let bounded = (1..=MAX_TOPIC_MEMBERS).contains(&statement.members.len()) && is_ulid(&statement.topic_id);
    if signed && own && bounded { Ok(()) } else { Err(Refusal::Invalid.into()) }
}

/// The lead and admins begin epochs; where no lead is left, who has the newest key,
/// and anybody once nobody is left who has.
fn may_begin(
    peer: &Peer,
    members: &[topic_member::Model],
    standing: &HashSet<&str>,
    holders: &[String],
) -> Result<(), Denied> {
    let own = members.iter().find(|member| member.member_id == peer.member_id);
    let is_admin = peer.is_admin();
    let has_lead = members.iter().any(|one| one.role == "lead" && standing.contains(one.member_id.as_str()));
    let has_key = holders.contains(&peer.member_id) || !holders.iter().any(|id| standing.contains(id.as_str()));
    let may = own.is_some_and(|own| own.role == "lead" || is_admin || (!has_lead && has_key));
    if may { Ok(()) } else { Err(Refusal::Forbidden.into()) }
}

async fn begin(db: &impl ConnectionTrait, statement: &EpochStatement, now: i64) -> Result<(), Denied> {
    let json = serde_json::to_string(statement).map_err(|_| Refusal::Invalid)?;
    let row = topic_epoch::Model {
        topic_id: statement.topic_id.clone(),
        epoch: i64::from(statement.epoch),
        statement: json,
        created_at: now,
    };
    Ok(store::insert_epoch(db, row).await?)
}

async fn newest_of(db: &impl ConnectionTrait, topic_id: &str) -> Result<Option<EpochStatement>, Denied> {
    let Some(topic) = store::by_id(db, topic_id).await? else { return Ok(None) };
    let row = store::epoch(db, topic_id, topic.epoch).await?;
    Ok(row.and_then(|row| serde_json::from_str(&row.statement).ok()))
}

async fn put_copies(
    db: &impl ConnectionTrait,
    topic_id: &str,
    epoch: u32,
    keys: Vec<SealedKey>,
    allowed: &HashSet<&str>,
    now: i64,
) -> Result<(), Denied> {
    let has_len = |text: &str, len| text::from_base64(text).is_some_and(|bytes| bytes.len() == len);
    let usable = |key: &SealedKey| {
        allowed.contains(key.member_id.as_str()) && has_len(&key.sealed, SEALED_BYTES) && has_len(&key.nonce, 24)
    };
    if keys.len() > MAX_SEALED_KEYS || !keys.iter().all(usable) {
        return Err(Refusal::Invalid.into());
    }
    let row = |key: SealedKey| topic_key::Model {
        topic_id: topic_id.to_owned(),
        epoch: i64::from(epoch),
        member_id: key.member_id,
        sealed: key.sealed,
        nonce: key.nonce,
        created_at: now,
    };
    Ok(store::put_keys(db, keys.into_iter().map(row).collect()).await?)
}

/// Whether a topic may be called so by its id: nothing that could be a name.
fn is_ulid(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

/// What may be a topic's name. Our clients allow less.
fn is_name(name: &str) -> bool {
    (1..=MAX_TOPIC_NAME_BYTES).contains(&name.len())
        && !is_ulid(name)
        && !name.starts_with('#')
        && !name.chars().any(|c| c.is_control() || c.is_whitespace() || c == '|')
}
