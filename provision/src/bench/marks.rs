//! One boot, watched.

use std::{
    io,
    process::{Command, Stdio},
    sync::Mutex,
    time::SystemTime,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{
    Api, Client,
    api::{LogParams, PostParams},
};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde_json::json;

use super::{Boot, BootOptions, tool::Site};
use crate::{
    Error, Result,
    trace::watch::{self, API_READY, DNS_READY, NODE_READY, NODES_READY, PERIOD},
};

const POD: &str = "kiln-bench-asks";
const ANSWERED: &str = "answered";
/// `_SC_CLK_TCK` of every Linux that there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Creates the cluster and waits for all marks. What there is of it stays, also after an error.
pub(super) async fn measure(site: &Site<'_>, options: &BootOptions) -> Result<Boot> {
    let free = site.free_bytes();
    let stolen = stolen_seconds();
    let start = SystemTime::now();
    let seen: Mutex<Vec<(String, f64)>> = Mutex::default();
    let program = create(site, start);
    let observed = observe(site, options, start, &seen);
    let limit = options.limit;
    let both = tokio::time::timeout(limit, async { tokio::try_join!(program, observed) });
    let ((created_seconds, own_cpu), pod_seconds) =
        both.await.map_err(|_| Error::BenchLimit { name: site.name.clone(), seconds: limit.as_secs() })??;
    let cpu_seconds = site.cpu_seconds().map(|nodes| nodes + own_cpu);
    let stolen_seconds = stolen.zip(stolen_seconds()).map(|(before, after)| after - before);
    let memory_bytes = site.memory_bytes();
    let disk_bytes = site.disk_bytes(free);
    let seen = seen.into_inner().unwrap_or_default();
    let first = |mark: &str| seen.iter().find(|(name, _)| name == mark).map_or(0.0, |(_, at)| *at);
    Ok(Boot {
        bootstrap: site.origin(),
        created_seconds,
        api_seconds: first(API_READY),
        node_seconds: first(NODE_READY),
        nodes_seconds: first(NODES_READY),
        dns_seconds: first(DNS_READY),
        pod_seconds,
        cpu_seconds,
        stolen_seconds,
        memory_bytes,
        disk_bytes,
        delete_seconds: 0.0,
    })
}

/// Runs the program; when it ended, and how much processor time it took for itself.
async fn create(site: &Site<'_>, start: SystemTime) -> Result<(f64, f64)> {
    let started = Started::spawn(site.create()).map_err(Error::file("start a program to be measured"))?;
    let Ended { success, cpu_seconds, said } =
        started.ended().await.map_err(Error::file("wait for a program that is measured"))?;
    if success { Ok((since(start), cpu_seconds)) } else { Err(site.failed("create", &said)) }
}

/// A program that runs, and is asked to end when nobody waits for it any more.
struct Started {
    pid: Option<Pid>,
    waiter: Option<tokio::task::JoinHandle<io::Result<Ended>>>,
}

struct Ended {
    success: bool,
    cpu_seconds: f64,
    said: Vec<u8>,
}

impl Started {
    fn spawn(mut command: Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        let waiter = tokio::task::spawn_blocking(move || {
            let mut said = Vec::new();
            if let Some(mut stderr) = child.stderr.take() {
                io::Read::read_to_end(&mut stderr, &mut said)?;
            }
            // What has ended is not gone before it is waited for, and tells until then what it used.
            if let Some(pid) = pid {
                waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
            }
            let cpu_seconds = own_cpu_seconds(child.id()).unwrap_or_default();
            let success = child.wait()?.success();
            Ok(Ended { success, cpu_seconds, said })
        });
        Ok(Self { pid, waiter: Some(waiter) })
    }

    async fn ended(mut self) -> io::Result<Ended> {
        let Some(waiter) = self.waiter.as_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        let ended = waiter.await.map_err(io::Error::other)?;
        self.waiter = None;
        ended
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let (Some(pid), Some(waiter)) = (self.pid, &self.waiter)
            && !waiter.is_finished()
        {
            // It cleans up after itself; the deletion that follows waits for its lock.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
}

/// What a hypervisor has given to others while this host wanted it, since it was started.
fn stolen_seconds() -> Option<f64> {
    parse_stolen(&fs_err::read_to_string("/proc/stat").ok()?)
}

/// proc_stat(5): `cpu  USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL …`, of all processors together.
fn parse_stolen(stat: &str) -> Option<f64> {
    let ticks: f64 = stat.strip_prefix("cpu ")?.lines().next()?.split_whitespace().nth(7)?.parse().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

/// Processor time of a process, without that of its children: those of Kiln run in nodes, and are counted there.
fn own_cpu_seconds(pid: u32) -> Option<f64> {
    parse_stat(&fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc_pid_stat(5): `PID (NAME) STATE …`, the 14th and 15th fields being user and system time.
fn parse_stat(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(|field| field.parse::<f64>().ok());
    Some((times.next()?? + times.next()??) / TICKS_PER_SECOND)
}

/// Waits for all marks; when the pod had its answer.
async fn observe(
    site: &Site<'_>,
    options: &BootOptions,
    start: SystemTime,
    seen: &Mutex<Vec<(String, f64)>>,
) -> Result<f64> {
    let note = |_: Option<&str>, name: &str| {
        if let Ok(mut seen) = seen.lock()
            && !seen.iter().any(|(known, _)| known == name)
        {
            seen.push((name.to_owned(), since(start)));
        }
    };
    let credentials = || site.credentials();
    let client = watch::ready(&credentials, &note).await;
    let nodes_then_pod = async {
        watch::nodes(&client, options.nodes, &note).await;
        ask(&client, &options.pod_image).await
    };
    let (answered, ()) = tokio::join!(nodes_then_pod, watch::pods(&client, 0, &note));
    Ok(answered? - epoch(start))
}

fn since(start: SystemTime) -> f64 {
    start.elapsed().unwrap_or_default().as_secs_f64()
}

fn epoch(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Runs a pod that asks for a Service until it gets an answer; when that was, in seconds since 1970.
async fn ask(client: &Client, image: &str) -> Result<f64> {
    let pods = Api::<Pod>::default_namespaced(client.clone());
    let services = Api::<Service>::default_namespaced(client.clone());
    // The API makes it for itself, some time after it is ready.
    let address = loop {
        let found = services.get_opt("kubernetes").await.ok().flatten();
        match found.and_then(|service| service.spec?.cluster_ip) {
            Some(address) => break address,
            None => tokio::time::sleep(PERIOD).await,
        }
    };
    let pod = pod(image, &address)
        .map_err(|source| Error::File { what: "describe a pod", source: io::Error::other(source) })?;
    while let Err(error) = pods.create(&PostParams::default(), &pod).await {
        if matches!(&error, kube::Error::Api(status) if status.code == 409) {
            break;
        }
        // The namespace's default service account is made some time after the API is ready.
        tokio::time::sleep(PERIOD).await;
    }
    watch::follow(&pods, "", |all| {
        all.get(POD).is_some_and(|pod| matches!(watch::phase(pod), Some("Succeeded" | "Failed")))
    })
    .await;
    let parameters = LogParams { timestamps: true, ..LogParams::default() };
    let logs = pods.logs(POD, &parameters).await.map_err(Error::api(format!("read the log of pod {POD}")))?;
    answered_at(&logs).ok_or_else(|| Error::Bench { command: format!("pod {POD}"), output: logs })
}

fn pod(image: &str, address: &str) -> serde_json::Result<Pod> {
    let kind = if address.contains(':') { "aaaa" } else { "a" };
    let script = format!(
        "until nslookup -type={kind} kubernetes.default.svc.cluster.local | grep -qF {address}; do sleep 0.1; done; \
         echo {ANSWERED}"
    );
    serde_json::from_value(json!({
        "metadata": { "name": POD },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": POD,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", script],
            }],
        },
    }))
}

/// The time that the container runtime gave to the answer's line.
fn answered_at(logs: &str) -> Option<f64> {
    let line = logs.lines().find(|line| line.ends_with(ANSWERED))?;
    let time: Timestamp = line.split_whitespace().next()?.parse().ok()?;
    Some(time.as_duration().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_s_time_is_read_from_the_log() {
        let logs = "2026-11-23T12:00:00.1Z ;; timed out\n2026-11-23T12:00:01.250000000Z answered\n";
        let expected: Timestamp = "2026-11-23T12:00:01.25Z".parse().unwrap();
        assert_eq!(answered_at(logs), Some(expected.as_duration().as_secs_f64()));
        assert_eq!(answered_at("2026-11-23T12:00:00.1Z ;; timed out\n"), None);
    }

    #[test]
    fn the_pod_asks_for_the_family_of_the_services() {
        for (address, kind) in [("10.96.0.1", "-type=a "), ("fd00:10:96::1", "-type=aaaa ")] {
            let pod = pod("busybox", address).unwrap();
            let command = pod.spec.unwrap().containers.remove(0).command.unwrap();
            assert!(command[2].contains(kind) && command[2].contains(address), "{command:?}");
        }
    }

    #[test]
    fn processor_time_is_read_past_odd_names() {
        let stat = "7 (a) b (c)) R 1 7 7 0 -1 4194304 100 0 0 0 150 50 999 999 20 0 1 0 100 0 0";
        assert_eq!(parse_stat(stat), Some(2.0));
        assert_eq!(parse_stat("7 (x) R 1"), None);
    }

    #[test]
    fn stolen_time_is_of_all_processors_together() {
        let stat = "cpu  3368337 536042 397736 1542294 24438 0 15897 46450 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(parse_stolen(stat), Some(464.5));
        assert_eq!(parse_stolen("cpu  1 2 3 4 5 6 7"), None, "a kernel that does not count it");
    }

    #[tokio::test]
    async fn a_program_tells_what_it_used_and_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo why >&2; exit 3"]);
        let ended = Started::spawn(command).unwrap().ended().await.unwrap();
        assert!(!ended.success && ended.said == b"why\n" && ended.cpu_seconds < 5.0);
    }

    #[tokio::test]
    async fn a_program_that_nobody_waits_for_is_told_to_end() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut started = Started::spawn(command).unwrap();
        let waiter = started.waiter.take().unwrap();
        let unwaited = Started { pid: started.pid, waiter: Some(tokio::task::spawn_blocking(late)) };
        drop(unwaited);
        assert!(!waiter.await.unwrap().unwrap().success);
    }

    fn late() -> io::Result<Ended> {
        std::thread::sleep(std::time::Duration::from_millis(300));
        Err(io::ErrorKind::TimedOut.into())
    }
}
