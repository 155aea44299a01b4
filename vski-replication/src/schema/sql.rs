//! A tokenizer for the SQL that `sqlite_master` holds, after SQLite's own lexical rules (sqlite.org/lang.html):
//! enough to compare two statements and to find where one has more than the other.

/// One token, as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a>(pub &'a str);

impl Token<'_> {
    /// The form that is compared: keywords in lower case, everything else as it stands.
    #[must_use]
    pub fn normal(&self) -> String {
        let lower = self.0.to_ascii_lowercase();
        if KEYWORDS.binary_search(&lower.as_str()).is_ok() { lower } else { self.0.to_owned() }
    }

    /// Whether this is the given keyword, in any case. A quoted name never is.
    #[must_use]
    pub fn is(&self, keyword: &str) -> bool {
        self.0.eq_ignore_ascii_case(keyword)
    }
}

/// The statement's tokens, without white space and comments.
#[must_use]
pub fn tokens(sql: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            c if c.is_ascii_whitespace() => {
                rest = &rest[1..];
                continue;
            }
            '-' if rest.starts_with("--") => {
                rest = rest.find('\n').map_or("", |end| &rest[end..]);
                continue;
            }
            '/' if rest.starts_with("/*") => {
                rest = rest[2..].find("*/").map_or("", |end| &rest[end + 4..]);
                continue;
            }
            '\'' | '"' | '`' => quoted(rest, first),
            '[' => rest.find(']').map_or(rest.len(), |end| end + 1),
            'x' | 'X' if rest[1..].starts_with('\'') => 1 + quoted(&rest[1..], '\''),
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        tokens.push(Token(&rest[..length]));
        rest = &rest[length..];
    }
    tokens
}

/// Identifiers, keywords and numbers alike: letters, digits, `_`, `$`, `.` is a token of its own.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// The length of a quoted token at the front of `text`; a doubled quote stands for one.
fn quoted(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            match chars.peek() {
                Some((_, next)) if *next == quote => _ = chars.next(),
                _ => return at + 1,
            }
        }
    }
    text.len()
}

/// SQLite's keywords (sqlite.org/lang_keywords.html), in order for the binary search.
const KEYWORDS: [&str; 147] = [
    "abort",
    "action",
    "add",
    "after",
    "all",
    "alter",
    "always",
    "analyze",
    "and",
    "as",
    "asc",
    "attach",
    "autoincrement",
    "before",
    "begin",
    "between",
    "by",
    "cascade",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "commit",
    "conflict",
    "constraint",
    "create",
    "cross",
    "current",
    "current_date",
    "current_time",
    "current_timestamp",
    "database",
    "default",
    "deferrable",
    "deferred",
    "delete",
    "desc",
    "detach",
    "distinct",
    "do",
    "drop",
    "each",
    "else",
    "end",
    "escape",
    "except",
    "exclude",
    "exclusive",
    "exists",
    "explain",
    "fail",
    "filter",
    "first",
    "following",
    "for",
    "foreign",
    "from",
    "full",
    "generated",
    "glob",
    "group",
    "groups",
    "having",
    "if",
    "ignore",
    "immediate",
    "in",
    "index",
    "indexed",
    "initially",
    "inner",
    "insert",
    "instead",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "key",
    "last",
    "left",
    "like",
    "limit",
    "match",
    "materialized",
    "natural",
    "no",
    "not",
    "nothing",
    "notnull",
    "null",
    "nulls",
    "of",
    "offset",
    "on",
    "or",
    "order",
    "others",
    "outer",
    "over",
    "partition",
    "plan",
    "pragma",
    "preceding",
    "primary",
    "query",
    "raise",
    "range",
    "recursive",
    "references",
    "regexp",
    "reindex",
    "release",
    "rename",
    "replace",
    "restrict",
    "returning",
    "right",
    "rollback",
    "row",
    "rows",
    "savepoint",
    "select",
    "set",
    "table",
    "temp",
    "temporary",
    "then",
    "ties",
    "to",
    "transaction",
    "trigger",
    "unbounded",
    "union",
    "unique",
    "update",
    "using",
    "vacuum",
    "values",
    "view",
    "virtual",
    "when",
    "where",
    "window",
    "with",
    "without",
];

/// A name in double quotes, whatever it contains.
#[must_use]
pub fn quote_name(name: &str) -> String {
    let mut sql = String::with_capacity(name.len() + 2);
    push_name(&mut sql, name);
    sql
}

/// Appends [`quote_name`] to a statement.
pub fn push_name(sql: &mut String, name: &str) {
    sql.push('"');
    for (at, part) in name.split('"').enumerate() {
        if at > 0 {
            sql.push_str("\"\"");
        }
        sql.push_str(part);
    }
    sql.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(sql: &str) -> Vec<&str> {
        tokens(sql).into_iter().map(|token| token.0).collect()
    }

    #[test]
    fn quotes_blobs_brackets_and_comments_are_single_tokens() {
        assert_eq!(words("a'b''c'\"d\"\"e\"[f g]`h`X'00'"), ["a", "'b''c'", "\"d\"\"e\"", "[f g]", "`h`", "X'00'"]);
        assert_eq!(words("a--b\nc/* d */e/*"), ["a", "c", "e"]);
        assert_eq!(words("größe<=1.5"), ["größe", "<", "=", "1", ".", "5"]);
    }

    #[test]
    fn an_unfinished_quote_reaches_to_the_end() {
        assert_eq!(words("a 'b"), ["a", "'b"]);
        assert_eq!(words("[a"), ["[a"]);
    }

    #[test]
    fn the_keywords_stand_in_order() {
        assert!(KEYWORDS.is_sorted());
    }
}
