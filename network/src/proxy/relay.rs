//! One connection: to a backend that takes it, and then bytes both ways.

use std::{future::Future, io, pin::Pin, time::Duration};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{io::copy_bidirectional_with_sizes, net::TcpStream, time};

use super::Backends;

/// How long a backend may take to accept. Nodes are on the same host, so it is only that long when one is gone.
const CONNECT: Duration = Duration::from_secs(1);

/// Bytes on the way in one direction: a record of TLS.
const BUFFER: usize = 16 << 10;

/// After so many seconds without a byte the other side is asked whether it is there, every so many seconds, and given
/// up after so many questions: two minutes, as long as connection tracking needs not to forget the connection, and
/// less than the five minutes after which clients of Kubernetes no longer expect to be served.
const KEEPALIVE: (u32, u32, u32) = (60, 20, 3);

/// Relays until both sides have closed, one has failed, or the backend is known to be down.
pub(super) async fn relay(mut client: TcpStream, backends: Backends) {
    let Some((mut server, goes_down)) = connect(&backends).await else {
        // As the client would see it without a proxy.
        let _ = client.set_zero_linger();
        return;
    };
    // Without these a connection works, only less well.
    let _ = (tune(&client), tune(&server));
    let ended = tokio::select! {
        ended = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER) => ended.is_ok(),
        // A node that died says nothing more. Clients would wait for TCP to give up, for a quarter of an hour.
        () = goes_down => false,
    };
    if !ended {
        // Both sides must see that this is no regular end: an orderly close looks like the end of an answer.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// The first backend that accepts, and what completes when it goes down; `None` when none does.
async fn connect(backends: &Backends) -> Option<(TcpStream, Pin<Box<impl Future<Output = ()> + use<>>>)> {
    for backend in backends.next_order() {
        // From before it is connected, so that nothing is missed.
        let mut goes_down = Box::pin(backend.goes_down());
        tokio::select! {
            connected = time::timeout(CONNECT, TcpStream::connect(backend.address)) => {
                if let Ok(Ok(server)) = connected {
                    return Some((server, goes_down));
                }
            }
            () = &mut goes_down => {}
        }
    }
    None
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    // Each write is what somebody sent in one piece; holding it back gains nothing.
    stream.set_nodelay(true)?;
    let (idle, interval, count) = KEEPALIVE;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &idle)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &interval)?;
    setsockopt(stream, sockopt::TcpKeepCount, &count)?;
    Ok(())
}
