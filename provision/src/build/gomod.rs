//! Reading and writing `go.mod` files, as far as a build needs it.

use std::fmt::Write;

/// A version of Go: `1.26.6`. A missing patch level is 0.
pub(super) type Version = (u32, u32, u32);

/// The version of Go that a module asks for.
pub(super) fn go_directive(text: &str) -> Option<Version> {
    parse_version(text.lines().find_map(|line| line.strip_prefix("go "))?.trim())
}

/// Reads `1.26.6`, `1.26` or `1.27rc1`; pre-releases count as their release.
pub(super) fn parse_version(text: &str) -> Option<Version> {
    let mut parts = text.split('.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..digits].parse().ok()
    });
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

/// A version as people write it.
pub(super) fn display((major, minor, patch): Version) -> String {
    if patch == 0 { format!("{major}.{minor}") } else { format!("{major}.{minor}.{patch}") }
}

/// The version of a module that a `go.mod` requires.
pub(super) fn required<'a>(text: &'a str, module: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(module)).then(|| words.next()).flatten()
    })
}

/// The modules that Kubernetes' own `go.mod` takes from its repository's `staging` directory.
pub(super) fn staging_modules(text: &str) -> Vec<&str> {
    let replaced =
        text.lines().filter_map(|line| line.trim().trim_start_matches("replace ").split_once(" => "));
    replaced
        .filter(|(_, target)| target.starts_with("./staging/"))
        .filter_map(|(module, _)| module.split_whitespace().next())
        .collect()
}

/// A module that requires one version of Kubernetes, with the modules it takes from its repository replaced by their
/// releases.
pub(super) fn kubernetes(go: Version, version: &str, staging: &[&str], staging_version: &str) -> String {
    let mut text = format!(
        "module kiln.local/nodeimage\n\ngo {}\n\nrequire k8s.io/kubernetes {version}\n\nreplace (\n",
        display(go)
    );
    for module in staging {
        writeln!(text, "\t{module} => {module} {staging_version}").expect("writing to a string");
    }
    text.push_str(")\n");
    text
}

/// A module that requires one version of others and nothing else.
pub(super) fn of_one_version<'a>(
    go: Version,
    modules: impl IntoIterator<Item = &'a str>,
    version: &str,
) -> String {
    let required = modules.into_iter().map(|module| format!("require {module} {version}\n"));
    format!("module kiln.local/nodeimage\n\ngo {}\n\n{}", display(go), required.collect::<String>())
}

/// A program without those of its blank imports of packages of `module` that this version of the module does not `have`
/// (a path in the module): plug-ins that came later.
pub(super) fn without_missing_imports(text: &str, module: &str, have: impl Fn(&str) -> bool) -> String {
    let is_missing = |line: &&str| {
        let package = line.trim().strip_prefix("_ \"").and_then(|rest| rest.strip_suffix('"'));
        let path = package.and_then(|package| package.strip_prefix(module)?.strip_prefix('/'));
        path.is_some_and(|path| !have(path))
    };
    text.lines().filter(|line| !is_missing(line)).fold(String::new(), |text, line| text + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::recipe;

    #[test]
    fn versions_of_go_are_read() {
        assert_eq!(go_directive("module x\n\ngo 1.26.6\n"), Some((1, 26, 6)));
        assert_eq!(parse_version("1.27rc1"), Some((1, 27, 0)));
        assert_eq!(parse_version("devel"), None);
        assert_eq!(display((1, 26, 0)), "1.26");
    }

    #[test]
    fn requirements_are_found_in_blocks_and_alone() {
        let text = "require a.example/x v1.2.3\n\nrequire (\n\tb.example/y v0.1.0 // indirect\n)\n";
        assert_eq!(required(text, "a.example/x"), Some("v1.2.3"));
        assert_eq!(required(text, "b.example/y"), Some("v0.1.0"));
        assert_eq!(required(text, "b.example"), None);
    }

    #[test]
    fn plug_ins_that_a_version_lacks_are_left_out() {
        let text = "import (\n\t_ \"a.example/m/plugin/old\"\n\t_ \"a.example/m/plugin/new\"\n\t\"a.example/m/new\"\n\t_ \"a.example/other/new\"\n)\n";
        let left = without_missing_imports(text, "a.example/m", |path| path == "plugin/old");
        assert_eq!(left, text.replace("\t_ \"a.example/m/plugin/new\"\n", ""));
    }

    #[test]
    fn a_module_of_one_version_can_be_read() {
        let text = of_one_version((1, 26, 0), ["a.example/x", "a.example/y"], "v1.2.3");
        assert_eq!((required(&text, "a.example/x"), go_directive(&text)), (Some("v1.2.3"), Some((1, 26, 0))));
        assert_eq!(required(&text, "a.example/y"), Some("v1.2.3"));
    }

    #[test]
    fn only_modules_of_the_repository_are_replaced() {
        let text = "replace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\tgithub.com/x/y => github.com/z/y v1.0.0\n)\n";
        assert_eq!(staging_modules(text), ["k8s.io/api"]);
    }

    #[test]
    fn a_generated_module_has_the_replacements_of_the_pinned_one() {
        let pinned = recipe::text("kubernetes/go.mod");
        let staging: Vec<_> = pinned
            .lines()
            .filter_map(|line| line.trim().split_once(" => "))
            .map(|(module, _)| module)
            .collect();
        let generated = kubernetes((1, 26, 0), "v1.34.4", &staging, "v0.34.4");
        let replace = |text: &str| text[text.find("replace").unwrap()..].trim().to_owned();
        assert_eq!(replace(&generated), replace(pinned));
        assert_eq!(required(&generated, "k8s.io/kubernetes"), required(pinned, "k8s.io/kubernetes"));
        assert_eq!(go_directive(&generated), go_directive(pinned));
    }
}
