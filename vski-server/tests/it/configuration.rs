use std::collections::BTreeMap;

use clap::{Args, Command};
use vski_server::config::ServeArgs;

/// The rows of README.md's configuration table: variable to default.
fn table() -> BTreeMap<String, String> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let rows = readme.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`').to_owned(), cells[2].trim_matches('`').to_owned())
    })
    .filter(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    .collect()
}

#[test]
fn the_readmes_table_has_every_variable_with_its_default() {
    let command = ServeArgs::augment_args(Command::new("serve"));
    let mut documented = table();
    for (name, _) in [("RUST_LOG", ""), ("AGENT_ADDR", "")] {
        assert!(documented.remove(name).is_some(), "{name} is read by other means and belongs in the table");
    }
    for argument in command.get_arguments().filter(|argument| argument.get_env().is_some()) {
        let name = argument.get_env().and_then(|name| name.to_str()).unwrap();
        let default = documented.remove(name).unwrap_or_else(|| panic!("README.md lacks {name}"));
        let actual = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect::<String>();
        assert_eq!(default, if actual.is_empty() { "none" } else { &actual }, "default of {name} in README.md");
        assert!(argument.get_long().is_some(), "{name} has a flag");
    }
    assert!(documented.is_empty(), "README.md has variables that do not exist: {documented:?}");
}
