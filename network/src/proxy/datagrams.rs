//! Datagrams: a socket for each client, so that answers find their way back.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    task::JoinHandle,
    time::{self, Instant, MissedTickBehavior},
};

use super::after_failure;

/// No datagram is longer.
const LARGEST: usize = 64 << 10;

/// Answers of one target that are passed on before others have their turn.
const BURST: usize = 32;

/// What one socket for datagrams may take.
#[derive(Clone, Copy, Debug)]
pub struct DatagramLimits {
    /// Clients at a time, each of which takes a file descriptor. One more replaces that which was silent the longest.
    pub clients: usize,
    /// A client is forgotten when neither side has said anything for so long (or half as long again).
    pub idle: Duration,
}

/// Relays datagrams between the clients of `socket` and `target` until `stop` completes.
///
/// Answers come from the address that `socket` is bound to, so that should be one and not all of them.
pub async fn relay_datagrams(
    socket: UdpSocket,
    target: SocketAddr,
    limits: DatagramLimits,
    stop: impl Future<Output = ()>,
) {
    let socket = Arc::new(socket);
    let mut clients = Clients { limits, known: HashMap::new() };
    let mut datagram = vec![0; LARGEST];
    let mut sweep = time::interval((limits.idle / 2).max(Duration::from_millis(1)));
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = sweep.tick(), if !clients.known.is_empty() => clients.forget_idle(),
            received = socket.recv_from(&mut datagram) => match received {
                Ok((length, from)) => {
                    let datagram = &datagram[..length];
                    // Datagrams may be lost, here as anywhere.
                    let _ = clients.pass_on(&socket, from, target, datagram).await;
                }
                Err(error) => after_failure(&error).await,
            }
        }
    }
}

#[derive(Debug)]
struct Clients {
    limits: DatagramLimits,
    known: HashMap<SocketAddr, Client>,
}

impl Clients {
    async fn pass_on(
        &mut self,
        socket: &Arc<UdpSocket>,
        from: SocketAddr,
        target: SocketAddr,
        datagram: &[u8],
    ) -> io::Result<()> {
        if !self.known.contains_key(&from) {
            self.make_room();
            let client = Client::new(Arc::clone(socket), from, target).await?;
            self.known.insert(from, client);
        }
        let Some(client) = self.known.get(&from) else { return Ok(()) };
        client.heard.now();
        client.upstream.send(datagram).await?;
        Ok(())
    }

    fn forget_idle(&mut self) {
        self.known.retain(|_, client| client.heard.last().elapsed() < self.limits.idle);
    }

    fn make_room(&mut self) {
        while self.known.len() >= self.limits.clients.max(1) {
            let oldest = self.known.iter().min_by_key(|(_, client)| client.heard.last());
            let Some(oldest) = oldest.map(|(address, _)| *address) else { return };
            self.known.remove(&oldest);
        }
    }
}

#[derive(Debug)]
struct Client {
    upstream: Arc<UdpSocket>,
    heard: Arc<Heard>,
    answers: JoinHandle<()>,
}

impl Client {
    async fn new(socket: Arc<UdpSocket>, address: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let upstream = Arc::new(UdpSocket::bind(any).await?);
        // From now on nobody else's datagrams reach it.
        upstream.connect(target).await?;
        let heard = Arc::new(Heard::default());
        let answers = tokio::spawn(pass_back(Arc::clone(&upstream), socket, address, Arc::clone(&heard)));
        Ok(Self { upstream, heard, answers })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

/// Passes the target's answers to the client for as long as it is known.
async fn pass_back(upstream: Arc<UdpSocket>, socket: Arc<UdpSocket>, client: SocketAddr, heard: Arc<Heard>) {
    while upstream.readable().await.is_ok() && socket.writable().await.is_ok() {
        // Only while there is something to read: a buffer for each client would be memory that hardly anybody uses.
        let mut datagram = Vec::with_capacity(LARGEST);
        for _ in 0..BURST {
            datagram.clear();
            // Also fails when there is no such port at the target (ICMP); there may be one later.
            if upstream.try_recv_buf(&mut datagram).is_err() {
                break;
            }
            heard.now();
            let _ = socket.try_send_to(&datagram, client);
        }
    }
}

/// When anything last came from either side.
#[derive(Debug)]
struct Heard(Mutex<Instant>);

impl Default for Heard {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Heard {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::oneshot, time::timeout};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    async fn socket(address: &str) -> UdpSocket {
        UdpSocket::bind(address).await.unwrap()
    }

    async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; LARGEST];
        let (length, from) = timeout(SOON, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
        (buffer[..length].to_vec(), from)
    }

    /// A relay to `target`, and what keeps it running.
    async fn start(target: SocketAddr, clients: usize, idle: Duration) -> (SocketAddr, oneshot::Sender<()>) {
        let front = socket("[::1]:0").await;
        let address = front.local_addr().unwrap();
        let (keep, stop) = oneshot::channel();
        let stop = async { drop(stop.await) };
        tokio::spawn(relay_datagrams(front, target, DatagramLimits { clients, idle }, stop));
        (address, keep)
    }

    #[tokio::test]
    async fn answers_reach_the_client_that_asked() {
        let target = socket("127.0.0.1:0").await;
        let (front, _keep) = start(target.local_addr().unwrap(), 8, SOON).await;
        let (one, other) = (socket("[::1]:0").await, socket("[::1]:0").await);
        one.send_to(b"one", front).await.unwrap();
        let (text, from_one) = receive(&target).await;
        assert_eq!(text, b"one");
        other.send_to(b"other", front).await.unwrap();
        let (text, from_other) = receive(&target).await;
        assert_eq!(text, b"other");
        assert_ne!(from_one, from_other);

        // In the other order, and one of them twice and large.
        let large = vec![7; 60_000];
        target.send_to(&large, from_other).await.unwrap();
        target.send_to(b"", from_other).await.unwrap();
        target.send_to(b"to one", from_one).await.unwrap();
        assert_eq!(receive(&one).await, (b"to one".to_vec(), front));
        assert_eq!(receive(&other).await, (large, front));
        assert_eq!(receive(&other).await, (Vec::new(), front));

        one.send_to(b"again", front).await.unwrap();
        assert_eq!(receive(&target).await, (b"again".to_vec(), from_one), "a client keeps its socket");
    }

    #[tokio::test]
    async fn a_target_that_is_not_there_yet_is_no_end() {
        let target = socket("127.0.0.1:0").await;
        let address = target.local_addr().unwrap();
        drop(target);
        let (front, _keep) = start(address, 8, SOON).await;
        let client = socket("[::1]:0").await;
        for _ in 0..3 {
            client.send_to(b"lost", front).await.unwrap();
            tokio::task::yield_now().await;
        }
        let target = UdpSocket::bind(address).await.unwrap();
        // The last refusal may still be reported with the next datagram, in its place.
        let from = timeout(SOON, async {
            let mut buffer = [0; 16];
            loop {
                client.send_to(b"found", front).await.unwrap();
                let receive = timeout(Duration::from_millis(100), target.recv_from(&mut buffer));
                if let Ok(Ok((5, from))) = receive.await {
                    return from;
                }
            }
        });
        let from = from.await.unwrap();
        target.send_to(b"here", from).await.unwrap();
        assert_eq!(receive(&client).await.0, b"here");
    }

    #[tokio::test]
    async fn one_client_too_many_replaces_the_most_silent() {
        let target = socket("127.0.0.1:0").await;
        let (front, _keep) = start(target.local_addr().unwrap(), 2, SOON).await;
        let (first, second, third) =
            (socket("[::1]:0").await, socket("[::1]:0").await, socket("[::1]:0").await);
        let mut seen = Vec::new();
        for client in [&first, &second, &first, &third, &first, &second] {
            client.send_to(b"x", front).await.unwrap();
            seen.push(receive(&target).await.1);
        }
        assert_eq!((seen[0], seen[0]), (seen[2], seen[4]), "the first was heard again");
        assert_ne!(seen[1], seen[5], "the second was forgotten for the third");
    }

    #[tokio::test]
    async fn the_silent_are_forgotten() {
        let target = socket("127.0.0.1:0").await;
        let (front, _keep) = start(target.local_addr().unwrap(), 2, Duration::from_millis(50)).await;
        let client = socket("[::1]:0").await;
        client.send_to(b"x", front).await.unwrap();
        let (_, before) = receive(&target).await;
        let probe = async {
            // Its socket is closed: nobody listens at that port any more.
            while UdpSocket::bind((Ipv4Addr::UNSPECIFIED, before.port())).await.is_err() {
                time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, probe).await.unwrap();
        client.send_to(b"x", front).await.unwrap();
        receive(&target).await;
    }

    #[tokio::test]
    async fn it_ends_when_told() {
        let target = socket("127.0.0.1:0").await;
        let (front, keep) = start(target.local_addr().unwrap(), 2, SOON).await;
        let client = socket("[::1]:0").await;
        client.send_to(b"x", front).await.unwrap();
        let (_, from) = receive(&target).await;
        drop(keep);
        let closed = async {
            while UdpSocket::bind(front).await.is_err()
                || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, from.port())).await.is_err()
            {
                time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, closed).await.expect("its sockets are closed");
    }
}
