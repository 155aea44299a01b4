use super::*;
use e2e::cluster::ADMIN;

const LOGIN: &str = "/api/admins/auth-with-password";

/// A master that lets so many logins through.
fn master(cluster: &Cluster, per_address: &str, per_identity: &str, proxies: &str) -> Result<Node> {
    let master = cluster.master("master")?.env("LOGIN_ATTEMPTS_PER_ADDRESS", per_address);
    let mut master = master.env("LOGIN_FAILURES_PER_IDENTITY", per_identity).env("TRUSTED_PROXIES", proxies);
    master.start()?;
    Ok(master)
}

fn attempt(client: &Client, identity: &str, password: &str) -> Result<u16> {
    let reply = client.send(Method::POST, LOGIN, Some(&json!({"identity": identity, "password": password})))?;
    if reply.status == 429 {
        let seconds: u64 = reply.header("retry-after").context("Retry-After")?.parse()?;
        ensure!((1..=60).contains(&seconds) && reply.json()?["code"] == 429, "{seconds} {}", reply.body);
    }
    Ok(reply.status)
}

#[test]
fn whoever_guesses_at_an_identity_has_to_wait_and_others_do_not() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster, "0", "3", "")?;
    let client = master.client()?;
    for _ in 0..5 {
        ensure!(attempt(&client, ADMIN.0, ADMIN.1)? == 200, "a login that succeeds is not counted");
    }
    let guesses: Vec<u16> = (0..4).map(|_| attempt(&client, ADMIN.0, "a wrong guess")).collect::<Result<_>>()?;
    ensure!(guesses == [400, 400, 400, 429], "{guesses:?}");
    ensure!(attempt(&client, &ADMIN.0.to_uppercase(), ADMIN.1)? == 429, "the right password does not help now");
    // Whether there is such an identity does not show.
    let guesses: Vec<u16> = (0..4).map(|_| attempt(&client, "nobody@x", "a wrong guess")).collect::<Result<_>>()?;
    ensure!(guesses == [400, 400, 400, 429], "{guesses:?}");
    Ok(())
}

#[test]
fn guesses_at_an_old_password_are_counted_together_however_the_collection_is_named() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster, "0", "3", "")?;
    let admin = master.admin()?;
    let users = json!({"name": "users", "type": "auth", "updateRule": ""});
    let users = admin.send(Method::POST, "/api/collections", Some(&users))?.ok()?.json()?;
    let user = json!({"email": "a@example.org", "password": "long enough", "passwordConfirm": "long enough"});
    let user = admin.create_record("users", &user)?;
    let (collection, id) = (users["id"].as_str().context("an id")?, user["id"].as_str().context("an id")?);
    let guess = json!({"password": "another one", "passwordConfirm": "another one", "oldPassword": "a wrong guess"});
    let guesses = ["users", "USERS", collection, "Users", "uSERS"].into_iter().map(|name| {
        let path = format!("/api/collections/{name}/records/{id}");
        Ok(master.client()?.send(Method::PATCH, &path, Some(&guess))?.status)
    });
    let guesses = guesses.collect::<Result<Vec<u16>>>()?;
    ensure!(guesses == [400, 400, 400, 429, 429], "{guesses:?}");
    Ok(())
}

#[test]
fn one_address_tries_only_so_often_and_a_trusted_proxy_says_whose_it_is() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster, "2", "0", "127.0.0.1")?;
    let from = |address: &str| master.client()?.with_header("x-forwarded-for", address);
    let attempts =
        |address: &str| (0..3).map(|_| attempt(&from(address)?, ADMIN.0, ADMIN.1)).collect::<Result<Vec<_>>>();
    ensure!(attempts("203.0.113.1")? == [200, 200, 429]);
    ensure!(attempts("203.0.113.2")? == [200, 200, 429]);
    ensure!(attempts("198.51.100.9, 203.0.113.2")? == [429, 429, 429], "only the last hop counts");
    Ok(())
}

#[test]
fn nobody_says_where_they_come_from_unless_they_are_trusted() -> Result<()> {
    let cluster = Cluster::new()?;
    let master = master(&cluster, "2", "0", "10.0.0.0/8")?;
    for (address, expected) in [("203.0.113.1", 200), ("203.0.113.2", 200), ("203.0.113.3", 429)] {
        let client = master.client()?.with_header("x-forwarded-for", address)?;
        ensure!(attempt(&client, ADMIN.0, ADMIN.1)? == expected, "{address}");
    }
    Ok(())
}
