//! Process tools without business meaning.
//!
//! What it is for: what every long-running program needs, once: tasks that are
//! supervised, a clock and an id source that tests can replace, files that are
//! private from birth, a lock that lives as long as the process, sockets.
//! What runs here: only what [`supervisor::Supervisor`] is handed.
//! What it guarantees: no task is lost unseen, and each stops in its phase.
//! What it must not do: know a message, a peer or a database.

pub mod accepting;
pub mod ballast;
pub mod clock;
pub mod dial;
pub mod failpoints;
pub mod health;
pub mod ids;
pub mod instance_lock;
pub mod listen;
pub mod memory;
pub mod open_files;
pub mod private_file;
pub mod progress;
pub mod repeated;
pub mod shutdown;
pub mod signals;
pub mod supervisor;
pub mod task_kind;
pub mod time_guard;
