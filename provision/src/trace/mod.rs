//! What happened when while a cluster was made: spans and marks of every node on one clock.
//!
//! A [`Trace`] is recorded by whoever makes a cluster. The code on the way does not pass it on: [`Trace::follow`] runs an
//! operation, and inside of it [`step`], [`wait`], [`exec`] and [`mark`] write to the operation's trace, or nowhere if there
//! is none. Work that is spawned as a task of its own has none.
//!
//! Recording costs a lock and a push per event, so it is always done. Four sources make a trace:
//!
//! * Kiln's own steps, as they happen;
//! * kubeadm's phases, from the lines it prints (`kubeadm.rs`);
//! * times that the node has written down by itself: logs of containers, ages of sockets (`notes.rs`), and what its control
//!   groups count (`component.rs`), read when the cluster is there;
//! * the API, only where [`Trace::watching`] asked for it, since asking costs the cluster something (`watch.rs`).
//!
//! Times are of the monotonic clock, from the making of the [`Trace`]. What was written down by the wall clock is converted
//! by the difference of the two at the moment of reading.

mod chrome;
mod component;
mod critical;
mod event;
mod kubeadm;
mod notes;
mod recorder;
pub(crate) mod watch;

pub use chrome::{from_chrome, to_chrome};
pub use component::ComponentCpu;
pub(crate) use component::{components, own};
pub use critical::{Segment, critical_path};
pub(crate) use event::CREATED;
pub use event::{Event, Kind, Recording};
pub(crate) use kubeadm::Phases;
pub(crate) use notes::{PROXY_SYNCED, marks, tell};
pub use recorder::Trace;
pub(crate) use recorder::{current, exec, mark, phase, step, wait};
