//! What the process tells about itself: log lines and numbers.
//!
//! What it is for: one place that decides how a log line looks, what it may
//! hold, and what every metric is called.
//! What runs here: nothing.
//! What it guarantees: no log line of a library that could show a header or a
//! payload; every metric carries the mesh's name.
//! What it must not do: log a message's text, a token or a key.

pub mod logging;
pub mod metrics;
pub mod names;
mod tidy;
