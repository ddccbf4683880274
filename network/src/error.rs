//! What can go wrong, one variant per step, with the object in it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use nix::errno::Errno;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. Its message is lower case, names the object and leaves the cause to `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // === namespaces and sockets ===
    /// A helper thread could not be started, or did not live to answer.
    #[error("failed to run a network helper thread")]
    Thread(#[source] io::Error),
    /// A new network namespace could not be made.
    #[error("failed to create a network namespace")]
    CreateNetns(#[source] io::Error),
    /// A network namespace could not be entered.
    #[error("failed to enter a network namespace")]
    EnterNetns(#[source] io::Error),
    /// Packets could not be held.
    #[error("failed to hold packets for {servers}")]
    Hold {
        /// Whom they are for.
        servers: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A netlink socket could not be opened.
    #[error("failed to open a {protocol} netlink socket")]
    OpenSocket {
        /// `route` or `netfilter`.
        protocol: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel did not list what was asked for.
    #[error("failed to list {what}")]
    List {
        /// What was listed, in the plural.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },

    // === links ===
    /// A link of this name exists and is not Kiln's; it has not been touched.
    #[error("link {link} exists and does not belong to this cluster")]
    ForeignLink {
        /// The link.
        link: String,
    },
    /// A link that should be there is not.
    #[error("link {link} does not exist")]
    NoLink {
        /// The link.
        link: String,
    },
    /// A link could not be looked up.
    #[error("failed to look up link {link}")]
    FindLink {
        /// The link.
        link: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A bridge could not be made.
    #[error("failed to create bridge {bridge}")]
    CreateBridge {
        /// The bridge.
        bridge: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The veth pair of a node could not be made.
    #[error("failed to create link {link} of node {node} on bridge {bridge}")]
    CreateVeth {
        /// The host's end.
        link: String,
        /// The node.
        node: String,
        /// The bridge.
        bridge: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A link could not be brought up or given its settings.
    #[error("failed to set up link {link}")]
    SetUpLink {
        /// The link.
        link: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A link could not be removed.
    #[error("failed to remove link {link}")]
    RemoveLink {
        /// The link.
        link: String,
        /// The cause.
        #[source]
        source: io::Error,
    },

    // === addresses and routes ===
    /// An address lies outside of the network it is for.
    #[error("address {address} of node {node} is not in the network of cluster {cluster}")]
    AddressOutside {
        /// The address.
        address: IpAddr,
        /// The node.
        node: String,
        /// The cluster.
        cluster: String,
    },
    /// An address could not be set.
    #[error("failed to add address {address} to link {link}")]
    AddAddress {
        /// The address.
        address: IpAddr,
        /// The link.
        link: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An address left from earlier could not be taken away.
    #[error("failed to remove address {address} from link {link}")]
    RemoveAddress {
        /// The address.
        address: IpAddr,
        /// The link.
        link: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A default route could not be set.
    #[error("failed to add the default route through {gateway} for node {node}")]
    AddRoute {
        /// The gateway.
        gateway: IpAddr,
        /// The node.
        node: String,
        /// The cause.
        #[source]
        source: io::Error,
    },

    /// A route to the pods of another node could not be set or removed.
    #[error("failed to {what} the route of node {node} to pods {pods} through {gateway}")]
    PodRoute {
        /// `set` or `remove`.
        what: &'static str,
        /// The node that it is for.
        node: String,
        /// Where it leads to.
        pods: ipnet::IpNet,
        /// The node that has the pods.
        gateway: IpAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },

    // === translation ===
    /// A table of this name exists and is not Kiln's; it has not been touched.
    #[error("nftables table {table} exists and does not belong to this cluster")]
    ForeignTable {
        /// Family and name.
        table: String,
    },
    /// A transaction on the nftables rules was refused; nothing of it took effect.
    #[error("failed to change the nftables rules: {step}")]
    Transaction {
        /// The part that was refused.
        step: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A port mapping that address translation cannot do.
    #[error("cannot publish {mapping}: {reason}")]
    Unpublishable {
        /// The mapping.
        mapping: String,
        /// Why.
        reason: &'static str,
    },
    /// A kernel setting could not be read or changed; the source names the file.
    #[error("failed to set {setting} to 1")]
    Sysctl {
        /// The setting, in sysctl's notation.
        setting: String,
        /// The cause.
        #[source]
        source: io::Error,
    },

    // === the proxy ===
    /// A port could not be listened on.
    #[error("failed to listen on {address}/{protocol}")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// The protocol.
        protocol: crate::Protocol,
        /// The cause.
        #[source]
        source: io::Error,
    },

    // === the host ===
    /// No free port was found.
    #[error("failed to find a free {protocol} port on {listen}")]
    FreePort {
        /// The protocol.
        protocol: crate::Protocol,
        /// The address.
        listen: IpAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The host's resolver settings could not be read; the source names the file.
    #[error("failed to read the host's name servers")]
    Resolvers(#[source] io::Error),
}

impl Error {
    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ForeignLink { link } => Some(format!(
                "choose another cluster name, or remove the link if nothing needs it: ip link delete {link}"
            )),
            Self::ForeignTable { table } => Some(format!(
                "choose another cluster name, or remove the table if nothing needs it: nft delete table {table}"
            )),
            Self::FreePort { listen, .. } => {
                Some(format!("check that {} is an address of this host", SocketAddr::new(*listen, 0).ip()))
            }
            _ => self.cause().and_then(|cause| self.hint_of_cause(cause)),
        }
    }

    fn hint_of_cause(&self, cause: &io::Error) -> Option<String> {
        let errno = Errno::from_raw(cause.raw_os_error()?);
        let hint = match (self, errno) {
            (Self::Listen { .. }, Errno::EACCES) => "ports below 1024 need CAP_NET_BIND_SERVICE",
            (_, Errno::EPERM | Errno::EACCES) => "run as root, with CAP_NET_ADMIN and CAP_SYS_ADMIN",
            (Self::Sysctl { .. }, Errno::EROFS) => {
                "/proc/sys is read-only here: in a container, run it privileged; or set it on the host"
            }
            (Self::CreateBridge { .. }, Errno::EOPNOTSUPP) => "the kernel lacks bridges: modprobe bridge",
            (Self::CreateVeth { .. }, Errno::EOPNOTSUPP) => "the kernel lacks veth pairs: modprobe veth",
            (Self::AddAddress { address: IpAddr::V6(_), .. }, _) => {
                "is IPv6 switched off (net.ipv6.conf.all.disable_ipv6)?"
            }
            (Self::OpenSocket { protocol: "netfilter", .. }, Errno::EPROTONOSUPPORT)
            | (
                Self::Transaction { .. } | Self::List { .. },
                Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EINVAL,
            ) => {
                "the kernel may lack a part of nftables: modprobe nf_tables nft_chain_nat nft_masq nft_nat \
                 nft_ct nft_fib_ipv4 nft_reject_ipv4 (and the ipv6 ones)"
            }
            (Self::Listen { .. }, Errno::EADDRINUSE) => "another program has the port: ss -lntup names it",
            (Self::Listen { .. }, Errno::EADDRNOTAVAIL) => "the address is not one of this host",
            (Self::CreateNetns(_), Errno::ENOSPC) => "raise user.max_net_namespaces",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    fn cause(&self) -> Option<&io::Error> {
        match self {
            Self::Thread(source)
            | Self::CreateNetns(source)
            | Self::EnterNetns(source)
            | Self::Hold { source, .. }
            | Self::OpenSocket { source, .. }
            | Self::List { source, .. }
            | Self::FindLink { source, .. }
            | Self::CreateBridge { source, .. }
            | Self::CreateVeth { source, .. }
            | Self::SetUpLink { source, .. }
            | Self::RemoveLink { source, .. }
            | Self::AddAddress { source, .. }
            | Self::RemoveAddress { source, .. }
            | Self::AddRoute { source, .. }
            | Self::PodRoute { source, .. }
            | Self::Transaction { source, .. }
            | Self::Sysctl { source, .. }
            | Self::Listen { source, .. }
            | Self::FreePort { source, .. }
            | Self::Resolvers(source) => Some(source),
            Self::ForeignLink { .. }
            | Self::NoLink { .. }
            | Self::AddressOutside { .. }
            | Self::ForeignTable { .. }
            | Self::Unpublishable { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_objects_are_named_with_their_cure() {
        let error = Error::ForeignLink { link: "kiln-x".to_owned() };
        assert_eq!(error.to_string(), "link kiln-x exists and does not belong to this cluster");
        assert!(error.hint().is_some_and(|hint| hint.contains("ip link delete kiln-x")));
    }

    #[test]
    fn missing_privilege_is_told() {
        let source = io::Error::from_raw_os_error(Errno::EPERM as i32);
        let error = Error::CreateBridge { bridge: "kiln-x".to_owned(), source };
        assert!(error.hint().is_some_and(|hint| hint.contains("root")));
        let source = io::Error::other("odd");
        assert_eq!(Error::CreateBridge { bridge: "kiln-x".to_owned(), source }.hint(), None);
    }
}
