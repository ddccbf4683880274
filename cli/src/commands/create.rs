//! `create cluster`

use std::{path::Path, time::Duration};

use kiln_provision::{
    Error,
    cluster::{self, Cancel, CreateOptions, Created},
    trace::{Recording, Trace, to_chrome},
};

use super::{Session, block_on, config, preview, trace};
use crate::{
    arguments::{CreateCluster, PodNetwork},
    failure::{Failure, INTERRUPTED, require_root},
    progress::Progress,
    signal, usage,
};

/// What the failure of a creation begins with, as kind has it.
const FAILED: &str = "failed to create cluster";

/// How long a trace waits for what comes after the creation: CoreDNS and kube-proxy, by their own probes.
const LATE: Duration = Duration::from_secs(60);

const FAREWELLS: [&str; 4] = [
    "Fired and ready. Have fun! 🏺",
    "Out of the kiln, handle with joy 🔥",
    "Still warm: try it at once ☕",
    "Break it if you can, another one is seconds away 🧱",
];

/// Creates a cluster, and says how to use it.
pub(super) fn cluster(session: &Session, arguments: &CreateCluster) -> Result<(), Failure> {
    let measured = arguments.timings == Some(true) || arguments.trace().is_some();
    let recorder = if measured { Trace::watching() } else { Trace::default() };
    let format = preview::format(&arguments.preview)?;
    let given = arguments.name.given();
    let config = config::load(arguments.config(), given).map_err(|failure| failure.within(FAILED))?;
    require_root("creating a cluster")?;
    let shell = &session.shell;
    let configured = config.name.clone();
    let options = CreateOptions {
        config,
        name: given.map(str::to_owned),
        image: arguments.image().map(str::to_owned),
        wait: arguments.wait,
        kubeconfig: arguments.kubeconfig.path().map(Path::to_path_buf),
        retain: arguments.retain,
        pod_network: match arguments.pod_network {
            PodNetwork::Kiln => cluster::PodNetwork::Launcher,
            PodNetwork::Image => cluster::PodNetwork::Image,
        },
        bootstrap: arguments.bootstrap.into(),
        trace: recorder.clone(),
    };
    if let Some(format) = format {
        return preview::create(session, &options, format).map_err(|failure| failure.within(FAILED));
    }
    block_on(async {
        let cancel = Cancel::new();
        signal::watch(shell, &cancel)?;
        let progress = Progress::new(shell);
        let created = cluster::create(&session.paths, options, &progress, &cancel).await;
        let timings = progress.timings();
        drop(progress);
        let created = created.map_err(|error| {
            // What there is of it may tell why.
            let name = given.unwrap_or(&configured);
            write_trace(session, arguments, &recorder.recording(name));
            let failure = session.in_words_of_kind(Failure::because(FAILED, &error), || match &error {
                Error::ClusterExists { name } => {
                    Some(format!("{FAILED}: node(s) already exist for a cluster with the name \"{name}\""))
                }
                _ => None,
            });
            if cancel.is_triggered() { failure.into_interrupted() } else { failure }
        })?;
        if arguments.timings.unwrap_or_else(|| shell.is_live()) {
            shell.status(timings.table().trim_end());
        }
        // Stopped early on request (KILN_STOP_AFTER), there is no Kubernetes to point at.
        if !created.context.is_empty() {
            let kind = usage::is_kind(&session.args);
            for line in success(&created.context, arguments.kubeconfig.path(), kind, std::process::id()) {
                shell.status(&line);
            }
        }
        if measured { tell_trace(session, arguments, &created, &recorder, &cancel).await } else { Ok(()) }
    })
}

/// Waits for what comes after the creation, and tells everything.
async fn tell_trace(
    session: &Session,
    arguments: &CreateCluster,
    created: &Created,
    recorder: &Trace,
    cancel: &Cancel,
) -> Result<(), Failure> {
    let shell = &session.shell;
    shell.detail(1, &format!("Waiting for CoreDNS and kube-proxy, {} s at most ...", LATE.as_secs()));
    let settled = tokio::select! {
        settled = recorder.settled(LATE) => settled,
        // The cluster is there: only what was still waited for is missing.
        () = cancel.triggered() => false,
    };
    if !settled && !cancel.is_triggered() {
        shell.warn(&format!(
            "not all marks were seen within {} s of the creation; the trace ends here",
            LATE.as_secs()
        ));
    }
    let recording = cluster::update_trace(&session.paths, &created.name, recorder)
        .map_err(|error| shell.warn(&Failure::from_error(&error).message().unwrap_or_default()))
        .unwrap_or_else(|()| recorder.recording(&created.name));
    write_trace(session, arguments, &recording);
    if arguments.timings == Some(true) {
        shell.status(&format!("\n{}", trace::timings(&recording).trim_end()));
    }
    if cancel.is_triggered() { Err(Failure::silent(INTERRUPTED)) } else { Ok(()) }
}

/// Writes the file that was asked for. That it cannot be written does not undo the cluster.
fn write_trace(session: &Session, arguments: &CreateCluster, recording: &Recording) {
    let Some(path) = arguments.trace() else { return };
    if let Err(error) = fs_err::write(path, to_chrome(recording)) {
        session.shell.warn(&format!("the trace is not written: {error}"));
    }
}

/// What to do with a new cluster; `choice` picks the last words.
fn success(context: &str, kubeconfig: Option<&Path>, kind: bool, choice: u32) -> Vec<String> {
    let file = kubeconfig.map(|path| format!(" --kubeconfig {}", quote(&path.to_string_lossy())));
    let farewell = FAREWELLS[usize::try_from(choice).unwrap_or(0) % FAREWELLS.len()];
    vec![
        format!("Set kubectl context to \"{context}\""),
        String::from(match kind {
            true => "You can now use your cluster with:",
            false => "The cluster is there. Have a look at it:",
        }),
        String::new(),
        format!("kubectl cluster-info --context {context}{}", file.unwrap_or_default()),
        String::new(),
        farewell.to_owned(),
    ]
}

/// The text as one word of a shell.
pub(super) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r#"'"'"'"#))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_tells_the_context_and_the_file() {
        let lines = success("kind-dev", None, false, 5);
        assert_eq!(lines[0], "Set kubectl context to \"kind-dev\"");
        assert_eq!(lines[3], "kubectl cluster-info --context kind-dev");
        assert_eq!(lines[5], FAREWELLS[1]);
        let lines = success("kind-dev", Some(Path::new("/tmp/a b")), true, 0);
        assert_eq!(lines[3], "kubectl cluster-info --context kind-dev --kubeconfig '/tmp/a b'");
    }

    #[test]
    fn words_are_quoted_where_needed() {
        assert_eq!(quote("/home/me/.kube/config"), "/home/me/.kube/config");
        assert_eq!(quote("it's"), r#"'it'"'"'s'"#);
        assert_eq!(quote(""), "''");
    }
}
