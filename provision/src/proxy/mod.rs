//! Ports of the host that the kernel cannot translate, `[::1]`'s: a process of Kiln's own serves them.
//!
//! It is `kiln __proxy JSON`, started with a cluster, and outlives the command that starts it. There is at most one for
//! a cluster, and none for a cluster that publishes no such port.

pub(crate) mod process;

use std::{
    future::Future,
    io::{self, Write},
    net::SocketAddr,
    pin::Pin,
    time::Duration,
};

use futures_util::future::join_all;
use kiln_network::{
    PortMapping, Protocol,
    proxy::{self, BackendState, Backends, DatagramLimits, Limits},
};
use kiln_runtime::Cgroup;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UdpSocket};

use crate::{Error, Result, cluster::Cancel, service};

/// What the proxy says when all of its ports are bound.
const READY: &str = "ready";

/// It is stopped when its targets are about to go, so nothing is gained by waiting for connections.
const LIMITS: Limits = Limits { connections: 4096, drain: Duration::ZERO };

/// Connection tracking forgets a flow of datagrams after two minutes at the latest.
const DATAGRAM_LIMITS: DatagramLimits = DatagramLimits { clients: 1024, idle: Duration::from_secs(90) };

/// The argument of the sub-command.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Ports {
    ports: Vec<PortMapping>,
    /// Where the process is to be found; where it was started, without one.
    #[serde(default)]
    cgroup: Option<Cgroup>,
}

/// Serves the ports until cancelled. When all of them are bound, one line on standard output says so.
pub(crate) async fn main(argument: Option<String>, cancel: Cancel) -> Result<()> {
    // A session of its own: signals of the caller's terminal are not for the proxy. Started from a shell it may have
    // one already.
    let _ = rustix::process::setsid();
    let ports: Ports = service::told(argument, "read the ports to serve")?;
    if let Some(cgroup) = &ports.cgroup {
        cgroup.enter()?;
    }
    let bound = ports.ports.iter().map(Bound::new).collect::<Result<Vec<_>>>()?;
    answer(READY);
    join_all(bound.into_iter().map(|bound| bound.serve(cancel.clone()))).await;
    Ok(())
}

/// Tells the process that waits for this one. That it does not wait any longer is no reason not to serve.
pub(crate) fn answer(line: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdout.flush());
}

/// A port with its socket.
#[derive(Debug)]
enum Bound {
    Tcp(TcpListener, SocketAddr),
    Udp(UdpSocket, SocketAddr),
}

impl Bound {
    fn new(port: &PortMapping) -> Result<Self> {
        let listen = SocketAddr::new(port.listen, port.host_port);
        let target = SocketAddr::new(port.target, port.target_port);
        match port.protocol {
            Protocol::Tcp => Ok(Self::Tcp(proxy::listen(listen)?, target)),
            Protocol::Udp => Ok(Self::Udp(proxy::listen_datagrams(listen)?, target)),
            Protocol::Sctp => Err(Error::NotSupported { feature: format!("publishing {port}") }),
        }
    }

    fn serve(self, cancel: Cancel) -> Pin<Box<dyn Future<Output = ()>>> {
        let stop = async move { cancel.triggered().await };
        match self {
            Self::Tcp(listener, target) => {
                let backends = Backends::new([target]);
                // There is no other to choose, so nobody asks how it is.
                backends.set(target, BackendState::Up);
                Box::pin(proxy::serve(listener, backends, LIMITS, stop))
            }
            Self::Udp(socket, target) => {
                Box::pin(proxy::relay_datagrams(socket, target, DATAGRAM_LIMITS, stop))
            }
        }
    }
}
