//! The fault points of the programs, as the code has them and as the tables "Killed at …" list them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// What an operation that was made to fail says.
pub const INJECTED: &str = "injected fault at";

/// A place where a debug build can be killed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Its label.
    pub label: String,
    /// Whether the operation there can be made to fail instead.
    pub can_fail: bool,
}

/// The labels of one group (`apply` for `apply:…`) that the two tables list, in their order; at least one.
pub fn of_group(group: &str) -> Result<Vec<Fault>> {
    let code = in_code()?;
    let labels = documented()?.into_iter().filter(|label| label.split(':').next() == Some(group));
    let faults: Vec<Fault> = labels
        .map(|label| {
            let can_fail = *code.get(&label).with_context(|| format!("{label} is in a table and not in the code"))?;
            Ok(Fault { label, can_fail })
        })
        .collect::<Result<_>>()?;
    ensure!(!faults.is_empty(), "no table lists a label {group}:…");
    Ok(faults)
}

/// The labels of both tables, in their order.
pub fn documented() -> Result<Vec<String>> {
    let mut labels = Vec::new();
    for file in ["vski-sync-agent/DESIGN.md", "vski-server/DESIGN.md"] {
        let text = std::fs::read_to_string(workspace().join(file)).with_context(|| format!("read {file}"))?;
        let section = text.split("\n## Killed at …\n").nth(1).with_context(|| format!("{file}: Killed at …"))?;
        let rows = section.lines().take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with("| `"));
        for row in rows {
            let cell = row.split('|').nth(1).unwrap_or_default();
            labels.extend(cell.split('`').filter(|part| part.contains(':')).map(str::to_owned));
        }
    }
    let distinct: BTreeSet<&String> = labels.iter().collect();
    ensure!(distinct.len() == labels.len(), "a label is listed twice");
    Ok(labels)
}

/// The labels in the source, and whether the operation there can be made to fail.
pub fn in_code() -> Result<BTreeMap<String, bool>> {
    let mut found = BTreeMap::new();
    for part in ["vski-replication", "vski-sync-agent", "vski-server"] {
        scan(&workspace().join(part).join("src"), &mut found)?;
    }
    ensure!(!found.is_empty(), "the source has no fault points");
    Ok(found)
}

fn scan(folder: &Path, found: &mut BTreeMap<String, bool>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            scan(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            labels(&std::fs::read_to_string(&path)?, found);
        }
    }
    Ok(())
}

fn labels(text: &str, found: &mut BTreeMap<String, bool>) {
    for (call, can_fail) in [("fault::point(", false), ("fault::io(", true), ("fault::sql(", true)] {
        for rest in text.split(call).skip(1) {
            let literal = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
            found.extend(literal.map(|label| (label.to_owned(), can_fail)));
        }
    }
    // The two around a commit: a failure before it, and none after it.
    for line in text.lines().filter(|line| line.contains("_LABELS: [&str; 2]")) {
        let pair = line.split('"').filter(|part| part.contains(':') && !part.contains(' '));
        found.extend(pair.zip([true, false]).map(|(label, can_fail)| (label.to_owned(), can_fail)));
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_whichever_way_they_are_written() {
        let mut found = BTreeMap::new();
        let text = "fault::point(\"a:b\"); fault::sql(\n \"c:d\")?; fault::sql(labels[0])?;\n\
                    const X_LABELS: [&str; 2] = [\"e:before\", \"e:after\"];";
        labels(text, &mut found);
        let expected = [("a:b", false), ("c:d", true), ("e:after", false), ("e:before", true)];
        assert_eq!(found, expected.map(|(label, can_fail)| (label.to_owned(), can_fail)).into());
    }
}
