use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::{HeaderMap, Method};
use rusqlite::types::Value as Sql;
use serde_json::{Map, Value};

use super::ast::Modifier;
use crate::store::requester::Requester;

/// What a filter may know of the request. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    /// Who asks.
    pub requester: Requester,
    /// The HTTP method.
    pub method: Method,
    /// `default`, or what else the request is part of, such as `batch` or `expand`.
    pub context: &'static str,
    /// Headers. Rules name them with `_` for `-`.
    pub headers: Arc<HeaderMap>,
    /// Query parameters.
    pub query: Arc<BTreeMap<String, String>>,
    /// The body's values: of a request that writes a record, as they are stored.
    pub body: Arc<Map<String, Value>>,
}

impl RequestInfo {
    /// A request without headers, parameters and body.
    #[must_use]
    pub fn new(requester: Requester, method: Method) -> Self {
        Self {
            requester,
            method,
            context: "default",
            headers: Arc::default(),
            query: Arc::default(),
            body: Arc::default(),
        }
    }

    /// The same request with another body.
    #[must_use]
    pub fn with_body(&self, body: Arc<Map<String, Value>>) -> Self {
        Self { body, ..self.clone() }
    }

    /// The value at a path below `@request`, or the names that there are.
    pub(super) fn value(&self, segments: &[String]) -> Result<Found, String> {
        let (first, rest) = segments.split_first().ok_or("@request needs a name")?;
        let text = |text: Option<&str>| text.map(|text| Value::String(text.to_owned()));
        let found = match (first.as_str(), rest) {
            ("method", []) => text(Some(self.method.as_str())),
            ("context", []) => text(Some(self.context)),
            ("headers", [name]) => text(self.header(name)),
            ("query", [name]) => text(self.query.get(name).map(String::as_str)),
            ("body" | "data", [name, inner @ ..]) => within(self.body.get(name), inner),
            ("auth", [name, inner @ ..]) => within(self.auth(name).as_ref(), inner),
            ("method" | "context" | "headers" | "query" | "body" | "data" | "auth", _) => {
                return Err(format!("@request.{} has no such value", segments.join(".")));
            }
            _ => {
                return Err(format!(
                    "there is no @request.{first}: there are auth, body, query, headers, method and context"
                ));
            }
        };
        Ok(Found(found))
    }

    /// The last header of this name that is text.
    fn header(&self, name: &str) -> Option<&str> {
        let is_it = |known: &str| known.replace('-', "_").eq_ignore_ascii_case(name);
        let named = self.headers.iter().filter(|(known, _)| is_it(known.as_str()));
        named.filter_map(|(_, value)| value.to_str().ok()).last()
    }

    fn auth(&self, name: &str) -> Option<Value> {
        let record = self.requester.record()?;
        match name {
            "collectionId" => Some(record.collection_id.clone().into()),
            "collectionName" => Some(record.collection_name.clone().into()),
            _ => record.record.get(name).cloned(),
        }
    }
}

/// What stands in the request at a path, if anything does.
pub(super) struct Found(pub Option<Value>);

impl Found {
    /// The values as JSON, where they are several.
    pub fn several(&self) -> Option<&Vec<Value>> {
        self.0.as_ref().and_then(Value::as_array)
    }

    /// As one value: a list or an object as its JSON.
    pub fn single(&self, modifier: Option<Modifier>) -> Sql {
        match modifier {
            Some(Modifier::IsSet) => Sql::Integer(self.0.is_some().into()),
            Some(Modifier::Length) => {
                let length = self.several().map_or(0, Vec::len);
                Sql::Integer(i64::try_from(length).unwrap_or(i64::MAX))
            }
            Some(Modifier::Lower) => match scalar(self.0.as_ref()) {
                Sql::Text(text) => Sql::Text(text.to_ascii_lowercase()),
                other => other,
            },
            _ => scalar(self.0.as_ref()),
        }
    }
}

fn within(value: Option<&Value>, path: &[String]) -> Option<Value> {
    let step = |value: &'_ Value, name: &String| match value {
        Value::Object(object) => object.get(name).cloned(),
        Value::Array(array) => array.get(name.parse::<usize>().ok()?).cloned(),
        _ => None,
    };
    path.iter().try_fold(value?.clone(), |value, name| step(&value, name))
}

fn scalar(value: Option<&Value>) -> Sql {
    match value {
        None | Some(Value::Null) => Sql::Null,
        Some(Value::Bool(flag)) => Sql::Integer((*flag).into()),
        Some(Value::String(text)) => Sql::Text(text.clone()),
        Some(Value::Number(number)) => {
            number.as_i64().map_or_else(|| number.as_f64().map_or(Sql::Null, Sql::Real), Sql::Integer)
        }
        Some(other) => Sql::Text(other.to_string()),
    }
}
