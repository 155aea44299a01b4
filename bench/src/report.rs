//! What a work has found: cases, in each case systems, of each system metrics, of each metric a value per round.
//!
//! The same report becomes a table for people, JSON for programs and a plot. Goals are told, never enforced.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::figures::{Figure, short};
use crate::machine::Machine;
use crate::plot;

/// Names of metrics that several works share, with their units.
pub mod metric {
    pub const RATE: &str = "requests/s";
    pub const P50: &str = "p50 ms";
    pub const P99: &str = "p99 ms";
    pub const CPU: &str = "CPU %";
    pub const MEMORY: &str = "peak MB";
    pub const SECONDS: &str = "seconds";
}

/// The system that all others are compared with.
pub const VSKI: &str = "VSKI";

/// Everything that one work has found.
#[derive(Serialize)]
pub struct Report {
    /// The work's name on the command line.
    pub work: &'static str,
    /// What was done, in a sentence.
    pub title: String,
    /// What is not the same on all systems, and what a reader must know.
    pub notes: Vec<String>,
    pub cases: Vec<Case>,
    pub goals: Vec<Goal>,
}

/// The same work on several systems.
#[derive(Serialize)]
pub struct Case {
    pub name: String,
    pub systems: Vec<System>,
}

/// One system in one case.
#[derive(Serialize)]
pub struct System {
    pub name: String,
    pub metrics: Vec<(String, Figure)>,
}

/// What VSKI should reach in a case.
#[derive(Serialize)]
pub struct Goal {
    pub case: String,
    pub metric: &'static str,
    /// Compared with this system's; else it is VSKI's own figure.
    pub beside: Option<&'static str>,
    pub bound: Bound,
}

/// A bound of a goal.
#[derive(Clone, Copy, Serialize)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Report {
    /// A report without results.
    pub fn new(work: &'static str, title: impl Into<String>) -> Self {
        Self { work, title: title.into(), notes: Vec::new(), cases: Vec::new(), goals: Vec::new() }
    }

    /// Adds what a reader must know.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Adds a goal about VSKI beside another system.
    pub fn beside(&mut self, case: &str, metric: &'static str, system: &'static str, bound: Bound) {
        self.goals.push(Goal { case: case.to_owned(), metric, beside: Some(system), bound });
    }

    /// Adds a goal about a figure of VSKI's own.
    pub fn own(&mut self, case: &str, metric: &'static str, bound: Bound) {
        self.goals.push(Goal { case: case.to_owned(), metric, beside: None, bound });
    }

    /// Adds one value of one round.
    pub fn add(&mut self, case: &str, system: &str, metric: &str, value: f64) {
        let case =
            entry(&mut self.cases, |found| found.name == case, || Case { name: case.to_owned(), systems: vec![] });
        let system = entry(
            &mut case.systems,
            |found| found.name == system,
            || System { name: system.to_owned(), metrics: vec![] },
        );
        let figure = entry(&mut system.metrics, |found| found.0 == metric, || (metric.to_owned(), Figure::default()));
        figure.1.0.push(value);
    }

    /// A metric of a system in a case.
    pub fn figure(&self, case: &str, system: &str, metric: &str) -> Option<&Figure> {
        let case = self.cases.iter().find(|found| found.name == case)?;
        let system = case.systems.iter().find(|found| found.name == system)?;
        system.metrics.iter().find(|found| found.0 == metric).map(|(_, figure)| figure)
    }

    /// What the goal is about, as measured.
    fn measured(&self, goal: &Goal) -> Option<Figure> {
        let ours = self.figure(&goal.case, VSKI, goal.metric)?;
        match goal.beside {
            Some(other) => Some(ours.per(self.figure(&goal.case, other, goal.metric)?)),
            None => Some(ours.clone()),
        }
    }

    /// The report as Markdown.
    pub fn table(&self) -> String {
        let mut text = format!("## {}: {}\n\n", self.work, self.title);
        let metrics = self.metrics();
        let _ =
            writeln!(text, "| case | system | {} |\n|---|---|{}", metrics.join(" | "), "--:|".repeat(metrics.len()));
        for (case, system) in self.cases.iter().flat_map(|case| case.systems.iter().map(move |system| (case, system))) {
            let cell = |metric: &&str| {
                let found = system.metrics.iter().find(|(name, _)| name == metric);
                found.map(|(_, figure)| figure.to_string()).unwrap_or_default()
            };
            let cells: Vec<String> = metrics.iter().map(cell).collect();
            let _ = writeln!(text, "| {} | {} | {} |", case.name, system.name, cells.join(" | "));
        }
        text.push_str(&self.goal_table());
        for note in &self.notes {
            let _ = write!(text, "\n- {note}");
        }
        text
    }

    fn goal_table(&self) -> String {
        if self.goals.is_empty() {
            return String::new();
        }
        let mut text = "\n| goal | measured | |\n|---|--:|---|\n".to_owned();
        for goal in &self.goals {
            let measured = self.measured(goal);
            let (value, verdict) = match &measured {
                Some(figure) => (figure.to_string(), if goal.bound.holds(figure.median()) { "kept" } else { "missed" }),
                None => ("-".to_owned(), "not measured"),
            };
            let _ = writeln!(text, "| {goal} | {value} | {verdict} |");
        }
        text
    }

    /// All metrics, in the order in which they first appear.
    pub fn metrics(&self) -> Vec<&str> {
        let mut names = Vec::new();
        let all = self.cases.iter().flat_map(|case| &case.systems).flat_map(|system| &system.metrics);
        for (name, _) in all {
            if !names.contains(&name.as_str()) {
                names.push(name.as_str());
            }
        }
        names
    }

    /// Writes `<work>.json` and `<work>.svg`.
    pub fn write(&self, directory: &Path, machine: &Machine, options: &impl Serialize) -> Result<()> {
        std::fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        let json = serde_json::json!({"machine": machine, "options": options, "report": self});
        let write = |ending: &str, text: String| {
            let path = directory.join(format!("{}.{ending}", self.work));
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        write("json", serde_json::to_string_pretty(&json)?)?;
        write("svg", plot::svg(self))
    }
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {} of {VSKI}", self.case, self.metric)?;
        if let Some(other) = self.beside {
            write!(out, " / {other}")?;
        }
        match self.bound {
            Bound::AtLeast(least) => write!(out, " >= {}", short(least)),
            Bound::AtMost(most) => write!(out, " <= {}", short(most)),
        }
    }
}

/// The element that fits, or a new one at the end.
fn entry<T>(list: &mut Vec<T>, fits: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let at = list.iter().position(fits).unwrap_or_else(|| {
        list.push(new());
        list.len() - 1
    });
    &mut list[at]
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Two rounds of one case.
    pub fn example() -> Report {
        let mut report = Report::new("create", "new records");
        for (ours, theirs) in [(900.0, 100.0), (1_600.0, 200.0)] {
            report.add("c=64", VSKI, metric::RATE, ours);
            report.add("c=64", "Other", metric::RATE, theirs);
            report.add("c=64", VSKI, metric::P99, 3.0);
        }
        report.beside("c=64", metric::RATE, "Other", Bound::AtLeast(8.0));
        report.own("c=64", metric::P99, Bound::AtMost(2.0));
        report.own("c=64", metric::CPU, Bound::AtMost(2.0));
        report.note("they differ");
        report
    }

    #[test]
    fn a_table_shows_medians_ranges_ratios_and_which_goals_are_kept() {
        let expected = "\
## create: new records

| case | system | requests/s | p99 ms |
|---|---|--:|--:|
| c=64 | VSKI | 1,250 (900-1,600) | 3.00 (3.00-3.00) |
| c=64 | Other | 150 (100-200) |  |

| goal | measured | |
|---|--:|---|
| c=64: requests/s of VSKI / Other >= 8.00 | 8.50 (8.00-9.00) | kept |
| c=64: p99 ms of VSKI <= 2.00 | 3.00 (3.00-3.00) | missed |
| c=64: CPU % of VSKI <= 2.00 | - | not measured |

- they differ";
        assert_eq!(example().table(), expected);
    }
}
