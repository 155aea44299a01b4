//! `status`: what node.db says, whether the agent runs or not.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use vski_replication::clock;
use vski_replication::datadir::DataDir;
use vski_replication::node::{DatabaseState, LastError, NodeDb};

use super::StatusArgs;

/// The table's first line.
const TITLES: [&str; 7] = ["NAME", "STATE", "VERSION", "HEAD", "LAG", "FILES", "DETAIL"];

pub(super) fn execute(args: &StatusArgs) -> Result<ExitCode> {
    let dir = DataDir::existing(&args.data_dir)?;
    let node = NodeDb::read(&dir).context("read node.db")?;
    let states = node.map(|node| node.databases()).transpose().context("read node.db")?.unwrap_or_default();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&states).context("write JSON")?);
    } else if states.is_empty() {
        eprintln!("error: no agent has run on {}: start one with vski-sync-agent run", args.data_dir.display());
    } else {
        print!("{}{}", table(&states), errors(&states));
    }
    Ok(if states.is_empty() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// One line a database, in columns.
pub(super) fn table(states: &[DatabaseState]) -> String {
    let now_ms = clock::now_ms();
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let files = |waiting: Option<u64>| match waiting {
        None => "-".to_owned(),
        Some(0) => "all".to_owned(),
        Some(waiting) => format!("{waiting} missing"),
    };
    let rows = states.iter().map(|state| {
        [
            state.name.clone(),
            state.state.clone(),
            number(state.position.map(|position| position.version)),
            number(state.head.map(|head| head.version)),
            state.lag_seconds(now_ms).map_or("-".to_owned(), |lag| format!("{lag:.1}s")),
            files(state.files_waiting),
            state.detail.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    let rows: Vec<[String; 7]> = std::iter::once(TITLES.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..TITLES.len() - 1).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            write!(text, "{cell:width$}  ").expect("writing to a String never fails");
        }
        writeln!(text, "{}", row[TITLES.len() - 1]).expect("writing to a String never fails");
    }
    text
}

/// The last error of each database that had one, what to do about it, and whether it has passed.
pub(super) fn errors(states: &[DatabaseState]) -> String {
    let (now_ms, mut text) = (clock::now_ms(), String::new());
    for state in states {
        let Some(LastError { name, text: what, remedy, at_ms }) = &state.last_error else { continue };
        let ago = (now_ms - at_ms).max(0) / 1000;
        let passed = if state.detail.is_some() { "" } else { ", passed" };
        writeln!(text, "{}: {name}, {ago} s ago{passed}: {what}\n  remedy: {remedy}", state.name)
            .expect("writing to a String never fails");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_name_and_remedy_and_whether_it_passed() {
        let mut state = DatabaseState::new("shop", "diverged");
        assert_eq!(errors(&[state.clone()]), "");
        state.detail = Some("apply entry 7".to_owned());
        let (name, text, remedy) = ("conflict".to_owned(), "apply entry 7".to_owned(), "nothing".to_owned());
        state.last_error = Some(LastError { name, text, remedy, at_ms: clock::now_ms() + 60_000 });
        assert_eq!(errors(&[state.clone()]), "shop: conflict, 0 s ago: apply entry 7\n  remedy: nothing\n");
        state.detail = None;
        assert!(errors(&[state]).starts_with("shop: conflict, 0 s ago, passed: "));
    }

    #[test]
    fn the_table_has_a_line_for_each_database() {
        let mut broken = DatabaseState::new("shop", "diverged");
        broken.detail = Some("apply entry 7: the row is missing here".into());
        broken.files_waiting = Some(3);
        let text =
            table(&[DatabaseState { files_waiting: Some(0), ..DatabaseState::new("default", "follow") }, broken]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], "NAME     STATE     VERSION  HEAD  LAG  FILES      DETAIL");
        assert_eq!(
            lines[2],
            "shop     diverged  -        -     -    3 missing  apply entry 7: the row is missing here"
        );
    }
}
