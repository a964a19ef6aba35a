//! A broker's first schema: meshes, members, invites, messages and deliveries.
//!
//! Written with the schema builder, for SQLite and PostgreSQL alike. All times
//! are Unix milliseconds, all ids opaque texts.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, blob, boolean, text, text_null};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

fn text_pk(name: &'static str) -> ColumnDef {
    text(name).primary_key().take()
}

fn table(name: &'static str) -> TableCreateStatement {
    Table::create().table(name).take()
}

fn primary(columns: &[&'static str]) -> IndexCreateStatement {
    columns.iter().fold(Index::create(), |mut index, column| index.col(*column).take())
}

fn index(name: &'static str, on: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    primary(columns).name(name).table(on).take()
}

fn tables() -> Vec<TableCreateStatement> {
    let mut all = membership();
    all.extend(messages());
    all.extend(topics());
    all
}

fn membership() -> Vec<TableCreateStatement> {
    vec![
        table("mesh")
            .col(text_pk("id"))
            .col(text("slug").unique_key())
            .col(text("name"))
            .col(text("owner_pubkey"))
            .col(text("clone_concurrency_policy").default("prefer_newest"))
            .col(big_integer("created_at"))
            .take(),
        table("member")
            .col(text_pk("id"))
            .col(text("mesh_id"))
            .col(text("pubkey"))
            .col(text("display_name"))
            .col(text("role"))
            .col(text_null("capabilities"))
            .col(big_integer("joined_at"))
            .col(big_integer_null("last_seen_at"))
            .col(big_integer_null("revoked_at"))
            .take(),
        // Every key a member has had; the current one is rotated_out_at NULL.
        table("member_key")
            .col(text("mesh_id"))
            .col(text("pubkey"))
            .col(text("member_id"))
            .col(big_integer("seq"))
            .col(big_integer("registered_at"))
            .col(big_integer_null("rotated_out_at"))
            .col(text_null("statement"))
            .primary_key(&mut primary(&["mesh_id", "pubkey"]))
            .take(),
        table("invite")
            .col(text_pk("id"))
            .col(text("mesh_id"))
            .col(text("token").unique_key())
            .col(text("role"))
            .col(big_integer("max_uses"))
            .col(big_integer("used_count").default(0))
            .col(big_integer("created_at"))
            .col(big_integer("expires_at"))
            .col(big_integer_null("revoked_at"))
            .take(),
        // One row for each daemon process directory: the generation says which
        // connection of it is the current one, across all nodes.
        table("presence")
            .col(text("mesh_id"))
            .col(text("member_id"))
            .col(text("instance_id"))
            .col(big_integer("generation"))
            .col(text("node_id"))
            .col(big_integer("connected_at"))
            .col(big_integer("last_seen_at"))
            .col(big_integer_null("disconnected_at"))
            .primary_key(&mut primary(&["mesh_id", "member_id", "instance_id"]))
            .take(),
        table("audit")
            .col(text_pk("id"))
            .col(text("mesh_id"))
            .col(text("event"))
            .col(text("payload"))
            .col(big_integer("at"))
            .take(),
    ]
}

fn messages() -> Vec<TableCreateStatement> {
    vec![
        table("message_queue")
            .col(text_pk("id"))
            .col(text("mesh_id"))
            .col(text("sender_member_id"))
            .col(text("sender_pubkey"))
            .col(text("sender_member_pubkey"))
            .col(text("sender_name"))
            .col(text("target_spec"))
            .col(text("priority"))
            .col(blob("nonce"))
            .col(blob("ciphertext"))
            .col(text_null("client_message_id"))
            .col(text_null("request_fingerprint"))
            .col(text_null("reply_to_id"))
            .col(big_integer("created_at"))
            .take(),
        // The id is the message's: one id on ack, push and history.
        table("message_history")
            .col(text_pk("id"))
            .col(text("mesh_id"))
            .col(text("sender_member_id"))
            .col(text("destination_kind"))
            .col(text("destination_ref"))
            .col(big_integer("created_at"))
            .take(),
        // No foreign key to the message: this row outlives it.
        table("client_message_dedupe")
            .col(text("mesh_id"))
            .col(text("sender_member_id"))
            .col(text("client_message_id"))
            .col(text("broker_message_id"))
            .col(text("history_id"))
            .col(text("request_fingerprint"))
            .col(text("destination_kind").check(Expr::col("destination_kind").is_in([
                "dm",
                "topic",
                "broadcast",
                "group",
            ])))
            .col(text("destination_ref"))
            .col(big_integer("first_seen_at"))
            .col(big_integer_null("expires_at"))
            .col(boolean("history_available").default(true))
            .primary_key(&mut primary(&["mesh_id", "sender_member_id", "client_message_id"]))
            .take(),
        table("delivery")
            .col(text_pk("id"))
            .col(text("broker_message_id"))
            .col(text("mesh_id"))
            .col(text("sender_member_id"))
            .col(text("recipient_member_id"))
            .col(text_null("target_session_key"))
            // The sender's id again, so that "delivered" can be told to the
            // sender without reading the message.
            .col(text_null("client_message_id"))
            .col(big_integer("bytes"))
            .col(big_integer("created_at"))
            // Who pushed it last, and until when that connection has time to
            // acknowledge before it is pushed again.
            .col(big_integer_null("claimed_at"))
            .col(text_null("claim_id"))
            .col(big_integer_null("claim_expires_at"))
            .col(big_integer_null("delivered_at"))
            .col(big_integer_null("expired_at"))
            .take(),
    ]
}

fn topics() -> Vec<TableCreateStatement> {
    vec![
        table("topic")
            .col(text_pk("id"))
            .col(text("mesh_id"))
            .col(text("name"))
            .col(text_null("description"))
            .col(text("visibility"))
            .col(text_null("created_by_member_id"))
            .col(big_integer("created_at"))
            .col(big_integer_null("archived_at"))
            .take(),
        table("topic_member")
            .col(text("topic_id"))
            .col(text("member_id"))
            .col(text("role"))
            .col(big_integer("joined_at"))
            .col(big_integer_null("last_read_at"))
            .primary_key(&mut primary(&["topic_id", "member_id"]))
            .take(),
        table("topic_message")
            .col(text_pk("id"))
            .col(text("mesh_id"))
            .col(text("topic_id"))
            .col(text("sender_member_id"))
            .col(text("sender_pubkey"))
            .col(text("sender_name"))
            .col(text("priority"))
            .col(blob("nonce"))
            .col(blob("ciphertext"))
            .col(big_integer("body_version"))
            .col(big_integer_null("key_epoch"))
            .col(text_null("client_message_id"))
            .col(text_null("request_fingerprint"))
            .col(text_null("reply_to_id"))
            .col(big_integer("created_at"))
            .take(),
    ]
}

/// The second net below `client_message_dedupe`: legacy rows carry no id and
/// stay outside of it.
fn one_row_per_client_id(name: &'static str, on: &'static str) -> IndexCreateStatement {
    index(name, on, &["mesh_id", "sender_member_id", "client_message_id"])
        .unique()
        .and_where(Expr::col("client_message_id").is_not_null())
        .take()
}

fn indexes() -> Vec<IndexCreateStatement> {
    let undelivered = || Expr::col("delivered_at").is_null().and(Expr::col("expired_at").is_null());
    vec![
        index("member_mesh_pubkey", "member", &["mesh_id", "pubkey"]).unique().take(),
        index("member_key_member", "member_key", &["member_id", "seq"]),
        index("invite_mesh", "invite", &["mesh_id"]),
        index("audit_mesh_at", "audit", &["mesh_id", "at"]),
        one_row_per_client_id("message_queue_client_id_idx", "message_queue"),
        index("message_queue_created", "message_queue", &["created_at"]),
        index("message_history_mesh", "message_history", &["mesh_id", "id"]),
        index("dedupe_expires", "client_message_dedupe", &["expires_at"]),
        index("dedupe_message", "client_message_dedupe", &["broker_message_id"]),
        // The queue of one member, in the order of accept.
        index("delivery_open", "delivery", &["recipient_member_id", "id"]).and_where(undelivered()).take(),
        index("delivery_open_created", "delivery", &["created_at"]).and_where(undelivered()).take(),
        index("delivery_message", "delivery", &["broker_message_id"]),
        index("topic_mesh_name", "topic", &["mesh_id", "name"]).unique().take(),
        index("topic_member_member", "topic_member", &["member_id"]),
        one_row_per_client_id("topic_message_client_id_idx", "topic_message"),
        index("topic_message_topic", "topic_message", &["topic_id", "id"]),
    ]
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in tables() {
            manager.create_table(statement).await?;
        }
        for statement in indexes() {
            manager.create_index(statement).await?;
        }
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
