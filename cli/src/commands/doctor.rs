//! `doctor`

use kiln_provision::doctor::{self, Finding, Status};

use super::Session;
use crate::{
    arguments::{Doctor, Format},
    failure::Failure,
    json,
    shell::{Shell, Style},
    table,
};

/// Examines this host; fails when clusters cannot run on it.
pub(super) fn doctor(session: &Session, arguments: &Doctor) -> Result<(), Failure> {
    let checks: Vec<json::Check> = doctor::examine(&session.paths).into_iter().map(item).collect();
    match arguments.output.format {
        format @ (Format::Json | Format::Yaml) => json::print(&session.shell, format, &checks)?,
        // The lines have all there is already.
        Format::Text | Format::Wide => {
            session.shell.result(&render(&session.shell, session.shell.result_width(), &checks))?;
        }
    }
    let problems = checks.iter().filter(|check| check.status == "problem").count();
    match problems {
        0 => Ok(()),
        1 => Err(Failure::new("1 problem keeps clusters from running on this host")),
        _ => Err(Failure::new(format!("{problems} problems keep clusters from running on this host"))),
    }
}

fn item(finding: Finding) -> json::Check {
    let status = match finding.status {
        Status::Ok => "ok",
        Status::Warning => "warning",
        Status::Problem => "problem",
    };
    json::Check { name: finding.check, status, detail: finding.detail, cure: finding.cure }
}

/// The least that is left of a line for what was found: below that it is better broken by the terminal.
const LEAST: usize = 20;

/// A line per check, its cure below it; lines that are longer than the terminal is wide go on below themselves.
fn render(shell: &Shell, width: Option<usize>, checks: &[json::Check]) -> String {
    let names = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    // The status and two gaps are before it.
    let left = width.map(|width| width.saturating_sub(7 + 2 + names + 2)).filter(|left| *left >= LEAST);
    let lines = |text: &str, mark: usize| match left {
        Some(left) => table::wrap(text, left - mark),
        None => vec![text.to_owned()],
    };
    let mut text = String::new();
    for check in checks {
        let style = match check.status {
            "ok" => Style::Good,
            "warning" => Style::Warning,
            _ => Style::Bad,
        };
        // Padded before it is painted: escape sequences have a length but no width.
        let status = shell.paint_result(style, &format!("{:<7}", check.status));
        for (number, line) in lines(&check.detail, 0).iter().enumerate() {
            let (status, name) = if number == 0 { (&status[..], check.name) } else { ("       ", "") };
            text.push_str(&format!("{status}  {name:<names$}  {line}\n"));
        }
        for line in check.cure.iter().flat_map(|cure| cure.lines()) {
            for (number, line) in lines(line, 2).iter().enumerate() {
                let mark = if number == 0 { '→' } else { ' ' };
                text.push_str(&format!("{:<7}  {:<names$}  {mark} {line}\n", "", ""));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cures_are_below_their_check() {
        let checks = [
            json::Check { name: "root", status: "ok", detail: String::from("yes"), cure: None },
            json::Check {
                name: "inotify",
                status: "warning",
                detail: String::from("128 instances"),
                cure: Some(String::from("sysctl fs.inotify.max_user_instances=512")),
            },
        ];
        assert_eq!(
            render(&Shell::mute(false, false), None, &checks),
            "ok       root     yes\nwarning  inotify  128 instances\n                  → sysctl \
             fs.inotify.max_user_instances=512\n"
        );
    }

    #[test]
    fn long_lines_go_on_below_themselves() {
        let checks = [json::Check {
            name: "kernel",
            status: "warning",
            detail: String::from("6.1 is not what all of this was made for"),
            cure: Some(String::from("take a newer one of the distribution's")),
        }];
        insta::assert_snapshot!(render(&Shell::mute(false, false), Some(40), &checks), @r"
        warning  kernel  6.1 is not what all of
                         this was made for
                         → take a newer one of
                           the distribution's
        ");
    }
}
