//! kubeadm in a node.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use kiln_runtime::{ExecSpec, Process, exec_command};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::Notify,
};

use super::{inside, node::ADMIN_CONF};
use crate::{Error, KubeadmFailure, Paths, Reporter, Result, build::CHANGED_SOURCES, text::shorten, trace};

/// Where kind puts kubeadm's configuration, and users look for it.
pub(super) const KUBEADM_CONF: &str = "/kind/kubeadm.conf";

/// Lines of a log that are shown when a node fails: enough to see the cause, little enough to be read.
const TAIL: usize = 25;

/// What kubeadm prints after it has made everything that joining nodes need, and before it installs add-ons.
const ANNOUNCED: &str = "[kubelet-finalize]";

/// What kubeadm prints when every key and manifest is written, and it waits for the API.
const WRITTEN: &str = "[wait-control-plane]";

/// What becomes known while `kubeadm init` runs.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The administrator's credentials are there.
    pub(super) written: Notify,
    /// Other nodes may join.
    pub(super) joinable: Notify,
}

/// Runs `kubeadm init` in a node, without some of its phases. Everything it prints goes to `log`. `told` is told what this
/// kubeadm says, and all of it at the end.
///
/// # Errors
/// [`KubeadmFailure`] with the end of what it and kubelet said.
pub(super) async fn init(
    node: &str,
    process: &Process,
    log: &Path,
    skipped: Option<&str>,
    reporter: &dyn Reporter,
    told: &Told,
) -> Result<()> {
    let mut args = vec!["kubeadm", "init", "--config", KUBEADM_CONF, "--skip-token-print", "--v=6"];
    // In the place of those that the configuration names.
    args.extend(skipped.map(|phases| ["--skip-phases", phases]).into_iter().flatten());
    let line = |line: &str| {
        if line.starts_with(WRITTEN) {
            told.written.notify_one();
        }
        if line.starts_with(ANNOUNCED) {
            told.joinable.notify_one();
        }
    };
    run(node, process, &args, log, reporter, &line).await?;
    told.written.notify_one();
    told.joinable.notify_one();
    Ok(())
}

/// Runs `kubeadm join` in a node. Everything it prints goes to `log`.
///
/// # Errors
/// [`KubeadmFailure`] with the end of what it and kubelet said.
pub(super) async fn join(node: &str, process: &Process, log: &Path, reporter: &dyn Reporter) -> Result<()> {
    run(node, process, &["kubeadm", "join", "--config", KUBEADM_CONF, "--v=6"], log, reporter, &|_| {}).await
}

async fn run(
    node: &str,
    process: &Process,
    args: &[&str],
    log: &Path,
    reporter: &dyn Reporter,
    told: &(dyn Fn(&str) + Sync),
) -> Result<()> {
    let _span = trace::exec(node, &args[..2].join(" "));
    let output = fs_err::File::create(log).map_err(Error::file("make kubeadm's log"))?;
    let spec = ExecSpec {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["HOME=/root".to_owned(), format!("KUBECONFIG={ADMIN_CONF}")],
        ..ExecSpec::default()
    };
    let (reader, writer) = std::io::pipe().map_err(Error::file("make a pipe"))?;
    let errors = writer.try_clone().map_err(Error::file("make a pipe"))?;
    let mut command = tokio::process::Command::from(exec_command(process, &spec)?);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(errors)
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::file("start the exec helper"))?;
    // The command holds the pipe's other end too, and would keep it open.
    drop(command);

    let receiver = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into())
        .map_err(Error::file("read kubeadm's output"))?;
    let mut lines = BufReader::new(receiver).lines();
    let mut phases = trace::Phases::new(node);
    let mut output = output;
    while let Some(line) = lines.next_line().await.map_err(Error::file("read kubeadm's output"))? {
        std::io::Write::write_all(&mut output, format!("{line}\n").as_bytes())
            .map_err(Error::file("write kubeadm's log"))?;
        told(&line);
        phases.line(&line);
        if let Some(step) = step(&line) {
            reporter.step(&format!("{node}: {step}"));
        }
        reporter.message(3, &line);
    }
    drop(phases);
    let status = child.wait().await.map_err(Error::file("wait for kubeadm"))?;
    if status.success() {
        return Ok(());
    }
    let failure = KubeadmFailure {
        node: node.to_owned(),
        command: args[..2].join(" "),
        status: status.code().map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}")),
        log: log.to_owned(),
        output: tail(log),
        kubelet: kubelet_log(process).await,
    };
    Err(Box::new(failure).into())
}

/// The end of a text file.
fn tail(path: &Path) -> String {
    let text = fs_err::read_to_string(path).unwrap_or_default();
    last_lines(&text, TAIL)
}

pub(super) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Starts a node's kubelet anew. That it cannot be is no failure: it goes on by itself, only later.
pub(super) async fn restart_kubelet(process: &Process) {
    let _span = trace::exec("", "systemctl restart kubelet");
    systemctl(process, "restart").await;
}

/// What in kubelet must be as Kiln compiles it ([`CHANGED_SOURCES`]) for it to ask an API that does not answer yet often enough, in
/// its first half minute: its pauses are a tenth to a fifth of the time that it has waited.
#[derive(Clone, Copy)]
pub(super) enum Asks {
    /// What keeps copies of the API's objects, and what registers its Node.
    AsNode,
    /// The same, and before it what asks for its certificate: it joins.
    ForCertificate,
}

impl Asks {
    const SOURCES: [&str; 3] = [
        "k8s.io/client-go tools/cache/reflector.go",
        "k8s.io/kubernetes pkg/kubelet/kubelet_node_status.go",
        "k8s.io/client-go util/certificate/certificate_manager.go",
    ];

    /// Starts a node's kubelet anew, now that its API answers, unless it asks often and so will soon. `waited` is for how long the API
    /// was waited for.
    pub(super) async fn or_anew(self, process: &Process, node: &str, waited: Duration) {
        if waited > self.at_most() || !has_changed(process, node, self.sources()) {
            trace::step(node, "start kubelet anew").over(restart_kubelet(process)).await;
        }
    }

    /// For how long the API may have been waited for: kubelet began before that was, and one that joins some way into it.
    fn at_most(self) -> Duration {
        Duration::from_secs(match self {
            Self::AsNode => 10,
            Self::ForCertificate => 20,
        })
    }

    fn sources(self) -> &'static [&'static str] {
        match self {
            Self::AsNode => &Self::SOURCES[..2],
            Self::ForCertificate => &Self::SOURCES[..],
        }
    }
}

/// Whether a node's programs are compiled with Kiln's changes of all these sources, each a module and a file ([`CHANGED_SOURCES`]).
pub(super) fn has_changed(process: &Process, node: &str, sources: &[&str]) -> bool {
    names_all(&inside::read(process, node, CHANGED_SOURCES).unwrap_or_default(), sources)
}

/// Whether a list of changed sources has all of these.
pub(super) fn names_all(changed: &str, sources: &[&str]) -> bool {
    sources.iter().all(|source| changed.lines().any(|line| line == *source))
}

/// Starts a node's kubelet, whose configuration is there now. Returns when systemd has done so. That it cannot be is no
/// failure: whoever waits for what kubelet does tells why.
pub(super) async fn start_kubelet(process: &Process) {
    systemctl(process, "start").await;
}

async fn systemctl(process: &Process, verb: &str) {
    if let Ok(mut command) = inside::command(process, &["systemctl", verb, "kubelet"]) {
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    }
}

/// What kubeadm says of a phase that it does not run.
const LEFT_OUT: &str = "Skipping phase";

/// What kubeadm says it is doing, without the name of its phase before it: `[certs] Generating "ca" certificate and key`.
fn step(line: &str) -> Option<&str> {
    let (_, step) = line.strip_prefix('[')?.split_once("] ")?;
    Some(step.trim()).filter(|step| !step.is_empty() && !step.starts_with(LEFT_OUT))
}

/// What kubelet said last, when the node can still be asked.
pub(super) async fn kubelet_log(process: &Process) -> String {
    let args = ["journalctl", "--no-pager", "--quiet", "--output=cat", "--lines=300", "--unit=kubelet"];
    let Ok(mut command) = inside::command(process, &args) else { return String::new() };
    let output = command.kill_on_drop(true).output().await;
    output.map(|output| last_words(&String::from_utf8_lossy(&output.stdout))).unwrap_or_default()
}

/// How many lines of kubelet an error tells, and how many characters of each.
const LAST_LINES: usize = 12;
const LINE_LENGTH: usize = 240;

/// The last lines of a journal, of each place in the source its last one only: kubelet repeats what it waits for every
/// tenth of a second, with whole objects in it.
fn last_words(journal: &str) -> String {
    let mut places = HashSet::new();
    let once = journal.trim().lines().rev().filter(|line| places.insert(place(line)));
    let mut lines: Vec<_> = once.take(LAST_LINES).map(str::to_owned).collect();
    lines.iter_mut().for_each(|line| shorten(line, LINE_LENGTH));
    lines.reverse();
    lines.join("\n")
}

/// The place in the source that a line of klog names, `E1129 05:56:26.220153     455 kubelet.go:2452] message`; the line itself
/// where it names none.
fn place(line: &str) -> &str {
    line.split_once("] ").and_then(|(header, _)| header.rsplit(' ').next()).unwrap_or(line)
}

/// What stands in the place of kubeadm's log where kubeadm has not run.
const NOT_RUN: &str = "This node comes from a template; kubeadm has not run here.\n";

/// Writes that kubeadm has not run to where its log would be.
///
/// # Errors
/// [`Error::File`].
pub(super) fn tell_not_run(log: &Path) -> Result<()> {
    fs_err::write(log, NOT_RUN).map_err(Error::file("make kubeadm's log"))
}

/// Whether a cluster's first control plane came from a template, by what its log says; `None` before there is one.
pub(crate) fn is_from_template(paths: &Paths, cluster: &str, node: &str) -> Option<bool> {
    let log = fs_err::read(log_path(&paths.node(cluster, node))).ok()?;
    Some(log == NOT_RUN.as_bytes())
}

/// Where a node's kubeadm log is kept.
pub(super) fn log_path(node_directory: &Path) -> PathBuf {
    node_directory.join("kubeadm.log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelet_as_kiln_compiles_it_asks_often() {
        let changed = include_str!("../../node-image/kubernetes/changes");
        assert!(names_all(changed, Asks::AsNode.sources()));
        assert!(names_all(changed, Asks::ForCertificate.sources()));
        let earlier = changed.replace("certificate_manager.go", "");
        assert!(names_all(&earlier, Asks::AsNode.sources()));
        assert!(!names_all(&earlier, Asks::ForCertificate.sources()));
        assert!(!names_all("", Asks::AsNode.sources()));
    }

    #[test]
    fn of_what_kubelet_repeats_the_last_line_is_told_and_long_lines_are_cut() {
        let long =
            format!("E1129 05:56:26.9     455 status.go:410] \"No condition\" node=\"{}\"", "ä".repeat(2000));
        let journal = format!(
            "panic: before\nE1129 05:56:26.1     455 status.go:410] first\nI1129 05:56:26.2     455 b.go:1] b\n{long}\n"
        );
        let words = last_words(&journal);
        let lines: Vec<_> = words.lines().collect();
        assert_eq!(lines[..2], ["panic: before", "I1129 05:56:26.2     455 b.go:1] b"]);
        assert_eq!(lines.len(), 3);
        assert!(lines[2].starts_with("E1129 05:56:26.9") && lines[2].ends_with("ä…"), "{}", lines[2]);
        assert_eq!(lines[2].chars().count(), LINE_LENGTH + 1);
        let many: String = (0..40).map(|line| format!("line {line}\n")).collect();
        assert_eq!(last_words(&many).lines().count(), LAST_LINES);
        assert!(last_words(&many).ends_with("line 39"));
    }

    #[test]
    fn the_log_tells_where_a_control_plane_came_from() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path().join("state"), root.path().join("run"));
        let from_template = || is_from_template(&paths, "dev", "dev-control-plane");
        assert_eq!(from_template(), None);
        let log = log_path(&paths.node("dev", "dev-control-plane"));
        fs_err::create_dir_all(log.parent().unwrap()).unwrap();
        for (text, expected) in
            [("", false), ("[init] Using Kubernetes version: v1.34.4\n", false), (NOT_RUN, true)]
        {
            fs_err::write(&log, text).unwrap();
            assert_eq!(from_template(), Some(expected), "{text}");
        }
    }

    #[test]
    fn steps_are_what_follows_the_phase() {
        let line = "[control-plane-check] Checking kube-apiserver at https://172.30.0.2:6443/livez";
        assert_eq!(step(line), Some("Checking kube-apiserver at https://172.30.0.2:6443/livez"));
        assert_eq!(step("I0101 12:00:00.000000 [x] y"), None);
        assert_eq!(step("[certs] "), None);
        assert_eq!(step("[upload-certs] Skipping phase. Please see --upload-certs"), None);
    }

    #[test]
    fn the_end_of_a_log_is_whole_lines() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("a", 2), "a");
        assert_eq!(last_lines("", 2), "");
    }
}
