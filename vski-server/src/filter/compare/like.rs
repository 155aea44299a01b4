//! `~`: one text contains another.

use rusqlite::types::Value;

use super::Side;
use crate::filter::sql::{Condition, sql};

/// Longest pattern that SQLite takes for LIKE, less what wrapping adds (its default limit is 50,000).
const MAX_PATTERN_BYTES: usize = 20_000;

/// Contains; a text with `%` is a pattern as it stands (PocketBase's rule).
pub(super) fn like(left: &Side, right: &Side) -> Condition {
    let text = sql!["ifnull(", &left.full(), ", '')"];
    match right {
        Side::Constant { value, .. } => match pattern(value) {
            pattern if pattern.len() > MAX_PATTERN_BYTES => Condition::new("0"),
            pattern => sql![&text, " LIKE ", &Condition::value(Value::Text(pattern)), " ESCAPE '\\'"],
        },
        row => {
            let part = row.full();
            let most = MAX_PATTERN_BYTES.to_string();
            sql![
                "iif(length(CAST(",
                &part,
                " AS BLOB)) > ",
                &most,
                ", 0, ",
                &text,
                " LIKE '%' || replace(replace(replace(ifnull(",
                &part,
                ", ''), '\\', '\\\\'), '%', '\\%'), '_', '\\_') || '%' ESCAPE '\\')"
            ]
        }
    }
}

fn pattern(value: &Value) -> String {
    let text = match value {
        Value::Null | Value::Blob(_) => String::new(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text.clone(),
    };
    if has_wildcard(&text) {
        return text;
    }
    let mut pattern = String::from("%");
    for character in text.chars() {
        if matches!(character, '\\' | '%' | '_') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

/// Whether there is a `%` without a backslash before it.
fn has_wildcard(text: &str) -> bool {
    let mut escaped = false;
    text.chars().any(|character| {
        let found = character == '%' && !escaped;
        escaped = character == '\\' && !escaped;
        found
    })
}
