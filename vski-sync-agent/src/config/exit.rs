//! Command lines that cannot be understood: one line on stderr, exit code 2.

use clap::error::ErrorKind;
use clap::{Arg, Command, Parser};

/// Parses the command line. `--help` and `--version` answer as clap does; an error is one line and exit code 2.
#[must_use]
pub fn parse_or_exit<T: Parser>() -> T {
    let command = without_empty_variables(T::command());
    let parsed = command.try_get_matches().and_then(|matches| T::from_arg_matches(&matches));
    parsed.unwrap_or_else(|error| {
        if matches!(
            error.kind(),
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        ) {
            error.exit();
        }
        eprintln!("{} (see --help)", condensed(&error.to_string()));
        std::process::exit(2);
    })
}

/// The message up to its first empty line, as one line: what follows is usage.
fn condensed(message: &str) -> String {
    let lines = message.lines().map(str::trim).take_while(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

/// A variable that is set to nothing counts as not set: compose files and manifests pass such ones on.
fn without_empty_variables(command: Command) -> Command {
    let unset = |arg: Arg| match arg.get_env().and_then(std::env::var_os) {
        Some(value) if value.is_empty() => arg.env(None::<&'static str>),
        _ => arg,
    };
    command.mut_args(unset).mut_subcommands(without_empty_variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_becomes_one_line_without_usage() {
        let message = "error: the following required arguments were not provided:\n  --db <DB>\n\nUsage: x --db <DB>";
        assert_eq!(condensed(message), "error: the following required arguments were not provided: --db <DB>");
    }
}
