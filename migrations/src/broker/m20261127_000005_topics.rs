//! Encrypted topics: the epochs of their keys, and the keys' sealed copies.
//!
//! Adds tables, columns with defaults and indexes on tables that had no rows
//! before: a broker of the release before goes on meanwhile.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, text};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

fn table(name: &'static str) -> TableCreateStatement {
    Table::create().table(name).take()
}

fn columns_of(mut index: IndexCreateStatement, columns: &[&'static str]) -> IndexCreateStatement {
    for column in columns {
        index.col(*column);
    }
    index
}

fn tables() -> Vec<TableCreateStatement> {
    vec![
        // What each epoch of a topic's key began with.
        table("topic_epoch")
            .col(text("topic_id"))
            .col(big_integer("epoch"))
            .col(text("statement"))
            .col(big_integer("created_at"))
            .primary_key(&mut columns_of(Index::create(), &["topic_id", "epoch"]))
            .take(),
        // The key itself, once for each who may read the topic.
        table("topic_key")
            .col(text("topic_id"))
            .col(big_integer("epoch"))
            .col(text("member_id"))
            .col(text("sealed"))
            .col(text("nonce"))
            .col(big_integer("created_at"))
            .primary_key(&mut columns_of(Index::create(), &["topic_id", "epoch", "member_id"]))
            .take(),
    ]
}

fn indexes() -> Vec<IndexCreateStatement> {
    let index = |name: &'static str, on: &'static str| Index::create().name(name).table(on).take();
    vec![
        columns_of(index("topic_key_member", "topic_key"), &["member_id", "topic_id", "epoch"]),
        columns_of(index("topic_changed", "topic"), &["changed_at"]),
        columns_of(index("topic_message_created", "topic_message"), &["created_at"]),
    ]
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in tables() {
            manager.create_table(statement).await?;
        }
        for column in [big_integer("epoch").default(0).take(), big_integer("changed_at").default(0).take()] {
            manager.alter_table(Table::alter().table("topic").add_column(column).take()).await?;
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
