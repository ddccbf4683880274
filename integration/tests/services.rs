//! The hidden sub-commands that serve, as the processes they are in a cluster. They need no cluster, and no root.

use std::{
    io::{Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use kiln_integration::{Finished, Kiln, Running};
use nix::sys::signal::Signal;

/// What must happen does within this time.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn the_proxy_serves_the_ipv6_loopback() {
    let Some(kiln) = kiln() else { return };
    let Ok(free) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        eprintln!("skipped: there is no [::1]");
        return;
    };
    let listen = free.local_addr().expect("it is bound");
    drop(free);
    let target = echo();
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a port of the loopback interface");
    let mapping = |protocol: &str, target: SocketAddr| {
        serde_json::json!({
            "protocol": protocol,
            "listen": listen.ip(),
            "host_port": listen.port(),
            "target": target.ip(),
            "target_port": target.port(),
        })
    };
    let udp = datagrams.local_addr().expect("it is bound");
    let ports = serde_json::json!({ "ports": [mapping("tcp", target), mapping("udp", udp)] }).to_string();
    let proxy = kiln.start(&["__proxy", &ports]);

    let mut stream = connect(listen);
    assert_eq!(echoed(&mut stream), "hello");

    let client = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).expect("a port of the loopback interface");
    for socket in [&client, &datagrams] {
        socket.set_read_timeout(Some(SOON)).expect("it is not zero");
    }
    let mut buffer = [0; 16];
    client.send_to(b"there", listen).expect("loopback takes it");
    let (length, from) = datagrams.recv_from(&mut buffer).expect("it arrives");
    assert_eq!(&buffer[..length], b"there");
    datagrams.send_to(b"and back", from).expect("loopback takes it");
    let (length, from) = client.recv_from(&mut buffer).expect("the answer arrives");
    assert_eq!((&buffer[..length], from), (&b"and back"[..], listen));

    let second = kiln.run(&["__proxy", &ports]);
    assert_eq!(second.code(), 1, "{}", second.report());
    let said = format!("error: failed to listen on {listen}/tcp: ");
    assert!(second.stdout().starts_with(&said), "{}", second.report());

    let finished = terminated(proxy);
    assert_eq!(finished.stdout(), "ready\n");
    assert!(stream.read(&mut buffer).map_or(true, |length| length == 0), "its connections end with it");
}

#[test]
fn the_balancer_relays_and_says_what_it_thinks() {
    let Some(kiln) = kiln() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("balance.json");
    let listen = free_address();
    // It accepts connections and speaks no TLS: nothing is better than it, so it is used all the same.
    let (odd, gone) = (echo(), free_address());
    configure(&file, listen, &[gone, odd]);
    let balancer = kiln.start(&["__balance", file.to_str().expect("a path of ours is text")]);
    for backend in [odd, gone] {
        let line = format!("backend {backend} is down: no answer");
        assert!(balancer.wait_for_stderr(&line, SOON), "it does not say: {line}");
    }
    let mut stream = connect(listen);
    assert_eq!(echoed(&mut stream), "hello");
    drop(stream);
    let finished = terminated(balancer);
    assert!(finished.stdout().is_empty(), "{}", finished.report());
    assert!(finished.stderr().trim_end().ends_with("stopped"), "{}", finished.report());
}

/// The kernel keeps signals from the init of a container unless it has asked for them.
#[test]
fn the_balancer_ends_when_told_as_init_of_a_container() {
    let Some(kiln) = kiln() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("balance.json");
    configure(&file, free_address(), &[free_address()]);
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]).arg(kiln.binary()).arg("__balance").arg(&file);
    let unshare = Running::spawn(command, Vec::new());
    if !unshare.wait_for_stderr("balancing", SOON) {
        eprintln!("skipped: {}", unshare.wait(SOON).report());
        return;
    }
    let children = format!("/proc/{0}/task/{0}/children", unshare.pid());
    let init = fs_err::read_to_string(children).expect("unshare waits for its child");
    let init = nix::unistd::Pid::from_raw(init.trim().parse().expect("it has one"));
    // SIGRTMIN+3, for which nix has no name.
    let halt = Command::new("kill").args(["-37", &init.to_string()]).status().expect("there is a kill");
    assert!(halt.success());
    let finished = unshare.wait(SOON);
    assert_eq!(finished.code(), 0, "{}", finished.report());
}

#[test]
fn what_they_cannot_do_is_said() {
    let Some(kiln) = kiln() else { return };
    for (args, stdout, stderr) in [
        (&["__proxy"][..], "error: failed to read the ports to serve: nothing was given", ""),
        (&["__proxy", "{"][..], "error: failed to read the ports to serve: EOF", ""),
        (&["__balance"][..], "", "error: failed to find the balancer's configuration"),
        (&["__balance", "/nonexistent/b.json"][..], "", "/nonexistent/b.json"),
    ] {
        let finished = kiln.run(args);
        assert_eq!(finished.code(), 1, "{}", finished.report());
        assert!(finished.stdout().starts_with(stdout), "{}", finished.report());
        assert!(finished.stderr().contains(stderr), "{}", finished.report());
    }
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn kiln() -> Option<Kiln> {
    match Kiln::locate() {
        Ok(binary) => Some(Kiln::new(binary, Vec::new())),
        Err(reason) => {
            eprintln!("skipped: {reason}");
            None
        }
    }
}

fn configure(file: &Path, listen: SocketAddr, backends: &[SocketAddr]) {
    let config = serde_json::json!({
        "listen": [listen],
        "backends": backends,
        "connections": 8,
        "drain_seconds": 1,
    });
    fs_err::write(file, config.to_string()).expect("a file in our own directory");
}

/// A server that sends back what it gets, for as long as the test runs.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback interface");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut writer = stream.try_clone()?;
                std::io::copy(&mut &stream, &mut writer)
            });
        }
    });
    address
}

/// An address nobody listens on.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback interface");
    listener.local_addr().expect("it is bound")
}

/// Connects as soon as something listens.
fn connect(address: SocketAddr) -> TcpStream {
    let deadline = Instant::now() + SOON;
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_read_timeout(Some(SOON)).expect("it is not zero");
                return stream;
            }
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
        // A process that starts to listen does not tell others.
        thread::sleep(Duration::from_millis(20));
    }
}

fn echoed(stream: &mut TcpStream) -> String {
    stream.write_all(b"hello").expect("the connection stands");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[track_caller]
fn terminated(running: Running) -> Finished {
    running.signal(Signal::SIGTERM);
    let finished = running.wait(SOON);
    assert_eq!(finished.code(), 0, "{}", finished.report());
    finished
}
