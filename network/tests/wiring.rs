//! Real wiring, in network namespaces of the tests' own.
//!
//! Each test plays "the host" in a fresh namespace, on a thread that ends with it; the host's own namespace is never
//! entered. Without root, or where namespaces are not to be had, the tests say so and pass.

mod firewalls;
mod stage;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use kiln_network::{
    Endpoint, Error, Network, PodRules, PortMapping, Protocol, UPLINK, attach, create_bridge, forward_drops,
    isolate_services, new_netns, occupied_subnets, publish, remove, uplink_mtu,
};
use rtnetlink::{LinkBridge, RouteMessageBuilder};
use stage::*;

#[test]
fn nodes_reach_each_other_and_the_gateway() {
    on_a_host_of_its_own(|| async {
        let (network, first, second) = two_nodes().await;

        let address = SocketAddr::from((FIRST, 8000));
        let server = greeter(first.as_fd(), address, "hello");
        assert_eq!(
            inside(second.as_fd(), move || greeting(address)).unwrap(),
            ("hello".to_owned(), SECOND.into())
        );
        server.join().unwrap();

        let echo = inside(first.as_fd(), || UdpSocket::bind((FIRST, 8001)).unwrap());
        let sender = inside(second.as_fd(), || UdpSocket::bind((SECOND, 0)).unwrap());
        sender.send_to(b"ping", (FIRST, 8001)).unwrap();
        assert_eq!(received(&echo, PATIENCE), Some((b"ping".to_vec(), SECOND.into())));

        let host = UdpSocket::bind((GATEWAY, 8002)).unwrap();
        sender.send_to(b"up", (GATEWAY, 8002)).unwrap();
        assert_eq!(received(&host, PATIENCE), Some((b"up".to_vec(), SECOND.into())));
        assert_clean(remove(&network).await);
    });
}

#[test]
fn ipv6_works_without_delay() {
    on_a_host_of_its_own(|| async {
        if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
            println!("skipped: this kernel has no IPv6");
            return;
        }
        let network = Network { ipv6: Some("fd00:77::/64".parse().unwrap()), ..network("six") };
        create_bridge(&network).await.unwrap();
        let address: IpAddr = "fd00:77::2".parse().unwrap();
        let node = new_netns().unwrap();
        let endpoint = Endpoint { ipv6: Some("fd00:77::2".parse().unwrap()), ..endpoint("six-node", FIRST) };
        attach(&network, &endpoint, node.as_fd()).await.unwrap();
        // Binding fails while duplicate address detection runs.
        let target = SocketAddr::from((address, 8000));
        let server = greeter(node.as_fd(), target, "six");
        let mapping = PortMapping {
            protocol: Protocol::Tcp,
            listen: "::".parse().unwrap(),
            host_port: 18080,
            target: address,
            target_port: 8000,
        };
        publish(&network, &[mapping]).await.unwrap();
        let published = SocketAddr::from(("fd00:77::1".parse::<IpAddr>().unwrap(), 18080));
        assert_eq!(greeting(published).unwrap().0, "six");
        server.join().unwrap();
        assert_clean(remove(&network).await);
    });
}

#[test]
fn published_ports_lead_to_nodes() {
    on_a_host_of_its_own(|| async {
        let (network, first, second) = two_nodes().await;
        let map = |listen: Ipv4Addr, host_port| PortMapping {
            protocol: Protocol::Tcp,
            listen: listen.into(),
            host_port,
            target: FIRST.into(),
            target_port: 8000,
        };
        let ports = [map(Ipv4Addr::LOCALHOST, 18080), map(Ipv4Addr::UNSPECIFIED, 18081)];
        publish(&network, &ports).await.unwrap();
        // Again: replacing must work as well as making.
        publish(&network, &ports).await.unwrap();
        let target = SocketAddr::from((FIRST, 8000));

        // From the host through localhost: the node sees the bridge.
        let server = greeter(first.as_fd(), target, "node");
        let seen = greeting(SocketAddr::from((Ipv4Addr::LOCALHOST, 18080))).unwrap();
        assert_eq!(seen, ("node".to_owned(), Ipv4Addr::LOCALHOST.into()));
        assert_eq!(server.join().unwrap(), IpAddr::V4(GATEWAY));

        // From the host through one of its other addresses.
        let server = greeter(first.as_fd(), target, "node");
        assert_eq!(greeting(SocketAddr::from((GATEWAY, 18081))).unwrap().0, "node");
        server.join().unwrap();

        // From a neighbour through the host's address, and from the node to itself; with and without the bridge's
        // frames passing the rules, where this kernel has that choice.
        for filtered in ["0", "1"] {
            let _ = fs_err::write("/proc/sys/net/bridge/bridge-nf-call-iptables", filtered);
            for caller in [second.as_fd(), first.as_fd()] {
                let server = greeter(first.as_fd(), target, "node");
                let seen = inside(caller, || greeting(SocketAddr::from((GATEWAY, 18081))));
                assert_eq!(seen.unwrap().0, "node");
                assert_eq!(server.join().unwrap(), IpAddr::V4(GATEWAY));
            }
        }

        // The localhost port is for the host alone.
        let refused = inside(second.as_fd(), || greeting(SocketAddr::from((GATEWAY, 18080))));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);

        // Gone with the next publication.
        publish(&network, &[]).await.unwrap();
        let refused = greeting(SocketAddr::from((Ipv4Addr::LOCALHOST, 18080)));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_clean(remove(&network).await);
    });
}

#[test]
fn udp_ports_are_published() {
    on_a_host_of_its_own(|| async {
        let (network, first, _second) = two_nodes().await;
        let mapping = PortMapping {
            protocol: Protocol::Udp,
            listen: Ipv4Addr::LOCALHOST.into(),
            host_port: 18053,
            target: FIRST.into(),
            target_port: 53,
        };
        publish(&network, &[mapping]).await.unwrap();
        let node = inside(first.as_fd(), || UdpSocket::bind((FIRST, 53)).unwrap());
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.send_to(b"query", (Ipv4Addr::LOCALHOST, 18053)).unwrap();
        assert_eq!(received(&node, PATIENCE), Some((b"query".to_vec(), GATEWAY.into())));
        assert_clean(remove(&network).await);
    });
}

#[test]
fn a_long_list_of_ports_fits_into_one_transaction() {
    on_a_host_of_its_own(|| async {
        let (network, first, _second) = two_nodes().await;
        let map = |host_port| PortMapping {
            protocol: Protocol::Tcp,
            listen: Ipv4Addr::UNSPECIFIED.into(),
            host_port,
            target: FIRST.into(),
            target_port: 8000,
        };
        let ports: Vec<_> = (20_000..21_500).map(map).collect();
        publish(&network, &ports).await.unwrap();
        let server = greeter(first.as_fd(), SocketAddr::from((FIRST, 8000)), "last");
        assert_eq!(greeting(SocketAddr::from((Ipv4Addr::LOCALHOST, 21_499))).unwrap().0, "last");
        server.join().unwrap();
        assert_clean(remove(&network).await);
    });
}

#[test]
fn nodes_reach_out_under_the_hosts_address() {
    on_a_host_of_its_own(|| async {
        let (network, first, _second) = two_nodes().await;
        publish(&network, &[]).await.unwrap();
        // The outside world is another bridge with a host on it that knows nothing of the cluster's subnet.
        let world = Network {
            ipv4: Some("198.51.100.0/24".parse().unwrap()),
            ..network_named("world", "kiln-world")
        };
        create_bridge(&world).await.unwrap();
        let outside = new_netns().unwrap();
        let address = Ipv4Addr::new(198, 51, 100, 2);
        attach(&world, &endpoint("world-host", address), outside.as_fd()).await.unwrap();
        drop_default_route(outside.as_fd()).await;

        let target = SocketAddr::from((address, 443));
        let server = greeter(outside.as_fd(), target, "world");
        assert_eq!(inside(first.as_fd(), move || greeting(target)).unwrap().0, "world");
        assert_eq!(server.join().unwrap(), IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)));
        assert_clean(remove(&network).await);
        assert_clean(remove(&world).await);
    });
}

#[test]
fn the_hosts_loopback_is_guarded() {
    on_a_host_of_its_own(|| async {
        let (network, first, _second) = two_nodes().await;
        let secret = UdpSocket::bind((Ipv4Addr::LOCALHOST, 9000)).unwrap();
        let attacker = send_loopback_out(first.as_fd()).await;
        let attack = || attacker.send_to(b"attack", (Ipv4Addr::LOCALHOST, 9000)).unwrap();

        // What localhost access needs lets the packet in, so it is the guard that the silence below is due to.
        let setting = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", network.bridge);
        fs_err::write(&setting, "1").unwrap();
        attack();
        assert_eq!(received(&secret, PATIENCE), Some((b"attack".to_vec(), FIRST.into())));

        publish(&network, &[]).await.unwrap();
        assert_eq!(fs_err::read_to_string(&setting).unwrap().trim(), "1");
        attack();
        assert_eq!(received(&secret, SILENCE), None);
        assert_clean(remove(&network).await);
    });
}

#[test]
fn removal_leaves_nothing_and_can_be_repeated() {
    on_a_host_of_its_own(|| async {
        let before = link_names().await;
        let (network, first, _second) = two_nodes().await;
        publish(&network, &[]).await.unwrap();
        assert_eq!(link_names().await.len(), before.len() + 3);
        assert_eq!(table_names(), [network.table()]);
        assert_clean(remove(&network).await);
        assert_eq!(link_names().await, before);
        assert_eq!(table_names(), [""; 0]);
        assert_eq!(
            inside(first.as_fd(), || nix::net::if_::if_nametoindex(UPLINK)),
            Err(nix::errno::Errno::ENODEV)
        );
        assert_clean(remove(&network).await);
        assert_clean(remove(&network_named("never-was", "kiln-never-was")).await);
    });
}

#[test]
fn foreign_links_are_left_alone() {
    on_a_host_of_its_own(|| async {
        let handle = host_handle();
        let network = network("foreign");
        handle.link().add(LinkBridge::new(&network.bridge).build()).execute().await.unwrap();
        let error = create_bridge(&network).await.unwrap_err();
        assert!(matches!(&error, Error::ForeignLink { link } if *link == network.bridge), "{error:?}");
        assert_clean(remove(&network).await);
        assert!(link_names().await.contains(&network.bridge));

        let mine = self::network("mine");
        create_bridge(&mine).await.unwrap();
        let endpoint = endpoint("mine-node", FIRST);
        handle.link().add(LinkBridge::new(&endpoint.link).build()).execute().await.unwrap();
        let node = new_netns().unwrap();
        let error = attach(&mine, &endpoint, node.as_fd()).await.unwrap_err();
        assert!(matches!(&error, Error::ForeignLink { link } if *link == endpoint.link), "{error:?}");
        assert_clean(remove(&mine).await);
        assert!(link_names().await.contains(&endpoint.link));
    });
}

#[test]
fn bridges_and_nodes_survive_a_second_setting_up() {
    on_a_host_of_its_own(|| async {
        let (network, first, _second) = two_nodes().await;
        // A bridge whose run was killed before it set the alias, and a node that starts again.
        set_alias(&network.bridge, "").await;
        create_bridge(&network).await.unwrap();
        let again = new_netns().unwrap();
        attach(&network, &endpoint("wired-first", FIRST), again.as_fd()).await.unwrap();
        drop(first);
        let address = SocketAddr::from((FIRST, 8000));
        let server = greeter(again.as_fd(), address, "again");
        assert_eq!(greeting(address).unwrap().0, "again");
        server.join().unwrap();

        // Another subnet: the old address must not stay beside the new one.
        let moved = Network { ipv4: Some("172.30.78.0/24".parse().unwrap()), ..network };
        create_bridge(&moved).await.unwrap();
        let occupied = occupied_subnets().await.unwrap();
        assert!(occupied.contains(&"172.30.78.0/24".parse().unwrap()), "{occupied:?}");
        assert!(!occupied.contains(&"172.30.77.0/24".parse().unwrap()), "{occupied:?}");
        // And one of another cluster is not taken for ours.
        set_alias(&moved.bridge, "kiln:other").await;
        assert!(matches!(create_bridge(&moved).await, Err(Error::ForeignLink { .. })));
    });
}

#[test]
fn services_without_rules_are_refused_and_pods_masqueraded() {
    on_a_host_of_its_own(|| async {
        let (network, first, second) = two_nodes().await;
        let pod = Ipv4Addr::new(10, 244, 0, 5);
        let rules = PodRules {
            pod_subnets: vec!["10.244.0.0/16".parse().unwrap()],
            service_subnets: vec!["10.96.0.0/16".parse().unwrap()],
            uplink: UPLINK.to_owned(),
            fallback: None,
        };
        isolate_services(Some(first.as_fd()), &rules).await.unwrap();
        isolate_services(Some(first.as_fd()), &rules).await.unwrap();

        let started = Instant::now();
        let refused = inside(first.as_fd(), || greeting(SocketAddr::from(([10, 96, 0, 1], 443))));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(started.elapsed() < Duration::from_secs(1));

        // A pod, as far as the rules can tell: an address of the pods' subnet behind the node.
        add_loopback_address(first.as_fd(), pod).await;
        let outside = UdpSocket::bind((GATEWAY, 8002)).unwrap();
        let sender = inside(first.as_fd(), move || UdpSocket::bind((pod, 0)).unwrap());
        sender.send_to(b"out", (GATEWAY, 8002)).unwrap();
        assert_eq!(received(&outside, PATIENCE), Some((b"out".to_vec(), FIRST.into())));

        // Between pods nothing is translated.
        let other = Ipv4Addr::new(10, 244, 1, 5);
        add_loopback_address(second.as_fd(), other).await;
        add_route(first.as_fd(), other, SECOND).await;
        let receiver = inside(second.as_fd(), move || UdpSocket::bind((other, 8003)).unwrap());
        // Without a route back the receiver would still receive; strict reverse path filters want one.
        add_route(second.as_fd(), pod, FIRST).await;
        sender.send_to(b"pod", (other, 8003)).unwrap();
        assert_eq!(received(&receiver, PATIENCE), Some((b"pod".to_vec(), pod.into())));
        assert_clean(remove(&network).await);
    });
}

#[test]
fn a_quiet_host_has_neither_uplink_nor_drops() {
    on_a_host_of_its_own(|| async {
        assert_eq!(uplink_mtu().await.unwrap(), 1500);
        let drops = forward_drops().unwrap();
        assert!(drops.chains.is_empty() && drops.owned.is_empty(), "{drops:?}");

        let handle = host_handle();
        handle.link().add(LinkBridge::new("up0").mtu(1400).up().build()).execute().await.unwrap();
        let index = link(&handle, "up0").await.header.index;
        handle.address().add(index, Ipv4Addr::new(192, 0, 2, 7).into(), 24).execute().await.unwrap();
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(Ipv4Addr::new(192, 0, 2, 1)).build();
        handle.route().add(route).execute().await.unwrap();
        assert_eq!(uplink_mtu().await.unwrap(), 1400);
        let occupied = occupied_subnets().await.unwrap();
        assert!(occupied.contains(&"192.0.2.0/24".parse().unwrap()), "{occupied:?}");
        assert!(occupied.iter().all(|net| net.prefix_len() > 0), "{occupied:?}");
    });
}

#[test]
fn foreign_tables_are_left_alone_and_seen() {
    on_a_host_of_its_own(|| async {
        let network = network("taken");
        create_dropping_table("filter");
        create_dropping_table(&network.table());
        create_bridge(&network).await.unwrap();
        let error = publish(&network, &[]).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "nftables table ip kiln-taken exists and does not belong to this cluster"
        );
        assert_clean(remove(&network).await);
        assert_eq!(table_names(), ["filter", "kiln-taken"]);

        let drops = forward_drops().unwrap();
        assert!(drops.chains.contains(&"ip filter (chain FORWARD)".to_owned()), "{drops:?}");
    });
}
