//! What the tests play on: hosts and nodes in namespaces, people who talk, and a look behind the scenes.

#![expect(clippy::unwrap_used, reason = "a stage that cannot be set up is a failed test")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
    time::Duration,
};

use futures_util::TryStreamExt;
use kiln_network::{Endpoint, Error, Network, attach, create_bridge, new_netns};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, Hook, HookNumber, InetHookNumber, NfTablesMessage, TableAttribute,
        TableMessage,
    },
    none::ControlMessage,
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_NETFILTER};
use nix::sched::CloneFlags;
use rtnetlink::{
    Handle, LinkUnspec, RouteMessageBuilder,
    packet_route::link::{LinkAttribute, LinkMessage},
};

/// Longer than any step takes on a busy machine; what does not arrive within it does not arrive.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait for what must not arrive.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 30, 77, 1);
pub(crate) const FIRST: Ipv4Addr = Ipv4Addr::new(172, 30, 77, 2);
pub(crate) const SECOND: Ipv4Addr = Ipv4Addr::new(172, 30, 77, 3);

// === the stage ===

/// Runs a test on a thread in a network namespace of its own, with loopback up and a runtime that stays on it.
pub(crate) fn on_a_host_of_its_own<F, T>(test: F)
where
    F: FnOnce() -> T + Send + 'static,
    T: Future<Output = ()>,
{
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let thread = thread::spawn(move || {
        if let Err(error) = leave_host() {
            println!("skipped: no network namespaces here: {error}");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            set_up_loopback(&host_handle()).await;
            test().await;
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[expect(clippy::disallowed_methods, reason = "on a thread that ends with its test")]
pub(crate) fn leave_host() -> nix::Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET)
}

#[expect(clippy::disallowed_methods, reason = "on a throw-away thread")]
pub(crate) fn enter(netns: BorrowedFd<'_>) {
    nix::sched::setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
}

/// Runs something in a node's namespace. Sockets made there stay there.
pub(crate) fn inside<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            enter(netns);
            work()
        });
        thread.join().unwrap()
    })
}

pub(crate) fn network(cluster: &str) -> Network {
    network_named(cluster, &Network::bridge_name(cluster))
}

pub(crate) fn network_named(cluster: &str, bridge: &str) -> Network {
    Network {
        cluster: cluster.to_owned(),
        bridge: bridge.to_owned(),
        ipv4: Some("172.30.77.0/24".parse().unwrap()),
        ipv6: None,
        mtu: 1500,
    }
}

pub(crate) fn endpoint(node: &str, ipv4: Ipv4Addr) -> Endpoint {
    let [a, b, c, d] = ipv4.octets();
    let mac = [2, 0x42, a, b, c, d];
    Endpoint {
        node: node.to_owned(),
        link: Endpoint::link_name("stage", node),
        mac,
        ipv4: Some(ipv4),
        ipv6: None,
    }
}

pub(crate) async fn two_nodes() -> (Network, OwnedFd, OwnedFd) {
    let network = network("wired");
    create_bridge(&network).await.unwrap();
    let (first, second) = (new_netns().unwrap(), new_netns().unwrap());
    attach(&network, &endpoint("wired-first", FIRST), first.as_fd()).await.unwrap();
    attach(&network, &endpoint("wired-second", SECOND), second.as_fd()).await.unwrap();
    (network, first, second)
}

pub(crate) fn assert_clean(errors: Vec<Error>) {
    assert!(errors.is_empty(), "{errors:?}");
}

// === talking ===

/// Answers one caller with `text`; gives back the caller's address.
pub(crate) fn greeter(
    netns: BorrowedFd<'_>,
    address: SocketAddr,
    text: &'static str,
) -> thread::JoinHandle<IpAddr> {
    let listener = inside(netns, move || TcpListener::bind(address).unwrap());
    thread::spawn(move || {
        // An accept that nobody calls must not hang the test.
        let timeout = nix::sys::time::TimeVal::new(PATIENCE.as_secs().try_into().unwrap(), 0);
        nix::sys::socket::setsockopt(&listener, nix::sys::socket::sockopt::ReceiveTimeout, &timeout).unwrap();
        let (mut stream, caller) = listener.accept().unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        caller.ip()
    })
}

/// What is said at `address`, and the caller's own address.
pub(crate) fn greeting(address: SocketAddr) -> io::Result<(String, IpAddr)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok((text, stream.local_addr()?.ip()))
}

pub(crate) fn received(socket: &UdpSocket, patience: Duration) -> Option<(Vec<u8>, IpAddr)> {
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut buffer = [0; 64];
    let (length, sender) = socket.recv_from(&mut buffer).ok()?;
    Some((buffer[..length].to_vec(), sender.ip()))
}

// === netlink ===

pub(crate) fn host_handle() -> Handle {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle
}

pub(crate) fn node_handle(netns: BorrowedFd<'_>) -> Handle {
    let runtime = tokio::runtime::Handle::current();
    let (connection, handle) = inside(netns, move || {
        let _guard = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        (connection, handle)
    });
    tokio::spawn(connection);
    handle
}

pub(crate) async fn link(handle: &Handle, name: &str) -> LinkMessage {
    handle.link().get().match_name(name).execute().try_next().await.unwrap().unwrap()
}

pub(crate) async fn link_names() -> Vec<String> {
    let links: Vec<LinkMessage> = host_handle().link().get().execute().try_collect().await.unwrap();
    let names = links.iter().flat_map(|link| &link.attributes).filter_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

pub(crate) async fn set_up_loopback(handle: &Handle) {
    let index = link(handle, "lo").await.header.index;
    handle.link().change(LinkUnspec::new_with_index(index).up().build()).execute().await.unwrap();
}

pub(crate) async fn set_alias(name: &str, alias: &str) {
    let handle = host_handle();
    let index = link(&handle, name).await.header.index;
    handle.link().change(LinkUnspec::new_with_index(index).alias(alias).build()).execute().await.unwrap();
}

pub(crate) async fn add_loopback_address(netns: BorrowedFd<'_>, address: Ipv4Addr) {
    let handle = node_handle(netns);
    let index = link(&handle, "lo").await.header.index;
    handle.address().add(index, address.into(), 32).execute().await.unwrap();
}

pub(crate) async fn add_route(netns: BorrowedFd<'_>, to: Ipv4Addr, through: Ipv4Addr) {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32).gateway(through).build();
    node_handle(netns).route().add(route).execute().await.unwrap();
}

pub(crate) async fn drop_default_route(netns: BorrowedFd<'_>) {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().build();
    node_handle(netns).route().del(route).execute().await.unwrap();
}

/// Makes a node send what is for 127.0.0.1 to the host, as a program in it with a raw socket could.
pub(crate) async fn send_loopback_out(netns: BorrowedFd<'_>) -> UdpSocket {
    let handle = node_handle(netns);
    let lo = link(&handle, "lo").await.header.index;
    let addresses: Vec<_> =
        handle.address().get().set_link_index_filter(lo).execute().try_collect().await.unwrap();
    for address in addresses {
        handle.address().del(address).execute().await.unwrap();
    }
    add_route(netns, Ipv4Addr::LOCALHOST, GATEWAY).await;
    inside(netns, || UdpSocket::bind((FIRST, 0)).unwrap())
}

// === nftables ===

/// The names of all tables, sorted.
pub(crate) fn table_names() -> Vec<String> {
    let request = NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() });
    let socket = netfilter_socket();
    let packet = packet(0, NLM_F_DUMP, nft(NetfilterProtoFamily::Unspec, request));
    socket.send(&packet, 0).unwrap();
    let mut names = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full().unwrap();
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest).unwrap();
            rest = &rest[message.header.length as usize..];
            match message.payload {
                NetlinkPayload::Done(_) => {
                    names.sort();
                    return names;
                }
                NetlinkPayload::InnerMessage(message) => names.extend(table_name(&message)),
                _ => {}
            }
        }
    }
}

fn table_name(message: &NetfilterMessage) -> Option<String> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) = &message.inner else {
        return None;
    };
    table.attributes.iter().find_map(|attribute| match attribute {
        TableAttribute::Name(name) => Some(name.clone()),
        _ => None,
    })
}

/// Makes a table of family `ip` as another program would, with a chain that drops what is forwarded.
pub(crate) fn create_dropping_table(name: &str) {
    let table = TableMessage { attributes: vec![TableAttribute::Name(name.to_owned())] };
    let chain = ChainMessage {
        attributes: vec![
            ChainAttribute::Table(name.to_owned()),
            ChainAttribute::Name("FORWARD".to_owned()),
            ChainAttribute::Hook(vec![
                Hook::Number(HookNumber::Inet(InetHookNumber::Forward)),
                Hook::Priority(0),
            ]),
            ChainAttribute::Type("filter".to_owned()),
            ChainAttribute::Policy(0),
        ],
    };
    let control =
        |message| NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 10), message);
    let ip = NetfilterProtoFamily::IPv4;
    let batch = [
        packet(0, 0, control(ControlMessage::BatchBegin)),
        packet(1, NLM_F_CREATE, nft(ip, NfTablesMessage::NewTable(table))),
        packet(2, NLM_F_CREATE | NLM_F_ACK, nft(ip, NfTablesMessage::NewChain(chain))),
        packet(3, 0, control(ControlMessage::BatchEnd)),
    ];
    let socket = netfilter_socket();
    socket.send(&batch.concat(), 0).unwrap();
    let (answer, _) = socket.recv_from_full().unwrap();
    let answer = NetlinkMessage::<NetfilterMessage>::deserialize(&answer).unwrap();
    assert!(matches!(&answer.payload, NetlinkPayload::Error(error) if error.code.is_none()), "{answer:?}");
}

fn nft(family: NetfilterProtoFamily, message: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message)
}

fn packet(sequence: u32, flags: u16, message: NetfilterMessage) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    bytes
}

fn netfilter_socket() -> Socket {
    let mut socket = Socket::new(NETLINK_NETFILTER).unwrap();
    socket.bind(&NetlinkAddress::new(0, 0)).unwrap();
    socket.connect(&NetlinkAddress::new(0, 0)).unwrap();
    socket
}
