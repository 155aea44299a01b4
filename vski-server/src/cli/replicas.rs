//! `replicas`: the replicas that a node has heard of, from the running node or from a master's directory.

use clap::Args;
use vski_sync_agent::config::{NodeArgs, RetentionArgs, age};

use super::target::Target;
use super::{Failure, block_on};
use crate::replication::verdict::ReplicaRow;

/// The table's first line.
const TITLES: [&str; 8] = ["REPLICA", "DB", "VERDICT", "BEHIND", "BYTES", "SECONDS", "LAST CONTACT", "FALLS OFF IN"];

#[derive(Args)]
pub struct ReplicasArgs {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    /// Without a running master: leave out replicas that were not heard of for this long
    #[arg(long, env = "REPLICA_FORGET_AFTER", default_value = "168h", value_parser = age)]
    replica_forget_after: std::time::Duration,
    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    node: NodeArgs,
}

pub fn execute(args: &ReplicasArgs) -> Result<(), Failure> {
    let node = args.node.resolve().map_err(Failure::setup)?;
    block_on(async {
        let target = Target::ask(&node)?;
        let rows = target.replicas(args.retention.resolve(), args.replica_forget_after).await;
        tokio::task::block_in_place(|| target.close());
        let rows = rows?;
        if args.json {
            println!("{}", serde_json::to_string_pretty(&rows).map_err(Failure::work)?);
        } else {
            print!("{}", table(&rows));
        }
        Ok(())
    })
}

fn table(rows: &[ReplicaRow]) -> String {
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let seconds = |number: Option<f64>| number.map_or("-".to_owned(), |number| format!("{number:.0}s"));
    let cells = rows.iter().map(|row| {
        let verdict = row.verdict.name();
        [
            row.replica.clone(),
            row.db.clone(),
            if row.duplicate_id { format!("{verdict}, duplicate_id") } else { verdict.to_owned() },
            number(row.entries_behind),
            number(row.bytes_behind),
            seconds(row.seconds_behind),
            format!("{:.0}s ago", row.last_contact_seconds),
            seconds(row.falls_off_seconds),
        ]
    });
    let lines: Vec<[String; 8]> = std::iter::once(TITLES.map(str::to_owned)).chain(cells).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..TITLES.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
