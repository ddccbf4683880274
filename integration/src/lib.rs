//! The harness of the end-to-end tests: it drives the built binary and looks at the host from outside.
//!
//! Nothing here uses Kiln's libraries: what a test knows of a cluster it learns the way a user does, from the binary's
//! output, from the API and from the kernel. A [`Fixture`] has the host for itself for one test, keeps every file of
//! it in a directory of its own, and ends by asking the leak [`oracle`] whether anything is left.
//!
//! Set by the environment: `KILN_BIN` (the binary; default: `release/kiln` of the target directory the test was built
//! in), `KILN_ROOT` and `KILN_RUN_ROOT` (as for `kiln` itself), and `KILN_REQUIRE_ROOT_TESTS=1` (a test that cannot
//! run here fails instead of being skipped).

#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "a test harness speaks to whoever runs it")]

pub mod api;
pub mod archive;
pub mod cluster;
pub mod containerd;
pub mod debian;
pub mod disk;
pub mod fixture;
pub mod host;
pub mod hub;
pub mod kiln;
pub mod kind_image;
pub mod loading;
pub mod namespace;
pub mod oracle;
pub mod outside;
pub mod registry;
pub mod running;
pub mod steps;
pub mod template;
pub mod waiting;

pub use archive::TestImage;
pub use cluster::Cluster;
pub use containerd::HostContainerd;
pub use fixture::Fixture;
pub use hub::Hub;
pub use kiln::Kiln;
pub use namespace::Namespace;
pub use outside::Outside;
pub use registry::{Registry, Tools};
pub use running::{Finished, Running};
pub use steps::Steps;
pub use waiting::eventually;
