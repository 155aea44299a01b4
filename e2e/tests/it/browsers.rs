//! What browsers and caches are told: tags and 304, compressed answers, and whose pages may read them.

use std::io::Read;

use anyhow::{Context, Result, ensure};
use e2e::client::{Client, Reply, records};
use e2e::{Cluster, Node};
use flate2::read::GzDecoder;
use reqwest::Method;
use serde_json::json;

/// A master and a replica with the same posts, and the position of the last.
fn pair(cluster: &Cluster) -> Result<(Node, Node, Client, String)> {
    let mut master = cluster.master("master")?;
    master.start()?;
    let admin = master.admin()?;
    admin.create_collection("posts", &[("title", "text"), ("body", "text")])?;
    let mut position = String::new();
    for at in 0..10 {
        let post = json!({"id": format!("post{at:011}"), "title": format!("Post {at}"), "body": "All work and no play. ".repeat(20)});
        position = admin.send(Method::POST, &records("posts"), Some(&post))?.ok()?.position()?.to_owned();
    }
    let replica = cluster.embedded("replica", &master)?.env("SYNC_MODE", "stream").env("MIN_POSITION_WAIT", "60s");
    let mut replica = replica;
    replica.start()?;
    replica.wait_ready()?;
    Ok((master, replica, admin, position))
}

fn tag(reply: &Reply) -> Result<String> {
    Ok(reply.header("etag").with_context(|| format!("no tag in {:?}", reply.headers))?.to_owned())
}

#[test]
fn a_read_is_tagged_alike_on_every_node_and_answered_304_until_it_changes() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica, admin, position) = pair(&cluster)?;
    let (here, there) = (master.client()?, replica.client()?.with_min_position(&position));
    let one = format!("{}/post00000000001", records("posts"));
    for path in [&one, &format!("{}?sort=-title", records("posts")), &format!("{one}?fields=id,title")] {
        let reply = here.get(path)?.ok()?;
        let known = tag(&reply)?;
        ensure!(tag(&there.get(path)?.ok()?)? == known, "{path}: another tag on the replica");
        ensure!(tag(&here.send(Method::HEAD, path, None)?)? == known, "{path}: another tag for HEAD");
        ensure!(reply.header("cache-control") == Some("private, no-cache"), "{:?}", reply.headers);
        let varies: Vec<_> = reply.headers.get_all("vary").iter().filter_map(|value| value.to_str().ok()).collect();
        ensure!(varies.join(",").contains("authorization, x-api-key, x-dbname"), "{varies:?}");
        for client in [&here, &there] {
            for sent in
                [known.clone(), known.trim_start_matches("W/").to_owned(), format!("\"other\", {known}"), "*".into()]
            {
                let again = client.with_header("if-none-match", &sent)?.get(path)?;
                ensure!(
                    again.status == 304 && again.bytes.is_empty() && tag(&again)? == known,
                    "{path} {sent}: {again:?}"
                );
                ensure!(again.header("x-replica-id").is_some() && again.header("cache-control").is_some());
            }
            ensure!(client.with_header("if-none-match", "W/\"other\"")?.get(path)?.status == 200);
        }
    }
    let known = tag(&here.get(&one)?)?;
    ensure!(known != tag(&here.get(&format!("{one}?fields=id"))?)?, "a tag follows the fields");
    admin.update_record("posts", "post00000000001", &json!({"title": "Another"}))?;
    let changed = here.with_header("if-none-match", &known)?.get(&one)?;
    ensure!(changed.status == 200 && tag(&changed)? != known, "a tag follows the record");
    Ok(())
}

#[test]
fn no_cache_may_give_one_users_answer_to_another() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut master = cluster.master("master")?;
    master.start()?;
    let (admin, guest) = (master.admin()?, master.client()?);
    admin.create_collection("posts", &[("title", "text")])?;
    admin.update_collection("posts", &json!({"listRule": "title = 'open' || @request.auth.id != ''"}))?;
    admin.create_record("posts", &json!({"title": "closed"}))?;
    let known = tag(&admin.get(&records("posts"))?.ok()?)?;
    let answer = guest.with_header("if-none-match", &known)?.get(&records("posts"))?;
    ensure!(answer.status == 200 && answer.json()?["items"] == json!([]), "{}", answer.body);
    for (path, status) in
        [("/nowhere", 404), ("/api/collections/nothing/records", 404), ("/api/databases", 401), ("/health", 200)]
    {
        let reply = guest.get(path)?;
        ensure!(
            reply.status == status && reply.header("cache-control") == Some("private, no-cache"),
            "{path}: {reply:?}"
        );
    }
    let login =
        guest.send(Method::POST, "/api/admins/auth-with-password", Some(&json!({"identity": "x", "password": "y"})))?;
    ensure!(login.header("cache-control") == Some("no-store"), "{:?}", login.headers);
    Ok(())
}

#[test]
fn long_answers_are_compressed_for_who_asks_and_short_ones_and_copies_for_replicas_are_not() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica, _, position) = pair(&cluster)?;
    let long = records("posts");
    for client in [master.client()?, replica.client()?.with_min_position(&position)] {
        let plain = client.get(&long)?.ok()?;
        ensure!(plain.header("content-encoding").is_none() && plain.bytes.len() > 1024);
        for (asked, given) in [("gzip", "gzip"), ("gzip, deflate, br, zstd", "zstd"), ("zstd;q=0, gzip", "gzip")] {
            let reply = client.with_header("accept-encoding", asked)?.get(&long)?.ok()?;
            ensure!(reply.header("content-encoding") == Some(given), "{asked}: {:?}", reply.headers);
            ensure!(
                reply.headers.get_all("vary").iter().any(|value| value == "accept-encoding"),
                "{:?}",
                reply.headers
            );
            ensure!(reply.bytes.len() < plain.bytes.len() / 2 && tag(&reply)? == tag(&plain)?);
            let body = match given {
                "gzip" => {
                    let mut body = Vec::new();
                    GzDecoder::new(reply.bytes.as_slice()).read_to_end(&mut body).context("unpack gzip")?;
                    body
                }
                _ => zstd::decode_all(reply.bytes.as_slice()).context("unpack zstd")?,
            };
            ensure!(body == plain.bytes, "{given} holds another answer");
        }
        let all = client.with_header("accept-encoding", "gzip, zstd")?;
        for path in ["/health", "/api/collections/posts/records/post00000000001", "/nowhere"] {
            ensure!(all.get(path)?.header("content-encoding").is_none(), "{path} is short");
        }
        let known = tag(&plain)?;
        let again = all.with_header("if-none-match", &known)?.get(&long)?;
        ensure!(again.status == 304 && again.header("content-encoding").is_none(), "{again:?}");
        let peer = all.with_token(&e2e::client::replica_token("r9"));
        let schema = peer.get("/api/replica/schema-sync?db=default")?.ok()?;
        ensure!(schema.header("content-encoding").is_none() && schema.bytes.len() > 1024, "{:?}", schema.headers);
    }
    Ok(())
}

#[test]
fn only_pages_of_the_origins_that_are_named_may_read_answers() -> Result<()> {
    let cluster = Cluster::new()?;
    for (setting, origin, allowed, credentials) in [
        (None, "https://anywhere.example", Some("*"), None),
        (
            Some("https://app.example.com, http://localhost:5173"),
            "http://localhost:5173",
            Some("http://localhost:5173"),
            Some("true"),
        ),
        (Some("https://app.example.com"), "https://evil.example", None, Some("true")),
        (Some("none"), "https://app.example.com", None, Some("true")),
    ] {
        let mut master = cluster.master("master")?;
        if let Some(setting) = setting {
            master = master.env("CORS_ORIGINS", setting);
        }
        master.start()?;
        let page = master.client()?.with_header("origin", origin)?;
        let reply = page.get("/nowhere")?;
        ensure!(reply.header("access-control-allow-origin") == allowed, "{setting:?}: {:?}", reply.headers);
        let exposed = reply.header("access-control-expose-headers").unwrap_or_default();
        for name in ["x-replica-id", "x-vski-position", "etag", "retry-after", "content-range"] {
            ensure!(exposed.split(',').any(|header| header.trim() == name), "{name} is not in {exposed}");
        }
        let asks = page.with_header("access-control-request-method", "PATCH")?;
        let asks =
            asks.with_header("access-control-request-headers", "authorization,content-type,x-vski-min-position")?;
        let preflight = asks.send(Method::OPTIONS, &format!("{}/x", records("posts")), None)?;
        ensure!(preflight.status == 200 && preflight.header("access-control-allow-origin") == allowed, "{preflight:?}");
        ensure!(preflight.header("access-control-allow-credentials") == credentials, "{preflight:?}");
        ensure!(preflight.header("access-control-allow-methods") == Some("PATCH"), "{preflight:?}");
        let headers = preflight.header("access-control-allow-headers").unwrap_or_default();
        ensure!(headers.contains("x-vski-min-position") && headers.contains("authorization"), "{preflight:?}");
        ensure!(preflight.header("access-control-max-age") == Some("3600"), "{preflight:?}");
        master.stop()?;
    }
    Ok(())
}
