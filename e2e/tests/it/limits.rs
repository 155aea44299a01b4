//! What one request may ask for is bounded by settings, and what is beyond is told by its status.

use std::io::Write;
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use e2e::Cluster;
use e2e::cluster::READY;
use e2e::form::Form;
use reqwest::Method;
use serde_json::json;

use crate::files::{DOCS, make_collection};

#[test]
fn bodies_forms_and_pages_are_as_large_as_the_settings_say() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = cluster.master("master")?.env("MAX_BODY_BYTES", "10KB").env("MAX_UPLOAD_BYTES", "50KB");
    let mut master = master.env("MAX_PER_PAGE", "2");
    master.start()?;
    let admin = master.admin()?;
    make_collection(&admin)?;
    let records = e2e::client::records(DOCS);
    let long = admin.send(Method::POST, &records, Some(&json!({"title": "x".repeat(20_000)})))?;
    ensure!(long.status == 413, "{long:?}");
    let large = Form::new().file("one", "a.bin", &vec![1; 60_000]).send(&admin, Method::POST, &records)?;
    ensure!(large.status == 413, "{large:?}");
    Form::new().file("one", "a.bin", &vec![1; 30_000]).send(&admin, Method::POST, &records)?.ok()?;
    for n in 0..3 {
        admin.create_record(DOCS, &json!({"title": format!("post {n}")}))?;
    }
    let page = admin.get(&format!("{records}?perPage=500"))?.ok()?.json()?;
    ensure!(page["perPage"] == 2 && page["items"].as_array().map(Vec::len) == Some(2), "{page}");
    Ok(())
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for_longer_than_the_setting_says() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?.env("REQUEST_TIMEOUT", "1s");
    master.start()?;
    let address = master.server.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).context("connect")?;
    stream.set_read_timeout(Some(READY))?;
    write!(stream, "POST /api/databases HTTP/1.1\r\nHost: {address}\r\nContent-Length: 100\r\n\r\n{{")?;
    let mut answer = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut answer)?;
    // Without a token it may be refused before its body is waited for.
    ensure!(answer.ends_with(b"408") || answer.ends_with(b"401"), "{}", String::from_utf8_lossy(&answer));
    let mut login = TcpStream::connect(&address).context("connect")?;
    login.set_read_timeout(Some(READY))?;
    let path = "/api/admins/auth-with-password";
    write!(login, "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 100\r\n\r\n{{")?;
    std::io::Read::read_exact(&mut login, &mut answer)?;
    ensure!(answer.ends_with(b"408"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

#[test]
fn a_body_that_says_it_is_too_large_is_refused_unread_and_ends_the_connection() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let address = master.server.url().trim_start_matches("http://").to_owned();
    let ask = |length: usize, body: &str| -> Result<String> {
        let mut stream = TcpStream::connect(&address).context("connect")?;
        stream.set_read_timeout(Some(READY))?;
        let path = "/api/admins/auth-with-password";
        write!(stream, "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}")?;
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            std::io::Read::read_exact(&mut stream, &mut byte)?;
            head.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&head).to_lowercase())
    };
    let refused = ask(64 << 20, "")?;
    ensure!(refused.starts_with("http/1.1 413") && refused.contains("connection: close"), "{refused}");
    let wrong = ask(2, "[]")?;
    ensure!(wrong.starts_with("http/1.1 400") && !wrong.contains("connection: close"), "{wrong}");
    Ok(())
}

#[test]
fn filters_are_as_large_as_the_settings_say_and_stored_rules_do_not_mind() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    let rule = "((title != 'x')) && title != 'y' && self.self.title != 'z'";
    let fields = json!([{"name": "title", "type": "text"}]);
    let made = json!({"name": "posts", "fields": fields});
    admin.send(Method::POST, "/api/collections", Some(&made))?.ok()?;
    let relation = json!({"name": "self", "type": "relation", "collectionId": "posts"});
    let changed = json!({"listRule": rule, "fields": [{"name": "title", "type": "text"}, relation]});
    admin.send(Method::PATCH, "/api/collections/posts", Some(&changed))?.ok()?;
    admin.create_record("posts", &json!({"title": "a post"}))?;
    master.stop()?;
    for (name, value) in [
        ("MAX_FILTER_BYTES", "40"),
        ("MAX_FILTER_DEPTH", "1"),
        ("MAX_FILTER_COMPARISONS", "2"),
        ("MAX_FILTER_RELATIONS", "1"),
        ("MAX_RELATION_DEPTH", "1"),
        ("MAX_SORT_KEYS", "2"),
    ] {
        master = master.env(name, value);
    }
    master.start()?;
    let client = master.client()?;
    let records = e2e::client::records("posts");
    let list = client.get(&format!("{records}?filter=(title='a post')&sort=title,-self.title&expand=self"))?.ok()?;
    ensure!(list.json()?["totalItems"] == 1, "the rule is as it was: {list:?}");
    for (query, told) in [
        ("filter=title='a'||title='b'||title='c'", "filter, column 23: a filter has at most 2 comparisons"),
        ("filter=((title='a'))", "filter, column 2: a filter has at most 1 parentheses"),
        (
            "filter=title='aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'",
            "filter, column 41: a filter has at most 40 bytes",
        ),
        ("filter=self.self.title='a'", "filter, column 6: a path follows at most 1 relations"),
        ("filter=self.title='a'||self.title='b'", "filter, column 17: its paths follow more than 1 relations"),
        ("sort=self.self.title", "sort, column 6: a path follows at most 1 relations"),
        ("sort=title,id,self", "sort, column 10: a list is sorted by at most 2 keys"),
        ("expand=self.self", "expand follows at most 1 relations, and self.self has more"),
    ] {
        let reply = client.get(&format!("{records}?{query}"))?;
        ensure!(reply.status == 400 && reply.body.contains(told), "{query}: {reply:?}");
    }
    Ok(())
}

#[test]
fn a_setting_that_cannot_work_is_told_at_the_start() -> Result<()> {
    let cluster = Cluster::new()?;
    for (name, value) in [
        ("MAX_BODY_BYTES", "65MiB"),
        ("MAX_UPLOAD_BYTES", "lots"),
        ("REQUEST_TIMEOUT", "0s"),
        ("READ_TIMEOUT", "0s"),
        ("WRITE_QUEUE", "0"),
        ("MAX_PER_PAGE", "0"),
        ("MAX_BATCH_REQUESTS", "-1"),
        ("MAX_FILTER_BYTES", "65537"),
        ("MAX_FILTER_DEPTH", "65"),
        ("MAX_FILTER_COMPARISONS", "1001"),
        ("MAX_FILTER_RELATIONS", "0"),
        ("MAX_RELATION_DEPTH", "11"),
        ("MAX_SORT_KEYS", "0"),
    ] {
        let mut master = cluster.master(&name.to_lowercase().replace('_', "-"))?.env(name, value);
        master.server.launch(&[])?;
        let status = master.server.wait_exit(READY)?;
        ensure!(status.code() == Some(2), "{name}={value}: it ended with {status}");
    }
    Ok(())
}
