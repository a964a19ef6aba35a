//! Values that other implementations produced, and what has to be refused.

mod certificate;
mod envelope;
mod vectors;
