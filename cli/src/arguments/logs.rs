//! Commands that watch nodes: logs, top.

use std::time::Duration;

use clap::Args;

use super::{ClusterName, Output, boolean};
use crate::duration;

/// `logs`
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The node, such as kind-control-plane
    pub(crate) node: String,
    /// Go on as more is logged, until Ctrl-C
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only this unit, such as kubelet or containerd (may be repeated)
    #[arg(short, long = "unit", value_name = "UNIT")]
    pub(crate) units: Vec<String>,
    /// Begin with the last N lines ["all" for every line, the default]
    #[arg(long, value_name = "N", value_parser = lines)]
    tail: Option<Lines>,
    /// The console, which is there also when the node does not run
    #[arg(long, conflicts_with = "units")]
    pub(crate) console: bool,
}

impl Logs {
    /// How many lines of what is there already; all when there is no number.
    pub(crate) fn tail(&self) -> Option<usize> {
        match self.tail {
            Some(Lines::Last(count)) => Some(count),
            Some(Lines::All) | None => None,
        }
    }
}

/// A number of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lines {
    All,
    Last(usize),
}

fn lines(text: &str) -> Result<Lines, String> {
    match text {
        "all" => Ok(Lines::All),
        _ => text.parse().map(Lines::Last).map_err(|_| String::from("it is a number of lines, or \"all\"")),
    }
}

/// `top`
#[derive(Clone, Debug, Args)]
pub(crate) struct Top {
    #[command(flatten)]
    pub(crate) name: ClusterName,
    /// The nodes of every cluster
    #[arg(short = 'A', long, visible_alias = "all", num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", value_name = "BOOL", value_parser = boolean,
        hide_default_value = true)]
    pub(crate) all_clusters: bool,
    /// Go on until Ctrl-C; on a terminal, in one place
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// How long to look at the processors, such as 500ms or 5s [default: 1s, with --watch 2s]
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    interval: Option<Duration>,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl Top {
    /// How long to look at the processors. Looking again and again costs something too: it is not done too often unless that
    /// is asked for.
    pub(crate) fn interval(&self) -> Duration {
        self.interval.unwrap_or(Duration::from_secs(if self.watch { 2 } else { 1 }))
    }
}

/// An average needs some time.
fn interval(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        short if short < Duration::from_millis(10) => Err(String::from("it is at least 10ms")),
        interval => Ok(interval),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command, Export, ExportCommand, Format};

    fn command(line: &str) -> Option<Command> {
        Arguments::try_parse_from(line.split(' ')).ok()?.command
    }

    fn logs(line: &str) -> Option<Logs> {
        match command(line)? {
            Command::Logs(logs) => Some(logs),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn logs_are_chosen_by_unit_or_are_the_console() {
        let all = logs("kiln logs n1").expect("plain");
        assert!(!all.follow && !all.console && all.units.is_empty());
        assert_eq!(all.tail(), None);
        let some = logs("kiln logs -f n1 --unit kubelet -u containerd --tail 10").expect("units");
        assert!(some.follow);
        assert_eq!((some.units.join(","), some.tail()), (String::from("kubelet,containerd"), Some(10)));
        assert_eq!(logs("kiln logs n1 --tail all --console").expect("console").tail(), None);
        for line in [
            "kiln logs",
            "kiln logs n1 --tail -1",
            "kiln logs n1 --tail x",
            "kiln logs n1 --console -u kubelet",
        ] {
            assert!(logs(line).is_none(), "{line}");
        }
    }

    #[test]
    fn top_watches_for_a_second() {
        let top = |line| match command(line) {
            Some(Command::Top(top)) => Some(top),
            None => None,
            other => panic!("{other:?}"),
        };
        let plain = top("kiln top").expect("plain");
        assert_eq!(
            (plain.interval(), plain.all_clusters, plain.watch),
            (Duration::from_secs(1), false, false)
        );
        assert_eq!(plain.name.or_default(), "kind");
        let all = top("kiln top -A -o json --interval 500ms").expect("all");
        assert!(all.all_clusters && all.output.format == Format::Json);
        assert_eq!(all.interval(), Duration::from_millis(500));
        let watch = top("kiln top -w").expect("watch");
        assert_eq!((watch.interval(), watch.watch), (Duration::from_secs(2), true));
        assert_eq!(top("kiln top --watch --interval 5s").expect("both").interval(), Duration::from_secs(5));
        assert!(top("kiln top --interval 0").is_none());
    }

    #[test]
    fn exported_logs_go_to_a_directory_if_one_is_named() {
        let export = |line| match command(line) {
            Some(Command::Export(Export { command: Some(ExportCommand::Logs(logs)) })) => {
                (logs.name.or_default().to_owned(), logs.directory().map(std::path::Path::to_owned))
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(export("kiln export logs"), (String::from("kind"), None));
        for line in ["kiln export logs out -n dev", "kiln export logs --name=dev out"] {
            assert_eq!(export(line), (String::from("dev"), Some("out".into())), "{line}");
        }
    }
}
