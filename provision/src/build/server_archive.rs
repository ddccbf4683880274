//! An archive of what a server of Kubernetes needs, `kubernetes-server-linux-ARCH.tar.gz`, as releases publish it and
//! as `make quick-release` of a source tree leaves it.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{
    Build, cache::file_error, compile::Compiled, component::KUBERNETES, elf, program::Program, recipe::Key,
    source::refused, version::KubernetesVersion,
};
use crate::{
    Error, Reporter, Result,
    image::{Digest, pick_files},
};

/// Where the files are in the archive.
const FOLDER: &str = "kubernetes/server/bin/";

/// The programs of a node.
const PROGRAMS: [&str; 3] = ["kubeadm", "kubelet", "kubectl"];

/// The images of the control plane.
const IMAGES: [&str; 4] =
    ["kube-apiserver.tar", "kube-controller-manager.tar", "kube-scheduler.tar", "kube-proxy.tar"];

/// What errors call it.
const KIND: &str = "archive of Kubernetes for servers";

/// Hashing a few hundred megabytes is enough to tell whether they are known.
const REVISION: &str = "1";

/// Unpacks an archive, or finds what is in it in the cache. `origin` is what errors and progress call it.
///
/// # Errors
/// [`Error::BuildSource`] when it is not for this machine or lacks something; what reading an archive may meet.
pub(super) async fn unpacked(
    build: &Build<'_>,
    path: &Path,
    origin: &str,
) -> Result<(KubernetesVersion, Compiled)> {
    let reading = |error: io::Error| refused(origin, error.to_string(), cure());
    let hashing = tokio::task::spawn_blocking({
        let path = path.to_owned();
        move || Digest::of_reader(fs_err::File::open(path)?)
    });
    let digest = hashing.await.map_err(io::Error::other).and_then(|result| result).map_err(reading)?;
    let key = Key::default().with("archive").with(REVISION).with(digest.hex()).finish();
    let cached = format!("components/{}", KUBERNETES.name);
    let directory = match build.cache.find(&cached, &key) {
        Some(directory) => directory,
        None => {
            let title = format!("Unpacking {} 🗜", file_name(origin));
            let unpacking = async {
                let scratch = build.cache.scratch()?;
                let out = scratch.path().join("out");
                fs_err::create_dir(&out).map_err(file_error("unpack Kubernetes", build.cache.root()))?;
                let picked = tokio::task::spawn_blocking({
                    let (path, origin, out) = (path.to_owned(), origin.to_owned(), out.clone());
                    move || pick(&path, &origin, &out)
                });
                picked.await.map_err(io::Error::other).map_err(reading)??;
                build.cache.commit(&out, &cached, &key)
            };
            build.phase(&title, unpacking).await?
        }
    };
    let version = version(&directory.join("kubeadm"), build.reporter).await?;
    Ok((version, Compiled { directory, key, took: None }))
}

/// Downloads an archive with curl, which knows the host's proxies and certificates.
///
/// # Errors
/// [`Error::MissingTools`] without curl, [`Error::Program`] with what it says.
pub(super) async fn download(build: &Build<'_>, url: &str, target: &Path) -> Result<()> {
    let curl = build.tools.curl.as_ref().ok_or_else(|| Error::MissingTools {
        missing: vec!["curl for archives that are downloaded, and none is in PATH".to_owned()],
        cures: vec!["apt-get install curl".to_owned()],
    })?;
    let title = format!("Downloading {} 🌐", file_name(url));
    let program = Program::new(curl, format!("download {url}"))
        .args(["--fail", "--location", "--silent", "--show-error", "--retry", "3", "--connect-timeout", "30"])
        // Nowhere else, wherever a redirection leads.
        .args(["--proto", "=http,https", "--output"])
        .args([target])
        .args(["--url", url]);
    build.phase(&title, program.run(build.reporter)).await?;
    Ok(())
}

/// Takes the files that are needed out of the archive and looks whether they are good for anything.
fn pick(path: &Path, origin: &str, out: &Path) -> Result<()> {
    let unreadable = |error: io::Error| refused(origin, error.to_string(), cure());
    let wanted = |member: &str| {
        let name = member.strip_prefix(FOLDER)?;
        PROGRAMS.iter().chain(&IMAGES).any(|wanted| *wanted == name).then(|| PathBuf::from(name))
    };
    pick_files(origin, KIND, fs_err::File::open(path).map_err(unreadable)?, out, wanted)?;
    if let Some(missing) = PROGRAMS.iter().chain(&IMAGES).find(|name| !out.join(name).is_file()) {
        return Err(refused(origin, format!("it has no {FOLDER}{missing}"), cure()));
    }
    for name in PROGRAMS {
        let program = out.join(name);
        if !elf::is_for_this_machine(&program)? {
            let reason = format!("its {name} is no program for {}", std::env::consts::ARCH);
            return Err(refused(origin, reason, cure()));
        }
        let mode = std::fs::Permissions::from_mode(0o755);
        fs_err::set_permissions(program, mode).map_err(file_error("unpack Kubernetes", out))?;
    }
    Ok(())
}

/// What kubeadm says that it is. Its clusters have the same version.
async fn version(kubeadm: &Path, reporter: &dyn Reporter) -> Result<KubernetesVersion> {
    let program = Program::new(kubeadm, "ask kubeadm for its version");
    program.args(["version", "--output", "short"]).run(reporter).await?.trim().parse()
}

fn cure() -> String {
    "releases publish such archives as kubernetes-server-linux-ARCH.tar.gz".to_owned()
}

/// The last part of a path or an address.
fn file_name(origin: &str) -> &str {
    let path = origin.split(['?', '#']).next().unwrap_or(origin).trim_end_matches('/');
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive of files below the folder, compressed.
    fn archive(files: &[(&str, &[u8])]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let encoder = flate2::write::GzEncoder::new(&mut file, flate2::Compression::fast());
        let mut builder = tar::Builder::new(encoder);
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, format!("{FOLDER}{name}"), *content).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap();
        file
    }

    fn pick_from(file: &Path) -> (tempfile::TempDir, Result<()>) {
        let out = tempfile::tempdir().unwrap();
        let result = pick(file, "the archive", out.path());
        (out, result)
    }

    #[test]
    fn what_is_needed_is_taken_and_nothing_else() {
        let program = fs_err::read("/bin/true").unwrap();
        let mut files: Vec<(&str, &[u8])> = PROGRAMS.iter().map(|name| (*name, &program[..])).collect();
        files.extend(IMAGES.iter().map(|name| (*name, &b"image"[..])));
        files.extend([("kube-apiserver", &b"large"[..]), ("kubelet.tar", b"x"), ("nested/kubeadm", b"x")]);
        let (out, result) = pick_from(archive(&files).path());
        result.unwrap();
        let mut names: Vec<_> =
            fs_err::read_dir(out.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        let mut expected: Vec<_> = PROGRAMS.iter().chain(&IMAGES).map(std::ffi::OsString::from).collect();
        expected.sort();
        assert_eq!(names, expected);
        let mode = fs_err::metadata(out.path().join("kubelet")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }

    #[test]
    fn what_is_no_such_archive_is_refused_by_name() {
        let program = fs_err::read("/bin/true").unwrap();
        let without_proxy: Vec<(&str, &[u8])> =
            PROGRAMS.iter().chain(&IMAGES[..3]).map(|name| (*name, &program[..])).collect();
        let (_out, result) = pick_from(archive(&without_proxy).path());
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with("the archive is nothing to build"), "{error}");
        assert!(error.ends_with("it has no kubernetes/server/bin/kube-proxy.tar"), "{error}");

        let text = b"no program at all";
        let scripts: Vec<(&str, &[u8])> =
            PROGRAMS.iter().chain(&IMAGES).map(|name| (*name, &text[..])).collect();
        let (_out, result) = pick_from(archive(&scripts).path());
        let error = result.unwrap_err().to_string();
        assert!(error.contains("its kubeadm is no program for"), "{error}");

        let (_out, result) = pick_from(Path::new("/etc/passwd"));
        let error = result.unwrap_err().to_string();
        assert_eq!(error, "the archive is not an archive of Kubernetes for servers");

        let whole = fs_err::read(archive(&without_proxy).path()).unwrap();
        let cut = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(cut.path(), &whole[..whole.len() / 2]).unwrap();
        let (_out, result) = pick_from(cut.path());
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with("the archive is truncated"), "{error}");
    }

    #[test]
    fn addresses_are_shown_by_their_last_part() {
        assert_eq!(
            file_name("https://x/y/kubernetes-server-linux-amd64.tar.gz?a=b/c"),
            "kubernetes-server-linux-amd64.tar.gz"
        );
        assert_eq!(file_name("server.tgz"), "server.tgz");
    }
}
