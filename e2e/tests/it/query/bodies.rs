//! Rules judge a body by what is stored of it, however it is written and sent: with modifiers, as other types, as JSON, as a
//! form or in a batch.

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, records};
use e2e::form::Form;
use e2e::{Cluster, Node};
use reqwest::Method;
use serde_json::{Value, json};

use super::{make, send};

/// How a body is sent.
#[derive(Clone, Copy, Debug)]
enum Way {
    Json,
    Form,
    Batch,
}

const WAYS: [Way; 3] = [Way::Json, Way::Form, Way::Batch];

impl Way {
    /// Status and answer of the one request.
    fn send(self, client: &Client, method: Method, path: &str, body: &Value) -> Result<(u16, Value)> {
        match self {
            Self::Json => send(client, method, path, body),
            Self::Form => {
                let reply = form(body).send(client, method, path)?;
                Ok((reply.status, reply.json()?))
            }
            Self::Batch => {
                let requests = json!({"requests": [{"method": method.as_str(), "url": path, "body": body}]});
                let (status, answer) = send(client, Method::POST, "/api/batch", &requests)?;
                let one = if status == 200 { &answer[0] } else { &answer["data"]["requests"]["0"]["response"] };
                let code = one["status"].as_u64().with_context(|| format!("a status: {answer}"))?;
                let inner = if status == 200 { one["body"].clone() } else { one.clone() };
                Ok((u16::try_from(code)?, inner))
            }
        }
    }
}

/// A body as a form: lists as repeated parts.
fn form(body: &Value) -> Form {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let parts = body.as_object().into_iter().flatten();
    parts.fold(Form::new(), |form, (key, value)| match value {
        Value::Array(list) => list.iter().fold(form, |form, value| form.text(key, &text(value))),
        one => form.text(key, &text(one)),
    })
}

/// A master with one collection, which has a field of each kind that the rules here speak of.
fn master(cluster: &Cluster) -> Result<(Node, Client, Client)> {
    let mut master = cluster.master("master")?;
    master.start()?;
    let (admin, guest) = (master.admin()?, master.client()?);
    let people = make(&admin, &json!({"name": "people", "fields": [{"name": "name", "type": "text"}]}))?;
    let select = |name: &str, most: u64| json!({"name": name, "type": "select", "values": ["user", "admin", "a", "b"], "maxSelect": most});
    make(
        &admin,
        &json!({
            "name": "posts", "listRule": "", "viewRule": "",
            "fields": [
                {"name": "title", "type": "text"}, {"name": "n", "type": "number"}, {"name": "flag", "type": "bool"},
                {"name": "day", "type": "date"}, select("role", 1), select("kinds", 5),
                {"name": "author", "type": "relation", "collectionId": people, "maxSelect": 1},
                {"name": "photos", "type": "file", "maxSelect": 5},
                {"name": "pin", "type": "text", "hidden": true}, {"name": "score", "type": "number", "hidden": true},
            ],
            "indexes": ["CREATE UNIQUE INDEX posts_pin ON posts (pin) WHERE pin != ''"],
        }),
    )?;
    Ok((master, admin, guest))
}

fn id(record: &Value) -> String {
    record["id"].as_str().unwrap_or_default().to_owned()
}

fn people(admin: &Client) -> Result<(String, String)> {
    let one = |name: &str| admin.create_record("people", &json!({"name": name})).map(|made| id(&made));
    Ok((one("ann")?, one("bob")?))
}

/// The guest's records of these bodies are answered so, sent in every way, and stored only if they are accepted.
fn judged(admin: &Client, guest: &Client, rule: &str, bodies: &[Value], wanted: u16) -> Result<()> {
    for way in WAYS {
        for body in bodies {
            let before = admin.count("posts")?;
            let (status, answer) = way.send(guest, Method::POST, &records("posts"), body)?;
            ensure!(status == wanted, "{rule} {way:?} {body}: {status} {answer}");
            ensure!(admin.count("posts")? == before + u64::from(status == 200), "{rule} {body}");
        }
    }
    Ok(())
}

#[test]
fn a_create_rule_judges_what_is_stored_of_a_body() -> Result<()> {
    let cluster = Cluster::new()?;
    let (_master, admin, guest) = master(&cluster)?;
    let (ann, bob) = people(&admin)?;
    for (rule, allowed, refused) in [
        (
            "@request.body.role = 'user'".to_owned(),
            vec![json!({"role": "user"}), json!({"role+": "user"}), json!({"role": "admin", "role+": "user"})],
            vec![
                json!({"role": "user", "role+": "admin"}),
                json!({"role": "user", "+role": "admin"}),
                json!({"role": "user", "role-": "user"}),
            ],
        ),
        (
            format!("@request.body.author = '{ann}' && @request.body.author.name = 'ann'"),
            vec![json!({"author": ann}), json!({"author": format!("[\"{ann}\"]")})],
            vec![json!({"author": ann, "author+": bob}), json!({"author": ann, "+author": bob})],
        ),
        (
            "@request.body.n <= 10".to_owned(),
            vec![json!({"n": 8, "n+": 2}), json!({"n": "9"})],
            vec![json!({"n": 8, "n+": 3}), json!({"n+": 11}), json!({"n": "11"}), json!({"n": 1, "n-": -20})],
        ),
        (
            "@request.body.flag != true".to_owned(),
            vec![json!({"flag": "false"}), json!({"flag": "0"})],
            vec![json!({"flag": "true"}), json!({"flag": "1"}), json!({"flag": "T"}), json!({"flag": 1})],
        ),
        (
            "@request.body.role != 'admin'".to_owned(),
            vec![json!({"role": "[\"user\"]"})],
            vec![json!({"role": "[\"admin\"]"}), json!({"role": ["admin"]}), json!({"+role": "[\"admin\"]"})],
        ),
        (
            "@request.body.kinds:length <= 1".to_owned(),
            vec![json!({"kinds": "[\"a\"]"}), json!({"kinds+": "a"}), json!({"kinds": ["a", "b"], "kinds-": "a"})],
            vec![
                json!({"kinds": "[\"a\",\"b\"]"}),
                json!({"kinds": "a", "kinds+": "b"}),
                json!({"+kinds": ["a", "b"]}),
            ],
        ),
        (
            "@request.body.kinds:each != 'b'".to_owned(),
            vec![json!({"kinds+": "a"}), json!({"kinds": ["b", "a"], "kinds-": "b"})],
            vec![json!({"kinds": ["a"], "kinds+": "b"}), json!({"kinds": "[\"a\",\"b\"]"})],
        ),
        (
            "@request.body.n:isset = false && @request.body.kinds:isset = false".to_owned(),
            vec![json!({"title": "x"})],
            vec![json!({"n+": 0}), json!({"n-": 1}), json!({"kinds-": "a"}), json!({"+kinds": "a"}), json!({"n": 0})],
        ),
        (
            "@request.body.day = '2022-01-31'".to_owned(),
            vec![json!({"day": "2022-01-31"}), json!({"day": "2022-01-31T00:00:00Z"})],
            vec![json!({"day": "2022-02-01"}), json!({"title": "x"})],
        ),
    ] {
        admin.update_collection("posts", &json!({"createRule": rule}))?;
        judged(&admin, &guest, &rule, &allowed, 200)?;
        judged(&admin, &guest, &rule, &refused, 400)?;
    }
    Ok(())
}

#[test]
fn an_update_rule_judges_what_is_stored_of_a_body() -> Result<()> {
    let cluster = Cluster::new()?;
    let (_master, admin, guest) = master(&cluster)?;
    let (ann, bob) = people(&admin)?;
    let start = json!({"title": "t", "author": ann, "n": 5, "kinds": ["a"], "role": "user"});
    let post = admin.create_record("posts", &start)?;
    let path = format!("{}/{}", records("posts"), id(&post));
    for (rule, allowed, refused) in [
        (
            "@request.body.author:isset = false",
            vec![json!({"title": "t"})],
            vec![json!({"author": bob}), json!({"author+": bob}), json!({"+author": bob}), json!({"author-": ann})],
        ),
        (
            "@request.body.author:changed = false",
            vec![json!({"author+": ann}), json!({"author": format!("[\"{ann}\"]")}), json!({"author-": bob})],
            vec![json!({"author+": bob}), json!({"author-": ann}), json!({"author": ann, "author+": bob})],
        ),
        (
            "@request.body.n:changed = false",
            vec![json!({"n+": 0}), json!({"n": "5"}), json!({"n": 4, "n+": 1})],
            vec![json!({"n+": 1}), json!({"n-": 1}), json!({"n": 5, "n+": 1})],
        ),
        (
            "@request.body.n <= 10",
            vec![json!({"n+": 0}), json!({"n-": "0"})],
            vec![json!({"n+": 6}), json!({"n": 0, "n+": 100}), json!({"n-": -6}), json!({"n": "11"})],
        ),
        (
            "@request.body.kinds:changed = false",
            vec![json!({"kinds+": "a"}), json!({"kinds": "[\"a\"]"}), json!({"kinds-": "b"})],
            vec![json!({"kinds+": "b"}), json!({"+kinds": "b"}), json!({"kinds-": "a"})],
        ),
        (
            "@request.body.kinds:length <= 1 && @request.body.kinds:each != 'b'",
            vec![json!({"kinds+": "a"})],
            vec![json!({"kinds+": "b"}), json!({"+kinds": "user"}), json!({"kinds": "[\"a\",\"user\"]"})],
        ),
        (
            "@request.body.photos:isset = false",
            vec![json!({"n": 5})],
            vec![json!({"photos-": "x"}), json!({"photos": ""})],
        ),
        // What makes no value is refused by the rule first, as what makes one.
        ("@request.body.n:isset = false", vec![json!({"title": "t"})], vec![json!({"n+": "x"}), json!({"n": "x"})]),
    ] {
        admin.update_collection("posts", &json!({"updateRule": rule}))?;
        for way in WAYS {
            for (bodies, wanted) in [(&allowed, 200), (&refused, 404)] {
                for body in bodies {
                    let (status, answer) = way.send(&guest, Method::PATCH, &path, body)?;
                    ensure!(status == wanted, "{rule} {way:?} {body}: {status} {answer}");
                    let now = guest.get(&path)?.json()?;
                    let same = ["title", "author", "n", "kinds", "role"].iter().all(|name| now[name] == start[name]);
                    ensure!(same, "{rule} {way:?} {body}: {now}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn an_upload_counts_as_its_field_and_as_often_as_it_is_there() -> Result<()> {
    let cluster = Cluster::new()?;
    let (_master, admin, guest) = master(&cluster)?;
    let rule = |rule: &str| admin.update_collection("posts", &json!({"createRule": rule, "updateRule": rule}));
    rule("@request.body.photos:length <= 1")?;
    let one = Form::new().file("photos", "a.txt", b"a");
    let made = one.send(&guest, Method::POST, &records("posts"))?.ok()?.json()?;
    let path = format!("{}/{}", records("posts"), id(&made));
    let two = Form::new().file("photos", "a.txt", b"a").file("photos+", "b.txt", b"b");
    ensure!(two.send(&guest, Method::POST, &records("posts"))?.status == 400);
    for key in ["photos+", "+photos"] {
        ensure!(Form::new().file(key, "b.txt", b"b").send(&guest, Method::PATCH, &path)?.status == 404, "{key}");
    }
    let replaced = Form::new().file("photos", "c.txt", b"c").send(&guest, Method::PATCH, &path)?.ok()?.json()?;
    ensure!(replaced["photos"].as_array().is_some_and(|photos| photos.len() == 1), "{replaced}");
    rule("@request.body.photos:isset = false")?;
    for key in ["photos", "photos+", "+photos"] {
        let upload = Form::new().text("title", "x").file(key, "b.txt", b"b");
        ensure!(upload.send(&guest, Method::PATCH, &path)?.status == 404, "{key}");
        ensure!(upload.send(&guest, Method::POST, &records("posts"))?.status == 400, "{key}");
    }
    ensure!(admin.count("posts")? == 1);
    Ok(())
}

#[test]
fn a_hidden_field_is_no_field_for_anybody_but_admins() -> Result<()> {
    let cluster = Cluster::new()?;
    let (_master, admin, guest) = master(&cluster)?;
    admin.update_collection("posts", &json!({"createRule": "", "updateRule": ""}))?;
    let kept = admin.create_record("posts", &json!({"title": "t", "pin": "1234", "score": 5, "score+": 1}))?;
    ensure!(kept["pin"] == "1234" && kept["score"] == 6, "{kept}");
    let path = format!("{}/{}", records("posts"), id(&kept));
    let create = records("posts");
    for way in WAYS {
        for (method, path) in [(Method::POST, &create), (Method::PATCH, &path)] {
            for key in ["pin", "score", "score+", "score-", "pin+"] {
                // The second one is another record's, and nothing says so.
                for value in ["7", "1234"] {
                    let ask = |key: &str| way.send(&guest, method.clone(), path, &json!({"title": "", key: value}));
                    let ((status, hidden), (_, unknown)) = (ask(key)?, ask("nothing")?);
                    let (hidden, unknown) = (&hidden["data"][key], &unknown["data"]["nothing"]);
                    ensure!(hidden["code"] == "validation_unknown_field", "{way:?} {key}: {status} {hidden}");
                    ensure!(status == 400 && hidden == unknown, "{way:?} {key}: {status} {hidden} {unknown}");
                }
            }
        }
    }
    ensure!(admin.count("posts")? == 1);
    let upload = Form::new().file("pin", "a.txt", b"a").send(&guest, Method::POST, &create)?;
    ensure!(upload.status == 400 && upload.body.contains("validation_unknown_field"), "{}", upload.body);
    let now = admin.update_record("posts", &id(&kept), &json!({"score-": 2, "pin": "5"}))?;
    ensure!(now["pin"] == "5" && now["score"] == 4, "{now}");
    Ok(())
}

#[test]
fn a_required_field_that_is_hidden_is_required_of_admins_only() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let (admin, guest) = (master.admin()?, master.client()?);
    let required = |name: &str, hidden: bool| json!({"name": name, "type": "text", "required": true, "hidden": hidden});
    let fields = [required("title", false), required("pin", true)];
    make(&admin, &json!({"name": "notes", "fields": fields, "createRule": "", "updateRule": ""}))?;
    let (status, refused) = send(&admin, Method::POST, &records("notes"), &json!({"title": "t"}))?;
    ensure!(status == 400 && refused["data"]["pin"]["code"] == "validation_required", "{refused}");
    for way in WAYS {
        let (status, made) = way.send(&guest, Method::POST, &records("notes"), &json!({"title": "t"}))?;
        ensure!(status == 200 && made.get("pin").is_none(), "{way:?}: {status} {made}");
        let path = format!("{}/{}", records("notes"), id(&made));
        let (status, changed) = way.send(&guest, Method::PATCH, &path, &json!({"title": "u"}))?;
        ensure!(status == 200 && changed["title"] == "u", "{way:?}: {status} {changed}");
        let (status, refused) = way.send(&guest, Method::POST, &records("notes"), &json!({}))?;
        let told: Vec<_> = refused["data"].as_object().into_iter().flatten().map(|(field, _)| field.as_str()).collect();
        ensure!(status == 400 && told == ["title"], "nothing is said of the other: {refused}");
    }
    ensure!(admin.all_records("notes")?.iter().all(|note| note["pin"] == ""));
    Ok(())
}

#[test]
fn rules_of_what_a_writes_answer_expands_see_the_body_as_it_is_stored() -> Result<()> {
    let cluster = Cluster::new()?;
    let (_master, admin, guest) = master(&cluster)?;
    admin.update_collection("posts", &json!({"createRule": "", "updateRule": ""}))?;
    let (ann, _) = people(&admin)?;
    admin.update_collection("people", &json!({"viewRule": "@request.body.n = 7 && @request.body.author = id"}))?;
    let with_author = |path: &str| format!("{path}?expand=author");
    for way in WAYS {
        for (body, shown) in [
            (json!({"author": ann, "n": 7}), true),
            (json!({"author+": ann, "n": 5, "n+": 2}), true),
            (json!({"author": ann, "n": 7, "n+": 1}), false),
        ] {
            let (status, made) = way.send(&guest, Method::POST, &with_author(&records("posts")), &body)?;
            ensure!(status == 200 && made["expand"]["author"].is_object() == shown, "{way:?} {body}: {status} {made}");
        }
        let post = id(&admin.create_record("posts", &json!({"author": ann, "n": 6}))?);
        let path = with_author(&format!("{}/{post}", records("posts")));
        let (status, changed) = way.send(&guest, Method::PATCH, &path, &json!({"author": ann, "n+": 1}))?;
        ensure!(status == 200 && changed["expand"]["author"].is_object(), "{way:?}: {status} {changed}");
    }
    Ok(())
}

#[test]
fn a_guest_cannot_make_an_account_where_only_admins_may_however_it_is_asked() -> Result<()> {
    let cluster = Cluster::new()?;
    let (_master, admin, guest) = master(&cluster)?;
    make(&admin, &json!({"name": "users", "type": "auth"}))?;
    let body = json!({"email": "a@example.org", "password": "long enough", "passwordConfirm": "long enough"});
    for way in WAYS {
        let (status, answer) = way.send(&guest, Method::POST, &records("users"), &body)?;
        ensure!(status == 403, "{way:?}: {status} {answer}");
        let other = format!("{}/aaaaaaaaaaaaaaa", records("users"));
        let (status, answer) = way.send(&guest, Method::PATCH, &other, &body)?;
        ensure!(status == 403, "{way:?}: {status} {answer}");
    }
    admin.update_collection("users", &json!({"createRule": "", "manageRule": ""}))?;
    let keyed = json!({"email": "b@example.org", "password": "long enough", "tokenKey": "mine"});
    let (status, answer) = send(&guest, Method::POST, &records("users"), &keyed)?;
    ensure!(status == 400 && answer["data"]["tokenKey"]["code"] == "validation_unknown_field", "{answer}");
    let (status, answer) = send(&guest, Method::POST, &records("users"), &body)?;
    ensure!(status == 200, "a password is nobody's to see and everybody's to set: {answer}");
    let login = json!({"identity": "a@example.org", "password": "long enough"});
    guest.send(Method::POST, "/api/collections/users/auth-with-password", Some(&login))?.ok()?;
    Ok(())
}
