//! The proxy over real sockets of the loopback interface.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};

use super::*;

/// What must happen does within this time.
const SOON: Duration = Duration::from_secs(10);
/// What must not happen is waited for this long.
const MOMENT: Duration = Duration::from_millis(200);

const PLENTY: Limits = Limits { connections: 64, drain: Duration::from_secs(10) };

struct Proxy {
    address: SocketAddr,
    backends: Backends,
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

async fn local() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A backend that names itself to everybody, and then sends back what it gets.
async fn backend(name: u8) -> SocketAddr {
    let listener = local().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_u8(name).await.unwrap();
                let (mut reader, mut writer) = stream.split();
                // Ends with an error when the connection is cut.
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    address
}

/// An address nobody listens on.
async fn nobody() -> SocketAddr {
    local().await.local_addr().unwrap()
}

async fn proxy(addresses: &[SocketAddr], limits: Limits) -> Proxy {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let backends = Backends::new(addresses.iter().copied());
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let serving = serve(listener, backends.clone(), limits, async move { stopped.notified().await });
    Proxy { address, backends, stop, task: tokio::spawn(serving) }
}

impl Proxy {
    async fn connect(&self) -> TcpStream {
        timeout(SOON, TcpStream::connect(self.address)).await.unwrap().unwrap()
    }

    /// A connection, and which backend it led to.
    async fn reach(&self) -> (TcpStream, u8) {
        let mut stream = self.connect().await;
        let name = timeout(SOON, stream.read_u8()).await.unwrap().unwrap();
        (stream, name)
    }
}

async fn echoes(stream: &mut TcpStream) -> bool {
    let answer = async {
        stream.write_all(b"hello").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        Ok::<_, io::Error>(&answer == b"hello")
    };
    timeout(SOON, answer).await.expect("an answer or an error").unwrap_or(false)
}

/// How the connection ends, with what it still brings.
async fn end(stream: &mut TcpStream) -> io::Result<usize> {
    let mut rest = Vec::new();
    timeout(SOON, stream.read_to_end(&mut rest)).await.expect("an end")
}

fn is_reset(end: io::Result<usize>) -> bool {
    end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn backends_take_turns() {
    let addresses = [backend(1).await, backend(2).await, backend(3).await];
    let proxy = proxy(&addresses, PLENTY).await;
    for address in addresses {
        proxy.backends.set(address, BackendState::Up);
    }
    let mut names = Vec::new();
    for _ in 0..6 {
        names.push(proxy.reach().await.1);
    }
    assert_eq!(names, [1, 2, 3, 1, 2, 3]);
}

#[tokio::test]
async fn only_those_that_serve_are_asked() {
    let addresses = [backend(1).await, backend(2).await];
    let proxy = proxy(&addresses, PLENTY).await;
    proxy.backends.set(addresses[0], BackendState::Draining);
    proxy.backends.set(addresses[1], BackendState::Up);
    for _ in 0..4 {
        assert_eq!(proxy.reach().await.1, 2);
    }
}

#[tokio::test]
async fn the_next_one_takes_what_one_refuses() {
    let addresses = [nobody().await, backend(2).await];
    let proxy = proxy(&addresses, PLENTY).await;
    for address in addresses {
        proxy.backends.set(address, BackendState::Up);
    }
    for _ in 0..4 {
        let (mut stream, name) = proxy.reach().await;
        assert_eq!(name, 2);
        assert!(echoes(&mut stream).await);
    }
}

#[tokio::test]
async fn one_that_is_said_to_be_down_is_better_than_none() {
    let address = backend(1).await;
    let proxy = proxy(&[nobody().await, address], PLENTY).await;
    proxy.backends.set(address, BackendState::Down);
    let (mut stream, name) = proxy.reach().await;
    assert_eq!(name, 1);
    assert!(echoes(&mut stream).await, "it is not cut for being down before");
}

#[tokio::test]
async fn clients_are_refused_when_all_refuse() {
    let proxy = proxy(&[nobody().await, nobody().await], PLENTY).await;
    let mut stream = proxy.connect().await;
    assert!(is_reset(end(&mut stream).await));
    let mut stream = proxy.connect().await;
    assert!(is_reset(end(&mut stream).await), "and the proxy goes on");
}

#[tokio::test]
async fn going_down_cuts_connections_and_draining_does_not() {
    let addresses = [backend(1).await, backend(2).await];
    let proxy = proxy(&addresses, PLENTY).await;
    for address in addresses {
        proxy.backends.set(address, BackendState::Up);
    }
    let (mut one, name) = proxy.reach().await;
    let (mut other, other_name) = proxy.reach().await;
    assert_eq!((name, other_name), (1, 2));
    proxy.backends.set(addresses[0], BackendState::Draining);
    assert!(echoes(&mut one).await);
    proxy.backends.set(addresses[0], BackendState::Down);
    assert!(is_reset(end(&mut one).await));
    assert!(echoes(&mut other).await, "that is none of the other's business");
}

#[tokio::test]
async fn a_side_that_has_said_all_still_hears() {
    let proxy = proxy(&[backend(1).await], PLENTY).await;
    let (mut stream, _) = proxy.reach().await;
    let sent = vec![9; 300_000];
    let (mut reader, mut writer) = stream.split();
    let mut received = Vec::new();
    let both = async {
        tokio::join!(
            async {
                writer.write_all(&sent).await.unwrap();
                writer.shutdown().await.unwrap();
            },
            async { reader.read_to_end(&mut received).await.unwrap() },
        )
    };
    timeout(SOON, both).await.unwrap();
    assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
}

#[tokio::test]
async fn a_reset_is_passed_on() {
    let listener = local().await;
    let proxy = proxy(&[listener.local_addr().unwrap()], PLENTY).await;
    let mut stream = proxy.connect().await;
    let (server, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    server.set_zero_linger().unwrap();
    drop(server);
    assert!(is_reset(end(&mut stream).await));
}

#[tokio::test]
async fn connections_beyond_the_bound_wait() {
    let limits = Limits { connections: 2, ..PLENTY };
    let proxy = proxy(&[backend(1).await], limits).await;
    let (first, _) = proxy.reach().await;
    let (_second, _) = proxy.reach().await;
    let mut third = proxy.connect().await;
    assert!(timeout(MOMENT, third.read_u8()).await.is_err(), "the kernel has it, the proxy does not");
    drop(first);
    assert_eq!(timeout(SOON, third.read_u8()).await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn connections_may_end_before_the_proxy_does() {
    let proxy = proxy(&[backend(1).await], PLENTY).await;
    let (mut stream, _) = proxy.reach().await;
    proxy.stop.notify_one();
    let refused = async {
        while TcpStream::connect(proxy.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, refused).await.expect("nothing is accepted any more");
    assert!(echoes(&mut stream).await);
    assert!(!proxy.task.is_finished());
    drop(stream);
    timeout(SOON, proxy.task).await.expect("it ends with its last connection").unwrap();
}

#[tokio::test]
async fn connections_are_cut_when_their_time_is_over() {
    let limits = Limits { drain: Duration::from_millis(50), ..PLENTY };
    let proxy = proxy(&[backend(1).await], limits).await;
    let (mut stream, _) = proxy.reach().await;
    proxy.stop.notify_one();
    timeout(SOON, proxy.task).await.unwrap().unwrap();
    assert!(end(&mut stream).await.map_or(true, |length| length == 0));
}

#[tokio::test]
async fn a_want_of_descriptors_is_waited_out() {
    // The limit itself belongs to all tests of the process.
    let begun = std::time::Instant::now();
    after_failure(&io::Error::from_raw_os_error(Errno::EMFILE as i32)).await;
    assert!(begun.elapsed() >= ACCEPT_PAUSE);
    let begun = std::time::Instant::now();
    after_failure(&io::Error::from_raw_os_error(Errno::ECONNABORTED as i32)).await;
    assert!(begun.elapsed() < ACCEPT_PAUSE);
}
