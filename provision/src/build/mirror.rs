//! Where Debian's packages come from: the mirror of a Debian host, else Debian's own.

use std::path::Path;

use super::program::Program;
use crate::Reporter;

/// Options of apt that decide how the mirror is reached.
const NETWORK_OPTIONS: [&str; 5] =
    ["Acquire::http::", "Acquire::https::", "Acquire::Check-", "Acquire::Retries", "Acquire::ForceIPv"];

/// apt's options for reaching its mirrors on this host, such as a proxy. None where there is no apt.
pub(super) async fn apt_options(reporter: &dyn Reporter) -> Vec<String> {
    let program = Program::new(Path::new("apt-config"), "ask for apt's configuration").args(["dump"]);
    let Ok(dump) = program.run(reporter).await else { return Vec::new() };
    let relevant = |line: &&str| NETWORK_OPTIONS.iter().any(|option| line.starts_with(option));
    dump.lines().filter(relevant).map(str::to_owned).collect()
}

/// The lines of `sources.list` for a release, from the mirrors that this host uses for its own. Empty when it is no
/// Debian or uses none that can be recognised: then mmdebstrap takes Debian's own.
pub(super) fn mirrors(release: &str) -> Vec<String> {
    let read = |path: &Path| fs_err::read_to_string(path).unwrap_or_default();
    let mut files = vec![read(Path::new("/etc/apt/sources.list"))];
    if let Ok(entries) = fs_err::read_dir("/etc/apt/sources.list.d") {
        let mut paths: Vec<_> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        paths.sort();
        let is_list = |path: &&std::path::PathBuf| {
            path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
        };
        files.extend(paths.iter().filter(is_list).map(|path| read(path)));
    }
    lines_for(release, &read(Path::new("/etc/os-release")), &files)
}

fn lines_for(release: &str, os_release: &str, files: &[String]) -> Vec<String> {
    let field = |name: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|it| it.trim_matches('"'))
    };
    let Some(host_release) = field("VERSION_CODENAME").filter(|_| field("ID") == Some("debian")) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for (address, suite) in files.iter().flat_map(|file| entries(file)) {
        // Other publishers name their suites after Debian's, too.
        let place = address.trim_end_matches('/');
        let is_debian = place.ends_with("/debian") || place.ends_with("/debian-security");
        let Some(part) = suite.strip_prefix(host_release).filter(|_| is_debian) else { continue };
        if matches!(part, "" | "-updates" | "-security") {
            lines.push(format!("deb {address} {release}{part} main"));
        }
    }
    lines.dedup();
    let base = format!(" {release} main");
    if lines.iter().any(|line| line.ends_with(&base)) { lines } else { Vec::new() }
}

/// Pairs of address and suite that hold binary packages of `main`, from either format of `sources.list(5)`.
fn entries(file: &str) -> Vec<(String, String)> {
    if file.lines().any(|line| line.trim_start().starts_with("Types:")) {
        stanzas(file)
    } else {
        one_line_each(file)
    }
}

fn one_line_each(file: &str) -> Vec<(String, String)> {
    let mut entries = Vec::new();
    for line in file.lines() {
        let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
        let rest = match rest.trim_start().strip_prefix('[') {
            Some(options) => options.split_once(']').map_or("", |(_, rest)| rest),
            None => rest,
        };
        let mut words = rest.split_whitespace();
        if let (Some(address), Some(suite)) = (words.next(), words.next())
            && words.any(|component| component == "main")
        {
            entries.push((address.to_owned(), suite.to_owned()));
        }
    }
    entries
}

fn stanzas(file: &str) -> Vec<(String, String)> {
    let without_comments: Vec<_> = file.lines().filter(|line| !line.starts_with('#')).collect();
    let mut entries = Vec::new();
    for stanza in without_comments.join("\n").split("\n\n") {
        let field = |name: &str| {
            let value = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_default().split_whitespace().collect::<Vec<_>>()
        };
        if field("Enabled") == ["no"]
            || !field("Types").contains(&"deb")
            || !field("Components").contains(&"main")
        {
            continue;
        }
        for address in field("URIs") {
            entries.extend(field("Suites").into_iter().map(|suite| (address.to_owned(), suite.to_owned())));
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIXIE: &str = "ID=debian\nVERSION_CODENAME=trixie\n";

    #[test]
    fn a_mirror_of_another_release_serves_ours() {
        let list = "# deb http://old/debian trixie main\ndeb [arch=amd64] http://m.example/debian/ trixie main contrib\n\
            deb http://m.example/debian-security trixie-security main\ndeb-src http://m.example/debian trixie main\n\
            deb http://other.example/apt trixie main\ndeb http://x.example/debian trixie contrib\n";
        assert_eq!(
            lines_for("bookworm", TRIXIE, &[list.to_owned()]),
            [
                "deb http://m.example/debian/ bookworm main",
                "deb http://m.example/debian-security bookworm-security main"
            ]
        );
    }

    #[test]
    fn stanzas_are_read_with_their_comments() {
        let list = "Types: deb\n# a snapshot\nURIs: http://deb.example/debian\nSuites: trixie trixie-updates\n\
            Components: main\nSigned-By: /k\n\nTypes: deb\nEnabled: no\nURIs: http://no.example/debian\n\
            Suites: trixie\nComponents: main\n";
        assert_eq!(
            lines_for("bookworm", TRIXIE, &[list.to_owned()]),
            [
                "deb http://deb.example/debian bookworm main",
                "deb http://deb.example/debian bookworm-updates main"
            ]
        );
    }

    #[test]
    fn hosts_without_a_mirror_of_debian_leave_the_choice_to_mmdebstrap() {
        let ubuntu = "deb http://m.example/ubuntu noble main\n".to_owned();
        assert!(lines_for("bookworm", "ID=ubuntu\nVERSION_CODENAME=noble\n", &[ubuntu]).is_empty());
        let security_only = "deb http://m.example/debian-security trixie-security main\n".to_owned();
        assert!(lines_for("bookworm", TRIXIE, &[security_only]).is_empty());
    }
}
