//! Settings: one file for each concern, with its defaults and checks.
//!
//! What it is for: a setting is described, defaulted and checked in one place.
//! Layers, weakest first: default, file, environment, command line.
//! What runs here: nothing.
//! What it guarantees: an unknown key is an error and not silence; every error
//! names the file or variable and the key.
//! What it must not do: read the environment outside [`source`], or act.

pub mod broker;
pub mod source;
