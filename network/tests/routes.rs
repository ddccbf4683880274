//! The routes, rules and links that the agent in a cluster keeps, in network namespaces of the tests' own.

#![expect(clippy::unwrap_used, reason = "what cannot be looked at is a failed test")]

#[expect(dead_code, reason = "other tests use the rest of the stage")]
mod stage;

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, BorrowedFd},
};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use kiln_network::{
    Endpoint, Error, Network, PodRoute, PodRules, UPLINK, Uplink, attach, create_bridge, isolate_services,
    new_netns, node_uplink, pod_rules_present, remove, route_pods, sync_pod_routes,
};
use rtnetlink::{
    LinkBridge, RouteMessageBuilder,
    packet_route::route::{RouteAddress, RouteAttribute, RouteMessage},
};
use stage::*;

fn to(pods: &str, via: impl Into<IpAddr>) -> PodRoute {
    PodRoute { pods: pods.parse().unwrap(), via: via.into() }
}

/// The node's routes through other nodes, default routes aside.
async fn routes(netns: BorrowedFd<'_>) -> Vec<PodRoute> {
    let handle = node_handle(netns);
    let mut found = Vec::new();
    for query in [
        RouteMessageBuilder::<Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ] {
        let listed: Vec<RouteMessage> = handle.route().get(query).execute().try_collect().await.unwrap();
        found.extend(listed.iter().filter_map(through_a_node));
    }
    found.sort_by_key(|route| route.pods);
    found
}

fn through_a_node(message: &RouteMessage) -> Option<PodRoute> {
    let address = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    let find = |of: fn(&RouteAttribute) -> Option<&RouteAddress>| {
        message.attributes.iter().find_map(of).and_then(address)
    };
    let destination = find(|attribute| match attribute {
        RouteAttribute::Destination(ip) => Some(ip),
        _ => None,
    });
    let gateway = find(|attribute| match attribute {
        RouteAttribute::Gateway(ip) => Some(ip),
        _ => None,
    });
    let pods = IpNet::new(destination?, message.header.destination_prefix_length).unwrap();
    Some(PodRoute { pods, via: gateway? })
}

#[test]
fn routes_follow_the_nodes() {
    on_a_host_of_its_own(|| async {
        let (network, first, _second) = two_nodes().await;
        let node = first.as_fd();
        let sync = async |wanted: &[PodRoute]| {
            let changes = sync_pod_routes("wired-first", Some(node), wanted).await.unwrap();
            assert_clean(changes.errors);
            (changes.set, changes.removed)
        };
        // Somebody else's, in the middle of the pods' subnet.
        let foreign = Ipv4Addr::new(10, 244, 200, 7);
        add_route(node, foreign, SECOND).await;
        let foreign = to("10.244.200.7/32", SECOND);

        // What the launcher has set is taken over.
        let (one, two) = (to("10.244.1.0/24", SECOND), to("10.244.2.0/24", SECOND));
        route_pods("wired-first", node, &[one]).await.unwrap();
        assert_eq!(sync(&[one]).await, (vec![], vec![]));
        // A node that came.
        assert_eq!(sync(&[one, two]).await, (vec![two], vec![]));
        // One whose address changed, and one whose pods did.
        let (moved, renumbered) = (to("10.244.1.0/24", GATEWAY), to("10.244.3.0/24", SECOND));
        assert_eq!(sync(&[moved, renumbered]).await, (vec![moved, renumbered], vec![two]));
        assert_eq!(routes(node).await, [moved, renumbered, foreign]);
        assert_eq!(sync(&[moved, renumbered]).await, (vec![], vec![]));
        // All others are gone.
        assert_eq!(sync(&[]).await, (vec![], vec![moved, renumbered]));
        assert_eq!(routes(node).await, [foreign]);
        assert_clean(remove(&network).await);
    });
}

#[test]
fn a_refused_route_does_not_keep_others_from_being_set() {
    on_a_host_of_its_own(|| async {
        let (network, first, _second) = two_nodes().await;
        // No node that is on the bridge: the node's default route is no way to a gateway.
        let far = to("10.244.1.0/24", Ipv4Addr::new(198, 51, 100, 2));
        let mixed = to("10.244.2.0/24", std::net::Ipv6Addr::LOCALHOST);
        let near = to("10.244.3.0/24", SECOND);
        let changes = sync_pod_routes("wired-first", Some(first.as_fd()), &[far, mixed, near]).await.unwrap();
        assert_eq!((changes.set, changes.removed), (vec![near], vec![]));
        let refused: Vec<_> = changes.errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            refused[0],
            "failed to set the route of node wired-first to pods 10.244.1.0/24 through 198.51.100.2"
        );
        assert_eq!(refused.len(), 2);
        assert_clean(remove(&network).await);
    });
}

#[test]
fn ipv6_routes_follow_the_nodes_too() {
    on_a_host_of_its_own(|| async {
        if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
            println!("skipped: this kernel has no IPv6");
            return;
        }
        let network = Network { ipv6: Some("fd00:77::/64".parse().unwrap()), ..network("six") };
        create_bridge(&network).await.unwrap();
        let netns = new_netns().unwrap();
        let endpoint = Endpoint { ipv6: Some("fd00:77::2".parse().unwrap()), ..endpoint("six-node", FIRST) };
        attach(&network, &endpoint, netns.as_fd()).await.unwrap();
        let via = |ip: &str| ip.parse::<IpAddr>().unwrap();

        let old = to("fd00:10:244:1::/64", via("fd00:77::3"));
        let new = PodRoute { via: via("fd00:77::4"), ..old };
        let four = to("10.244.1.0/24", SECOND);
        route_pods("six-node", netns.as_fd(), &[old, four]).await.unwrap();
        let changes = sync_pod_routes("six-node", Some(netns.as_fd()), &[new, four]).await.unwrap();
        assert_clean(changes.errors);
        assert_eq!((changes.set, changes.removed), (vec![new], vec![]));
        assert_eq!(routes(netns.as_fd()).await, [four, new]);
        assert_clean(remove(&network).await);
    });
}

#[test]
fn a_process_in_the_node_installs_its_rules_and_finds_its_way_out() {
    on_a_host_of_its_own(|| async {
        assert!(matches!(node_uplink().await, Err(Error::NoLink { link }) if link == UPLINK));
        let handle = host_handle();
        handle.link().add(LinkBridge::new("up0").mtu(1400).up().build()).execute().await.unwrap();
        let index = link(&handle, "up0").await.header.index;
        handle.address().add(index, Ipv4Addr::new(192, 0, 2, 7).into(), 24).execute().await.unwrap();
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(Ipv4Addr::new(192, 0, 2, 1)).build();
        handle.route().add(route).execute().await.unwrap();
        assert_eq!(node_uplink().await.unwrap(), Uplink { link: "up0".to_owned(), mtu: 1400 });
        handle.link().add(LinkBridge::new(UPLINK).mtu(1450).build()).execute().await.unwrap();
        assert_eq!(node_uplink().await.unwrap(), Uplink { link: UPLINK.to_owned(), mtu: 1450 });

        assert!(!pod_rules_present().await.unwrap());
        let rules = PodRules {
            pod_subnets: vec!["10.244.0.0/16".parse().unwrap()],
            service_subnets: Vec::new(),
            uplink: UPLINK.to_owned(),
            fallback: None,
        };
        isolate_services(None, &rules).await.unwrap();
        assert!(pod_rules_present().await.unwrap());
        assert_eq!(table_names(), ["kiln"]);
    });
}
