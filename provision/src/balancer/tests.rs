//! The balancer between real clients and servers that answer as API servers do.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU16, AtomicUsize, Ordering},
};

use kiln_network::proxy::BackendState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivatePkcs8KeyDer},
        sign::{CertifiedKey, SingleCertAndKey},
    },
};

use super::{health::Finding, *};

/// What must happen does within this time.
const SOON: Duration = Duration::from_secs(10);

/// An Ed25519 key as RFC 8410 wraps it; what follows is the key, any 32 bytes.
const KEY_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

fn acceptor() -> TlsAcceptor {
    let key = [&KEY_PREFIX[..], &[7; 32]].concat();
    let key = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(key)).unwrap();
    // Nobody looks at it, as it should be.
    let certificate = CertificateDer::from(b"not even a certificate".to_vec());
    let resolver = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    TlsAcceptor::from(Arc::new(config))
}

/// A server that gives every request the same answer, and counts its connections.
struct Server {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (status, connections) = (Arc::new(AtomicU16::new(status)), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn(Self::run(listener, Arc::clone(&status), Arc::clone(&connections)));
        Self { address, status, connections, task }
    }

    async fn run(listener: TcpListener, status: Arc<AtomicU16>, connections: Arc<AtomicUsize>) {
        // Its connections end with it.
        let mut streams = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::SeqCst);
            let status = Arc::clone(&status);
            streams.spawn(async move {
                // Clients may go at any point.
                let _ = Self::answer(stream, &status).await;
            });
        }
    }

    async fn answer(stream: TcpStream, status: &AtomicU16) -> io::Result<()> {
        let mut stream = acceptor().accept(stream).await?;
        loop {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await? == 0 {
                    return Ok(());
                }
            }
            assert!(request.starts_with(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:"));
            let status = status.load(Ordering::SeqCst);
            let answer = format!("HTTP/1.1 {status} So\r\nContent-Length: 2\r\n\r\nok");
            stream.write_all(answer.as_bytes()).await?;
        }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// The balancer in front of the servers, ended by `cancel`.
async fn start(backends: &[SocketAddr], report: fn(&str)) -> (SocketAddr, Cancel, JoinHandle<()>) {
    let listener = proxy::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let config = BalancerConfig {
        listen: vec![address],
        backends: backends.to_vec(),
        connections: 16,
        drain_seconds: 1,
    };
    let cancel = Cancel::new();
    let heeded = cancel.clone();
    let task = tokio::spawn(async move { balance(vec![listener], &config, &heeded, report).await });
    (address, cancel, task)
}

/// Which server answers a new client: each gives its own status.
async fn status(address: SocketAddr) -> u16 {
    match timeout(SOON, Probe::new(address).ask()).await.unwrap() {
        Finding::Status(status) => status,
        Finding::Failure(reason) => panic!("{reason}"),
    }
}

async fn until_only(address: SocketAddr, expected: u16) {
    let settled = async {
        let mut row = 0;
        while row < 4 {
            row = if status(address).await == expected { row + 1 } else { 0 };
        }
    };
    timeout(SOON, settled).await.unwrap();
}

#[tokio::test]
async fn a_probe_keeps_its_connection() {
    let server = Server::start(200).await;
    let mut probe = Probe::new(server.address);
    for status in [200, 403, 500] {
        server.status.store(status, Ordering::SeqCst);
        assert_eq!(probe.ask().await, Finding::Status(status));
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_lost_connection_is_no_failure() {
    let server = Server::start(200).await;
    let mut probe = Probe::new(server.address);
    assert_eq!(probe.ask().await, Finding::Status(200));
    let address = server.address;
    server.task.abort();
    assert!(server.task.await.unwrap_err().is_cancelled());
    // The same address again, as after a restart of the API server.
    let listener = proxy::listen(address).unwrap();
    let (code, count) = (Arc::new(AtomicU16::new(201)), Arc::default());
    let _again = tokio::spawn(Server::run(listener, code, count));
    assert_eq!(probe.ask().await, Finding::Status(201));
}

#[tokio::test]
async fn silence_and_refusal_are_failures() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // The kernel connects, and nobody answers.
    let began = Instant::now();
    assert_eq!(Probe::new(address).ask().await, Finding::Failure("no answer within 900 ms".to_owned()));
    assert!(began.elapsed() < SOON);
    drop(listener);
    assert!(
        matches!(Probe::new(address).ask().await, Finding::Failure(reason) if reason.contains("refused"))
    );
}

#[tokio::test]
async fn clients_reach_the_servers_that_are_well() {
    static REPORTS: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let (one, other) = (Server::start(200).await, Server::start(201).await);
    let (address, cancel, task) =
        start(&[one.address, other.address], |line| REPORTS.lock().unwrap().push(line.to_owned())).await;
    let both = async {
        while status(address).await != 200 {}
        while status(address).await != 201 {}
    };
    timeout(SOON, both).await.expect("both serve");

    other.status.store(500, Ordering::SeqCst);
    until_only(address, 200).await;
    other.status.store(201, Ordering::SeqCst);
    let back = async { while status(address).await != 201 {} };
    timeout(SOON, back).await.expect("it serves again");

    // The one that a client is connected to dies.
    let mut client = None;
    while client.is_none() {
        let mut probe = Probe::new(address);
        if probe.ask().await == Finding::Status(200) {
            client = Some(probe);
        }
    }
    let began = Instant::now();
    one.task.abort();
    let down = format!("backend {} is {}", one.address, BackendState::Down);
    let told = async {
        while !REPORTS.lock().unwrap().iter().any(|line| line.starts_with(&down)) {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, told).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    until_only(address, 201).await;

    cancel.trigger();
    timeout(SOON, task).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_server_that_falls_silent_loses_its_clients() {
    // The kernel takes the connections of this one, and nobody reads them: a paused node.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    let backends = Backends::new([silent]);
    let front = proxy::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = front.local_addr().unwrap();
    let limits = Limits { connections: 4, drain: Duration::ZERO };
    tokio::spawn(proxy::serve(front, backends.clone(), limits, std::future::pending()));
    backends.set(silent, BackendState::Up);
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"x").await.unwrap();
    let _accepted = timeout(SOON, listener.accept()).await.unwrap().unwrap();

    tokio::spawn(watch(silent, backends, |_| {}));
    let cut = timeout(Duration::from_secs(3), client.read_u8()).await.expect("cut in time");
    assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn configurations_are_checked() {
    let parse = |text: &str| serde_json::from_str::<BalancerConfig>(text).map(|config| config.check());
    let good = r#"{"listen":["0.0.0.0:6443","[::]:6443"],"backends":["172.30.0.3:6443"],"connections":9,"drain_seconds":5}"#;
    assert!(parse(good).unwrap().is_ok());
    assert!(parse(&good.replace(r#""172.30.0.3:6443""#, "")).unwrap().is_err());
    assert!(parse(&good.replace(":9", ":0")).unwrap().is_err());
    assert!(parse(&good.replace("connections", "connection")).is_err());
    assert!(parse(&good.replace("172.30.0.3:6443", "lb")).is_err());
}
