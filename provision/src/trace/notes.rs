//! What a node has written down by itself, with times: the logs of its containers.
//!
//! containerd stamps every line with the wall clock, which nodes share with the host. Reading costs nothing while the node
//! boots.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    os::fd::AsFd,
    path::Path,
    time::SystemTime,
};

use jiff::Timestamp;
use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, openat2};

/// Where containers' logs are, below a node's `/var`: `NAMESPACE_POD_UID/CONTAINER/N.log`.
const PODS: &str = "log/pods";
/// What is read of a log. The lines that are looked for come early.
const MOST: u64 = 4 << 20;
/// Containers are started anew when they fail: how many of their logs are looked at.
const ATTEMPTS: u32 = 4;

/// kube-proxy knows the Services.
pub(crate) const PROXY_SYNCED: &str = "kube-proxy synced";

/// A component whose log has something to say.
struct Component {
    /// How the name of its pod begins, and its container's name.
    name: &'static str,
    /// Words of the line that tells, and the mark for it.
    tells: Option<(&'static str, &'static str)>,
    started: &'static str,
}

const COMPONENTS: [Component; 6] = [
    Component {
        name: "etcd",
        started: "etcd started",
        tells: Some(("ready to serve client requests", "etcd ready")),
    },
    Component {
        name: "kube-apiserver",
        started: "kube-apiserver started",
        tells: Some(("Serving securely on", "kube-apiserver listening")),
    },
    Component { name: "kube-controller-manager", started: "kube-controller-manager started", tells: None },
    Component { name: "kube-scheduler", started: "kube-scheduler started", tells: None },
    Component {
        name: "kube-proxy",
        started: "kube-proxy started",
        tells: Some(("\"Caches are synced\" controller=\"endpoint slice config\"", PROXY_SYNCED)),
    },
    Component { name: "coredns", started: "CoreDNS started", tells: Some((" F .:53", "CoreDNS serving")) },
];

/// A directory of a pod's logs: `NAMESPACE_POD_UID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodDirectory {
    pub(super) name: String,
    pub(super) uid: String,
    directory: String,
}

/// The pods that have logs below a node's `/var`; none when there is nothing to read.
pub(super) fn pods(var: &Path) -> Vec<PodDirectory> {
    let list = || -> io::Result<Vec<PodDirectory>> {
        let mut pods = Vec::new();
        for entry in Dir::read_from(open(&fs_err::File::open(var)?, PODS, OFlags::DIRECTORY)?)? {
            let directory = entry?.file_name().to_string_lossy().into_owned();
            let mut parts = directory.split('_').skip(1);
            if let (Some(name), Some(uid)) = (parts.next(), parts.next()) {
                pods.push(PodDirectory { name: name.to_owned(), uid: uid.to_owned(), directory });
            }
        }
        Ok(pods)
    };
    list().unwrap_or_default()
}

/// The marks that logs below a node's `/var` hold, each at its first time.
pub(crate) fn marks(var: &Path) -> BTreeMap<&'static str, SystemTime> {
    noted(var, |_| true)
}

/// Whether logs below a node's `/var` hold the mark that a component's log tells.
pub(crate) fn tell(var: &Path, mark: &str) -> bool {
    noted(var, |component| component.tells.is_some_and(|(_, told)| told == mark)).contains_key(mark)
}

fn noted(var: &Path, wanted: impl Fn(&Component) -> bool) -> BTreeMap<&'static str, SystemTime> {
    let mut found = BTreeMap::new();
    let mut keep = |name, time: SystemTime| {
        found.entry(name).and_modify(|known: &mut SystemTime| *known = time.min(*known)).or_insert(time);
    };
    let Ok(root) = fs_err::File::open(var) else { return found };
    for pod in pods(var) {
        let Some(component) = COMPONENTS.iter().filter(|component| wanted(component)).find(|component| {
            pod.name.strip_prefix(component.name).is_some_and(|rest| rest.starts_with('-'))
        }) else {
            continue;
        };
        for attempt in 0..ATTEMPTS {
            let path = format!("{PODS}/{}/{}/{attempt}.log", pod.directory, component.name);
            let Ok(text) = read(&root, &path) else { break };
            let Told { started, told } = look(&text, component.tells.map(|(words, _)| words));
            if let Some(time) = started {
                keep(component.started, time);
            }
            if let (Some(time), Some((_, mark))) = (told, component.tells) {
                keep(mark, time);
                break;
            }
        }
    }
    found
}

#[derive(Debug, Default)]
struct Told {
    started: Option<SystemTime>,
    told: Option<SystemTime>,
}

/// The times of a log's first line, and of the first one with some words in it.
fn look(text: &str, words: Option<&str>) -> Told {
    let time = |line: &str| {
        let stamp: Timestamp = line.split(' ').next()?.parse().ok()?;
        Some(SystemTime::from(stamp))
    };
    Told {
        started: text.lines().next().and_then(time),
        told: words.and_then(|words| text.lines().find(|line| line.contains(words))).and_then(time),
    }
}

fn read(root: &impl AsFd, path: &str) -> io::Result<String> {
    let file = std::fs::File::from(open(root, path, OFlags::NONBLOCK)?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The node's processes run as root and may have put a link anywhere: none is followed.
fn open(root: &impl AsFd, path: &str, flags: OFlags) -> io::Result<std::os::fd::OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, path, flags | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn log(var: &Path, path: &str, text: &str) {
        let path = var.join(PODS).join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    fn time(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    #[test]
    fn logs_tell_when_components_began_and_were_ready() {
        let var = tempfile::tempdir().unwrap();
        log(
            var.path(),
            "kube-system_etcd-kind-control-plane_57fa/etcd/0.log",
            "2026-11-24T17:12:53.792289185Z stderr F {\"msg\":\"Running\"}\n\
             2026-11-24T17:12:53.903643277Z stderr F {\"msg\":\"ready to serve client requests\"}\n\
             2026-11-24T17:12:53.904420992Z stderr F {\"msg\":\"ready to serve client requests\"}\n",
        );
        // The scheduler's first process ended early; CoreDNS runs twice.
        log(
            var.path(),
            "kube-system_kube-scheduler-n_1/kube-scheduler/0.log",
            "2026-11-24T17:12:54Z stderr F a\n",
        );
        log(var.path(), "kube-system_coredns-66bc-b_2/coredns/0.log", "2026-11-24T17:13:02Z stdout F a\n");
        log(
            var.path(),
            "kube-system_coredns-66bc-a_3/coredns/0.log",
            "2026-11-24T17:13:01Z stdout F a\n2026-11-24T17:13:03Z stdout F .:53\n",
        );
        log(var.path(), "default_etcd-like_4/app/0.log", "no time at all\n");
        let expected = BTreeMap::from([
            ("CoreDNS serving", time("2026-11-24T17:13:03Z")),
            ("CoreDNS started", time("2026-11-24T17:13:01Z")),
            ("etcd ready", time("2026-11-24T17:12:53.903643277Z")),
            ("etcd started", time("2026-11-24T17:12:53.792289185Z")),
            ("kube-scheduler started", time("2026-11-24T17:12:54Z")),
        ]);
        assert_eq!(marks(var.path()), expected);
        let told = ["etcd ready", "CoreDNS serving", PROXY_SYNCED].map(|mark| tell(var.path(), mark));
        assert_eq!(told, [true, true, false]);
    }

    #[test]
    fn what_a_second_process_says_counts_when_the_first_said_nothing() {
        let var = tempfile::tempdir().unwrap();
        let pod = "kube-system_kube-apiserver-n_1/kube-apiserver";
        log(var.path(), &format!("{pod}/0.log"), "2026-11-24T17:12:50Z stderr F etcd is not there\n");
        log(
            var.path(),
            &format!("{pod}/1.log"),
            "2026-11-24T17:12:55Z stderr F Serving securely on [::]:6443\n",
        );
        let marks = marks(var.path());
        assert_eq!(marks["kube-apiserver started"], time("2026-11-24T17:12:50Z"));
        assert_eq!(marks["kube-apiserver listening"], time("2026-11-24T17:12:55Z"));
    }

    #[test]
    fn links_are_not_followed_and_nothing_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let var = directory.path().join("var");
        assert!(marks(&var).is_empty() && pods(&var).is_empty());
        log(directory.path(), "kube-system_etcd-n_1/etcd/0.log", "2026-11-24T17:12:50Z stderr F a\n");
        fs_err::create_dir(&var).unwrap();
        symlink(directory.path().join("log"), var.join("log")).unwrap();
        assert!(marks(&var).is_empty(), "a link out of the node");
    }
}
