//! `doctor`

use kiln_provision::doctor::{self, Finding, Status};

use super::Session;
use crate::{
    arguments::{Doctor, Format},
    failure::Failure,
    json,
    shell::{Shell, Style},
};

/// Examines this host; fails when clusters cannot run on it.
pub(super) fn doctor(session: &Session, arguments: &Doctor) -> Result<(), Failure> {
    let checks: Vec<json::Check> = doctor::examine(&session.paths).into_iter().map(item).collect();
    match arguments.output.format {
        format @ (Format::Json | Format::Yaml) => json::print(&session.shell, format, &checks)?,
        // The lines have all there is already.
        Format::Text | Format::Wide => session.shell.result(&render(&session.shell, &checks))?,
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

/// A line per check, its cure below it.
fn render(shell: &Shell, checks: &[json::Check]) -> String {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let style = match check.status {
            "ok" => Style::Good,
            "warning" => Style::Warning,
            _ => Style::Bad,
        };
        // Padded before it is painted: escape sequences have a length but no width.
        let status = shell.paint_result(style, &format!("{:<7}", check.status));
        text.push_str(&format!("{status}  {:<width$}  {}\n", check.name, check.detail));
        for line in check.cure.iter().flat_map(|cure| cure.lines()) {
            text.push_str(&format!("{:<7}  {:<width$}  → {line}\n", "", ""));
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
            render(&Shell::mute(false, false), &checks),
            "ok       root     yes\nwarning  inotify  128 instances\n                  → sysctl \
             fs.inotify.max_user_instances=512\n"
        );
    }
}
