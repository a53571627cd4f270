//! `holdfast completions` and `holdfast man`: the command line's own description, for shells and for man(1).
//!
//! Made from what clap knows, so that neither can say anything that the executable does not.

use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::Cli;
use crate::output;

/// Prints a shell's completions.
pub(crate) fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(), "holdfast", &mut script);
    let script = String::from_utf8(script).context("the completions are not UTF-8")?;
    Ok(output::print(&script)?)
}

/// Prints the page of the executable, or writes it and one for each command into a directory.
pub(crate) fn man(directory: Option<&Path>) -> anyhow::Result<()> {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        Man::new(shown()).render(&mut page).context("cannot make the page")?;
        let page = String::from_utf8(page).context("the page is not UTF-8")?;
        return Ok(output::print(&page)?);
    };
    clap_mangen::generate_to(shown(), directory).with_context(|| {
        let directory = directory.display();
        format!(
            "cannot write the pages into {directory}: it has to be there, and yours to write to"
        )
    })
}

/// The command line without what only the supervisor calls.
fn shown() -> clap::Command {
    let whole = Cli::command();
    let commands = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let commands: Vec<_> = commands.collect();
    clap::Command::new("holdfast")
        .version(holdfast_proto::VERSION)
        .propagate_version(true)
        .subcommand_required(true)
        .about(whole.get_about().cloned().unwrap_or_default())
        .after_help(whole.get_after_help().cloned().unwrap_or_default())
        .subcommands(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_all_that_people_may_call() {
        let names = |command: &clap::Command| -> Vec<String> {
            let all = command.get_subcommands().filter(|it| !it.is_hide_set());
            all.map(|it| it.get_name().to_owned()).collect()
        };
        assert_eq!(names(&shown()), names(&Cli::command()));
        shown().debug_assert();
    }
}
