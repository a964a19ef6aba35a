//! Values that other implementations produced, and what has to be refused.

mod envelope;
mod vectors;
