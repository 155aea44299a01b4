//! `fields=id,title,expand.author.name,body:excerpt(200,true)`: which parts of a record are sent.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::store::error::StoreError;

/// Fields that one request names.
const MAX_FIELDS: usize = 200;

/// Names of one path.
const MAX_LEVELS: usize = 16;

/// Which parts of a value are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projection {
    /// Parts of an object, by name; `*` is every other one.
    parts: BTreeMap<String, Self>,
    /// The whole value is kept.
    whole: bool,
    excerpt: Option<Excerpt>,
}

/// `:excerpt(max,withEllipsis)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Excerpt {
    max_characters: usize,
    with_ellipsis: bool,
}

impl Projection {
    /// Reads a list of paths with commas.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let wrong = |message: String| StoreError::Invalid(format!("fields: {message}"));
        let mut whole = Self::default();
        let paths = split(text);
        if paths.len() > MAX_FIELDS {
            return Err(wrong(format!("names at most {MAX_FIELDS}")));
        }
        for path in paths.into_iter().map(str::trim).filter(|path| !path.is_empty()) {
            let (names, modifier) = path.split_once(':').map_or((path, None), |(names, rest)| (names, Some(rest)));
            let excerpt = modifier.map(|text| Excerpt::parse(text).map_err(|error| wrong(format!("{path}: {error}"))));
            if names.split('.').count() > MAX_LEVELS {
                return Err(wrong(format!("{path} has more than {MAX_LEVELS} names")));
            }
            let mut level = &mut whole;
            for name in names.split('.') {
                level = level.parts.entry(name.to_owned()).or_default();
            }
            level.whole = true;
            level.excerpt = excerpt.transpose()?.or(level.excerpt);
        }
        Ok(whole)
    }

    /// The parts that are kept, in the order in which they stood. Of a list, those of each of its items.
    #[must_use]
    pub fn apply(&self, value: &Value) -> Value {
        if self.whole {
            return self.excerpt.map_or_else(|| value.clone(), |excerpt| excerpt.apply(value));
        }
        match value {
            Value::Array(items) => items.iter().map(|item| self.apply(item)).collect(),
            Value::Object(object) => {
                let kept = |(name, value): (&String, &Value)| {
                    let part = self.parts.get(name).or_else(|| self.parts.get("*"))?;
                    Some((name.clone(), part.apply(value)))
                };
                Value::Object(object.iter().filter_map(kept).collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }
}

/// At commas that are not in parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let outside = |character: char| {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    };
    text.split(outside).collect()
}

impl Excerpt {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = "the one modifier is :excerpt(characters) or :excerpt(characters,true)";
        let inner = text.strip_prefix("excerpt(").and_then(|rest| rest.strip_suffix(')')).ok_or(expected)?;
        let (max, ellipsis) = inner.split_once(',').unwrap_or((inner, "false"));
        let max_characters = max.trim().parse().ok().filter(|max| *max > 0).ok_or(expected)?;
        let with_ellipsis = match ellipsis.trim() {
            "true" | "1" => true,
            "false" | "0" => false,
            _ => return Err(expected.to_owned()),
        };
        Ok(Self { max_characters, with_ellipsis })
    }

    /// A text without its HTML, cut; anything else as it is.
    fn apply(self, value: &Value) -> Value {
        let Value::String(text) = value else { return value.clone() };
        let plain = plain_text(text);
        let Some((end, _)) = plain.char_indices().nth(self.max_characters) else { return plain.into() };
        let cut = plain[..end].trim_end();
        Value::String(if self.with_ellipsis { format!("{cut}...") } else { cut.to_owned() })
    }
}

/// The text of HTML: no tags, nothing of scripts and styles, and one space where there is white space or a block ends.
fn plain_text(html: &str) -> String {
    let mut plain = String::new();
    let mut rest = html;
    while !rest.is_empty() {
        let end = rest.find('<').unwrap_or(rest.len());
        push_words(&mut plain, &entities(&rest[..end]));
        rest = &rest[end..];
        let is_tag = rest[rest.len().min(1)..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '!');
        if !is_tag {
            plain.push_str(&rest[..rest.len().min(1)]);
            rest = &rest[rest.len().min(1)..];
            continue;
        }
        let close = rest.find('>').map_or(rest.len(), |at| at + 1);
        let name = rest[1..close].trim_matches(['/', '>', '<']).split(|c: char| !c.is_ascii_alphanumeric()).next();
        let name = name.unwrap_or_default().to_ascii_lowercase();
        let is_closing = rest.starts_with("</");
        rest = &rest[close..];
        if !INLINE.contains(&name.as_str()) {
            push_words(&mut plain, " ");
        }
        if !is_closing && (name == "script" || name == "style") {
            let end = format!("</{name}");
            rest = rest.to_ascii_lowercase().find(&end).map_or("", |at| &rest[at..]);
        }
    }
    plain.trim().to_owned()
}

/// Tags inside a line.
const INLINE: [&str; 16] =
    ["a", "abbr", "b", "bdi", "cite", "code", "em", "font", "i", "mark", "s", "small", "span", "strong", "sub", "u"];

fn push_words(plain: &mut String, text: &str) {
    for character in text.chars() {
        match character.is_whitespace() {
            true if plain.is_empty() || plain.ends_with(' ') => {}
            true => plain.push(' '),
            false => plain.push(character),
        }
    }
}

fn entities(text: &str) -> String {
    let named = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&nbsp;", " "), ("&amp;", "&")];
    named.iter().fold(text.to_owned(), |text, (name, meaning)| text.replace(name, meaning))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn picked(fields: &str, value: &Value) -> Value {
        Projection::parse(fields).unwrap().apply(value)
    }

    #[test]
    fn only_the_named_parts_are_kept_in_their_order() {
        let record = json!({
            "id": "a", "title": "t", "meta": {"x": 1, "y": [1, 2]},
            "expand": {"author": {"id": "b", "name": "n"}, "tags": [{"id": "c", "name": "m"}, {"id": "d"}]},
        });
        for (fields, wanted) in [
            ("id", json!({"id": "a"})),
            ("title,id, nothing", json!({"id": "a", "title": "t"})),
            ("meta.x", json!({"meta": {"x": 1}})),
            ("expand.author.name", json!({"expand": {"author": {"name": "n"}}})),
            ("expand.tags.name", json!({"expand": {"tags": [{"name": "m"}, {}]}})),
            ("expand.*.id", json!({"expand": {"author": {"id": "b"}, "tags": [{"id": "c"}, {"id": "d"}]}})),
            ("meta,meta.x", json!({"meta": {"x": 1, "y": [1, 2]}})),
            ("*", record.clone()),
        ] {
            assert_eq!(picked(fields, &record), wanted, "{fields}");
        }
        let with_names = picked("*,expand.author.name", &record);
        assert_eq!(with_names["title"], "t");
        assert_eq!(with_names["expand"], json!({"author": {"name": "n"}}));
        assert_eq!(picked("title,id", &record).to_string(), r#"{"id":"a","title":"t"}"#);
    }

    #[test]
    fn an_excerpt_is_plain_text_of_so_many_characters() {
        let html =
            json!({"body": "<h1>Größe</h1><p>is &lt;5&gt;  <b>me</b>ters</p><script>x()</script> 1 < 2", "n": 5});
        for (fields, wanted) in [
            ("body:excerpt(5)", json!({"body": "Größe"})),
            ("body:excerpt(6,true)", json!({"body": "Größe..."})),
            ("body:excerpt(15, true)", json!({"body": "Größe is <5> me..."})),
            ("body:excerpt(500,true)", json!({"body": "Größe is <5> meters 1 < 2"})),
            ("n:excerpt(1)", json!({"n": 5})),
        ] {
            assert_eq!(picked(fields, &html), wanted, "{fields}");
        }
        for wrong in ["body:excerpt", "body:excerpt()", "body:excerpt(0)", "body:excerpt(1,2,3)", "body:upper"] {
            assert!(Projection::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn broken_html_is_text_all_the_same() {
        for (html, wanted) in
            [("<", "<"), ("a <b", "a"), ("<script>", ""), ("<>x", "<>x"), ("&amp;lt;", "&lt;"), ("ä<ö", "ä<ö")]
        {
            assert_eq!(plain_text(html), wanted, "{html}");
        }
    }
}
