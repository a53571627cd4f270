//! `--watch`: a question asked again and again, its answer shown whenever it is another one.
//!
//! A gateway that goes away meanwhile (an upgrade, a restart of the service) is dialled again, and said to be away until
//! it answers. What is shown never scrolls a terminal: what does not fit is counted.

use std::io::{self, IsTerminal, stdout};
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;
use tonic::Status;

use crate::args::WatchArgs;
use crate::dial::{Client, connect, failed, show};
use crate::output::{self, printable};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// From the top of the terminal, with nothing below.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Asks once, or with `--watch` until somebody ends it.
pub(crate) async fn ask<T: PartialEq>(
    args: &WatchArgs,
    call: impl AsyncFn(&mut Client) -> Result<T, Status>,
    json: impl Fn(&T) -> Value,
    text: impl Fn(&T) -> String,
) -> anyhow::Result<()> {
    let mut client = connect(&args.admin).await?;
    let mut shown = call(&mut client).await.map_err(|error| failed(&error))?;
    if !args.watch {
        return Ok(show(&args.admin, || json(&shown), || text(&shown))?);
    }
    display(args, &shown, &json, &text)?;
    let mut away = false;
    loop {
        sleep(EVERY).await;
        let answer = match call(&mut client).await {
            Ok(answer) => Ok(answer),
            // It may be another process by now; the socket's path is the same.
            Err(_) => match connect(&args.admin).await {
                Ok(again) => {
                    client = again;
                    call(&mut client).await.map_err(|error| failed(&error))
                }
                Err(error) => Err(error),
            },
        };
        match answer {
            Ok(answer) => {
                if std::mem::take(&mut away) || answer != shown {
                    shown = answer;
                    display(args, &shown, &json, &text)?;
                }
            }
            Err(error) if !away => {
                away = true;
                let error = printable(&format!("{error:#}"));
                output::complain(&format!("{error}\n(asked again every second)\n"));
            }
            Err(_) => {}
        }
    }
}

fn display<T>(
    args: &WatchArgs,
    answer: &T,
    json: impl Fn(&T) -> Value,
    text: impl Fn(&T) -> String,
) -> io::Result<()> {
    if args.admin.json {
        return output::print(&format!("{}\n", json(answer)));
    }
    let text = text(answer);
    if !stdout().is_terminal() {
        return output::print(&format!("{text}\n"));
    }
    let rows = terminal_size::terminal_size().map_or(usize::MAX, |(_, rows)| rows.0.into());
    output::print(&format!("{CLEAR}{}", fitting(&text, rows)))
}

/// So much of a text as `rows` lines hold, the cursor's own among them.
fn fitting(text: &str, rows: usize) -> String {
    let lines = text.lines().count();
    if lines < rows {
        return text.to_owned();
    }
    let kept = rows.saturating_sub(2);
    let shown: Vec<_> = text.lines().take(kept).map(|line| format!("{line}\n")).collect();
    format!("{}… {} more lines\n", shown.concat(), lines - kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_cannot_hold_is_counted() {
        assert_eq!(fitting("a\nb\n", 3), "a\nb\n");
        assert_eq!(fitting("a\nb\nc\n", 3), "a\n… 2 more lines\n");
        assert_eq!(fitting("a\nb\n", 1), "… 2 more lines\n");
    }
}
