use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use e2e::Node;
use serde_json::Value;
use vski_replication::connection;

use crate::trio::POSTS;

/// Remembers which numbers were acknowledged, and who had those that a restore or a promotion left behind.
#[derive(Default)]
pub(super) struct Judge {
    acknowledged: BTreeSet<i64>,
    /// Removed from the master's file by another program.
    deleted: BTreeSet<i64>,
    /// Changed in a replica's file by another program: such a replica may have become the master.
    touched: BTreeSet<i64>,
    /// Left behind by a restore or a promotion, with the nodes that had them then: one of these has to report them.
    left: BTreeMap<i64, BTreeSet<String>>,
    /// Only on the master when an old copy took its place: the operator has removed them.
    gone: BTreeSet<i64>,
    /// What was found in reports, by node.
    reported: BTreeMap<String, BTreeSet<i64>>,
}

/// Why numbers may be missing in what counts from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The master's directory is replaced by an old copy.
    Restore,
    /// A replica counts that has not got everything.
    Promotion,
}

impl Judge {
    pub(super) fn acknowledge(&mut self, n: i64) {
        self.acknowledged.insert(n);
    }

    pub(super) fn delete(&mut self, n: i64) {
        self.deleted.insert(n);
    }

    pub(super) fn touch(&mut self, n: i64) {
        self.touched.insert(n);
    }

    /// Acknowledged numbers that are not here, and that nothing has cost so far.
    pub(super) fn missing(&self, rows: &BTreeSet<i64>) -> Vec<i64> {
        let excused = |n: &i64| self.deleted.contains(n) || self.gone.contains(n) || self.left.contains_key(n);
        self.acknowledged.difference(rows).copied().filter(|n| !excused(n)).collect()
    }

    /// From now on only `counting` counts, whose rows are these. `others` keep what they have, for now.
    pub(super) fn leave_behind(&mut self, cause: Cause, counting: &BTreeSet<i64>, others: &[&Node]) -> Result<()> {
        let others = others.iter().map(|node| Ok((node.name(), numbers(node)?))).collect::<Result<Vec<_>>>()?;
        for n in self.acknowledged.difference(counting) {
            let had: BTreeSet<String> =
                others.iter().filter(|(_, rows)| rows.contains(n)).map(|(name, _)| (*name).to_owned()).collect();
            let known = [&self.deleted, &self.gone].iter().any(|set| set.contains(n)) || self.left.contains_key(n);
            if !had.is_empty() {
                self.left.entry(*n).or_default().extend(had);
            } else if !known {
                ensure!(cause == Cause::Restore, "{n} was acknowledged, and no node has it: {cause:?}");
                self.gone.insert(*n);
            }
        }
        Ok(())
    }

    /// Reads what a node has reported as lost: its directory may be about to be replaced.
    pub(super) fn collect_reports(&mut self, node: &Node) -> Result<()> {
        let folder = node.dir().join(".vski/lost");
        if !folder.exists() {
            return Ok(());
        }
        let reported = self.reported.entry(node.name().to_owned()).or_default();
        for file in std::fs::read_dir(folder)? {
            let path = file?.path();
            // A report that is still being written is none yet.
            if !path.to_string_lossy().contains(".ndjson") || path.extension().is_some_and(|end| end == "part") {
                continue;
            }
            for line in std::fs::read_to_string(&path)?.lines() {
                let line: Value = serde_json::from_str(line).with_context(|| format!("read {}", path.display()))?;
                reported.extend(line["row"]["n"].as_f64().map(|n| n as i64));
            }
        }
        Ok(())
    }

    /// All nodes are equal to this one, and all reports are collected: nothing may be missing without a reason.
    pub(super) fn judge(&self, node: &Node) -> Result<()> {
        let rows = rows(node)?;
        for (n, note) in rows.iter().filter(|(n, _)| **n > 0) {
            let right = *note == format!("note {n}") || (self.touched.contains(n) && note == "edited");
            ensure!(right, "record {n} says {note:?}");
        }
        let mut missing = 0;
        for n in self.acknowledged.iter().filter(|n| !rows.contains_key(n)) {
            if self.deleted.contains(n) || self.gone.contains(n) {
                continue;
            }
            let had = self.left.get(n).with_context(|| format!("{n} was acknowledged and is lost"))?;
            let told = had.iter().any(|name| self.reported.get(name).is_some_and(|reported| reported.contains(n)));
            ensure!(told, "{n} was left behind on {had:?}, and none of them has reported it");
            missing += 1;
        }
        println!(
            "{} acknowledged, {} left, {missing} of them lost and reported, {} gone with a restored volume",
            self.acknowledged.len(),
            self.left.len(),
            self.gone.len()
        );
        Ok(())
    }
}

/// The numbers that a node's file holds, whether it runs or not.
pub(super) fn numbers(node: &Node) -> Result<BTreeSet<i64>> {
    Ok(rows(node)?.into_keys().collect())
}

fn rows(node: &Node) -> Result<BTreeMap<i64, String>> {
    let conn = connection::reader(&node.file("default"))?;
    let mut statement = conn.prepare(&format!("SELECT CAST(n AS INTEGER), note FROM {POSTS}"))?;
    let rows =
        statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?.unwrap_or_default())))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
