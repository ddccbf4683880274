//! `version`

use super::Session;
use crate::failure::Failure;

/// Prints the version and the platform; with `--quiet` only the version, without the "v".
pub(super) fn version(session: &Session) -> Result<(), Failure> {
    if session.shell.is_quiet() {
        return session.shell.result(&format!("{}\n", env!("CARGO_PKG_VERSION")));
    }
    session.shell.result(&format!("{}\n", line()))
}

/// The version and the platform, for people.
pub(super) fn line() -> String {
    format!("kiln v{} linux/{}", env!("CARGO_PKG_VERSION"), architecture(std::env::consts::ARCH))
}

/// The name that images and Kubernetes have for an architecture.
fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_have_the_names_of_images() {
        assert_eq!(architecture("x86_64"), "amd64");
        assert_eq!(architecture("aarch64"), "arm64");
        assert_eq!(architecture("s390x"), "s390x");
    }
}
