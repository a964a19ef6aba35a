//! The frames as peers write them, and what the codec does with the rest.

mod certificate;
mod frames;
mod hostile;
mod join;
