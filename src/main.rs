//! The one binary. Turns the command line's result into an exit code.

fn main() {}
