use super::*;

/// Makes a key and returns its id and what a machine sends.
fn key(admin: &Client, kind: &str) -> Result<(String, String)> {
    let made = done(admin, Method::POST, "/api/keys", &json!({"name": "a machine's", "kind": kind}))?;
    Ok((text(&made, "id")?, text(&made, "key")?))
}

#[test]
fn a_key_opens_what_an_admin_may_on_every_node_until_it_is_revoked() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica, admin) = pair(&cluster)?;
    let (id, secret) = key(&admin, "full")?;
    ensure!(secret.starts_with("vski_key_"), "{secret}");
    let machine = master.client()?.with_header("x-api-key", &secret)?;
    machine.create_collection("posts", &[("title", "text")])?;
    let there = replica.client()?.with_header("x-api-key", &secret)?;
    answered(&there, "/api/collections/posts", 200)?;
    let listed = done(&machine, Method::GET, "/api/keys", &Value::Null)?;
    ensure!(listed["items"][0]["id"] == id.as_str() && listed["items"][0]["kind"] == "full", "{listed}");
    ensure!(!listed.to_string().contains(&secret[9..]) && listed["items"][0].get("hash").is_none(), "{listed}");
    // Replication and commands are no machine's.
    for path in ["/api/replica/status", "/api/replica/replicas"] {
        ensure!(machine.get(path)?.status == 401, "{path}");
    }
    done(&admin, Method::DELETE, &format!("/api/keys/{id}"), &Value::Null)?;
    let reply = machine.get("/api/collections")?;
    ensure!(reply.status == 401 && reply.body.contains("revoked"), "{} {}", reply.status, reply.body);
    answered(&there, "/api/collections", 401)?;
    ensure!(call(&admin, Method::DELETE, &format!("/api/keys/{id}"), &Value::Null)?.0 == 404);
    Ok(())
}

#[test]
fn a_read_only_key_reads_and_is_told_why_it_may_not_write() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica, admin) = pair(&cluster)?;
    admin.create_collection("posts", &[("title", "text")])?;
    let (_, secret) = key(&admin, "read-only")?;
    let machine = master.client()?.with_header("x-api-key", &secret)?;
    ensure!(machine.get("/api/collections")?.status == 200 && machine.get("/api/admins")?.status == 200);
    ensure!(machine.count("posts")? == 0);
    for (method, path) in [
        (Method::POST, "/api/collections/posts/records"),
        (Method::POST, "/api/collections"),
        (Method::PATCH, "/api/collections/posts"),
        (Method::POST, "/api/keys"),
        (Method::POST, "/api/databases"),
        (Method::POST, "/api/sql"),
    ] {
        let (status, answer) = call(&machine, method.clone(), path, &json!({"name": "x", "kind": "full"}))?;
        ensure!(status == 403 && text(&answer, "error")?.contains("read-only"), "{method} {path}: {status} {answer}");
    }
    ensure!(admin.count("posts")? == 0);
    answered(&replica.client()?.with_header("x-api-key", &secret)?, "/api/collections/posts", 200)
}

#[test]
fn keys_are_made_by_admins_only_and_a_wrong_one_is_a_guest() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, _replica, admin) = pair(&cluster)?;
    admin.create_collection("posts", &[("title", "text")])?;
    let guest = master.client()?;
    ensure!(call(&guest, Method::POST, "/api/keys", &json!({"name": "x", "kind": "full"}))?.0 == 401);
    ensure!(guest.get("/api/keys")?.status == 401);
    for body in [
        json!({"name": "", "kind": "full"}),
        json!({"name": "x", "kind": "everything"}),
        json!({"name": "x", "kind": "full", "expires": "2020-01-01 00:00:00.000Z"}),
        json!({"kind": "full"}),
    ] {
        ensure!(call(&admin, Method::POST, "/api/keys", &body)?.0 == 400, "{body}");
    }
    let wrong = guest.with_header("x-api-key", &format!("vski_key_{}", "0".repeat(64)))?;
    ensure!(wrong.count("posts")? == 0, "what is open to everyone stays open");
    ensure!(wrong.get("/api/collections")?.status == 401);
    Ok(())
}
