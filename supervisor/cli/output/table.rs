//! A plain table: columns lined up, cut where the terminal ends, and nothing in it that a terminal would obey, but for
//! the colours of its own. Where not even cut columns fit side by side, each row becomes a block of lines.

use std::io::{IsTerminal, stdout};

use super::colour;

/// Narrowest that a column is cut to, so that something of it can still be read.
const NARROWEST: usize = 8;

/// Between two columns.
const GAP: usize = 2;

/// What a table is printed on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    /// Characters in a line; `None`: as many as it takes.
    pub(super) width: Option<usize>,
    /// Whether states have colours.
    pub(super) colour: bool,
}

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
    pub(super) fn render_or(&self, look: Look, otherwise: &str) -> String {
        if self.rows.is_empty() { otherwise.to_owned() } else { self.render(look) }
    }

    /// The table's text, as wide as `look` allows.
    pub(super) fn render(&self, look: Look) -> String {
        if look.width.is_some_and(|width| self.narrowest() > width) {
            return self.stacked(look);
        }
        let widths = self.widths(look.width);
        let lines = std::iter::once(&self.heading).chain(&self.rows).enumerate();
        lines.map(|(line, cells)| joined(cells, &widths, look.colour, line == 0)).collect()
    }

    /// How wide it is with every column cut as far as can be.
    fn narrowest(&self) -> usize {
        let columns = self.widths(None);
        let gaps = GAP * columns.len().saturating_sub(1);
        columns.into_iter().map(|width| width.min(NARROWEST)).sum::<usize>() + gaps
    }

    /// A block of lines for each row, one for each cell that holds something.
    fn stacked(&self, look: Look) -> String {
        let label = self.heading.iter().map(|it| it.chars().count()).max().unwrap_or(0);
        let room = look.width.map_or(usize::MAX, |width| width.saturating_sub(label + GAP));
        let room = room.max(NARROWEST);
        let block = |row: &Vec<String>| {
            let cells = self.heading.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
            let line = |(heading, cell): (&String, &String)| {
                format!(
                    "{heading:<label$}{:GAP$}{}\n",
                    "",
                    tinted(cell, &cut(cell, room), look.colour)
                )
            };
            cells.map(line).collect::<String>()
        };
        self.rows.iter().map(block).collect::<Vec<_>>().join("\n")
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

/// One line of a table.
fn joined(cells: &[String], widths: &[usize], colour: bool, is_heading: bool) -> String {
    let mut line = String::new();
    let last = cells.iter().rposition(|cell| !cell.is_empty()).unwrap_or(0);
    for (place, (cell, &width)) in cells.iter().zip(widths).enumerate().take(last + 1) {
        let shown = cut(cell, width);
        let blanks = width.saturating_sub(shown.chars().count()) + GAP;
        let shown = match (is_heading, colour) {
            (true, true) => format!("{}{shown}{}", colour::HEADING, colour::PLAIN),
            _ => tinted(cell, &shown, colour),
        };
        line.push_str(&shown);
        if place < last {
            line.extend(std::iter::repeat_n(' ', blanks));
        }
    }
    line.push('\n');
    line
}

/// A cell as it is shown, in the colour of what it says.
fn tinted(cell: &str, shown: &str, colour: bool) -> String {
    match colour::of(cell).filter(|_| colour) {
        Some(tint) => format!("{tint}{shown}{}", colour::PLAIN),
        None => shown.to_owned(),
    }
}

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// What standard output is; nothing is cut or coloured where it is a file or a pipe.
pub(super) fn look() -> Look {
    if !stdout().is_terminal() {
        return Look::default();
    }
    let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    Look { width, colour: colour::on_stdout() }
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

    fn plain(width: Option<usize>) -> Look {
        Look { width, colour: false }
    }

    #[test]
    fn what_does_not_fit_side_by_side_is_stacked() {
        let mut table = Table::new(&["LISTENER", "STATE", "SITES"]);
        table.row(["127.0.0.1:8080", "serving", "one and another"]);
        table.row(["127.0.0.1:8081", "no worker", ""]);
        assert!(table.render(plain(Some(28))).starts_with("LISTENER  STATE"));
        let stacked = "LISTENER  127.0.0.1:80…\nSTATE     serving\nSITES     one and anot…\n\n\
                       LISTENER  127.0.0.1:80…\nSTATE     no worker\n";
        assert_eq!(table.render(plain(Some(23))), stacked);
        for width in 20..80 {
            let text = table.render(plain(Some(width)));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
        }
    }

    #[test]
    fn colours_stand_around_words_and_move_no_column() {
        let mut table = Table::new(&["STATE", "LAST"]);
        table.row(["Healthy", "200"]);
        table.row(["what", "\u{1b}[31m"]);
        let text = table.render(Look { width: None, colour: true });
        assert!(text.contains("\u{1b}[32mHealthy\u{1b}[0m  200\n"), "{text:?}");
        assert!(text.starts_with("\u{1b}[1mSTATE\u{1b}[0m    \u{1b}[1mLAST"), "{text:?}");
        assert!(text.ends_with("what     \u{fffd}[31m\n"), "only our own: {text:?}");
    }

    #[test]
    fn a_table_is_cut_at_its_widest_column() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["x", "a long explanation of it all"]);
        assert_eq!(table.render(plain(None)), "A  B\nx  a long explanation of it all\n");
        assert_eq!(table.render(plain(Some(16))), "A  B\nx  a long expla…\n");
    }

    #[test]
    fn what_a_backend_says_cannot_drive_the_terminal() {
        let mut table = Table::new(&["LAST"]);
        table.row(["\u{1b}[2Jhello\nthere"]);
        assert_eq!(table.render(plain(None)), "LAST\n\u{fffd}[2Jhello\u{fffd}there\n");
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
            (u64::MAX, "16383 PiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
