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
    let mut master = master.env("MAX_PER_PAGE", "2").env("MAX_FILTER_DEPTH", "1");
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
    admin.get(&format!("{records}?filter=(title='x')"))?.ok()?;
    ensure!(admin.get(&format!("{records}?filter=((title='x'))"))?.status == 400);
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
fn a_setting_that_cannot_work_is_told_at_the_start() -> Result<()> {
    let cluster = Cluster::new()?;
    for (name, value) in [
        ("MAX_BODY_BYTES", "65MiB"),
        ("MAX_UPLOAD_BYTES", "lots"),
        ("REQUEST_TIMEOUT", "0s"),
        ("READ_TIMEOUT", "0s"),
        ("WRITE_QUEUE", "0"),
        ("MAX_PER_PAGE", "0"),
        ("MAX_FILTER_DEPTH", "65"),
        ("MAX_BATCH_REQUESTS", "-1"),
    ] {
        let mut master = cluster.master(&name.to_lowercase().replace('_', "-"))?.env(name, value);
        master.server.launch(&[])?;
        let status = master.server.wait_exit(READY)?;
        ensure!(status.code() == Some(2), "{name}={value}: it ended with {status}");
    }
    Ok(())
}
