//! What the agent is told by its environment.

use ipnet::IpNet;

use crate::{Error, Result};

/// The settings of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// The node that it runs on.
    pub(super) node: String,
    /// The subnets that all nodes' pods take their addresses from.
    pub(super) pod_subnets: Vec<IpNet>,
    /// The subnets of the Services' addresses, where somebody has told them.
    pub(super) service_subnets: Vec<IpNet>,
    /// Host and port of the API, reachable without kube-proxy.
    pub(super) endpoint: Option<String>,
}

impl Settings {
    /// Reads them from the variables that `value` finds. An empty one counts as none.
    ///
    /// # Errors
    /// [`Error::Variable`].
    pub(super) fn read(value: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let optional = |name: &'static str| value(name).filter(|text| !text.trim().is_empty());
        let required = |name: &'static str| {
            optional(name).ok_or_else(|| Error::Variable { name, problem: "is not set".to_owned() })
        };
        Ok(Self {
            node: required("NODE_NAME")?,
            pod_subnets: subnets("POD_SUBNET", &required("POD_SUBNET")?)?,
            service_subnets: subnets("SERVICE_SUBNET", &optional("SERVICE_SUBNET").unwrap_or_default())?,
            endpoint: optional("CONTROL_PLANE_ENDPOINT"),
        })
    }
}

/// Reads a list with commas.
fn subnets(name: &'static str, text: &str) -> Result<Vec<IpNet>> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| {
            let problem = || format!("is {text:?}, which is not a list of networks");
            item.parse().map_err(|_| Error::Variable { name, problem: problem() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::read(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn subnets_are_lists_and_what_is_empty_is_not_there() {
        let variables =
            [("NODE_NAME", "n"), ("POD_SUBNET", "10.244.0.0/16, fd00:10:244::/56"), ("SERVICE_SUBNET", "")];
        let settings = read(&variables).unwrap();
        assert_eq!(settings.pod_subnets.len(), 2);
        assert_eq!((settings.service_subnets, settings.endpoint), (vec![], None));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let message = |variables: &[(&str, &str)]| read(variables).unwrap_err().to_string();
        assert_eq!(
            message(&[("POD_SUBNET", "10.244.0.0/16")]),
            "the environment variable NODE_NAME is not set"
        );
        // A manifest that was applied without filling it in.
        assert_eq!(
            message(&[("NODE_NAME", "n"), ("POD_SUBNET", "{{ .PodSubnet }}")]),
            "the environment variable POD_SUBNET is \"{{ .PodSubnet }}\", which is not a list of networks"
        );
    }
}
