//! The indexes for the columns of the migration before.
//!
//! On PostgreSQL they are built while senders go on writing, which no
//! transaction can hold; so each step may be repeated.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{DbBackend, Statement};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

fn index(name: &'static str, on: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let index = Index::create().name(name).table(on).if_not_exists().take();
    columns.iter().fold(index, |mut index, column| index.col(*column).take())
}

fn indexes() -> Vec<(&'static str, IndexCreateStatement)> {
    let untold = Expr::col("expired_at").is_not_null().and(Expr::col("expiry_told_at").is_null());
    vec![
        ("mesh_changed", index("mesh_changed", "mesh", &["changed_at"])),
        ("member_changed", index("member_changed", "member", &["changed_at"])),
        ("presence_connected", index("presence_connected", "presence", &["connected_at"])),
        ("api_key_member", index("api_key_member", "api_key", &["mesh_id", "member_id"])),
        ("delivery_untold", index("delivery_untold", "delivery", &["sender_member_id"]).and_where(untold).take()),
        // The history of one member, newest first.
        ("delivery_recipient", index("delivery_recipient", "delivery", &["recipient_member_id", "broker_message_id"])),
    ]
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let is_postgres = db.get_database_backend() == DbBackend::Postgres;
        for (name, mut statement) in indexes() {
            if is_postgres {
                // One that was interrupted is there and not used.
                let broken = format!(
                    "SELECT 1 FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid \
                     WHERE c.relname = '{name}' AND c.relnamespace = current_schema()::regnamespace AND NOT i.indisvalid"
                );
                if db.query_one_raw(Statement::from_string(DbBackend::Postgres, broken)).await?.is_some() {
                    db.execute_unprepared(&format!("DROP INDEX CONCURRENTLY IF EXISTS {name}")).await?;
                }
                statement.concurrently();
            }
            manager.create_index(statement).await?;
        }
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }
}
