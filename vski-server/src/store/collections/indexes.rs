//! Indexes that callers declare, as PocketBase has them: `CREATE [UNIQUE] INDEX name ON collection (columns) [WHERE …]`.
//!
//! The text is taken apart and put together again, with the table's name and one that no other object of the database has:
//! nothing of it reaches SQLite that was not looked at.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use vski_replication::names;
use vski_replication::schema::sql::{Token, quote_name, tokens};

use super::check::is_identifier;

/// Longest declaration, bytes.
const MAX_BYTES: usize = 2000;

/// Functions that a condition may call: deterministic, and known to every SQLite.
const FUNCTIONS: [&str; 8] = ["lower", "upper", "length", "trim", "coalesce", "ifnull", "abs", "json_array_length"];

/// Words of a condition that are no names.
const WORDS: [&str; 21] = [
    "and", "or", "not", "is", "null", "in", "like", "glob", "between", "escape", "collate", "nocase", "binary",
    "rtrim", "true", "false", "isnull", "notnull", "distinct", "from", "as",
];

/// One index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its name on the wire.
    pub name: String,
    /// Its name in the database.
    pub object: String,
    /// Whether no two records may have the same values.
    pub unique: bool,
    /// The columns' names.
    pub columns: Vec<String>,
    /// The collection that the text names.
    pub collection: String,
    /// The declaration as it was given.
    pub sql: String,
    /// The columns with their collations and directions.
    terms: String,
    condition: Option<String>,
}

impl Index {
    /// Takes a declaration apart; the error says what was expected.
    pub fn parse(sql: &str) -> Result<Self, String> {
        let sql = sql.trim().trim_end_matches(';').trim_end();
        if sql.len() > MAX_BYTES {
            return Err(format!("has more than {MAX_BYTES} bytes"));
        }
        let all = tokens(sql);
        let mut rest = Rest { sql, tokens: &all };
        rest.word("create")?;
        let unique = rest.skip("unique");
        rest.word("index")?;
        if rest.skip("if") {
            rest.word("not")?;
            rest.word("exists")?;
        }
        let name = rest.name("the index's name")?;
        if !is_identifier(name.trim_start_matches('_')) || names::is_reserved_table(&name) {
            return Err(format!("{name:?} cannot be an index's name: use letters, digits and '_'"));
        }
        rest.word("on")?;
        let collection = rest.name("the collection's name")?;
        rest.word("(")?;
        let (columns, terms) = rest.columns()?;
        let condition = if rest.skip("where") { Some(rest.condition()?) } else { None };
        if let Some(token) = rest.tokens.first() {
            return Err(format!("ends before {:?}: only WHERE may follow the columns", token.0));
        }
        let (object, sql) = (name.clone(), sql.to_owned());
        Ok(Self { name, object, unique, columns, collection, sql, terms, condition })
    }

    /// Whether both say the same of the same collection.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let same = |a: &str, b: &str| {
            let normal = |sql| tokens(sql).iter().map(|token| unquoted(token).to_ascii_lowercase()).collect::<Vec<_>>();
            normal(a) == normal(b)
        };
        let condition = |index: &Self| index.condition.clone().unwrap_or_default();
        self.name == other.name
            && self.unique == other.unique
            && same(&self.terms, &other.terms)
            // Strings in a condition are told apart by case.
            && tokens(&condition(self)) == tokens(&condition(other))
    }

    /// What keeps it from being made on columns of these names.
    pub fn misfit(&self, known: &[&str]) -> Option<String> {
        let is_known = |name: &str| known.iter().any(|column| column.eq_ignore_ascii_case(name));
        if let Some(column) = self.columns.iter().find(|column| !is_known(column)) {
            return Some(format!("names the field {column}, which the collection does not have"));
        }
        let condition = self.condition.as_deref().unwrap_or_default();
        let all = tokens(condition);
        for (at, token) in all.iter().enumerate() {
            let (text, lower) = (unquoted(token), token.0.to_ascii_lowercase());
            let calls = all.get(at + 1).is_some_and(|next| next.0 == "(");
            let first = token.0.chars().next().unwrap_or(' ');
            let good = match first {
                '\'' | '0'..='9' => true,
                '"' | '`' | '[' => is_known(&text),
                '(' | ')' | ',' | '=' | '<' | '>' | '!' | '+' | '-' | '*' | '/' | '%' | '|' | '.' => true,
                _ if calls && FUNCTIONS.contains(&lower.as_str()) => true,
                _ if calls => ["in", "and", "or", "not"].contains(&lower.as_str()),
                _ => WORDS.contains(&lower.as_str()) || is_known(&text),
            };
            if !good {
                return Some(format!(
                    "has {:?} in its WHERE: only fields, values, comparisons and {} may stand there",
                    token.0,
                    FUNCTIONS.join(", ")
                ));
            }
        }
        None
    }

    /// Whether it needs the column of this name.
    #[must_use]
    pub fn uses(&self, column: &str) -> bool {
        let names = |token: &Token<'_>| !token.0.starts_with('\'') && unquoted(token).eq_ignore_ascii_case(column);
        self.columns.iter().any(|mine| mine.eq_ignore_ascii_case(column))
            || tokens(self.condition.as_deref().unwrap_or_default()).iter().any(names)
    }

    /// Whether it serves whoever looks for a value of this column.
    #[must_use]
    pub fn begins_with(&self, column: &str) -> bool {
        self.condition.is_none()
            && self.columns.first().is_some_and(|first| first.eq_ignore_ascii_case(column))
            && !tokens(&self.terms).iter().any(|token| token.is("collate"))
    }

    /// The statement that makes it.
    #[must_use]
    pub fn statement(&self, table: &str) -> String {
        let Self { object, unique, terms, condition, .. } = self;
        let unique = if *unique { "UNIQUE " } else { "" };
        let condition = condition.as_ref().map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
        format!("CREATE {unique}INDEX {} ON {} ({terms}){condition}", quote_name(object), quote_name(table))
    }

    /// As the catalogue keeps it.
    pub fn stored(&self) -> Value {
        json!({ "sql": self.sql, "object": self.object })
    }
}

impl Serialize for Index {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.sql)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Kept {
    Wire(String),
    Stored { sql: String, object: String },
}

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (sql, object) = match Kept::deserialize(deserializer)? {
            Kept::Wire(sql) => (sql, None),
            Kept::Stored { sql, object } => (sql, Some(object)),
        };
        let index = Self::parse(&sql).map_err(|reason| serde::de::Error::custom(format!("index {sql:?} {reason}")))?;
        Ok(Self { object: object.unwrap_or_else(|| index.object.clone()), ..index })
    }
}

/// What is not read yet.
struct Rest<'a> {
    sql: &'a str,
    tokens: &'a [Token<'a>],
}

impl<'a> Rest<'a> {
    fn skip(&mut self, word: &str) -> bool {
        let is_it = self.tokens.first().is_some_and(|token| token.is(word));
        if is_it {
            self.tokens = &self.tokens[1..];
        }
        is_it
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        if self.skip(word) { Ok(()) } else { Err(self.expected(&word.to_ascii_uppercase())) }
    }

    fn name(&mut self, what: &str) -> Result<String, String> {
        match self.tokens.first() {
            Some(token) if token.0.starts_with(|c: char| c.is_alphanumeric() || "_\"`[".contains(c)) => {
                self.tokens = &self.tokens[1..];
                Ok(unquoted(token))
            }
            _ => Err(self.expected(what)),
        }
    }

    /// Columns up to the closing parenthesis: their names, and the text between the parentheses.
    fn columns(&mut self) -> Result<(Vec<String>, String), String> {
        let (from, mut names) = (self.tokens, Vec::new());
        loop {
            names.push(self.name("a field's name")?);
            if self.skip("collate") {
                let collation = self.name("NOCASE, BINARY or RTRIM")?;
                if !["nocase", "binary", "rtrim"].contains(&collation.to_ascii_lowercase().as_str()) {
                    return Err(format!("has the unknown collation {collation}: NOCASE, BINARY and RTRIM are known"));
                }
            }
            let _ = self.skip("asc") || self.skip("desc");
            if self.skip(",") {
                continue;
            }
            let terms = self.text(from, from.len() - self.tokens.len());
            self.word(")")?;
            return Ok((names, terms));
        }
    }

    fn condition(&mut self) -> Result<String, String> {
        if self.tokens.is_empty() {
            return Err(self.expected("a condition"));
        }
        let all = std::mem::take(&mut self.tokens);
        Ok(self.text(all, all.len()))
    }

    /// The text that the first `count` tokens cover, comments left out.
    fn text(&self, tokens: &[Token<'a>], count: usize) -> String {
        let mut text = String::new();
        let mut end = None;
        for token in &tokens[..count] {
            let at = token.0.as_ptr() as usize - self.sql.as_ptr() as usize;
            if end.is_some_and(|end| end != at) {
                text.push(' ');
            }
            text.push_str(token.0);
            end = Some(at + token.0.len());
        }
        text
    }

    fn expected(&self, what: &str) -> String {
        let found = self.tokens.first().map_or("its end", |token| token.0);
        format!("has {found:?} where {what} was expected: CREATE [UNIQUE] INDEX name ON collection (fields) [WHERE …]")
    }
}

/// A name without its quotes.
fn unquoted(token: &Token<'_>) -> String {
    let text = token.0;
    match text.chars().next() {
        Some('[') => text.trim_start_matches('[').trim_end_matches(']').to_owned(),
        Some(quote @ ('"' | '`')) => {
            let inner = text.strip_prefix(quote).unwrap_or(text);
            inner.strip_suffix(quote).unwrap_or(inner).replace(&format!("{quote}{quote}"), &quote.to_string())
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declaration_is_taken_apart_and_put_together_with_other_names() {
        let sql = "create unique index `idx_a` ON \"posts\" (title COLLATE nocase DESC, [n]) -- why\n WHERE title != '' AND n>1;";
        let index = Index::parse(sql).unwrap();
        assert_eq!((index.name.as_str(), index.collection.as_str(), index.unique), ("idx_a", "posts", true));
        assert_eq!(index.columns, ["title", "n"]);
        assert_eq!(index.misfit(&["id", "title", "n"]), None);
        let made = Index { object: "idx_a_2".into(), ..index.clone() }.statement("posts_2");
        assert_eq!(
            made,
            "CREATE UNIQUE INDEX \"idx_a_2\" ON \"posts_2\" (title COLLATE nocase DESC, [n]) WHERE title != '' AND n>1"
        );
        assert!(index.uses("N") && index.uses("title") && !index.uses("other"));
        let again = Index::parse(
            "CREATE UNIQUE INDEX idx_a ON posts (title COLLATE NOCASE desc,n) WHERE title != '' AND n > 1",
        );
        assert!(index.is_like(&again.unwrap()));
        let other = Index::parse("CREATE UNIQUE INDEX idx_a ON posts (title COLLATE NOCASE desc,n) WHERE title != 'x'");
        assert!(!index.is_like(&other.unwrap()));
    }

    #[test]
    fn what_is_no_index_of_fields_is_refused_with_the_reason() {
        for (sql, reason) in [
            ("", "CREATE was expected"),
            ("CREATE INDEX", "name was expected"),
            ("CREATE INDEX a ON", "collection's name"),
            ("CREATE INDEX a ON posts", "( was expected"),
            ("CREATE INDEX a ON posts ()", "field's name"),
            ("CREATE INDEX a ON posts (n); DROP TABLE posts", "only WHERE"),
            ("CREATE INDEX a ON posts (n", ") was expected"),
            ("CREATE INDEX a ON posts (lower(n))", ") was expected"),
            ("CREATE INDEX a ON posts (n COLLATE odd)", "unknown collation"),
            ("CREATE INDEX \"a b\" ON posts (n)", "cannot be an index's name"),
            ("CREATE INDEX _vski_x ON posts (n)", "cannot be an index's name"),
            ("CREATE INDEX a ON posts (n) WHERE", "a condition"),
            ("CREATE TABLE a (b)", "INDEX was expected"),
            ("CREATE INDEX \"ä", "cannot be an index's name"),
        ] {
            let error = Index::parse(sql).unwrap_err();
            assert!(error.contains(reason), "{sql}: {error}");
        }
        for condition in ["x = 1", "n = (SELECT 1)", "n = random()", "n = ?", "\"x\" = 1", "n = :a", "n; x", "n = @a"] {
            let index = Index::parse(&format!("CREATE INDEX a ON posts (n) WHERE {condition}")).unwrap();
            assert!(index.misfit(&["n"]).is_some(), "{condition}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,60}") {
            let _ = Index::parse(&text);
            let _ = Index::parse(&format!("CREATE INDEX a ON b ({text}")).map(|index| index.misfit(&["n"]));
            let _ = Index::parse(&format!("CREATE INDEX a ON b (n) WHERE {text}")).map(|index| index.misfit(&["n"]));
        }
    }
}
