use serde_json::json;

use super::*;
use crate::store::collections::auth;

fn collection() -> Collection {
    let select = |max_select| FieldKind::Select { values: ["a", "b", "c"].map(str::to_owned).into(), max_select };
    let date = FieldKind::Date { min: String::new(), max: String::new() };
    let mut fields = auth::system_fields();
    fields.extend([
        Field::new("n", FieldKind::number()),
        Field::new("flag", FieldKind::Bool {}),
        Field::new("kind", select(1)),
        Field::new("kinds", select(3)),
        Field::new("day", date),
        Field { hidden: true, ..Field::new("pin", FieldKind::number()) },
    ]);
    Collection { id: "c1".into(), name: "people".into(), fields, ..Collection::default() }
}

fn resolved(sender: Sender, old: Option<Value>, sent: Value) -> Body {
    Body::resolve(&collection(), sender, old.as_ref(), sent.as_object().unwrap().clone().into())
}

fn tree(body: Body) -> Value {
    Value::Object(Arc::unwrap_or_clone(body.values))
}

/// What others than admins get.
fn values(old: Option<Value>, sent: Value) -> Value {
    let body = resolved(Sender::Other, old, sent);
    assert!(body.errors.is_empty(), "{:?}", body.errors);
    tree(body)
}

#[test]
fn values_are_as_their_fields_give_them_back() {
    for (sent, wanted) in [
        (json!({"flag": "true"}), json!({"flag": true})),
        (json!({"flag": "1"}), json!({"flag": true})),
        (json!({"flag": 0}), json!({"flag": false})),
        (json!({"kind": "[\"a\"]"}), json!({"kind": "a"})),
        (json!({"kind": ["b"]}), json!({"kind": "b"})),
        (json!({"kinds": "[\"a\",\"b\",\"a\"]"}), json!({"kinds": ["a", "b"]})),
        (json!({"kinds": "a"}), json!({"kinds": ["a"]})),
        (json!({"n": " 5 "}), json!({"n": 5})),
        (json!({"n": null, "kind": null, "kinds": null}), json!({"n": 0, "kind": "", "kinds": []})),
        (json!({"day": "2022-01-31"}), json!({"day": "2022-01-31 00:00:00.000Z"})),
    ] {
        assert_eq!(values(None, sent.clone()), wanted, "{sent}");
    }
}

#[test]
fn what_is_no_value_and_what_is_no_field_stays_as_it_was_sent() {
    let sent = json!({"n": "many", "kind": "z", "nothing": "1", "id": "x", "password": null, "passwordConfirm": null});
    assert_eq!(values(None, sent.clone()), sent);
}

#[test]
fn modifiers_become_the_value_that_the_record_is_to_have() {
    let old = || Some(json!({"n": 5, "kind": "a", "kinds": ["a"]}));
    for (sent, made, changed) in [
        (json!({"n+": 2}), json!({"n": 2}), json!({"n": 7})),
        (json!({"n-": "2"}), json!({"n": -2}), json!({"n": 3})),
        (json!({"n": 1, "n+": 1}), json!({"n": 2}), json!({"n": 2})),
        (json!({"kind": "a", "kind+": "b"}), json!({"kind": "b"}), json!({"kind": "b"})),
        (json!({"+kind": "b"}), json!({"kind": "b"}), json!({"kind": "b"})),
        (json!({"kind-": "a"}), json!({"kind": ""}), json!({"kind": ""})),
        (json!({"kinds+": "[\"b\",\"c\"]"}), json!({"kinds": ["b", "c"]}), json!({"kinds": ["a", "b", "c"]})),
        (json!({"+kinds": ["b"]}), json!({"kinds": ["b"]}), json!({"kinds": ["b", "a"]})),
        (json!({"kinds-": ["a"]}), json!({"kinds": []}), json!({"kinds": []})),
    ] {
        assert_eq!(values(None, sent.clone()), made, "made by {sent}");
        assert_eq!(values(old(), sent.clone()), changed, "changed by {sent}");
    }
}

#[test]
fn a_modifier_that_makes_no_value_is_told_and_counts_as_sent() {
    let body = resolved(Sender::Other, Some(json!({"n": 5})), json!({"n+": "x", "kinds+": 7}));
    let told: Vec<_> = body.errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(told, ["n+", "kinds+"]);
    assert_eq!(tree(body.clone()), json!({"n": 5, "kinds": []}));
    assert!(body.check_resolved().is_err());
}

#[test]
fn hidden_fields_are_there_for_admins_only_but_a_password_is_for_all() {
    let sent = || json!({"pin": "1", "pin+": "2", "tokenKey": "x", "password": "p"});
    assert_eq!(tree(resolved(Sender::Other, None, sent())), sent());
    let by_admin = tree(resolved(Sender::Admin, None, sent()));
    assert_eq!(by_admin, json!({"pin": 3, "tokenKey": "x", "password": "p"}));
}
