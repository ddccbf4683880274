//! A node's images as `crictl images` lists them, which is what scripts read.

use crate::containerd::NodeImage;

const HEADER: [&str; 4] = ["IMAGE", "TAG", "IMAGE ID", "SIZE"];
/// crictl's columns are at least this wide, the space between them included.
const MIN_WIDTH: usize = 20;
const GAP: usize = 3;
/// Digits of an id that are shown.
const SHORT_ID: usize = 13;

/// The table.
pub(super) fn table(images: &[NodeImage]) -> String {
    let mut rows = vec![HEADER.map(str::to_owned)];
    for image in images {
        let (name, tag) = split(&image.name);
        // By digest only when it has no other name.
        let tagged = |other: &NodeImage| other.id == image.id && split(&other.name).1.is_some();
        if tag.is_none() && images.iter().any(tagged) {
            continue;
        }
        let id = image.id.strip_prefix("sha256:").unwrap_or(&image.id).chars().take(SHORT_ID).collect();
        rows.push([name.to_owned(), tag.unwrap_or("<none>").to_owned(), id, size(image.size)]);
    }
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        (longest + GAP).max(MIN_WIDTH)
    };
    let widths = [width(0), width(1), width(2)];
    rows.iter()
        .map(|[name, tag, id, size]| {
            let [first, second, third] = widths;
            format!("{name:<first$}{tag:<second$}{id:<third$}{size}\n")
        })
        .collect()
}

/// A name without its tag or digest, and the tag.
fn split(name: &str) -> (&str, Option<&str>) {
    if let Some((name, _)) = name.split_once('@') {
        return (name, None);
    }
    // A colon before the last slash is a port's.
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    }
}

/// Bytes with three significant digits, no space before the unit.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    // As Go's %.3g: no zeros at the end.
    let text = format!("{value:.decimals$}");
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, id: &str, size: u64) -> NodeImage {
        let digest = format!("sha256:{id}d");
        NodeImage { name: name.to_owned(), digest, id: format!("sha256:{id}"), size, pinned: false }
    }

    #[test]
    fn the_table_is_crictls() {
        let images = [
            image("localhost:5000/app", "0123456789abcdef", 512),
            image("registry.k8s.io/pause:3.10.1", "873ed75102791", 320_368),
            image("registry.k8s.io/pause@sha256:278f", "873ed75102791", 320_368),
            image("example.org/x@sha256:12", "fedcba9876543210", 27_749_104),
        ];
        assert_eq!(
            table(&images),
            "IMAGE                   TAG                 IMAGE ID            SIZE\n\
             localhost:5000/app      <none>              0123456789abc       512B\n\
             registry.k8s.io/pause   3.10.1              873ed75102791       320kB\n\
             example.org/x           <none>              fedcba9876543       27.7MB\n"
        );
    }

    #[test]
    fn sizes_have_at_most_three_digits() {
        for (bytes, text) in
            [(0, "0B"), (1000, "1kB"), (1_500_000, "1.5MB"), (99_000_000, "99MB"), (1_234_000_000, "1.23GB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
