//! The commands of docs/OPERATIONS.md, read out of it and typed as they stand there.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::manifests::repository;

use super::project::Project;

/// What the runbook tells to type first after a title, statement by statement: a function is one, over several lines.
pub fn commands(title: &str) -> Result<Vec<String>> {
    let runbook = std::fs::read_to_string(repository().join("docs/OPERATIONS.md"))?;
    let (_, section) = runbook.split_once(title).with_context(|| format!("the runbook has no {title:?}"))?;
    let (_, block) = section.split_once("```sh\n").context("no commands")?;
    let (block, _) = block.split_once("```").context("an open block")?;
    let mut commands: Vec<String> = Vec::new();
    let mut inside = false;
    for line in block.lines() {
        match commands.last_mut().filter(|_| inside) {
            Some(command) => {
                command.push('\n');
                command.push_str(line);
            }
            None => commands.push(line.to_owned()),
        }
        inside = if inside { line != "}" } else { line.ends_with("() {") };
    }
    ensure!(!inside && !commands.is_empty(), "after {title:?}: {commands:?}");
    Ok(commands)
}

/// Types each command in a shell of its own.
pub fn one_by_one(project: &Project, commands: &[String]) -> Result<()> {
    commands.iter().try_for_each(|command| in_one_shell(project, std::slice::from_ref(command)))
}

/// Types commands that need each other's variables and functions.
pub fn in_one_shell(project: &Project, commands: &[String]) -> Result<()> {
    project.keep_logs(&[])?;
    let (began, typed) = (Instant::now(), commands.join("\n"));
    project.type_line(&typed)?;
    println!("    {:.1} s: {typed}", began.elapsed().as_secs_f64());
    Ok(())
}
