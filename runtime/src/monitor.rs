//! The hidden sub-command that builds a container and becomes its parent.

use std::{
    io::{Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
};

use libcontainer::{
    container::builder::ContainerBuilder,
    syscall::syscall::{SyscallType, create_syscall},
};
use rustix::{
    fd::AsFd,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::{Pid, Signal, kill_process},
};

use crate::{
    Error, Process, Result, cgroup,
    error::chain,
    executor::NodeExecutor,
    helper, hierarchy,
    launch::{Answer, Request},
    oci, process, rootfs,
    shared_mount::SharedMount,
    watch::Watched,
};

/// Entry point: the request comes in on standard input, which is a socket, and the answer goes back on it.
pub(crate) fn main() -> ExitCode {
    // libcontainer tells the causes of its errors to `tracing` only, and only in the process that forked off.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::ERROR)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .init();
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<()> {
    // What the caller has open is not for the node: a lock that a script holds while it runs kiln would be held for as
    // long as the node lives.
    create_syscall()
        .close_range(0)
        .map_err(|error| Error::system("close what was inherited")(std::io::Error::other(error)))?;
    let stdin =
        rustix::io::dup(rustix::stdio::stdin()).map_err(Error::system("duplicate the request socket"))?;
    let mut socket = UnixStream::from(stdin);
    let null = fs_err::File::open("/dev/null").map_err(Error::file("open /dev/null"))?;
    rustix::stdio::dup2_stdin(&null).map_err(Error::system("replace standard input"))?;
    // A session of its own: signals of the caller's terminal are not for the node.
    rustix::process::setsid().map_err(Error::system("start a session"))?;

    let mut text = Vec::new();
    socket.read_to_end(&mut text).map_err(Error::system("read the request"))?;
    let request: Request =
        serde_json::from_slice(&text).map_err(|e| Error::system("parse the request")(e))?;

    match start(&request) {
        Ok((process, console)) => {
            if let Err(error) = answer(&mut socket, &Answer::Launched(process.clone())) {
                // Nobody will ever know of this container.
                let _ = process.signal(Signal::KILL.as_raw());
                return Err(error);
            }
            drop(socket);
            Err(watch(&request, process.pid, console))
        }
        Err(error) => answer(&mut socket, &Answer::Failed(chain(&error))),
    }
}

fn answer(socket: &mut UnixStream, answer: &Answer) -> Result<()> {
    let text = serde_json::to_vec(answer).map_err(|e| Error::system("encode the answer")(e))?;
    socket.write_all(&text).map_err(Error::system("answer the caller"))
}

/// Builds and starts the container. Returns its init and the master side of its console.
fn start(request: &Request) -> Result<(Process, OwnedFd)> {
    let spec = &request.spec;
    // Opened first: it is the caller's descriptor, and the caller may go away.
    let netns = fs_err::File::open(&request.netns).map_err(Error::file("open the network namespace"))?;
    let netns = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&netns.as_fd()));

    let shared = Arc::new(SharedMount::take(&spec.mounts)?);
    rootfs::enter_private_mount_namespace()?;
    let root = spec.directory.join("rootfs");
    rootfs::mount_overlay(&spec.root, &root)?;

    let bundle = spec.directory.join("bundle");
    fs_err::create_dir_all(&bundle).map_err(Error::file("make the bundle"))?;
    oci::runtime_spec(spec, &root, &netns, hierarchy::is_hybrid()?)?
        .save(bundle.join("config.json"))
        .map_err(|source| Error::Specification { id: spec.id.clone(), source: source.into() })?;

    // A socket's address holds 108 bytes, and the directory's name is the user's: hence relative to it.
    rustix::process::chdir(&spec.directory).map_err(Error::system("enter the run-time directory"))?;
    let listener = UnixListener::bind("console.sock").map_err(Error::system("make the console socket"))?;

    spec.cgroup.join_unmanaged()?;
    let build = || -> Result<i32, libcontainer::error::LibcontainerError> {
        let mut container = ContainerBuilder::new("state".to_owned(), SyscallType::default())
            .with_root_path(&spec.directory)?
            .with_console_socket(Some(spec.directory.join("console.sock")))
            .with_executor(NodeExecutor { shared: Arc::clone(&shared) })
            .as_init(&bundle)
            // cgroups by path and not through the host's systemd, which minimal hosts do not have.
            .with_systemd(false)
            .with_detach(true)
            .build()?;
        container.start()?;
        Ok(container.pid().map_or(0, |pid| pid.as_raw()))
    };
    let pid =
        build().map_err(|source| Error::Specification { id: spec.id.clone(), source: source.into() })?;

    let launched = (|| {
        let console = receive_console(&listener)?;
        cgroup::move_beside(&spec.cgroup)?;
        Ok((identify(pid)?, console))
    })();
    if launched.is_err()
        && let Some(pid) = Pid::from_raw(pid)
    {
        let _ = kill_process(pid, Signal::KILL);
    }
    launched
}

/// Init connected and sent the master of its pseudo-terminal before `build` returned.
fn receive_console(listener: &UnixListener) -> Result<OwnedFd> {
    let (socket, _) = listener.accept().map_err(Error::system("accept the console"))?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8; 64];
    recvmsg(&socket, &mut [std::io::IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .map_err(Error::system("receive the console"))?;
    let received = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    received
        .ok_or_else(|| Error::system("receive the console")(std::io::Error::other("no descriptor was sent")))
}

fn identify(pid: i32) -> Result<Process> {
    let monitor = std::process::id().cast_signed();
    // Init may have ended already; it is this process's child and not reaped, so its number is still its own.
    let start = |pid| process::read_stat(pid).map(|(_, started)| started).ok_or(Error::NotRunning { pid });
    Ok(Process {
        pid,
        start_time: start(pid)?,
        monitor,
        monitor_start_time: start(monitor)?,
        boot: process::boot_id()?,
    })
}

/// Becomes the watcher by executing the same program again: what building the container left in memory is gone, and
/// the container's init stays this process's child. Returns only when that fails.
fn watch(request: &Request, pid: i32, console: OwnedFd) -> Error {
    let watched = Watched {
        pid,
        console: request.spec.console.clone(),
        exit: request.spec.exit.clone(),
        cgroup: request.spec.cgroup.clone(),
    };
    let watched = match serde_json::to_string(&watched) {
        Ok(watched) => watched,
        Err(error) => return Error::system("encode what to watch")(error),
    };
    let source = Command::new(helper::program())
        .args([helper::WATCH, &watched])
        .current_dir(Path::new("/"))
        .stdin(console)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .exec();
    Error::SpawnHelper { program: helper::program(), source }
}
