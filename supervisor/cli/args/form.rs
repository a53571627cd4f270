//! In which form a command's answer is wanted.

use super::{Command, ExplainArgs};

impl Command {
    /// Whether whoever has called it reads JSON: what goes wrong is told in JSON as well, then.
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            Self::Validate(args) => args.json,
            Self::Import(args) => args.json,
            Self::Apply(args) => args.admin.json,
            Self::Reload(admin)
            | Self::Revisions(admin)
            | Self::Explain(ExplainArgs { admin, .. }) => admin.json,
            Self::Config(args) => args.admin.json,
            Self::Rollback(args) => args.admin.json,
            Self::Status(args) | Self::Health(args) => args.admin.json,
            Self::Tunnels(args) => args.watch.admin.json,
            Self::Close(args) => args.admin.json,
            Self::Drain(args) => args.admin.json,
            Self::Undrain(args) => args.admin.json,
            Self::Restart(args) => args.admin.json,
            Self::Upgrade(args) => args.admin.json,
            Self::LogLevel(args) => args.admin.json,
            Self::Stop(args) => args.admin.json,
            Self::Run(_)
            | Self::Demo(_)
            | Self::Schema
            | Self::Completions { .. }
            | Self::Man { .. }
            | Self::Worker
            | Self::Prober
            | Self::FetchPage { .. }
            | Self::TakeoverCheck
            | Self::DemoBackend(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use crate::args::Cli;

    /// Whatever a command needs beside its options.
    fn arguments(command: &clap::Command) -> Vec<String> {
        let needed = command.get_positionals().filter(|it| it.is_required_set());
        let example = |it: &clap::Arg| match it.get_id().as_str() {
            "target" => "chat/10.0.0.4".to_owned(),
            "revision" => "1".to_owned(),
            "url" => "http://a/".to_owned(),
            other => other.to_owned(),
        };
        needed.map(example).collect()
    }

    #[test]
    fn every_command_that_takes_json_is_told_of_in_json() {
        let mut seen = 0;
        for command in Cli::command().get_subcommands() {
            let takes_it = command.get_arguments().any(|it| it.get_long() == Some("json"));
            if !takes_it {
                continue;
            }
            seen += 1;
            let name = command.get_name();
            let mut line = vec!["holdfast".to_owned(), name.to_owned()];
            line.extend(arguments(command));
            let asked =
                |line: &[String]| Cli::try_parse_from(line).map(|it| it.command.wants_json());
            assert!(matches!(asked(&line), Ok(false)), "{name}");
            line.push("--json".to_owned());
            assert!(matches!(asked(&line), Ok(true)), "{name}");
        }
        assert!(seen >= 16, "only {seen}");
    }
}
