use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

/// Two kinds of route at paths of their own, one of them twice.
fn document(role: Role) -> Value {
    #[utoipa::path(post, path = "/api/collections/{collection}/records", tag = "records", responses((status = 200)))]
    async fn make() {}
    #[utoipa::path(get, path = "/api/admins/{id}", tag = "admins", responses((status = 200)))]
    async fn show() {}
    let routes: OpenApiRouter = OpenApiRouter::new()
        .routes(routes!(make))
        .routes(routes!(show))
        .routes(at("/api/collections/_superusers/records/{id}", routes!(show)));
    complete::complete(OpenApiRouter::with_openapi(Base::openapi()).merge(routes).into_openapi(), role)
}

#[test]
fn one_handler_at_two_paths_is_described_at_both_under_ids_of_their_own() {
    let document = document(Role::Master);
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.values().flat_map(|item| item.as_object().unwrap().values());
    let ids: BTreeSet<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    let expected = ["getAdminsById", "getCollectionsSuperusersRecordsById", "postCollectionsByCollectionRecords"];
    assert_eq!(ids, BTreeSet::from(expected));
}

#[test]
fn parameters_of_the_path_refusals_and_headers_follow_from_the_route() {
    let document = document(Role::Master);
    let make = &document["paths"]["/api/collections/{collection}/records"]["post"];
    assert_eq!(make["parameters"][0]["name"], "collection");
    assert_eq!(make["responses"]["507"]["$ref"], "#/components/responses/507");
    assert_eq!(make["responses"]["200"]["description"], "OK");
    assert!(make["responses"]["200"]["headers"]["X-Vski-Position"].is_object());
    let show = &document["paths"]["/api/admins/{id}"]["get"];
    assert_eq!(show["security"], serde_json::json!([{ "token": [] }, { "apiKey": [] }]));
    assert!(show["responses"]["507"].is_null());
}

#[test]
fn a_replica_does_not_tell_of_what_it_refuses() {
    let document = document(Role::Replica);
    assert!(document["paths"]["/api/collections/{collection}/records"].is_null());
    assert!(document["paths"]["/api/admins/{id}"]["get"].is_object());
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| match (key.as_str(), value) {
                ("$ref", Value::String(to)) => found.push(to.clone()),
                _ => walk(value, found),
            }),
            Value::Array(list) => list.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let document = document(Role::Master);
    let mut found = Vec::new();
    walk(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let place = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(place).is_some(), "{reference}");
    }
}
