//! The command line as its user meets it: what it says, in which form, and with
//! which exit code.

mod again;
mod colours;
mod completions;
mod confirm;
mod errors;
mod follow;
mod found;
mod help;
mod input;
mod link;
mod shapes;
mod versions;
mod wait;
