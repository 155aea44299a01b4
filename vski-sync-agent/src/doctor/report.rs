use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::{Finding, Level, Look};

/// Prints the findings; exit code 0 where none is more than good to know, else 1.
pub fn report(findings: &[Finding], look: &Look) -> Result<ExitCode> {
    let text =
        if look.json { serde_json::to_string_pretty(findings).context("write JSON")? + "\n" } else { table(findings) };
    std::io::stdout().write_all(text.as_bytes()).context("print the findings")?;
    let to_repair = findings.iter().any(|finding| finding.level > Level::Info);
    Ok(if to_repair { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// One line a finding, and its repair on the next.
pub(super) fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        text.push_str(&format!("{:<8} {}\n", finding.level.name(), finding.what.replace('\n', " ")));
        if let Some(repair) = &finding.repair {
            text.push_str(&format!("{:8} -> {repair}\n", ""));
        }
    }
    text
}
