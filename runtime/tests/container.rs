//! Containers of the host's own `/usr`, launched for real. Needs root; says so and passes where it is not.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a test program")]

use std::{
    collections::BTreeMap,
    os::{fd::AsFd, unix::fs::symlink},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{ExitCode, Stdio},
    time::Duration,
};

use kiln_runtime::{
    Cgroup, ContainerSpec, Error, ExecSpec, ExitRecord, Mount, Process, Propagation, RootFilesystem,
    exec_command, launch, remove, run_helper,
};

/// A container, removed at the end of its test.
struct Fixture {
    directory: tempfile::TempDir,
    spec: ContainerSpec,
    process: Option<Process>,
}

impl Fixture {
    fn new(name: &str, script: &str) -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let lower = directory.path().join("lower");
        fs_err::create_dir_all(lower.join("usr")).unwrap();
        fs_err::create_dir_all(lower.join("etc")).unwrap();
        for link in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{link}"), lower.join(link)).unwrap();
        }
        fs_err::write(lower.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nguest:x:1234:4321::/:/bin/sh\n")
            .unwrap();
        let leaf = format!("{name}-{}", std::process::id());
        let path = |name: &str| directory.path().join(name);
        let spec = ContainerSpec {
            id: name.to_owned(),
            directory: path("run"),
            console: path("console.log"),
            exit: path("exit.json"),
            root: RootFilesystem { lowers: vec![lower], upper: path("upper"), work: path("work") },
            hostname: name.to_owned(),
            args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["container=test".to_owned()],
            mounts: vec![Mount {
                source: "/usr".into(),
                destination: "/usr".into(),
                read_only: true,
                propagation: Propagation::None,
            }],
            cgroup: Cgroup { parent: "kiln-test".to_owned(), leaf },
            sysctls: BTreeMap::from([("net.ipv4.ip_forward".to_owned(), "1".to_owned())]),
        };
        Self { directory, spec, process: None }
    }

    fn launch(mut self) -> Self {
        let netns = new_netns();
        self.process = Some(launch(&self.spec, netns.as_fd()).unwrap());
        self
    }

    fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    fn exec(&self, spec: &ExecSpec) -> std::process::Output {
        exec_command(self.process(), spec).unwrap().stdin(Stdio::null()).output().unwrap()
    }

    fn shell(&self, script: &str) -> String {
        let output = self.exec(&sh(script));
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Waits for the monitor's last act.
    fn exit_record(&self) -> ExitRecord {
        assert!(self.process().wait(Duration::from_secs(10)).unwrap());
        for _ in 0..500 {
            if let Some(record) = ExitRecord::load(&self.spec.exit).unwrap() {
                return record;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no exit record");
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let errors = remove(self.process.as_ref(), &self.spec.cgroup, &self.spec.directory);
        assert!(errors.is_empty() || std::thread::panicking(), "{errors:?}");
    }
}

fn sh(script: &str) -> ExecSpec {
    ExecSpec { args: ["sh", "-c", script].map(str::to_owned).to_vec(), ..ExecSpec::default() }
}

#[expect(clippy::disallowed_methods, reason = "on a throw-away thread")]
fn new_netns() -> std::fs::File {
    std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        std::fs::File::open("/proc/thread-self/ns/net").unwrap()
    })
    .join()
    .unwrap()
}

/// Paths of cgroups of the tests on the host.
fn cgroups_of(leaf: &str) -> Vec<String> {
    let table = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = table.lines().filter(|line| line.contains(" - cgroup"));
    let points = mounts.filter_map(|line| line.split(' ').nth(4));
    let directories = points.map(|point| format!("{point}/kiln-test/{leaf}"));
    directories.filter(|directory| Path::new(directory).exists()).collect()
}

fn init_is_pid_one_of_its_own_world() {
    let container = Fixture::new("world", "echo booted; exec sleep 100").launch();
    assert_eq!(container.shell("hostname"), "world");
    assert_eq!(container.shell("cat /proc/1/comm"), "sleep");
    assert_eq!(container.shell("cat /proc/sys/net/ipv4/ip_forward"), "1");
    assert_eq!(container.shell("tr '\\0' '\\n' < /proc/1/environ | grep ^container"), "container=test");
    assert!(container.shell("ls /dev").contains("kmsg"));
    // Peers of nobody on the host, shared below: what kubelet needs for Bidirectional volumes.
    assert!(container.shell("grep ' / / ' /proc/self/mountinfo").contains("shared:"));
    let host = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!host.contains(&container.directory.path().display().to_string()), "a mount reached the host");
    // It is in a cgroup of its own everywhere, and sees that as the root.
    let outside = fs_err::read_to_string(format!("/proc/{}/cgroup", container.process().pid)).unwrap();
    for line in outside.lines() {
        assert!(line.ends_with(&container.spec.cgroup.path().display().to_string()), "{line}");
    }
    for line in container.shell("cat /proc/1/cgroup").lines() {
        assert!(line.ends_with(":/"), "{line}");
    }
    assert!(container.spec.cgroup.usage().unwrap().cpu_microseconds > 0);
    assert!(container.spec.cgroup.usage().unwrap().pids > 0);
}

fn exec_gives_back_code_output_input_and_user() {
    let container = Fixture::new("exec", "exec sleep 100").launch();
    assert_eq!(container.exec(&sh("exit 7")).status.code(), Some(7));
    assert_eq!(container.exec(&sh("kill -9 $$")).status.code(), Some(137));
    let missing = ExecSpec { args: vec!["nosuchcommand".to_owned()], ..ExecSpec::default() };
    let output = container.exec(&missing);
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nosuchcommand is not in the container's PATH"));
    let guest = ExecSpec {
        args: ["sh", "-c", "echo $(id -u):$(id -g) $PWD $X"].map(str::to_owned).to_vec(),
        env: vec!["X=y".to_owned()],
        cwd: Some("/tmp".into()),
        user: Some("guest".to_owned()),
        ..ExecSpec::default()
    };
    assert_eq!(String::from_utf8_lossy(&container.exec(&guest).stdout), "1234:4321 /tmp y\n");
    let nobody = ExecSpec { user: Some("nosuch".to_owned()), ..guest };
    assert_eq!(container.exec(&nobody).status.code(), Some(126));

    // Whatever the caller has blocked, the command can be interrupted, and ends when nobody reads what it writes.
    let blocked = nix::sys::signal::SigSet::from(nix::sys::signal::Signal::SIGTERM);
    blocked.thread_block().unwrap();
    let status = ["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"].map(str::to_owned).to_vec();
    let output = container.exec(&ExecSpec { args: status, ..ExecSpec::default() });
    blocked.thread_unblock().unwrap();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mask = u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
        // The C library keeps two signals for itself, and ignores them in what it spawns.
        assert_eq!(mask & !(3 << 31), 0, "{line}");
    }

    let mut child = exec_command(container.process(), &sh("cat"))
        .unwrap()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"through\n").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"through\n");
}

fn a_tty_is_a_terminal_inside() {
    let container = Fixture::new("tty", "exec sleep 100").launch();
    let spec = ExecSpec { tty: true, ..sh("test -t 0 && test -t 1 && tty && exit 5") };
    let output = container.exec(&spec);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("/dev/pts/"));
}

fn a_killed_exec_leaves_nothing_running() {
    let container = Fixture::new("orphan", "exec sleep 100").launch();
    let mut child = exec_command(container.process(), &sh("exec sleep 98765")).unwrap().spawn().unwrap();
    let running =
        || container.shell("grep -l 98765 /proc/[0-9]*/cmdline 2>/dev/null | grep -cv self || true");
    for _ in 0..500 {
        if running() != "0" {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for _ in 0..500 {
        // The shell that looks has the number in its own command line; one match is itself.
        if container.shell("cat /proc/[0-9]*/comm | grep -c sleep") == "1" {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the command outlived its exec");
}

fn the_console_and_the_end_are_recorded() {
    let container = Fixture::new("end", "echo on the console; exit 3").launch();
    let record = container.exit_record();
    assert_eq!((record.code, record.signal), (Some(3), None));
    assert!(fs_err::read_to_string(&container.spec.console).unwrap().contains("on the console"));
    assert!(matches!(exec_command(container.process(), &sh("true")), Err(Error::NotRunning { .. })));

    let container = Fixture::new("kill", "exec sleep 100").launch();
    container.process().signal(9).unwrap();
    assert_eq!(container.exit_record().signal, Some(9));
}

fn the_monitor_is_small_and_outside() {
    let container = Fixture::new("monitor", "exec sleep 100").launch();
    let status = || fs_err::read_to_string(format!("/proc/{}/status", container.process().monitor)).unwrap();
    // It answers first and becomes the watcher right after.
    for _ in 0..500 {
        let line = fs_err::read_to_string(format!("/proc/{}/cmdline", container.process().monitor)).unwrap();
        if line.contains("__watch") {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(50));
    assert!(status().contains("Threads:\t1\n"));
    let cgroup = fs_err::read_to_string(format!("/proc/{}/cgroup", container.process().monitor)).unwrap();
    assert!(!cgroup.contains(&container.spec.cgroup.leaf), "{cgroup}");
}

fn removal_is_total_and_can_be_repeated() {
    let container = Fixture::new(
        "gone",
        "mkdir -p /sys/fs/cgroup/memory/a/b /sys/fs/cgroup/a 2>/dev/null; sleep 99 & exec sleep 100",
    )
    .launch();
    let leaf = container.spec.cgroup.leaf.clone();
    assert!(!cgroups_of(&leaf).is_empty());
    let process = container.process().clone();
    // As if its creator had been killed before it could write the process down.
    let errors = remove(None, &container.spec.cgroup, &container.spec.directory);
    assert!(errors.is_empty(), "{errors:?}");
    assert!(!process.is_alive());
    assert_eq!(cgroups_of(&leaf), Vec::<String>::new());
    assert!(!container.spec.directory.exists());
    assert!(!Path::new(&format!("/proc/{}", process.monitor)).exists() || is_zombie(process.monitor));
    let errors = remove(Some(&process), &container.spec.cgroup, &container.spec.directory);
    assert!(errors.is_empty(), "{errors:?}");
}

fn frozen_processes_are_removed_too() {
    let script = "sleep 99 & mkdir -p /sys/fs/cgroup/freezer/cold 2>/dev/null && echo $! > /sys/fs/cgroup/freezer/cold/cgroup.procs \
        && echo FROZEN > /sys/fs/cgroup/freezer/cold/freezer.state; exec sleep 100";
    let container = Fixture::new("frozen", script).launch();
    let leaf = container.spec.cgroup.leaf.clone();
    // The shell becomes `sleep` when all is set up.
    while container.shell("cat /proc/1/comm") != "sleep" {
        std::thread::sleep(Duration::from_millis(10));
    }
    let errors = remove(container.process.as_ref(), &container.spec.cgroup, &container.spec.directory);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(cgroups_of(&leaf), Vec::<String>::new());
}

fn a_frozen_container_uses_nothing_and_goes_on() {
    let container = Fixture::new("freezer", "i=0; while :; do i=$((i+1)); echo $i > /count; done").launch();
    let cgroup = &container.spec.cgroup;
    let count = || fs_err::read_to_string(container.spec.root.upper.join("count")).unwrap_or_default();
    assert!(!cgroup.is_frozen().unwrap());
    cgroup.freeze().unwrap();
    assert!(cgroup.is_frozen().unwrap());
    let (before, used) = (count(), cgroup.usage().unwrap().cpu_microseconds);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!((count(), cgroup.usage().unwrap().cpu_microseconds), (before.clone(), used));
    assert!(container.process().is_alive());
    cgroup.thaw().unwrap();
    assert!(!cgroup.is_frozen().unwrap());
    for _ in 0..500 {
        if !count().is_empty() && count() != before {
            // Removing it does not depend on that.
            return cgroup.freeze().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it does not go on");
}

/// The test program is the monitor's parent and does not reap it.
fn is_zombie(pid: i32) -> bool {
    fs_err::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// What is mounted later, on either side, is seen by the other where the mount says so.
#[expect(clippy::disallowed_methods, reason = "on a throw-away thread")]
fn mounts_propagate_as_they_were_asked_to() {
    use nix::mount::{MsFlags, mount};
    let scenario = || {
        // A stand-in for the host: what is mounted here stays in this namespace, and goes with it.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let change =
            |path: &Path, flags| mount(None::<&str>, path, None::<&str>, flags, None::<&str>).unwrap();
        let tmpfs = |path: &Path| {
            fs_err::create_dir_all(path).unwrap();
            mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
        };
        change(Path::new("/"), MsFlags::MS_PRIVATE | MsFlags::MS_REC);
        let mut container = Fixture::new("propagation", "exec sleep 100");
        let host = container.directory.path().join("host");
        tmpfs(&host);
        change(&host, MsFlags::MS_SHARED);
        for directory in ["none", "down", "both"] {
            fs_err::create_dir(host.join(directory)).unwrap();
        }
        fs_err::write(host.join("file"), "of the host").unwrap();
        let kinds = [Propagation::None, Propagation::HostToContainer, Propagation::Bidirectional];
        for (directory, propagation) in ["none", "down", "both"].into_iter().zip(kinds) {
            container.spec.mounts.push(Mount {
                source: host.join(directory),
                destination: Path::new("/mnt").join(directory),
                read_only: false,
                propagation,
            });
        }
        container.spec.mounts.push(Mount {
            source: host.join("file"),
            destination: "/mnt/file".into(),
            read_only: true,
            propagation: Propagation::Bidirectional,
        });
        let container = container.launch();
        assert_eq!(
            container.shell("cat /mnt/file; echo x 2>/dev/null > /mnt/file || echo refused"),
            "of the hostrefused"
        );

        for directory in ["none", "down", "both"] {
            let later = host.join(directory).join("later");
            tmpfs(&later);
            fs_err::write(later.join("from-host"), "").unwrap();
        }
        assert_eq!(
            container.shell("cd /mnt; echo */later/from-host"),
            "both/later/from-host down/later/from-host"
        );

        container.shell("for d in none down both; do mkdir /mnt/$d/inner; mount -t tmpfs t /mnt/$d/inner; : > /mnt/$d/inner/f; done");
        let seen: Vec<_> =
            ["none", "down", "both"].into_iter().filter(|d| host.join(d).join("inner/f").exists()).collect();
        assert_eq!(seen, ["both"]);
    };
    std::thread::spawn(scenario).join().unwrap();
}

fn a_missing_init_is_told_with_its_name() {
    let mut container = Fixture::new("broken", "true");
    container.spec.args = vec!["/sbin/no-such-init".to_owned()];
    let error = launch(&container.spec, new_netns().as_fd()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("failed to launch broken") && text.contains("no-such-init"), "{text}");
}

fn main() -> ExitCode {
    if let Some(code) = run_helper() {
        return code;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: containers need root");
        return ExitCode::SUCCESS;
    }
    let tests: [(&str, fn()); 11] = [
        ("init_is_pid_one_of_its_own_world", init_is_pid_one_of_its_own_world),
        ("exec_gives_back_code_output_input_and_user", exec_gives_back_code_output_input_and_user),
        ("a_tty_is_a_terminal_inside", a_tty_is_a_terminal_inside),
        ("a_killed_exec_leaves_nothing_running", a_killed_exec_leaves_nothing_running),
        ("the_console_and_the_end_are_recorded", the_console_and_the_end_are_recorded),
        ("the_monitor_is_small_and_outside", the_monitor_is_small_and_outside),
        ("removal_is_total_and_can_be_repeated", removal_is_total_and_can_be_repeated),
        ("frozen_processes_are_removed_too", frozen_processes_are_removed_too),
        ("a_frozen_container_uses_nothing_and_goes_on", a_frozen_container_uses_nothing_and_goes_on),
        ("mounts_propagate_as_they_were_asked_to", mounts_propagate_as_they_were_asked_to),
        ("a_missing_init_is_told_with_its_name", a_missing_init_is_told_with_its_name),
    ];
    // Names on the command line select, as with the usual harness; its own flags are accepted and ignored.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in tests {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let outcome = if catch_unwind(AssertUnwindSafe(test)).is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {outcome}");
        if outcome == "ok" { passed += 1 } else { failed += 1 }
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
