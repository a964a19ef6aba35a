//! Links that are slow, silent or far away: judged by what moves over them.

mod silent;
mod slow;
