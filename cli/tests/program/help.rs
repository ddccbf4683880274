//! Every help text.

use crate::root::Root;

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let list = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let lines = list.lines().take_while(|line| !line.is_empty());
    // What is set in further is the rest of a description.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    // It shows the help of others.
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn collect(root: &Root, path: &[String], all: &mut Vec<(String, String)>) {
    let help = root.run(&format!("{} --help", path.join(" "))).succeeded();
    assert_eq!(help.stderr, "", "{path:?}");
    let below = commands(&help.stdout);
    all.push((path.join("-"), help.stdout));
    for name in below {
        collect(root, &[path, &[name]].concat(), all);
    }
}

#[test]
fn help_texts_are_as_recorded() {
    let root = Root::new(&[]);
    let mut all = Vec::new();
    collect(&root, &[], &mut all);
    assert!(all.len() > 50, "{} commands", all.len());
    for (name, text) in all {
        let name = if name.is_empty() { "kiln" } else { &name };
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn help_fits_in_eighty_columns_where_the_terminal_has_them() {
    let root = Root::new(&[]);
    for line in ["create cluster --help", "bench boot --help", "load image-archive --help"] {
        // The same variable that shells set; there is no terminal to ask here.
        let output = root.command(line).env("COLUMNS", "80").output().expect("kiln runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let longest = text.lines().map(|line| line.chars().count()).max();
        assert!(longest.is_some_and(|longest| longest <= 80), "{line}: {longest:?}\n{text}");
    }
}
