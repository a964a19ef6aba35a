//! Every bad input and every bad circumstance, and what the user reads then.
//!
//! Each file is one table of [`table::Case`]: how to get there, the code, the
//! exit code or status, where the text must point and what it must advise. The
//! texts themselves are in `snapshots/`. `docs/TROUBLESHOOTING.md` is made of the
//! same tables.

mod access;
mod command_line;
mod disk;
mod joining;
mod link;
mod queued;
mod requests;
mod servers;
mod settings;
mod state;
mod table;
mod troubleshooting;
