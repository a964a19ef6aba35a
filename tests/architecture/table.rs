//! The table of folders: rank, allowed imports, excluded crates, and the
//! reason that a failure prints.

use std::collections::BTreeSet;

/// One folder of `src/`.
pub(crate) struct Folder {
    /// Its name below `src/`, and in `crate::<name>`.
    pub(crate) name: &'static str,
    /// A folder imports only folders of lower rank.
    pub(crate) rank: u8,
    /// The folders it may import.
    pub(crate) may_import: &'static [&'static str],
    /// Paths of other crates that it must not name, as prefixes.
    pub(crate) must_not_use: &'static [&'static str],
    /// Why the row is as it is. Printed when it is broken.
    pub(crate) reason: &'static str,
}

/// Folders that are named in the table before their first file exists.
pub(crate) const PLANNED: &[&str] = &[
    "api",
    "broker",
    "broker_client",
    "cli",
    "cold",
    "config",
    "crypto",
    "daemon",
    "db",
    "events",
    "files",
    "hooks",
    "identity",
    "inbox",
    "membership",
    "outbox",
    "peers",
    "proto",
    "telemetry",
    "topics",
    "wire",
];

const FRAMEWORKS: &[&str] = &["sea_orm", "sea_orm_migration", "claudemesh_migrations", "tonic", "axum"];
const NO_RPC: &[&str] = &["tonic", "axum"];
const NO_ASYNC: &[&str] = &["tokio", "sea_orm", "sea_orm_migration", "claudemesh_migrations", "tonic", "axum"];
const NO_SQL: &[&str] = &["sea_orm", "sea_orm_migration", "claudemesh_migrations"];
const NO_SQL_NO_TONIC: &[&str] = &["sea_orm", "sea_orm_migration", "claudemesh_migrations", "tonic"];

/// What a pure decision cannot need.
const IMPURE: &[&str] = &[
    "tokio",
    "sea_orm",
    "sea_orm_migration",
    "claudemesh_migrations",
    "tonic",
    "axum",
    "clap",
    "hyper",
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "std::time::SystemTime",
    "std::time::Instant",
    "chrono::Utc::now",
    "chrono::Local",
    "rand",
    "getrandom",
    "rustix",
];

/// Every folder, lowest rank first.
pub(crate) const FOLDERS: &[Folder] = &[
    Folder {
        name: "domain",
        rank: 0,
        may_import: &[],
        must_not_use: IMPURE,
        reason: "decisions are pure: the same input gives the same answer, so they are tested as tables without a clock, a socket or a database",
    },
    Folder {
        name: "proto",
        rank: 0,
        may_import: &[],
        must_not_use: NO_SQL,
        reason: "generated messages are vocabulary; whoever gives them meaning stands above",
    },
    Folder {
        name: "crypto",
        rank: 1,
        may_import: &["domain"],
        must_not_use: NO_ASYNC,
        reason: "ciphers are functions over bytes; a cipher that can do I/O cannot be checked against test vectors",
    },
    Folder {
        name: "wire",
        rank: 1,
        may_import: &["domain"],
        must_not_use: NO_ASYNC,
        reason: "frames are parsed from bytes by both sides of the link; neither side's machinery belongs here",
    },
    Folder {
        name: "config",
        rank: 1,
        may_import: &["domain"],
        must_not_use: NO_ASYNC_BUT_AXUM,
        reason: "settings are read and checked before anything runs",
    },
    Folder {
        name: "runtime",
        rank: 1,
        may_import: &["domain"],
        must_not_use: NO_SQL_NO_TONIC,
        reason: "process tools carry no business meaning, so that every part can use them",
    },
    Folder {
        name: "telemetry",
        rank: 2,
        may_import: &["domain", "runtime"],
        must_not_use: NO_SQL_NO_TONIC,
        reason: "how lines and figures look, and how many lines there are; what is measured stays with its owner",
    },
    Folder {
        name: "db",
        rank: 2,
        may_import: &["domain", "config", "runtime"],
        must_not_use: NO_RPC,
        reason: "connections and migrations; each feature keeps its own SQL",
    },
    Folder {
        name: "identity",
        rank: 3,
        may_import: &["domain", "crypto", "wire", "config", "runtime", "telemetry"],
        must_not_use: FRAMEWORKS,
        reason: "keys are files and functions, and they sign statements that `wire` describes; they know no database and no transport",
    },
    Folder {
        name: "events",
        rank: 3,
        may_import: &["domain", "runtime", "telemetry"],
        must_not_use: FRAMEWORKS,
        reason: "live fan-out only; what must not be lost is read from the database by its owner",
    },
    Folder {
        name: "membership",
        rank: 3,
        may_import: &["domain", "crypto", "wire", "config", "runtime", "telemetry"],
        must_not_use: FRAMEWORKS,
        reason: "joining a mesh happens before any daemon runs: files and one HTTP call",
    },
    Folder {
        name: "broker_client",
        rank: 4,
        may_import: &["domain", "wire", "config", "runtime", "telemetry", "identity"],
        must_not_use: FRAMEWORKS,
        reason: "the link hands out outcomes, deliveries and presence; who consumes them is not its business",
    },
    Folder {
        name: "peers",
        rank: 5,
        may_import: &[
            "domain",
            "crypto",
            "wire",
            "config",
            "runtime",
            "telemetry",
            "db",
            "identity",
            "events",
            "broker_client",
        ],
        must_not_use: NO_RPC,
        reason: "names resolve for senders and for the API alike; it depends on neither",
    },
    Folder {
        name: "topics",
        rank: 6,
        may_import: &[
            "domain",
            "crypto",
            "wire",
            "config",
            "runtime",
            "telemetry",
            "identity",
            "events",
            "broker_client",
            "peers",
        ],
        must_not_use: NO_RPC,
        reason: "topic keys serve sending and receiving and depend on neither; who may have one is known by `peers`",
    },
    Folder {
        name: "outbox",
        rank: 7,
        may_import: AROUND_THE_DATABASES,
        must_not_use: NO_RPC,
        reason: "durable sending knows no caller, no hook and no inbox: a damaged inbox never stops it",
    },
    Folder {
        name: "inbox",
        rank: 7,
        may_import: AROUND_THE_DATABASES,
        must_not_use: NO_RPC,
        reason: "durable receiving publishes to `events` and never knows who listens",
    },
    Folder {
        name: "files",
        rank: 8,
        may_import: ABOVE_THE_DATABASES,
        must_not_use: NO_RPC,
        reason: "a share is announced through `outbox` like any other message",
    },
    Folder {
        name: "cold",
        rank: 8,
        may_import: &[
            "domain",
            "crypto",
            "wire",
            "config",
            "runtime",
            "telemetry",
            "identity",
            "membership",
            "broker_client",
        ],
        must_not_use: FRAMEWORKS,
        reason: "a verb without a daemon is one short connection: no database, no retry",
    },
    Folder {
        name: "hooks",
        rank: 8,
        may_import: &["domain", "config", "runtime", "telemetry", "db", "events", "outbox", "inbox"],
        must_not_use: NO_RPC,
        reason: "hooks reply through `outbox`; how their socket is served is the API's business",
    },
    Folder {
        name: "api",
        rank: 9,
        may_import: &[
            "domain",
            "proto",
            "config",
            "runtime",
            "telemetry",
            "identity",
            "events",
            "broker_client",
            "peers",
            "topics",
            "outbox",
            "inbox",
            "files",
            "hooks",
        ],
        must_not_use: NO_SQL,
        reason: "the API translates calls into handles; it holds no SQL, and of the link it reads only the state",
    },
    Folder {
        name: "broker",
        rank: 9,
        may_import: &["domain", "crypto", "wire", "config", "runtime", "telemetry", "db"],
        must_not_use: &["tonic"],
        reason: "the broker never sees plaintext or a daemon's state: what seems shared belongs in `wire` or `domain`",
    },
    Folder {
        name: "daemon",
        rank: 10,
        may_import: &[
            "domain",
            "proto",
            "crypto",
            "wire",
            "config",
            "runtime",
            "telemetry",
            "db",
            "identity",
            "events",
            "membership",
            "broker_client",
            "peers",
            "topics",
            "outbox",
            "inbox",
            "files",
            "hooks",
            "api",
        ],
        must_not_use: &[],
        reason: "the composition root of the daemon builds every part, and no other role",
    },
    Folder {
        name: "cli",
        rank: 11,
        may_import: &["domain", "proto", "config", "runtime", "telemetry", "membership", "cold", "daemon", "broker"],
        must_not_use: NO_SQL,
        reason: "verbs are clients of the daemon; they reach its data through the API like everyone else",
    },
];

const NO_ASYNC_BUT_AXUM: &[&str] = &["tokio", "sea_orm", "sea_orm_migration", "claudemesh_migrations", "tonic"];

const AROUND_THE_DATABASES: &[&str] = &[
    "domain",
    "crypto",
    "wire",
    "config",
    "runtime",
    "telemetry",
    "db",
    "identity",
    "events",
    "broker_client",
    "peers",
    "topics",
];

const ABOVE_THE_DATABASES: &[&str] = &[
    "domain",
    "crypto",
    "wire",
    "config",
    "runtime",
    "telemetry",
    "db",
    "identity",
    "events",
    "broker_client",
    "peers",
    "topics",
    "outbox",
    "inbox",
];

/// The row of a folder.
pub(crate) fn folder(name: &str) -> Option<&'static Folder> {
    FOLDERS.iter().find(|folder| folder.name == name)
}

/// What is wrong with the table itself, or between it and the tree.
pub(crate) fn inconsistencies(folders: &[Folder], planned: &[&str], tree: &BTreeSet<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for folder in folders {
        for import in folder.may_import {
            match folders.iter().find(|other| other.name == *import) {
                None => complaints.push(format!("the row of `{}` allows `{import}`, which has no row", folder.name)),
                Some(other) if other.rank >= folder.rank => complaints.push(format!(
                    "the row of `{}` (rank {}) allows `{import}` (rank {}): imports go down only",
                    folder.name, folder.rank, other.rank
                )),
                Some(_) => {}
            }
        }
        if !tree.contains(folder.name) && !planned.contains(&folder.name) {
            complaints.push(format!("`src/{}` has a row but is gone: remove the row with its reason", folder.name));
        }
    }
    for name in tree {
        if !folders.iter().any(|folder| folder.name == name) {
            complaints.push(format!("`src/{name}` has no row: add its rank, its imports and the reason"));
        }
    }
    for name in planned {
        if !folders.iter().any(|folder| folder.name == *name) {
            complaints.push(format!("`{name}` is planned but has no row"));
        }
    }
    complaints
}
