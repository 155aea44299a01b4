//! The list of collections, filtered and sorted in memory: there are few.

use std::cmp::Ordering;

use super::{Catalogue, Collection};
use crate::store::error::StoreError;

/// Collections that the filter lets through, in the order of `sort`, a list as `-created,name`.
///
/// A filter is one comparison or several with `&&`, each of `id`, `name`, `type`, `created` or `updated` with `=`, `!=`, `~`
/// or `!~` and a text in quotes.
pub fn select<'a>(catalogue: &'a Catalogue, filter: &str, sort: &str) -> Result<Vec<&'a Collection>, StoreError> {
    let terms = terms(filter)?;
    let keys = keys(sort)?;
    let mut found: Vec<_> =
        catalogue.iter().filter(|collection| terms.iter().all(|term| term.holds(collection))).collect();
    found.sort_by(|a, b| {
        let compared = keys.iter().map(|(key, falling)| {
            let order = value(a, key).cmp(value(b, key));
            if *falling { order.reverse() } else { order }
        });
        compared.fold(Ordering::Equal, Ordering::then)
    });
    Ok(found)
}

struct Term {
    key: &'static str,
    negated: bool,
    contains: bool,
    text: String,
}

impl Term {
    fn holds(&self, collection: &Collection) -> bool {
        let value = value(collection, self.key);
        let holds = if self.contains {
            value.to_lowercase().contains(&self.text.trim_matches('%').to_lowercase())
        } else {
            value == self.text
        };
        holds != self.negated
    }
}

fn terms(filter: &str) -> Result<Vec<Term>, StoreError> {
    let inner = filter.trim();
    let inner = inner.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(inner);
    inner.split("&&").map(str::trim).filter(|term| !term.is_empty()).map(term).collect()
}

fn term(text: &str) -> Result<Term, StoreError> {
    let refused = || {
        let message =
            format!("filter: {text:?} is not one of id, name, type, created, updated with =, !=, ~ or !~ and a text");
        StoreError::Invalid(message)
    };
    let at = text.find(['=', '!', '~']).ok_or_else(refused)?;
    let (name, rest) = text.split_at(at);
    let (negated, rest) = rest.strip_prefix('!').map_or((false, rest), |rest| (true, rest));
    let contains = rest.starts_with('~');
    let quoted = rest.strip_prefix(['=', '~']).ok_or_else(refused)?.trim();
    let inner = |quote| quoted.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    let inner = inner('\'').or_else(|| inner('"')).ok_or_else(refused)?;
    Ok(Term { key: key(name.trim()).ok_or_else(refused)?, negated, contains, text: inner.to_owned() })
}

fn keys(sort: &str) -> Result<Vec<(&'static str, bool)>, StoreError> {
    let sorted = sort.split(',').map(str::trim).filter(|name| !name.is_empty()).map(|name| {
        let (name, falling) = match name.strip_prefix('-') {
            Some(name) => (name, true),
            None => (name.strip_prefix('+').unwrap_or(name), false),
        };
        let refused = || StoreError::Invalid(format!("sort: {name:?} is not one of id, name, type, created, updated"));
        key(name).map(|key| (key, falling)).ok_or_else(refused)
    });
    sorted.collect()
}

fn key(name: &str) -> Option<&'static str> {
    ["id", "name", "type", "created", "updated"].into_iter().find(|key| *key == name)
}

fn value<'a>(collection: &'a Collection, key: &str) -> &'a str {
    match key {
        "id" => &collection.id,
        "type" => collection.kind.name(),
        "created" => &collection.created,
        "updated" => &collection.updated,
        _ => &collection.name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(filter: &str, sort: &str) -> Result<Vec<String>, StoreError> {
        let named = |name: &str| Collection { id: name.into(), name: name.into(), ..Collection::default() };
        let catalogue = Catalogue::new(["posts", "authors", "post_tags"].map(named).to_vec());
        Ok(select(&catalogue, filter, sort)?.into_iter().map(|collection| collection.name.clone()).collect())
    }

    #[test]
    fn collections_are_found_by_name_and_sorted() {
        assert_eq!(names("", "").unwrap(), ["authors", "post_tags", "posts"]);
        assert_eq!(names("", "-name").unwrap(), ["posts", "post_tags", "authors"]);
        assert_eq!(names("name = \"posts\"", "").unwrap(), ["posts"]);
        assert_eq!(names("(name~'POST' && name != 'posts')", "").unwrap(), ["post_tags"]);
        assert_eq!(names("name !~ 'post%' && type = 'base'", "").unwrap(), ["authors"]);
        for (filter, sort) in
            [("x = 'y'", ""), ("name", ""), ("name > 'a'", ""), ("name = y", ""), ("", "fields"), ("(", "")]
        {
            assert!(names(filter, sort).is_err(), "{filter} {sort}");
        }
    }
}
