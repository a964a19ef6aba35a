//! Links that are slow, silent, crowded or hostile.

mod crowded;
mod pieces;
mod silent;
mod slow;
mod ways;
