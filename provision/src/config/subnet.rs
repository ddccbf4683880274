//! Subnets of pods and services.

use std::fmt;

use ipnet::IpNet;

use super::types::{IpFamily, Subnets};

impl Subnets {
    /// The default pod subnets of a family. Node ranges are /24 and /64, so the IPv6 one is wider than a /64.
    #[must_use]
    pub fn default_pods(family: IpFamily) -> Self {
        Self::fixed(family, "10.244.0.0/16", "fd00:10:244::/56")
    }

    /// The default service subnets of a family.
    #[must_use]
    pub fn default_services(family: IpFamily) -> Self {
        Self::fixed(family, "10.96.0.0/16", "fd00:10:96::/112")
    }

    fn fixed(family: IpFamily, ipv4: &str, ipv6: &str) -> Self {
        let text = match family {
            IpFamily::Ipv4 => ipv4.to_owned(),
            IpFamily::Ipv6 => ipv6.to_owned(),
            IpFamily::Dual => format!("{ipv4},{ipv6}"),
        };
        Self::parse(&text).expect("the default subnets are well-formed")
    }

    /// Reads subnets separated by commas.
    ///
    /// # Errors
    /// When one of them is not an address, a slash and a prefix length.
    pub(super) fn parse(text: &str) -> Result<Self, BadSubnet> {
        let nets = text.split(',').map(parse_net).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), nets })
    }

    /// Checks that the subnets fit the family: one of the family, or for dual-stack one or one of each.
    pub(super) fn check(&self, family: IpFamily) -> Result<(), BadSubnet> {
        let is_ipv4 = |net: &IpNet| net.addr().is_ipv4();
        match (family, self.nets.as_slice()) {
            (IpFamily::Dual, [_]) => Ok(()),
            (IpFamily::Dual, [first, second]) if is_ipv4(first) != is_ipv4(second) => Ok(()),
            (IpFamily::Dual, _) => Err(BadSubnet::NotDual),
            (IpFamily::Ipv4, [net]) if is_ipv4(net) => Ok(()),
            (IpFamily::Ipv6, [net]) if !is_ipv4(net) => Ok(()),
            (IpFamily::Ipv4, [_]) => Err(BadSubnet::WantIpv4),
            (IpFamily::Ipv6, [_]) => Err(BadSubnet::WantIpv6),
            (_, _) => Err(BadSubnet::NotSingle),
        }
    }
}

impl fmt::Display for Subnets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.text)
    }
}

impl From<Subnets> for String {
    fn from(subnets: Subnets) -> Self {
        subnets.text
    }
}

impl TryFrom<String> for Subnets {
    type Error = BadSubnet;

    fn try_from(text: String) -> Result<Self, BadSubnet> {
        Self::parse(&text)
    }
}

/// Why a subnet is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSubnet {
    /// Not written as address and prefix length.
    #[error("`{0}` is not an address with a prefix length, such as 10.244.0.0/16")]
    Syntax(String),
    /// Several subnets without dual-stack.
    #[error("only one subnet is possible unless ipFamily is dual")]
    NotSingle,
    /// Dual-stack with three subnets, or two of one family.
    #[error("dual-stack takes one subnet, or one IPv4 and one IPv6 subnet")]
    NotDual,
    /// An IPv6 subnet in an IPv4 cluster.
    #[error("expected an IPv4 subnet, because ipFamily is ipv4")]
    WantIpv4,
    /// An IPv4 subnet in an IPv6 cluster.
    #[error("expected an IPv6 subnet, because ipFamily is ipv6")]
    WantIpv6,
}

fn parse_net(text: &str) -> Result<IpNet, BadSubnet> {
    text.parse().map_err(|_| BadSubnet::Syntax(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str, family: IpFamily) -> Result<(), BadSubnet> {
        Subnets::parse(text).and_then(|subnets| subnets.check(family))
    }

    #[test]
    fn families_take_what_kubeadm_takes() {
        use IpFamily::{Dual, Ipv4, Ipv6};
        for (text, family, expected) in [
            ("10.9.0.5/20", Ipv4, Ok(())),
            ("fd12:7::/48", Ipv6, Ok(())),
            ("10.9.0.5/20,fd12:7::/48", Dual, Ok(())),
            ("fd12:7::/48,10.9.0.5/20", Dual, Ok(())),
            ("10.9.0.5/20", Dual, Ok(())),
            ("fd12:7::/48", Dual, Ok(())),
            ("10.9.0.5/20,10.8.0.0/16", Ipv4, Err(BadSubnet::NotSingle)),
            ("10.9.0.5/20,10.8.0.0/16", Dual, Err(BadSubnet::NotDual)),
            ("10.9.0.5/20,fd12:7::/48,10.0.0.0/16", Dual, Err(BadSubnet::NotDual)),
            ("fd12:7::/48", Ipv4, Err(BadSubnet::WantIpv4)),
            ("10.9.0.5/20", Ipv6, Err(BadSubnet::WantIpv6)),
            ("aa", Ipv4, Err(BadSubnet::Syntax("aa".into()))),
            ("", Ipv4, Err(BadSubnet::Syntax(String::new()))),
            ("10.0.0.0/33", Ipv4, Err(BadSubnet::Syntax("10.0.0.0/33".into()))),
            ("10.0.0.0/16, fd00::/56", Dual, Err(BadSubnet::Syntax(" fd00::/56".into()))),
        ] {
            assert_eq!(checked(text, family), expected, "{text} for {family:?}");
        }
    }

    #[test]
    fn the_text_stays_as_written() {
        assert_eq!(Subnets::parse("10.9.0.5/20").unwrap().as_str(), "10.9.0.5/20");
    }
}
