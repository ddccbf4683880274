//! Pulling and pushing, with a server that answers as the test wants it to.

mod access;
mod server;
mod stage;
mod transfers;
