//! Who asks, as rules and filters see it (`@request.auth.*`).

use std::sync::Arc;

use serde_json::{Map, Value};

/// Who asks.
#[derive(Clone, Debug)]
pub enum Requester {
    /// Nobody in particular.
    Guest,
    /// An admin, a command on the node's machine, or an API key: rules do not apply.
    Admin,
    /// A record of an auth collection that logged in.
    Record(Arc<AuthRecord>),
}

/// A record that logged in, as it was when the request came.
#[derive(Clone, Debug)]
pub struct AuthRecord {
    /// The id of its collection.
    pub collection_id: String,
    /// The name of its collection.
    pub collection_name: String,
    /// Its fields as JSON, hidden ones too, but never the hash of its password nor its token key.
    pub record: Map<String, Value>,
}

impl Requester {
    /// Whether rules do not apply.
    pub fn is_admin(&self) -> bool {
        matches!(self, Self::Admin)
    }

    /// The record, if it is one.
    pub fn record(&self) -> Option<&AuthRecord> {
        match self {
            Self::Record(record) => Some(record),
            Self::Guest | Self::Admin => None,
        }
    }

    /// Whether it is this record of this collection.
    pub fn is(&self, collection_id: &str, id: &str) -> bool {
        self.record().is_some_and(|record| record.collection_id == collection_id && record.id() == id)
    }
}

impl AuthRecord {
    /// Its id.
    pub fn id(&self) -> &str {
        self.record.get("id").and_then(Value::as_str).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_itself_only_in_its_own_collection() {
        let record = json!({"id": "aaaaaaaaaaaaaaa"}).as_object().cloned().unwrap();
        let record = AuthRecord { collection_id: "c1".into(), collection_name: "users".into(), record };
        let requester = Requester::Record(Arc::new(record));
        assert!(requester.is("c1", "aaaaaaaaaaaaaaa"));
        assert!(!requester.is("c2", "aaaaaaaaaaaaaaa") && !requester.is("c1", "bbbbbbbbbbbbbbb"));
        assert!(!Requester::Guest.is("c1", "aaaaaaaaaaaaaaa") && !Requester::Admin.is("c1", ""));
    }
}
