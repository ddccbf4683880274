//! How many nodes of which role a cluster has.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// The nodes of a cluster, written as `1` or `3+2`: control planes, and workers where there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    control_planes: u8,
    workers: u8,
}

impl Shape {
    /// What the others are compared with.
    pub(crate) const ONE_NODE: Self = Self { control_planes: 1, workers: 0 };
    /// The smallest cluster whose pods are on different nodes.
    pub(crate) const TWO_WORKERS: Self = Self { control_planes: 1, workers: 2 };
    /// The smallest whose etcd can lose a member.
    pub(crate) const HIGH_AVAILABILITY: Self = Self { control_planes: 3, workers: 2 };
    /// What is measured when nothing else is asked for.
    pub(crate) const DEFAULT: [Self; 3] = [Self::ONE_NODE, Self::TWO_WORKERS, Self::HIGH_AVAILABILITY];

    /// The configuration of such a cluster.
    pub(crate) fn config(self) -> String {
        let control_planes = "  - role: control-plane\n".repeat(self.control_planes.into());
        let workers = "  - role: worker\n".repeat(self.workers.into());
        format!("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n{control_planes}{workers}")
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.workers {
            0 => write!(formatter, "{}", self.control_planes),
            workers => write!(formatter, "{}+{workers}", self.control_planes),
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (control_planes, workers) = text.split_once('+').unwrap_or((text, "0"));
        match (control_planes.parse(), workers.parse()) {
            (Ok(control_planes @ 1..), Ok(workers)) => Ok(Self { control_planes, workers }),
            _ => {
                Err("expected a number of control planes, or that and a number of workers, as 3+2".to_owned())
            }
        }
    }
}

impl Serialize for Shape {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_and_written() {
        for text in ["1", "1+2", "3+2"] {
            let shape: Shape = text.parse().expect("a shape");
            assert_eq!(shape.to_string(), text);
            assert!(Shape::DEFAULT.contains(&shape));
        }
        for text in ["", "0", "0+2", "1+", "+2", "1+2+3", "-1", "one", "256"] {
            assert!(text.parse::<Shape>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_configuration_lists_the_nodes() {
        let expected = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n  - role: control-plane\n  - role: worker\n  \
                        - role: worker\n";
        assert_eq!(Shape::TWO_WORKERS.config(), expected);
    }
}
