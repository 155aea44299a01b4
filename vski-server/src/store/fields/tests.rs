use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn field(kind: FieldKind) -> Field {
    Field::new("f", kind)
}

fn of(json: Value) -> Field {
    let mut json = json;
    json["name"] = "f".into();
    serde_json::from_value(json).unwrap()
}

fn code(field: &Field, value: Value) -> &'static str {
    field.to_sql(&value).map_or_else(|error| error.code, |_| "ok")
}

#[test]
fn values_survive_the_way_through_sql() {
    let many = json!({"type": "select", "values": ["a", "b"], "maxSelect": 2});
    for (kind, value) in [
        (json!({"type": "text"}), json!("größe")),
        (json!({"type": "editor"}), json!("<p>x</p>")),
        (json!({"type": "number"}), json!(i64::MAX)),
        (json!({"type": "number"}), json!(-0.5)),
        (json!({"type": "bool"}), json!(true)),
        (json!({"type": "email"}), json!("a.b+c@example.com")),
        (json!({"type": "url"}), json!("https://example.com/x?y=z")),
        (json!({"type": "date"}), json!("2026-01-31 23:59:59.123Z")),
        (json!({"type": "json"}), json!({"a": [1, "2", null]})),
        (json!({"type": "json"}), json!("123")),
        (json!({"type": "json"}), json!(123)),
        (json!({"type": "select", "values": ["a", "b"]}), json!("b")),
        (many.clone(), json!(["b", "a"])),
        (many, json!([])),
        (json!({"type": "relation", "collectionId": "x"}), json!("aaaaaaaaaaaaaaa")),
        (json!({"type": "relation", "collectionId": "x", "maxSelect": 9}), json!(["aaaaaaaaaaaaaaa", "b"])),
        (json!({"type": "file", "maxSelect": 3}), json!(["a.png", "b.png"])),
    ] {
        let field = of(kind);
        let sql = field.to_sql(&value).unwrap();
        assert_eq!(field.to_json((&sql).into()), value, "{field:?}");
    }
}

proptest! {
    #[test]
    fn any_value_of_its_type_survives_the_way_through_sql(
        text in "[^\\x00]{0,40}",
        integer in any::<i64>(),
        double in any::<f64>().prop_filter("JSON has no others", |double| double.is_finite()),
        flag in any::<bool>(),
        picked in proptest::sample::subsequence(vec!["a", "ä", "x y", "\"", "]"], 0..=5),
    ) {
        let values = vec!["a".to_owned(), "ä".into(), "x y".into(), "\"".into(), "]".into()];
        let select = FieldKind::Select { values, max_select: 5 };
        for (kind, value) in [
            (FieldKind::text(), json!(text)),
            (FieldKind::Editor { max_size: 0 }, json!(text)),
            (FieldKind::number(), json!(integer)),
            (FieldKind::number(), json!(double + 0.0)),
            (FieldKind::Bool {}, json!(flag)),
            (FieldKind::json(), json!({"k": [text, integer, flag, null]})),
            (select, json!(picked)),
        ] {
            let field = field(kind);
            let stored = field.to_sql(&value).unwrap();
            prop_assert_eq!(field.to_json((&stored).into()), value);
        }
    }

    #[test]
    fn a_time_is_stored_so_that_texts_sort_as_times_do(one in 0i64..250_000_000_000, other in 0i64..250_000_000_000) {
        let stored = |seconds: i64| dates::of_seconds(seconds).unwrap();
        prop_assert_eq!(one.cmp(&other), stored(one).cmp(&stored(other)));
        prop_assert_eq!(dates::parse(&stored(one)), Some(stored(one)));
    }

    #[test]
    fn no_value_makes_any_field_panic(text in ".{0,60}") {
        for kind in ["text", "editor", "number", "bool", "email", "url", "date", "select", "json", "relation", "password", "file"] {
            let field = of(json!({"type": kind, "values": ["a"], "collectionId": "c"}));
            let _ = (field.to_sql(&json!(text)), field.to_sql(&json!([text])));
        }
        let _ = pattern::compiled(&text);
    }
}

#[test]
fn forms_send_texts_for_numbers_flags_and_lists() {
    let number = field(FieldKind::number());
    for (text, stored) in [("12", json!(12)), (" -0.5 ", json!(-0.5)), ("", json!(0)), ("-0.0", json!(0.0))] {
        assert_eq!(number.to_json((&number.to_sql(&json!(text)).unwrap()).into()), stored, "{text}");
    }
    assert_eq!(
        [code(&number, json!("x")), code(&number, json!("inf")), code(&number, json!([1]))],
        ["validation_invalid_type"; 3]
    );
    let flag = field(FieldKind::Bool {});
    for (given, stored) in [(json!("true"), true), (json!("0"), false), (json!(1), true), (json!(""), false)] {
        assert_eq!(flag.to_json((&flag.to_sql(&given).unwrap()).into()), json!(stored));
    }
    let many = of(json!({"type": "select", "values": ["a", "b"], "maxSelect": 2}));
    for given in [json!("[\"a\",\"b\"]"), json!(["a", "", "b", "a"])] {
        assert_eq!(many.to_json((&many.to_sql(&given).unwrap()).into()), json!(["a", "b"]));
    }
}

#[test]
fn numbers_and_flags_become_texts_where_a_text_is_wanted() {
    for kind in ["text", "editor"] {
        let text = of(json!({"type": kind}));
        for (given, stored) in [(json!(44100), "44100"), (json!(-1.5), "-1.5"), (json!(true), "true")] {
            assert_eq!(text.to_json((&text.to_sql(&given).unwrap()).into()), json!(stored));
        }
    }
    assert_eq!(code(&of(json!({"type": "password"})), json!(12_345_678)), "validation_invalid_type");
}

#[test]
fn a_text_that_is_json_stands_for_what_it_says() {
    let field = of(json!({"type": "json"}));
    for (given, stored) in [
        (json!("{\"a\": [1]}"), json!({"a": [1]})),
        (json!("\"12\""), json!("12")),
        (json!("12"), json!(12)),
        (json!("true"), json!(true)),
        (json!("null"), json!(null)),
        (json!("007"), json!("007")),
        (json!("{bad"), json!("{bad")),
        (json!(" 1"), json!(" 1")),
        (json!(""), json!("")),
        (json!(["12"]), json!(["12"])),
        (json!(12), json!(12)),
    ] {
        assert_eq!(field.said(&given).unwrap_or_else(|| given.clone()), stored, "{given}");
    }
}

#[test]
fn each_bound_has_a_code_of_its_own() {
    for (kind, value, expected) in [
        (json!({"type": "text", "min": 3}), json!("äö"), "validation_min_text_constraint"),
        (json!({"type": "text", "min": 3}), json!(""), "ok"),
        (json!({"type": "text", "max": 3}), json!("äöüß"), "validation_max_text_constraint"),
        (json!({"type": "text", "pattern": "^[a-z]+$"}), json!("a1"), "validation_invalid_format"),
        (json!({"type": "text"}), json!("a\u{0}b"), "validation_invalid_format"),
        (json!({"type": "text"}), json!(["7"]), "validation_invalid_type"),
        (json!({"type": "text", "min": 3}), json!(7), "validation_min_text_constraint"),
        (json!({"type": "editor", "maxSize": 3}), json!("abcd"), "validation_content_size_limit"),
        (json!({"type": "json", "maxSize": 3}), json!([1, 2]), "validation_json_size_limit"),
        (json!({"type": "number", "min": 3}), json!(2), "validation_min_number_constraint"),
        (json!({"type": "number", "max": 3}), json!(3.5), "validation_max_number_constraint"),
        (json!({"type": "number", "onlyInt": true}), json!(0.5), "validation_only_int_constraint"),
        (json!({"type": "email"}), json!("a@b"), "validation_is_email"),
        (json!({"type": "email", "exceptDomains": ["b.com"]}), json!("a@B.com"), "validation_email_domain_not_allowed"),
        (json!({"type": "url"}), json!("no address"), "validation_invalid_url"),
        (json!({"type": "url"}), json!("javascript:alert(1)"), "validation_invalid_url"),
        (json!({"type": "url", "onlyDomains": ["b.com"]}), json!("http://c.com"), "validation_url_domain_not_allowed"),
        (json!({"type": "date"}), json!("yesterday"), "validation_invalid_date"),
        (
            json!({"type": "date", "min": "2026-01-01"}),
            json!("2025-12-31"),
            "validation_min_greater_equal_than_required",
        ),
        (json!({"type": "date", "max": "2026-01-01"}), json!("2026-01-02"), "validation_max_less_equal_than_required"),
        (json!({"type": "select", "values": ["a"]}), json!("b"), "validation_invalid_value"),
        (json!({"type": "select", "values": ["a", "b"]}), json!(["a", "b"]), "validation_too_many_values"),
        (json!({"type": "relation", "maxSelect": 3, "minSelect": 2}), json!(["a"]), "validation_not_enough_values"),
        (json!({"type": "password", "min": 8}), json!("short"), "validation_min_text_constraint"),
        (json!({"type": "json", "required": true}), json!([]), "validation_required"),
        (json!({"type": "bool", "required": true}), json!(false), "validation_required"),
        (json!({"type": "number", "required": true}), json!(0.0), "validation_required"),
    ] {
        assert_eq!(code(&of(kind.clone()), value.clone()), expected, "{kind} {value}");
    }
}

#[test]
fn times_are_taken_in_many_forms() {
    for (given, stored) in [
        ("2026-01-31", "2026-01-31 00:00:00.000Z"),
        ("2026-01-31 12:30", "2026-01-31 12:30:00.000Z"),
        ("2026-01-31T12:30:15.1239Z", "2026-01-31 12:30:15.123Z"),
        ("2026-01-31T12:30:15+02:00", "2026-01-31 10:30:15.000Z"),
        ("2026-01-31 12:30:15.123Z", "2026-01-31 12:30:15.123Z"),
        ("Sat, 31 Jan 2026 12:30:15 +0000", "2026-01-31 12:30:15.000Z"),
        ("2026", "2026-01-01 00:00:00.000Z"),
        ("9999-12-31", "9999-12-31 00:00:00.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31 23:59:59.999Z"),
    ] {
        assert_eq!(dates::parse(given).as_deref(), Some(stored), "{given}");
    }
    for wrong in ["", "x", "2026-13-01", "-0001-01-01", "1700000000", "20260131", "12", "-5"] {
        assert_eq!(dates::parse(wrong), None, "{wrong}");
    }
    assert_eq!(dates::of_seconds(1_700_000_000).as_deref(), Some("2023-11-14 22:13:20.000Z"));
    assert_eq!(dates::of_seconds(99_999_999_999_999), None);
}

#[test]
fn fields_of_the_first_release_and_of_pocketbase_are_read() {
    let old: Field = serde_json::from_value(json!({"name": "n", "type": "number", "required": true})).unwrap();
    assert_eq!((old.kind, old.required), (FieldKind::number(), true));
    let theirs = json!({"autogeneratePattern": "", "hidden": false, "id": "text1", "max": 0, "min": 0, "name": "t",
        "pattern": "", "presentable": false, "primaryKey": false, "required": false, "system": false, "type": "text"});
    assert_eq!(
        serde_json::from_value::<Field>(theirs).unwrap(),
        Field { id: "text1".into(), ..Field::new("t", FieldKind::text()) }
    );
    let nulls = json!({"name": "e", "type": "email", "exceptDomains": null, "onlyDomains": null});
    serde_json::from_value::<Field>(nulls).unwrap();
    let written = serde_json::to_value(of(json!({"type": "select", "values": ["a"], "maxSelect": 1}))).unwrap();
    assert_eq!((&written["type"], &written["maxSelect"]), (&json!("select"), &json!(1)));
}

#[test]
fn options_that_cannot_be_are_named() {
    for (kind, option) in [
        (json!({"type": "text", "pattern": "("}), "f.pattern"),
        (json!({"type": "text", "pattern": "(a{1000}){1000}"}), "f.pattern"),
        (json!({"type": "text", "min": 5, "max": 3}), "f.max"),
        (json!({"type": "number", "min": 5, "max": 3}), "f.max"),
        (json!({"type": "select"}), "f.values"),
        (json!({"type": "date", "min": "soon"}), "f.min"),
        (json!({"type": "autodate"}), "f.onCreate"),
        (json!({"type": "relation", "minSelect": 3, "maxSelect": 2}), "f.maxSelect"),
        (json!({"type": "json", "maxSize": 1_u64 << 40}), "f.maxSize"),
        (json!({"type": "url", "onlyDomains": ["a"], "exceptDomains": ["b"]}), "f.exceptDomains"),
    ] {
        let wrong = of(kind.clone()).wrong_options("f");
        assert_eq!(wrong.first().map(|error| error.field.as_str()), Some(option), "{kind}");
    }
}
