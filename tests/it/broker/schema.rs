//! The broker's tables, as both engines describe them and as they refuse rows.

use crate::support::broker::Broker;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::sqlite::Db;

/// The tables that hold messages, each with its index of client ids.
const MESSAGES: [(&str, &str); 2] =
    [("message_queue", "message_queue_client_id_idx"), ("topic_message", "topic_message_client_id_idx")];

/// Tables whose primary key is more than one id.
const KEYS: [(&str, &[&str]); 4] = [
    ("client_message_dedupe", &["mesh_id", "sender_member_id", "client_message_id"]),
    ("member_key", &["mesh_id", "pubkey"]),
    ("presence", &["mesh_id", "member_id", "instance_id"]),
    ("topic_member", &["topic_id", "member_id"]),
];

/// Reads the engine's own description.
struct Catalogue {
    backend: Backend,
    db: Db,
}

impl Catalogue {
    /// A broker that made its tables is beside it.
    async fn of(backend: Backend, broker: &Broker) -> Self {
        Self { backend, db: broker.tables().await }
    }

    /// The type of a column, and `null` if it may be that.
    async fn column(&self, table: &str, column: &str) -> String {
        let sql = match self.backend {
            Backend::Sqlite => format!(
                "SELECT lower(type) || CASE WHEN \"notnull\" THEN '' ELSE ' null' END
                 FROM pragma_table_info('{table}') WHERE name = '{column}'"
            ),
            Backend::Postgres => format!(
                "SELECT data_type || CASE WHEN is_nullable = 'YES' THEN ' null' ELSE '' END
                 FROM information_schema.columns WHERE table_name = '{table}' AND column_name = '{column}'"
            ),
        };
        self.db.texts(&sql).await.concat()
    }

    /// The unique indexes that were made by name: `table.index (columns)`, and
    /// the condition of those that have one.
    async fn unique_indexes(&self) -> Vec<String> {
        let sql = match self.backend {
            Backend::Sqlite => {
                "SELECT m.tbl_name || '.' || m.name || ' ('
                    || (SELECT group_concat(i.name, ', ' ORDER BY i.seqno) FROM pragma_index_info(m.name) AS i) || ')'
                    || CASE WHEN l.partial THEN ' ' || replace(substr(m.sql, instr(m.sql, 'WHERE ')), '\"', '') ELSE '' END
                 FROM sqlite_master AS m JOIN pragma_index_list(m.tbl_name) AS l ON l.name = m.name
                 WHERE m.type = 'index' AND l.\"unique\" = 1 AND l.origin = 'c' ORDER BY 1"
            }
            Backend::Postgres => {
                "SELECT p.tablename || '.' || p.indexname || ' ('
                    || (SELECT string_agg(a.attname, ', ' ORDER BY k.place)
                        FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place)
                        JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number) || ')'
                    || coalesce(' WHERE ' || trim(BOTH '()' FROM pg_get_expr(i.indpred, i.indrelid)), '')
                 FROM pg_indexes AS p JOIN pg_index AS i ON i.indexrelid = p.indexname::regclass
                 WHERE p.schemaname = 'public' AND i.indisunique AND i.indisvalid
                   AND NOT EXISTS (SELECT 1 FROM pg_constraint AS c WHERE c.conindid = i.indexrelid)
                 ORDER BY 1"
            }
        };
        let mut found = self.db.texts(sql).await;
        found.sort();
        found
    }

    /// The columns of a table's primary key.
    async fn key(&self, table: &str) -> Vec<String> {
        self.db
            .texts(&match self.backend {
                Backend::Sqlite => format!("SELECT name FROM pragma_table_info('{table}') WHERE pk > 0 ORDER BY pk"),
                Backend::Postgres => format!(
                    "SELECT a.attname::text FROM pg_index AS i,
                     unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place), pg_attribute AS a
                     WHERE i.indrelid = '{table}'::regclass AND i.indisprimary
                       AND a.attrelid = i.indrelid AND a.attnum = k.number ORDER BY k.place"
                ),
            })
            .await
    }

    /// What the engine says when a row would be the second of its key.
    fn violation(&self) -> Option<&'static str> {
        Some(match self.backend {
            // SQLITE_CONSTRAINT_UNIQUE
            Backend::Sqlite => "2067",
            Backend::Postgres => "23505",
        })
    }

    /// Adds a message by hand; the engine's code when it refuses it.
    async fn insert(&self, table: &str, id: &str, mesh: &str, sender: &str, client_id: Option<&str>) -> Option<String> {
        let bytes = if self.backend == Backend::Sqlite { "x'00'" } else { "'\\x00'" };
        let client_id = client_id.map_or_else(|| "NULL".to_owned(), |id| format!("'{id}'"));
        let (columns, values) = match table {
            "message_queue" => ("sender_member_pubkey, target_spec", "'k', 't'"),
            _ => ("topic_id, body_version", "'t', 1"),
        };
        let sql = format!(
            "INSERT INTO {table} (id, mesh_id, sender_member_id, sender_pubkey, sender_name, priority, nonce, \
             ciphertext, client_message_id, created_at, {columns}) \
             VALUES ('{id}', '{mesh}', '{sender}', 'k', 'n', 'next', {bytes}, {bytes}, {client_id}, 1, {values})"
        );
        self.db.refusal(&sql).await
    }
}

// Covers: R152-R155
async fn each_unique_index_is_there_by_name_columns_and_condition(backend: Backend) {
    let broker = Broker::on(backend).await;
    let catalogue = Catalogue::of(backend, &broker).await;
    for (table, _) in MESSAGES {
        assert_eq!(catalogue.column(table, "client_message_id").await, "text null", "{table}");
    }
    let by_id = |(table, index): (&str, &str)| {
        format!("{table}.{index} (mesh_id, sender_member_id, client_message_id) WHERE client_message_id IS NOT NULL")
    };
    let expected = [
        "member.member_mesh_pubkey (mesh_id, pubkey)".to_owned(),
        by_id(MESSAGES[0]),
        "topic.topic_mesh_name (mesh_id, name)".to_owned(),
        by_id(MESSAGES[1]),
    ];
    assert_eq!(catalogue.unique_indexes().await, expected);
    for (table, columns) in KEYS {
        assert_eq!(catalogue.key(table).await, columns, "{table}");
    }
    catalogue.db.close().await;
}

// Covers: R154, R155, R156
async fn the_database_itself_refuses_a_second_row_with_a_members_id(backend: Backend) {
    let broker = Broker::on(backend).await;
    let catalogue = Catalogue::of(backend, &broker).await;
    for (table, index) in MESSAGES {
        assert_eq!(catalogue.insert(table, "1", "mesh", "alice", Some("id")).await, None, "{table}");
        let second = catalogue.insert(table, "2", "mesh", "alice", Some("id")).await;
        assert_eq!(second.as_deref(), catalogue.violation(), "{index} lets a second row in");
        // Another member, another mesh and another id are no repeat.
        assert_eq!(catalogue.insert(table, "3", "mesh", "carol", Some("id")).await, None, "{table}");
        assert_eq!(catalogue.insert(table, "4", "other", "alice", Some("id")).await, None, "{table}");
        assert_eq!(catalogue.insert(table, "5", "mesh", "alice", Some("other")).await, None, "{table}");
        // Rows of legacy clients have no id and never meet.
        for number in ["6", "7"] {
            assert_eq!(catalogue.insert(table, number, "mesh", "alice", None).await, None, "{table}");
        }
        assert_eq!(catalogue.db.number(&format!("SELECT count(*) FROM {table}")).await, 6, "{table}");
    }
    catalogue.db.close().await;
}

on_both_databases! {
    each_unique_index_is_there_by_name_columns_and_condition,
    the_database_itself_refuses_a_second_row_with_a_members_id,
}
