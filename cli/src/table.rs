//! Plain tables: a header and left-aligned columns two spaces apart.

/// Lays rows out under a header; every line ends with a newline and has no trailing spaces.
///
/// Widths count characters: cells are names, numbers and words, for which that is their width on a terminal.
pub(crate) fn render<const COLUMNS: usize>(header: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    lay_out(header, rows, &[true; COLUMNS])
}

/// The same without the columns that have nothing in any row. Without rows the header stays whole.
pub(crate) fn render_filled<const COLUMNS: usize>(
    header: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
) -> String {
    let filled =
        std::array::from_fn(|column| rows.is_empty() || rows.iter().any(|row| !row[column].is_empty()));
    lay_out(header, rows, &filled)
}

fn lay_out<const COLUMNS: usize>(
    header: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
    shown: &[bool; COLUMNS],
) -> String {
    let mut widths = header.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let columns: Vec<(usize, usize)> =
        widths.into_iter().enumerate().filter(|(column, _)| shown[*column]).collect();
    let mut text = line(&header, &columns);
    for row in rows {
        text.push_str(&line(row, &columns));
    }
    text
}

/// Bytes for people, with three significant digits: `734 B`, `12.3 MB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64;
    let mut unit = 0;
    // 999.5 and above would be rounded to four digits.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// Breaks a text between its words into lines of at most so many characters; a longer word is a line of its own.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The cells of these columns, each as wide as it says.
fn line<T: AsRef<str>>(cells: &[T], columns: &[(usize, usize)]) -> String {
    let mut text = String::new();
    for &(column, width) in columns {
        let cell = cells[column].as_ref();
        text.push_str(&format!("{cell:<width$}  "));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [
            [String::from("kind-control-plane"), String::from("running")],
            [String::from("w"), String::new()],
        ];
        assert_eq!(
            render(["NODE", "STATE"], &rows),
            "NODE                STATE\nkind-control-plane  running\nw\n"
        );
    }

    #[test]
    fn columns_with_nothing_in_them_can_be_left_out() {
        let row = |node: &str, ipv6: &str, image: &str| [node.to_owned(), ipv6.to_owned(), image.to_owned()];
        let header = ["NODE", "IPV6", "IMAGE"];
        assert_eq!(
            render_filled(header, &[row("a", "", "x"), row("worker", "", "y")]),
            "NODE    IMAGE\na       x\nworker  y\n"
        );
        assert_eq!(render_filled(header, &[]), "NODE  IPV6  IMAGE\n");
        assert_eq!(
            render_filled(header, &[row("a", "", "x"), row("b", "::1", "")]),
            "NODE  IPV6  IMAGE\na           x\nb     ::1\n"
        );
    }

    #[test]
    fn texts_are_broken_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("one extraordinary word", 8), ["one", "extraordinary", "word"]);
        assert_eq!(wrap("", 8), [""]);
    }

    #[test]
    fn sizes_have_three_digits() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (12_345_678, "12.3 MB"),
            (999_999, "1.00 MB"),
            (734_000_000, "734 MB"),
            (2_000_000_000_000_000, "2000 TB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
