//! Tree to SQL.
//!
//! A path to several records is a chain of LEFT JOINs inside a subquery, so that no record is one row of NULLs. With `?`
//! the comparison wants one row; without it, all. Comparisons with `?` that are joined by `&&` and go through the same
//! relation are about the **same** record, as in PocketBase: their subquery encloses all of them. Since nothing negates a
//! filter, a subquery may otherwise be as narrow as one comparison, which is what makes it fast.

use std::cell::Cell;

use rusqlite::types::Value as Sql;
use vski_replication::schema::sql::quote_name;

use super::ast::{Comparison, Expr, Operand, Operator, Path, Root, Value};
use super::compare::{Null, Side, compare, not};
use super::paths::{Join, Kind, Leaf, Resolved, Step, Way, resolve};
use super::request::RequestInfo;
use super::sql::{Condition, sql};
use super::{FilterError, MAX_TABLES, macros, parse};
use crate::config::FilterLimits;
use crate::store::collections::{Catalogue, Collection};
use crate::store::fields::ID;

/// What a filter is compiled for.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// All collections.
    pub catalogue: &'a Catalogue,
    /// Whose records are looked for.
    pub collection: &'a Collection,
    /// What `@request` stands for.
    pub request: &'a RequestInfo,
    /// A rule's or an admin's filter: sees hidden fields, all records behind relations, and `@collection`.
    pub trusted: bool,
    /// The main record's alias in the SQL around.
    pub alias: &'a str,
    /// How much may be asked for.
    pub limits: FilterLimits,
}

/// The condition that `expr` puts on records; `text` is what it was parsed from.
pub fn compile(expr: &Expr, text: &str, scope: &Scope<'_>) -> Result<Condition, FilterError> {
    Compiler::new(scope, text).expr(expr, &Bound::default())
}

/// Whether the requester sees an auth record's address: it is visible to all, or their own, or they manage the record.
pub fn shows_email(scope: &Scope<'_>, collection: &Collection, alias: &str) -> Condition {
    if scope.request.requester.is_admin() {
        return Condition::new("1");
    }
    let own = scope.request.requester.record().filter(|record| record.collection_id == collection.id);
    let own = Condition::value(own.map_or(Sql::Null, |record| Sql::Text(record.id().to_owned())));
    let mut shows = sql!["(", alias, ".\"emailVisibility\" OR ", alias, ".id = ", &own];
    match rule(scope, collection, collection.rules.manage_rule.as_deref(), alias) {
        Some(manages) => shows.append(&sql![" OR (", &manages, ")"]),
        None => return Condition::new("1"),
    }
    shows.append(&Condition::new(") IS TRUE"));
    shows
}

/// Steps that have an alias already, by their keys.
#[derive(Clone, Default)]
struct Bound(Vec<(String, String)>);

impl Bound {
    fn alias(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, alias)| alias.as_str())
    }
}

/// Tables that are joined in one subquery.
#[derive(Default)]
struct Joins {
    sql: Condition,
    tables: usize,
}

pub(super) struct Compiler<'a, 's> {
    scope: &'s Scope<'a>,
    text: &'s str,
    now_ms: i64,
    aliases: Cell<usize>,
    /// Relations followed so far.
    relations: Cell<usize>,
    /// Where the comparison begins that is looked at.
    at: Cell<usize>,
}

impl<'a, 's> Compiler<'a, 's> {
    pub(super) fn new(scope: &'s Scope<'a>, text: &'s str) -> Self {
        Self {
            scope,
            text,
            now_ms: jiff::Timestamp::now().as_millisecond(),
            aliases: Cell::new(0),
            relations: Cell::new(0),
            at: Cell::new(0),
        }
    }

    fn expr(&self, expr: &Expr, bound: &Bound) -> Result<Condition, FilterError> {
        match expr {
            Expr::Compare(comparison) => self.comparison(comparison, bound),
            Expr::Or(items) => {
                Ok(Condition::any(items.iter().map(|item| self.expr(item, bound)).collect::<Result<_, _>>()?))
            }
            Expr::And(items) => self.all(items, bound),
        }
    }

    /// Items that go through the same records stand in one subquery.
    fn all(&self, items: &[Expr], bound: &Bound) -> Result<Condition, FilterError> {
        let mut ways = Vec::new();
        for item in items {
            let mut found = Vec::new();
            self.any_ways(item, &mut found)?;
            ways.push(found);
        }
        let goes_through = |ways: &[Way<'a>], root: &str| ways.iter().any(|way| way.shared_root() == Some(root));
        let is_shared = |way: &Way<'a>| {
            way.shared_root().is_some_and(|root| {
                bound.alias(root).is_none() && ways.iter().filter(|ways| goes_through(ways, root)).count() > 1
            })
        };
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        let (mut joins, mut inner) = (Joins::default(), bound.clone());
        for way in ways.iter().flatten().filter(|way| is_shared(way)) {
            self.place(way.record_steps(), &mut inner, &mut joins)?;
        }
        for (item, ways) in items.iter().zip(&ways) {
            if ways.iter().any(is_shared) {
                inside.push(self.expr(item, &inner)?);
            } else {
                outside.push(self.expr(item, bound)?);
            }
        }
        if !inside.is_empty() {
            outside.push(exists(&joins.sql, &Condition::all(inside)));
        }
        Ok(Condition::all(outside))
    }

    /// The ways of comparisons with `?` below `expr`.
    fn any_ways(&self, expr: &Expr, into: &mut Vec<Way<'a>>) -> Result<(), FilterError> {
        match expr {
            Expr::And(items) | Expr::Or(items) => items.iter().try_for_each(|item| self.any_ways(item, into)),
            Expr::Compare(Comparison { any: false, .. }) => Ok(()),
            Expr::Compare(Comparison { left, right, .. }) => [left, right].into_iter().try_for_each(|side| {
                if let Resolved::Way(way) = self.resolve(side)? {
                    into.push(way);
                }
                Ok(())
            }),
        }
    }

    fn comparison(&self, comparison: &Comparison, bound: &Bound) -> Result<Condition, FilterError> {
        let Comparison { left, operator, any, right } = comparison;
        let is_text = !any && matches!(operator, Operator::Like | Operator::NotLike);
        let (from, to) = (self.resolve(left)?, self.resolve(right)?);
        self.at.set(left.place.0);
        let (from, to) = if is_text { (from.stored(), to.stored()) } else { (from, to) };
        let mut joins = Joins::default();
        // All rows are looked at where all must match, also those of a record that others speak of.
        let mut inner = if *any { bound.clone() } else { Bound::default() };
        let one = self.side(from, &mut inner, &mut joins)?;
        let other = self.side(to, &mut inner, &mut joins)?;
        let condition = compare(one, *operator, other).map_err(|clash| {
            let at = if clash.right { right.place } else { left.place };
            FilterError::at(self.text, at.0, clash.message)
        })?;
        Ok(match (joins.tables == 0, any) {
            (true, _) => condition,
            (false, true) => exists(&joins.sql, &condition),
            (false, false) => sql!["NOT ", &exists(&joins.sql, &not(&condition))],
        })
    }

    pub(super) fn resolve(&self, operand: &Operand) -> Result<Resolved<'a>, FilterError> {
        self.at.set(operand.place.0);
        let literal = |value, kind| Ok(Resolved::Constant { value, kind, literal: true });
        match &operand.value {
            Value::Text(text) => literal(Sql::Text(text.clone()), Kind::Text),
            Value::Integer(number) => literal(Sql::Integer(*number), Kind::Number),
            Value::Real(number) => literal(Sql::Real(*number), Kind::Number),
            Value::Bool(flag) => literal(Sql::Integer((*flag).into()), Kind::Bool),
            Value::Null => literal(Sql::Null, Kind::Loose),
            Value::Macro(date) => {
                let kind = if macros::is_number(*date) { Kind::Number } else { Kind::Date };
                literal(macros::value(*date, self.now_ms), kind)
            }
            Value::Path(path) => resolve(self.scope, path).map_err(|lost| {
                FilterError::at(self.text, operand.place.0 + segment_offset(path, lost.segment), lost.message)
            }),
        }
    }

    /// A side in SQL. Several records or values are joined in `joins`; otherwise it is one expression.
    fn side(&self, resolved: Resolved<'a>, bound: &mut Bound, joins: &mut Joins) -> Result<Side, FilterError> {
        let way = match resolved {
            Resolved::Constant { value, kind, literal } => return Ok(Side::Constant { value, kind, literal }),
            Resolved::Changed { body, way } => {
                let column = self.column(&way, self.scope.alias);
                let body = Side::Constant { value: body, kind: Kind::Loose, literal: false };
                let row = Side::Row { sql: column, kind: way.kind, null: Null::Zero };
                let equal = compare(body, Operator::Equal, row)
                    .map_err(|clash| FilterError::at(self.text, 0, clash.message))?;
                return Ok(Side::Row { sql: sql!["(", &not(&equal), ")"], kind: Kind::Bool, null: Null::Nothing });
            }
            Resolved::Way(way) => way,
        };
        if !way.is_many() {
            let null = if way.steps.is_empty() { Null::Zero } else { Null::Nothing };
            return Ok(Side::Row { sql: self.scalar(&way)?, kind: way.kind, null });
        }
        let alias = self.place(&way.steps, bound, joins)?;
        let null = match way.leaf {
            Leaf::Item => Null::Nothing,
            _ => Null::Either(format!("{alias}.id")),
        };
        Ok(Side::Row { sql: self.column(&way, &alias), kind: way.kind, null })
    }

    /// One value for each main record; NULL where a relation leads nowhere.
    pub(super) fn scalar(&self, way: &Way<'a>) -> Result<Condition, FilterError> {
        if way.steps.is_empty() {
            return Ok(self.column(way, self.scope.alias));
        }
        let mut joins = Joins::default();
        let alias = self.place(&way.steps, &mut Bound::default(), &mut joins)?;
        let id = format!("{alias}.id");
        let column = self.column(way, &alias);
        let value = match way.kind {
            Kind::Number | Kind::Bool => sql!["iif(", &id, " IS NULL, NULL, ifnull(", &column, ", 0))"],
            _ => column,
        };
        Ok(sql!["(SELECT ", &value, " FROM (SELECT 1)", &joins.sql, ")"])
    }

    /// Joins the tables of `steps` that are not bound yet; the alias of the last one.
    fn place(&self, steps: &[Step<'a>], bound: &mut Bound, joins: &mut Joins) -> Result<String, FilterError> {
        let mut alias = self.scope.alias.to_owned();
        for step in steps {
            let known = if step.join.is_record() { bound.alias(&step.key).map(str::to_owned) } else { None };
            alias = match known {
                Some(known) => known,
                None => {
                    let made = self.join(step, &alias, joins)?;
                    bound.0.push((step.key.clone(), made.clone()));
                    made
                }
            };
        }
        Ok(alias)
    }

    fn join(&self, step: &Step<'a>, from: &str, joins: &mut Joins) -> Result<String, FilterError> {
        if step.join.is_record() {
            self.count_relation()?;
        }
        joins.tables += if matches!(step.join, Join::Many(..) | Join::Ids(..)) { 2 } else { 1 };
        if joins.tables > MAX_TABLES {
            let message =
                format!("its paths join more than {MAX_TABLES} tables in one condition: ask for less at once");
            return Err(FilterError::at(self.text, self.at.get(), message));
        }
        let alias = self.alias();
        let list = |table: &str, column: &str| {
            let column = format!("{table}.{}", quote_name(column));
            format!("json_each(iif(json_valid({column}), {column}, '[]'))")
        };
        let (target, on) = match &step.join {
            Join::Items { column, .. } => {
                joins.sql.append(&sql![" LEFT JOIN ", &list(from, column), " AS ", &alias]);
                return Ok(alias);
            }
            Join::Values { json, .. } => {
                let values = Condition::value(Sql::Text(json.clone()));
                joins.sql.append(&sql![" LEFT JOIN json_each(", &values, ") AS ", &alias]);
                return Ok(alias);
            }
            Join::One(target, column) => (target, sql![&alias, ".id = ", from, ".", &quote_name(column)]),
            Join::Many(target, column) => {
                let each = self.alias();
                joins.sql.append(&sql![" LEFT JOIN ", &list(from, column), " AS ", &each]);
                (target, sql![&alias, ".id = ", &each, ".value"])
            }
            Join::Ids(target, ids) => {
                let each = self.alias();
                let ids = Condition::value(Sql::Text(ids.clone()));
                joins.sql.append(&sql![" LEFT JOIN json_each(", &ids, ") AS ", &each]);
                (target, sql![&alias, ".id = ", &each, ".value"])
            }
            Join::Back(target, column) => (target, sql![&alias, ".", &quote_name(column), " = ", from, ".id"]),
            Join::BackMany(target, column) => {
                let named = list(&alias, column);
                (target, sql![from, ".id IN (SELECT value FROM ", &named, ")"])
            }
            Join::Any(target) => (target, Condition::new("1")),
        };
        let visible = self.visible(target, &alias);
        joins.sql.append(&sql![" LEFT JOIN ", &*target.source(), " AS ", &alias, " ON ", &on, &visible]);
        Ok(alias)
    }

    fn count_relation(&self) -> Result<(), FilterError> {
        self.relations.set(self.relations.get() + 1);
        let most = self.scope.limits.relations;
        if self.relations.get() <= most {
            return Ok(());
        }
        let message = format!("its paths follow more than {most} relations in all: ask for less at once");
        Err(FilterError::at(self.text, self.at.get(), message))
    }

    /// Aliases begin with the main record's, so that those of a rule inside this filter are others.
    fn alias(&self) -> String {
        let number = self.aliases.get() + 1;
        self.aliases.set(number);
        format!("{}_{number}", self.scope.alias)
    }

    /// A user's filter looks only into records that the user may view.
    fn visible(&self, target: &Collection, alias: &str) -> Condition {
        if self.scope.trusted {
            return Condition::default();
        }
        match rule(self.scope, target, target.rules.view_rule.as_deref(), alias) {
            Some(rule) => sql![" AND (", &rule, ")"],
            None => Condition::default(),
        }
    }

    fn column(&self, way: &Way<'a>, alias: &str) -> Condition {
        let name = |column: &str| format!("{alias}.{}", quote_name(column));
        let plain = match &way.leaf {
            Leaf::Column(column) if *column == ID.name => Condition::new(format!("{alias}.id")),
            Leaf::Column(column) => Condition::new(name(column)),
            Leaf::Email(collection) => {
                sql!["iif(", &shows_email(self.scope, collection, alias), ", ", &name("email"), ", '')"]
            }
            Leaf::Json(column, path) => {
                let column = name(column);
                let path = Condition::value(Sql::Text(path.clone()));
                sql!["iif(json_valid(", &column, "), json_extract(", &column, ", ", &path, "), NULL)"]
            }
            Leaf::Length(column) => {
                let column = name(column);
                sql!["iif(json_valid(", &column, "), json_array_length(", &column, "), 0)"]
            }
            Leaf::Item => Condition::new(format!("{alias}.value")),
        };
        if way.lower { sql!["lower(", &plain, ")"] } else { plain }
    }
}

/// A rule as a condition on the records of `target` under `alias`; `None` where everyone may. A rule that makes no sense,
/// which only an edit of the catalogue by hand can bring about, lets nobody through.
pub fn rule(scope: &Scope<'_>, target: &Collection, rule: Option<&str>, alias: &str) -> Option<Condition> {
    match rule {
        _ if scope.request.requester.is_admin() => None,
        None => Some(Condition::new("0")),
        Some("") => None,
        Some(text) => {
            let scope = Scope { collection: target, trusted: true, alias, limits: FilterLimits::RULES, ..*scope };
            let compiled = parse(text).and_then(|expr| compile(&expr, text, &scope));
            Some(compiled.unwrap_or_else(|error| {
                tracing::error!(collection = target.name, %error, "a rule cannot be used, and lets nobody through");
                Condition::new("0")
            }))
        }
    }
}

fn exists(joins: &Condition, condition: &Condition) -> Condition {
    sql!["EXISTS (SELECT 1 FROM (SELECT 1)", joins, " WHERE ", condition, ")"]
}

/// Where in a path's text one of its names begins, in bytes.
pub(super) fn segment_offset(path: &Path, segment: usize) -> usize {
    let root = match &path.root {
        Root::Record => 0,
        Root::Request => "@request.".len(),
        Root::Collection { name, alias } => {
            "@collection.".len() + name.len() + alias.as_ref().map_or(0, |alias| alias.len() + 1) + 1
        }
    };
    root + path.segments.iter().take(segment).map(|name| name.len() + 1).sum::<usize>()
}
