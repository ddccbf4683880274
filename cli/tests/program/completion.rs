//! What shells are told to complete.

use std::{path::Path, process::Command};

use crate::root::{Ran, Root};

#[test]
fn completion_knows_names_and_keeps_quiet() {
    let root = Root::new(&[("dev", "dev-control-plane"), ("kind", "kind-worker")]);
    let complete = |line: &str| {
        let mut command = root.command("--");
        command.args(line.split(' ')).env("KILN_COMPLETE", "fish");
        let ran = Ran::of(command.output().expect("kiln runs"));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{line}");
        let names = ran.stdout.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned());
        names.filter(|name| !name.starts_with("--")).collect::<Vec<_>>()
    };
    assert_eq!(complete("kiln delete cluster --name "), ["dev", "kind"]);
    assert_eq!(complete("kiln delete clusters d"), ["dev"]);
    assert_eq!(complete("kiln exec "), ["dev-control-plane", "kind-worker"]);
    assert_eq!(complete("kiln exec k"), ["kind-worker"]);
    assert_eq!(complete("kiln images ls --name dev --node "), ["dev-control-plane"]);
    assert_eq!(complete("kiln create cluster --image "), [""; 0], "there is no store");
    assert_eq!(complete("kiln get clusters -o "), ["text", "wide", "json", "yaml"]);
    assert!(!root.path().join("state/images").exists(), "completing makes nothing");
}

/// The shells whose scripts are run; make sure that there are all of them by this variable.
const REQUIRE: &str = "KILN_REQUIRE_SHELLS";

/// The program as the shells find it.
fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_kiln"))
}

/// Has a shell run a script, kiln being in its `PATH`; `None` where there is no such shell.
fn run(root: &Root, shell: &[&str], script: &str) -> Option<String> {
    let mut command = Command::new(shell[0]);
    let programs = program().parent().expect("a directory").to_string_lossy();
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(&shell[1..]).arg(script);
    command.env_clear().env("PATH", format!("{programs}:{path}")).env("HOME", root.path());
    command.env("KILN_ROOT", root.path().join("state")).stdin(std::process::Stdio::null());
    match command.output() {
        Ok(output) => {
            let ran = Ran::of(output);
            assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{shell:?}");
            Some(ran.stdout)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            assert!(std::env::var_os(REQUIRE).is_none(), "there is no {}, and {REQUIRE} is set", shell[0]);
            eprintln!("skipped: there is no {}", shell[0]);
            None
        }
        Err(error) => panic!("{}: {error}", shell[0]),
    }
}

/// Lines that are completed, and what is proposed for each.
const LINES: [(&str, &[&str]); 5] = [
    ("kiln delete cluster --name ", &["dev", "kind"]),
    ("kiln exec k", &["kind-worker"]),
    ("kiln get no", &["nodes"]),
    ("kiln completion z", &["zsh"]),
    ("kiln get clusters --output js", &["json"]),
];

fn root() -> Root {
    Root::new(&[("dev", "dev-control-plane"), ("kind", "kind-worker")])
}

/// The proposals for each of [`LINES`], from an output with a line per proposal and `==` behind each.
#[track_caller]
fn check(output: &str) {
    let all: Vec<Vec<&str>> =
        output.split("==\n").map(|part| part.lines().filter(|line| !line.is_empty()).collect()).collect();
    for ((line, expected), proposed) in LINES.iter().zip(&all) {
        // Behind a proposal is what it means.
        let names: Vec<&str> =
            proposed.iter().map(|line| line.split(['\t', ':']).next().unwrap_or_default()).collect();
        assert_eq!(&names, expected, "{line}");
    }
    assert_eq!(all.len(), LINES.len() + 1, "{output}");
}

#[test]
fn bash_completes() {
    let mut script = String::from("eval \"$(kiln completion bash)\"\n");
    for (line, _) in LINES {
        script.push_str(&format!(
            "COMPREPLY=(); COMP_LINE='{line}' COMP_POINT={}\n_complete_kiln kiln '' ''\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\" | sed 's/ *$//'; echo ==\n",
            line.len()
        ));
    }
    if let Some(output) = run(&root(), &["bash", "--norc", "-c"], &script) {
        check(&output);
    }
}

#[test]
fn zsh_completes() {
    // What the shell's own functions would show, as lines.
    let mut script = String::from(
        "compdef() { completer=$1; [[ $2 == kiln ]] || print unknown }\n\
         _describe() { print -l -- \"${(@P)3}\" }\n\
         eval \"$(kiln completion zsh)\"\n",
    );
    for (line, _) in LINES {
        let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
        script.push_str(&format!("words=({}); CURRENT=$#words; $completer; print '=='\n", words.join(" ")));
    }
    if let Some(output) = run(&root(), &["zsh", "-f", "-c"], &script) {
        check(&output);
    }
}

#[test]
fn fish_completes() {
    let mut script = String::from("kiln completion fish | source\n");
    for (line, _) in LINES {
        script.push_str(&format!("complete --do-complete '{line}'; echo ==\n"));
    }
    if let Some(output) = run(&root(), &["fish", "--no-config", "-c"], &script) {
        check(&output);
    }
}

/// The tokens of a PowerShell script that must be in pairs, by a reader that knows its strings, here-strings and comments.
fn brackets(script: &str) -> Result<usize, String> {
    let mut open = Vec::new();
    let (mut rest, mut pairs) = (script, 0);
    while let Some(c) = rest.chars().next() {
        let skip = |opening: &str, closing: &str| {
            let inner = &rest[opening.len()..];
            let end = inner.find(closing).ok_or_else(|| format!("{opening:?} is not closed: {rest}"))?;
            Ok::<_, String>(opening.len() + end + closing.len())
        };
        let mut taken = c.len_utf8();
        match c {
            '@' if rest.starts_with("@\"\n") => taken = skip("@\"\n", "\n\"@")?,
            '@' if rest.starts_with("@'\n") => taken = skip("@'\n", "\n'@")?,
            '"' => taken = skip("\"", "\"")?,
            '\'' => taken = skip("'", "'")?,
            '#' => taken = rest.find('\n').unwrap_or(rest.len()),
            '`' => taken += rest.chars().nth(1).map_or(0, char::len_utf8),
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' => {
                if open.pop() != Some(c) {
                    return Err(format!("{c} closes nothing: {rest}"));
                }
                pairs += 1;
            }
            _ => {}
        }
        rest = &rest[taken..];
    }
    if open.is_empty() { Ok(pairs) } else { Err(format!("not closed: {open:?}")) }
}

/// No PowerShell was at hand to run it.
#[test]
fn the_script_for_powershell_is_well_formed() {
    let root = root();
    let script = root.run("completion powershell").succeeded().stdout;
    assert!(brackets(&script).expect(&script) > 10, "{script}");
    let called = format!("& '{}' -- $args", program().display());
    for part in [
        "Register-ArgumentCompleter -Native -CommandName kiln ",
        "$env:KILN_COMPLETE = \"powershell\"",
        &called,
    ] {
        assert!(script.contains(part), "{part}: {script}");
    }
    // What such a script asks, and is answered.
    let mut command = root.command("--");
    command.args(["kiln", "get", "no"]).env("KILN_COMPLETE", "powershell");
    let asked = Ran::of(command.output().expect("kiln runs"));
    assert_eq!(asked.stdout.split('\t').next(), Some("nodes"), "{asked:?}");

    for broken in ["{ ( }", "\"", "@\"\nx", "}", "[x"] {
        assert!(brackets(broken).is_err(), "{broken}");
    }
}
