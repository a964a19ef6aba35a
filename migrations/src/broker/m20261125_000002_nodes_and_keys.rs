//! Several brokers over one database, API keys, and what retention remembers.
//!
//! Adds tables and columns only, each with a default that needs no rewrite of
//! the rows: a broker of the release before goes on meanwhile.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, boolean, text, text_null};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

fn table(name: &'static str) -> TableCreateStatement {
    Table::create().table(name).take()
}

fn tables() -> Vec<TableCreateStatement> {
    vec![
        // The brokers that share the database, each with the features it has.
        table("node")
            .col(text("id").primary_key().take())
            .col(text("version"))
            .col(text("features"))
            .col(big_integer("started_at"))
            .col(big_integer("last_seen_at"))
            .take(),
        // What a broker must know over a restart.
        table("broker_state").col(text("key").primary_key().take()).col(big_integer("value")).take(),
        // The secret itself is shown once and not kept.
        table("api_key")
            .col(text("id").primary_key().take())
            .col(text("mesh_id"))
            .col(text("member_id"))
            .col(text("name"))
            .col(text("secret_hash"))
            .col(boolean("allow_unencrypted").default(false))
            .col(big_integer("created_at"))
            .col(big_integer_null("last_used_at"))
            .col(big_integer_null("revoked_at"))
            .take(),
    ]
}

fn columns() -> Vec<(&'static str, ColumnDef)> {
    vec![
        // When another broker has to read the row again.
        ("mesh", big_integer("changed_at").default(0).take()),
        ("member", big_integer("changed_at").default(0).take()),
        ("mesh", text("dedupe_mode").default("retention_scoped").take()),
        ("presence", text_null("boot_id")),
        // When the sender heard that a copy was given up.
        ("delivery", big_integer_null("expiry_told_at")),
    ]
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in tables() {
            manager.create_table(statement).await?;
        }
        for (table, column) in columns() {
            manager.alter_table(Table::alter().table(table).add_column(column).take()).await?;
        }
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
