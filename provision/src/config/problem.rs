//! What is wrong with a configuration, and where.

use std::fmt;

use super::document::Position;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it is, where that is known.
    pub at: Option<Position>,
    /// What is wrong: lower case, no period.
    pub message: String,
    /// What the user may have meant.
    pub hint: Option<String>,
}

/// Everything that is wrong with a configuration, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Located>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Located {
    problem: Problem,
    /// The line of the file the problem is on.
    excerpt: Option<String>,
}

/// Longer lines are left out of messages: a file without line breaks would fill the terminal.
const MAX_EXCERPT: usize = 160;

impl Problems {
    /// Puts problems in the order of the file and remembers the lines they are on.
    pub(super) fn new(mut problems: Vec<Problem>, text: &str) -> Self {
        // Stable, and what has no place comes last.
        problems.sort_by_key(|problem| (problem.at.is_none(), problem.at));
        problems.dedup();
        // To YAML, a lone carriage return ends a line too.
        let lines: Vec<_> = text.lines().flat_map(|line| line.split('\r')).collect();
        let excerpt = |at: Position| {
            let line = lines.get(at.line.checked_sub(1)?)?;
            let fits =
                !line.trim().is_empty() && line.len() <= MAX_EXCERPT && !line.contains(char::is_control);
            fits.then(|| (*line).to_owned())
        };
        let list = problems
            .into_iter()
            .map(|problem| Located { excerpt: problem.at.and_then(excerpt), problem })
            .collect();
        Self { list }
    }

    /// The problems one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter().map(|located| &located.problem)
    }

    /// The first suggestion, if there is any.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        self.iter().find_map(|problem| problem.hint.clone())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column }) = self.at {
            write!(formatter, "line {line}, column {column}: ")?;
        }
        formatter.write_str(&self.message)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.list.len() > 1 {
            write!(formatter, "{} problems", self.list.len())?;
        }
        for located in &self.list {
            if self.list.len() > 1 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{}", located.problem)?;
            if let (Some(excerpt), Some(at)) = (&located.excerpt, located.problem.at) {
                let width = at.line.to_string().len();
                write!(
                    formatter,
                    "\n  {} | {excerpt}\n  {:width$} | {:>column$}",
                    at.line,
                    "",
                    "^",
                    column = at.column
                )?;
            }
        }
        Ok(())
    }
}

/// The candidate that is nearest to a misspelt word, if any is near.
pub(crate) fn nearest<'a, T: AsRef<str>>(word: &str, candidates: &'a [T]) -> Option<&'a str> {
    let wanted = word.to_lowercase();
    candidates
        .iter()
        .map(AsRef::as_ref)
        .map(|candidate| (distance(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 5)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, over bytes: field names are ASCII.
fn distance(left: &str, right: &str) -> usize {
    // A long word is near to nothing, and the table must stay small.
    if left.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, byte) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in right.bytes().enumerate() {
            let substitution = diagonal + usize::from(byte != other);
            diagonal = row[column + 1];
            row[column + 1] = substitution.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings_find_their_word() {
        let fields = ["role", "image", "labels", "extraMounts", "extraPortMappings"];
        assert_eq!(nearest("rolle", &fields), Some("role"));
        assert_eq!(nearest("extraPortMapping", &fields), Some("extraPortMappings"));
        assert_eq!(nearest("extramounts", &fields), Some("extraMounts"));
        assert_eq!(nearest("cpu", &fields), None);
        assert_eq!(nearest(&"x".repeat(1000), &fields), None);
    }

    #[test]
    fn one_problem_shows_its_line_and_several_are_listed_in_order() {
        let text = "a: 1\n  bad: 2\n";
        let problem = |line, column, message: &str| Problem {
            at: Some(Position { line, column }),
            message: message.to_owned(),
            hint: None,
        };
        let one = Problems::new(vec![problem(2, 3, "no such field")], text);
        assert_eq!(one.to_string(), "line 2, column 3: no such field\n  2 |   bad: 2\n    |   ^");
        let two = Problems::new(vec![problem(2, 3, "second"), problem(1, 1, "first")], text);
        assert_eq!(
            two.to_string(),
            "2 problems\nline 1, column 1: first\n  1 | a: 1\n    | ^\nline 2, column 3: second\n  2 |   bad: 2\n    |   ^"
        );
    }

    #[test]
    fn lines_end_where_yaml_ends_them() {
        let at = Some(Position { line: 3, column: 1 });
        let problem = Problem { at, message: "what is it".to_owned(), hint: None };
        let shown = Problems::new(vec![problem], "a: 1\r\nb: 2\rc\nd: 4\n").to_string();
        assert_eq!(shown, "line 3, column 1: what is it\n  3 | c\n    | ^");
    }
}
