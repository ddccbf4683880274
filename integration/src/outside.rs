//! A stand-in for the internet: a network namespace of the test's own with an HTTP server in it, on an address from
//! the range that is reserved for documentation.
//!
//! The namespace knows no route but to its end of the veth pair, so only traffic that was translated to the host's
//! address gets an answer: that is what proves the masquerading.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    process::{Child, Command},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::host::run;

/// The host's end of the veth pair.
const LINK: &str = "kiln-it-outside";
const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const PORT: u16 = 8080;
/// What the server answers to everything.
pub const GREETING: &str = "greetings from outside";

/// The namespace, its link and the server; all gone when it is dropped.
#[derive(Debug)]
pub struct Outside {
    holder: Child,
    listener: Arc<TcpListener>,
    server: Option<JoinHandle<()>>,
    peers: Arc<Mutex<Vec<IpAddr>>>,
}

impl Outside {
    /// Makes the namespace and starts the server.
    ///
    /// # Panics
    /// When a step fails; needs root, iproute2 and util-linux.
    #[must_use]
    pub fn open() -> Self {
        // It dies with the thread that opens it, so that a killed test leaves no namespace behind.
        let holder = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "sleep", "3600"])
            .spawn()
            .expect("setpriv and unshare (util-linux) run");
        let namespace = format!("/proc/{}/ns/net", holder.id());
        wait_for_namespace(&namespace);

        let pid = holder.id().to_string();
        ip(&["link", "add", "name", LINK, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        ip(&["address", "add", &format!("{HOST}/24"), "dev", LINK]);
        ip(&["link", "set", LINK, "up"]);
        let enter = format!("--net={namespace}");
        run("nsenter", &[&enter, "ip", "address", "add", &format!("{SERVER}/24"), "dev", "eth0"]);
        run("nsenter", &[&enter, "ip", "link", "set", "eth0", "up"]);

        let listener = Arc::new(listen_in(namespace));
        let peers = Arc::new(Mutex::new(Vec::new()));
        let server = thread::spawn({
            let (listener, peers) = (Arc::clone(&listener), Arc::clone(&peers));
            move || serve(&listener, &peers)
        });
        Self { holder, listener, server: Some(server), peers }
    }

    /// Where the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((SERVER, PORT))
    }

    /// The host's address as the server sees it: the source that translated traffic must have.
    #[must_use]
    pub fn host(&self) -> IpAddr {
        IpAddr::V4(HOST)
    }

    /// The sources of all connections since the last call.
    #[must_use]
    pub fn take_peers(&self) -> Vec<IpAddr> {
        std::mem::take(&mut self.peers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // The listener holds the namespace: shutting it down ends `accept`, and with it the thread.
        let _ = nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
        // The namespace may outlive its last process for a moment; the link must not.
        let _ = Command::new("ip").args(["link", "delete", LINK]).status();
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn wait_for_namespace(namespace: &str) {
    let own = fs_err::read_link("/proc/self/ns/net").expect("the kernel has network namespaces");
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs_err::read_link(namespace).ok().is_none_or(|other| other == own) {
        assert!(Instant::now() < deadline, "unshare made no network namespace");
        // Nothing tells when another process changes its namespace.
        thread::sleep(Duration::from_millis(5));
    }
}

/// A socket belongs to the namespace of the thread that made it, for good.
fn listen_in(namespace: String) -> TcpListener {
    let maker = thread::spawn(move || {
        let file = fs_err::File::open(namespace).expect("the namespace is there");
        #[expect(clippy::disallowed_methods, reason = "this thread ends with the socket it makes")]
        nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("root may change its namespace");
        TcpListener::bind((SERVER, PORT)).expect("nothing else is in the namespace")
    });
    maker.join().expect("the thread has made a socket")
}

fn serve(listener: &TcpListener, peers: &Mutex<Vec<IpAddr>>) {
    while let Ok((mut stream, peer)) = listener.accept() {
        peers.lock().unwrap_or_else(PoisonError::into_inner).push(peer.ip());
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        skip_request(&mut stream);
        let length = GREETING.len() + 1;
        let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{GREETING}\n");
    }
}

/// Reads to the end of a request's header, which may come in several pieces: a connection that is closed with
/// something unread is reset, and the answer with it.
fn skip_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.ends_with(b"\r\n\r\n") && request.len() < 65536 {
        match stream.read(&mut piece) {
            Ok(length) if length > 0 => request.extend_from_slice(&piece[..length]),
            _ => return,
        }
    }
}

fn ip(args: &[&str]) {
    run("ip", args);
}
