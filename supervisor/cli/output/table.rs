//! A plain table: columns lined up, cut where the terminal ends, and nothing in it that a terminal would obey.

use std::fmt::Write as _;
use std::io::{IsTerminal, stdout};

/// Narrowest that a column is cut to, so that something of it can still be read.
const NARROWEST: usize = 8;

/// Between two columns.
const GAP: usize = 2;

/// Rows under a heading.
pub(super) struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub(super) fn new(heading: &[&str]) -> Self {
        Self { heading: heading.iter().map(|&cell| cell.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row; cells beyond the heading are not shown.
    pub(super) fn row<'a>(&mut self, cells: impl IntoIterator<Item = &'a str>) {
        self.rows.push(cells.into_iter().map(printable).take(self.heading.len()).collect());
    }

    /// The table's text, or `otherwise` when it has no rows.
    pub(super) fn render_or(&self, width: Option<usize>, otherwise: &str) -> String {
        if self.rows.is_empty() { otherwise.to_owned() } else { self.render(width) }
    }

    /// The table's text, at most `width` characters wide where columns can be cut that far.
    pub(super) fn render(&self, width: Option<usize>) -> String {
        let widths = self.widths(width);
        let mut text = String::new();
        for cells in std::iter::once(&self.heading).chain(&self.rows) {
            let mut line = String::new();
            for (cell, &width) in cells.iter().zip(&widths) {
                let cell = cut(cell, width);
                // Writing to a string cannot fail.
                drop(write!(line, "{cell:<width$}{:GAP$}", ""));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = (0..self.heading.len())
            .map(|column| {
                std::iter::once(&self.heading)
                    .chain(&self.rows)
                    .filter_map(|cells| cells.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let Some(limit) = limit else { return widths };
        let gaps = GAP * widths.len().saturating_sub(1);
        let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(limit);
        while excess > 0 {
            // The last of the widest: explanations stand at the end of a row.
            let Some(widest) = widths.iter_mut().max().filter(|width| **width > NARROWEST) else {
                break;
            };
            *widest -= 1;
            excess -= 1;
        }
        widths
    }
}

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// The terminal's width; nothing is cut where the output goes to a file or a pipe.
pub(super) fn terminal_width() -> Option<usize> {
    if !stdout().is_terminal() {
        return None;
    }
    terminal_size::terminal_size().map(|(width, _)| usize::from(width.0))
}

/// `text` on one line, with nothing in it that a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A duration in its two largest units.
pub(super) fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// A number of bytes with at most five characters and its unit.
pub(super) fn bytes(count: u64) -> String {
    let mut unit_size = 1_u64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if count / unit_size < 1024 {
            let (whole, rest) = (count / unit_size, count % unit_size);
            return if unit == "B" || whole >= 100 {
                format!("{whole} {unit}")
            } else {
                format!("{whole}.{} {unit}", rest * 10 / unit_size)
            };
        }
        unit_size *= 1024;
    }
    format!("{} PiB", count / unit_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_cut_at_its_widest_column() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["x", "a long explanation of it all"]);
        assert_eq!(table.render(None), "A  B\nx  a long explanation of it all\n");
        assert_eq!(table.render(Some(16)), "A  B\nx  a long expla…\n");
    }

    #[test]
    fn what_a_backend_says_cannot_drive_the_terminal() {
        let mut table = Table::new(&["LAST"]);
        table.row(["\u{1b}[2Jhello\nthere"]);
        assert_eq!(table.render(None), "LAST\n\u{fffd}[2Jhello\u{fffd}there\n");
    }

    #[test]
    fn durations_keep_two_units() {
        for (milliseconds, text) in [
            (0, "0s"),
            (59_999, "59s"),
            (61_000, "1m01s"),
            (7_380_000, "2h03m"),
            (90_000_000, "1d01h"),
        ] {
            assert_eq!(duration(milliseconds), text);
        }
    }

    #[test]
    fn bytes_keep_three_digits() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (200 << 20, "200 MiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
