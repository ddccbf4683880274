//! A stand-in for the internet: a network namespace of the test's own with an HTTP server in it, on an address from
//! the range that is reserved for documentation.
//!
//! The namespace knows no route but to its end of the veth pair, so only traffic that was translated to the host's
//! address gets an answer: that is what proves the masquerading.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::Namespace;

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
    listener: Arc<TcpListener>,
    server: Option<JoinHandle<()>>,
    peers: Arc<Mutex<Vec<IpAddr>>>,
    _namespace: Namespace,
}

impl Outside {
    /// Makes the namespace and starts the server.
    ///
    /// # Panics
    /// When a step fails; needs root, iproute2 and util-linux.
    #[must_use]
    pub fn open() -> Self {
        let namespace = Namespace::open(LINK, HOST, SERVER);
        let listener = Arc::new(listen_in(namespace.path()));
        let peers = Arc::new(Mutex::new(Vec::new()));
        let server = thread::spawn({
            let (listener, peers) = (Arc::clone(&listener), Arc::clone(&peers));
            move || serve(&listener, &peers)
        });
        Self { listener, server: Some(server), peers, _namespace: namespace }
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
pub fn skip_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.ends_with(b"\r\n\r\n") && request.len() < 65536 {
        match stream.read(&mut piece) {
            Ok(length) if length > 0 => request.extend_from_slice(&piece[..length]),
            _ => return,
        }
    }
}
