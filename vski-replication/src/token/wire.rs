//! Claims as they stand in a token.
//!
//! A login's token has the claims that PocketBase's JavaScript client reads: `type` is `auth`, `id` the bearer,
//! `collectionId` the collection, which for admins is PocketBase's id of `_superusers`. What is a record's has `db`, too.
//! Tokens of before had `type` `admin` or `record` and `collection`, and stay valid.

use serde::{Deserialize, Serialize};

use super::{Audience, Bearer, Claims};

/// PocketBase's id of the collection `_superusers`.
const SUPERUSERS: &str = "pbc_3142635823";

/// The claim `type`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    /// Somebody who logged in: an admin if the token names no database and [`SUPERUSERS`], else a record.
    Auth,
    Admin,
    Record,
    Replica,
}

/// The claims in JSON.
#[derive(Serialize, Deserialize)]
pub(super) struct Wire {
    sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Type,
    aud: Audience,
    exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tk: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    db: Option<String>,
    #[serde(default, rename = "collectionId", alias = "collection", skip_serializing_if = "Option::is_none")]
    collection: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    fixed: bool,
}

impl From<Claims> for Wire {
    fn from(claims: Claims) -> Self {
        let Claims { sub, bearer, aud, exp, tk, db, collection, fixed } = claims;
        let wire = |kind, collection| Self { sub, id: None, kind, aud, exp, tk, db, collection, fixed };
        match (aud, bearer) {
            (Audience::User, Bearer::Admin) => wire(Type::Auth, Some(SUPERUSERS.to_owned())).with_id(),
            (Audience::User, Bearer::Record) => wire(Type::Auth, collection).with_id(),
            (_, Bearer::Admin) => wire(Type::Admin, collection),
            (_, Bearer::Record) => wire(Type::Record, collection),
            (_, Bearer::Replica) => wire(Type::Replica, collection),
        }
    }
}

impl Wire {
    fn with_id(self) -> Self {
        Self { id: Some(self.sub.clone()), ..self }
    }
}

impl From<Wire> for Claims {
    fn from(wire: Wire) -> Self {
        let Wire { sub, id: _, kind, aud, exp, tk, db, collection, fixed } = wire;
        let bearer = match kind {
            Type::Auth if db.is_none() && collection.as_deref() == Some(SUPERUSERS) => Bearer::Admin,
            Type::Admin => Bearer::Admin,
            Type::Auth | Type::Record => Bearer::Record,
            Type::Replica => Bearer::Replica,
        };
        let collection = collection.filter(|_| bearer == Bearer::Record);
        Self { sub, bearer, aud, exp, tk, db, collection, fixed }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn admin() -> Claims {
        Claims { tk: Some("digest".into()), ..Claims::new("a1", Bearer::Admin, Audience::User, 60) }
    }

    #[test]
    fn a_login_has_the_claims_that_pocketbases_javascript_client_reads() {
        let record = Claims::record("r1", "shop", "c1", "digest", 60);
        for (claims, collection) in [(admin(), SUPERUSERS), (record, "c1")] {
            let json = serde_json::to_value(&claims).unwrap();
            let read = ["type", "id", "collectionId"].map(|key| json[key].clone());
            assert_eq!(read, [json!("auth"), json!(claims.sub), json!(collection)]);
            assert_eq!(serde_json::from_value::<Claims>(json).unwrap(), claims);
        }
    }

    #[test]
    fn tokens_of_before_stay_what_they_were() {
        let old = |kind: &str, more: Value| {
            let mut json = json!({"sub": "x1", "type": kind, "aud": "user", "exp": 7, "tk": "digest"});
            json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value::<Claims>(json).unwrap()
        };
        let admin = old("admin", json!({}));
        assert_eq!((admin.bearer, admin.collection), (Bearer::Admin, None));
        let record = old("record", json!({"db": "shop", "collection": "c1", "fixed": true}));
        assert_eq!((record.bearer, record.collection.as_deref(), record.fixed), (Bearer::Record, Some("c1"), true));
    }

    #[test]
    fn what_is_no_login_never_passes_for_one() {
        let file = Claims { aud: Audience::File, ..Claims::record("r1", "shop", "c1", "digest", 60) };
        for claims in [Claims::operator(), Claims::replica("r001", 60), file, Claims { aud: Audience::File, ..admin() }]
        {
            let json = serde_json::to_value(&claims).unwrap();
            assert_ne!(json["type"], "auth");
            assert_eq!(serde_json::from_value::<Claims>(json).unwrap(), claims);
        }
    }

    #[test]
    fn a_record_of_a_collection_with_pocketbases_id_is_no_admin() {
        let claims = Claims::record("r1", "default", SUPERUSERS, "digest", 60);
        let mut json = serde_json::to_value(&claims).unwrap();
        assert_eq!(serde_json::from_value::<Claims>(json.clone()).unwrap(), claims);
        // Nor is one that names no database, or no collection.
        json.as_object_mut().unwrap().remove("db");
        json["collectionId"] = json!("c1");
        assert_eq!(serde_json::from_value::<Claims>(json.clone()).unwrap().bearer, Bearer::Record);
        json.as_object_mut().unwrap().remove("collectionId");
        assert_eq!(serde_json::from_value::<Claims>(json).unwrap().bearer, Bearer::Record);
    }
}
