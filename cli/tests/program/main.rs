//! The program as a whole, as far as it needs no cluster that runs: each test has a state root of its own.

#![allow(clippy::print_stderr, reason = "what is skipped is said")]

mod commands;
mod completion;
mod errors;
mod help;
mod listings;
mod root;
