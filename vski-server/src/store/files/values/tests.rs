use serde_json::json;
use vski_replication::datadir::DataDir;

use super::*;
use crate::store::files::Uploads;

struct Bench {
    _keep: tempfile::TempDir,
    uploads: Uploads,
}

impl Bench {
    fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let uploads = Uploads::new(&DataDir::open(keep.path()).unwrap());
        Self { _keep: keep, uploads }
    }

    fn upload(&self, field: &str, bytes: &[u8]) -> Upload {
        let mut receiving = self.uploads.begin("default", field, "a.txt").unwrap();
        receiving.write(bytes).unwrap();
        receiving.finish().unwrap()
    }
}

fn collection() -> Collection {
    let file = |max_select, max_size, mime_types: &[&str]| FieldKind::File {
        max_select,
        max_size,
        mime_types: mime_types.iter().map(|&mime| mime.to_owned()).collect(),
        protected: false,
    };
    let fields = vec![
        Field::new("title", FieldKind::text()),
        Field::new("one", file(1, 0, &[])),
        Field::new("many", file(3, 10, &[])),
        Field::new("image", file(1, 0, &["image/png"])),
    ];
    Collection { id: "c1".into(), name: "posts".into(), fields, ..Collection::default() }
}

fn resolved(old: Option<Value>, body: Value, uploads: &[Upload]) -> Result<Resolved, StoreError> {
    let mut resolved =
        resolve(&collection(), Sender::Admin, old.as_ref(), &Arc::new(body.as_object().unwrap().clone()), uploads);
    let errors = std::mem::take(&mut resolved.errors);
    if errors.is_empty() { Ok(resolved) } else { Err(StoreError::Fields(errors)) }
}

fn code(refused: Result<Resolved, StoreError>) -> (String, &'static str) {
    match refused {
        Err(StoreError::Fields(errors)) => (errors[0].field.clone(), errors[0].code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_uploaded_and_kept_is_what_the_record_has() {
    let bench = Bench::new();
    let uploads = [bench.upload("one", b"1"), bench.upload("many", b"2"), bench.upload("many", b"3")];
    let new = resolved(None, json!({"title": "x"}), &uploads).unwrap();
    let [one, two, three] = [0, 1, 2].map(|at| uploads[at].name.clone());
    assert_eq!(Value::Object((*new.body).clone()), json!({"title": "x", "one": [one], "many": [two, three]}));
    assert_eq!((new.added.len(), new.removed.len()), (3, 0));

    let old = || Some(json!({"one": "o", "many": ["a", "b"]}));
    let untouched = resolved(old(), json!({"title": "y"}), &[]).unwrap();
    assert_eq!(Value::Object((*untouched.body).clone()), json!({"title": "y"}));
    let more = [bench.upload("many", b"4"), bench.upload("one", b"5")];
    let set = resolved(old(), json!({"many": ["b"]}), &more).unwrap();
    assert_eq!(set.body["many"], json!(["b", more[0].name]));
    assert_eq!(set.body["one"], json!([more[1].name]));
    assert_eq!(set.removed, ["o", "a"]);
}

#[test]
fn files_are_added_and_taken_away_by_modifiers() {
    let bench = Bench::new();
    let old = || Some(json!({"one": "o", "many": ["a", "b"]}));
    let end = [bench.upload("many+", b"1")];
    assert_eq!(resolved(old(), json!({}), &end).unwrap().body["many"], json!(["a", "b", end[0].name]));
    let front = [bench.upload("+many", b"1")];
    let both = resolved(old(), json!({"many-": "a"}), &front).unwrap();
    assert_eq!(both.body["many"], json!([front[0].name, "b"]));
    assert_eq!(both.removed, ["a"]);
    let other = [bench.upload("one+", b"1")];
    let replaced = resolved(old(), json!({}), &other).unwrap();
    assert_eq!((replaced.body["one"].clone(), replaced.removed), (json!([other[0].name]), vec!["o".to_owned()]));
}

#[test]
fn nothing_in_its_place_takes_all_files_away() {
    for nothing in [json!(null), json!(""), json!([])] {
        let old = Some(json!({"one": "o", "many": ["a", "b"]}));
        let cleared = resolved(old, json!({"many": nothing, "one": nothing}), &[]).unwrap();
        assert_eq!(cleared.body["many"], json!([]));
        assert_eq!(cleared.removed, ["o", "a", "b"]);
    }
}

#[test]
fn files_of_others_too_large_or_of_another_type_are_refused() {
    let bench = Bench::new();
    let old = || Some(json!({"one": "o", "many": ["a"]}));
    let refused = |body, uploads: &[Upload]| code(resolved(old(), body, uploads));
    assert_eq!(refused(json!({"many": ["another's"]}), &[]), ("many".into(), "validation_invalid_file"));
    assert_eq!(refused(json!({"one+": "another's"}), &[]), ("one".into(), "validation_invalid_file"));
    let upload = |field: &str, bytes: &[u8]| [bench.upload(field, bytes)];
    assert_eq!(refused(json!({}), &upload("many", b"12345678901")), ("many".into(), "validation_file_size_limit"));
    assert_eq!(refused(json!({}), &upload("image", b"text")), ("image".into(), "validation_invalid_mime_type"));
    for key in ["title", "many-", "many+-", "-many"] {
        assert_eq!(refused(json!({}), &upload(key, b"text")), (key.into(), "validation_unknown_field"));
    }
    assert!(resolved(old(), json!({}), &upload("image", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")).is_ok());
}
