use rusqlite::types::Value;

/// A piece of SQL and the values of its parameters, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// SQL with `?` for each parameter.
    pub sql: String,
    /// Their values.
    pub params: Vec<Value>,
}

impl Condition {
    /// SQL without parameters.
    #[must_use]
    pub fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), params: Vec::new() }
    }

    /// One parameter.
    #[must_use]
    pub fn value(value: Value) -> Self {
        Self { sql: "?".into(), params: vec![value] }
    }

    /// Pieces in a row.
    #[must_use]
    pub fn join<'a>(pieces: impl IntoIterator<Item = Piece<'a>>) -> Self {
        let mut whole = Self::default();
        for piece in pieces {
            match piece {
                Piece::Text(text) => whole.sql.push_str(text),
                Piece::Sql(part) => whole.append(part),
            }
        }
        whole
    }

    /// All of these, each in parentheses; true if there are none.
    #[must_use]
    pub fn all(conditions: Vec<Self>) -> Self {
        Self::chain(conditions, " AND ", "1")
    }

    /// One of these, each in parentheses.
    #[must_use]
    pub fn any(conditions: Vec<Self>) -> Self {
        Self::chain(conditions, " OR ", "0")
    }

    /// Adds SQL and its parameters.
    pub fn append(&mut self, other: &Self) {
        self.sql.push_str(&other.sql);
        self.params.extend(other.params.iter().cloned());
    }

    fn chain(mut conditions: Vec<Self>, joint: &str, none: &str) -> Self {
        match conditions.len() {
            0 => Self::new(none),
            1 => conditions.remove(0),
            _ => {
                let mut whole = Self::default();
                whole.push_balanced(&conditions, joint);
                whole
            }
        }
    }

    /// Halves in parentheses: SQLite walks expressions with its stack, and bounds how deep they are.
    fn push_balanced(&mut self, conditions: &[Self], joint: &str) {
        self.sql.push('(');
        match conditions {
            [only] => self.append(only),
            several => {
                let (left, right) = several.split_at(several.len() / 2);
                self.push_balanced(left, joint);
                self.sql.push_str(joint);
                self.push_balanced(right, joint);
            }
        }
        self.sql.push(')');
    }
}

/// What [`Condition::join`] takes.
pub enum Piece<'a> {
    /// Fixed SQL, or a name that was quoted.
    Text(&'a str),
    /// SQL with parameters.
    Sql(&'a Condition),
}

impl<'a> From<&'a str> for Piece<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Piece<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a Condition> for Piece<'a> {
    fn from(sql: &'a Condition) -> Self {
        Self::Sql(sql)
    }
}

/// `sql!["a = ", &value]`: pieces of SQL in a row.
macro_rules! sql {
    ($($piece:expr),+ $(,)?) => { $crate::filter::sql::Condition::join([$($crate::filter::sql::Piece::from($piece)),+]) };
}
pub(super) use sql;
