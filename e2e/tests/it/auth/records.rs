use super::*;

const USERS: &str = "/api/collections/users";
const RECORDS: &str = "/api/collections/users/records";
const PASSWORD: &str = "a good password";

/// An auth collection that everybody may read and sign up to; records change themselves.
fn users(admin: &Client, more: &Value) -> Result<Value> {
    let mut wanted = json!({
        "name": "users", "type": "auth", "listRule": "", "viewRule": "", "createRule": "",
        "updateRule": "id = @request.auth.id", "authRule": "",
        "fields": [{"name": "nick", "type": "text"}],
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        wanted[key] = value.clone();
    }
    done(admin, Method::POST, "/api/collections", &wanted)
}

/// Signs somebody up and returns their id.
fn sign_up(client: &Client, email: &str) -> Result<String> {
    let body = json!({"email": email, "password": PASSWORD, "passwordConfirm": PASSWORD, "nick": "n"});
    text(&done(client, Method::POST, RECORDS, &body)?, "id")
}

fn login(client: &Client, identity: &str, password: &str) -> Result<(u16, Value)> {
    let body = json!({"identity": identity, "password": password});
    call(client, Method::POST, &format!("{USERS}/auth-with-password"), &body)
}

/// The client as a record that logs in.
fn as_record(client: &Client, identity: &str, password: &str) -> Result<Client> {
    let (status, answer) = login(client, identity, password)?;
    ensure!(status == 200, "{status} {answer}");
    Ok(client.with_token(&text(&answer, "token")?))
}

fn refresh(client: &Client) -> Result<(u16, Value)> {
    call(client, Method::POST, &format!("{USERS}/auth-refresh"), &Value::Null)
}

/// Waits until a node lets a token in, or no longer does.
fn refreshed(client: &Client, status: u16) -> Result<()> {
    eventually(&format!("a refresh answers {status}"), READY, || Ok(refresh(client)?.0 == status))
}

#[test]
fn a_record_logs_in_on_every_node_and_its_token_is_good_on_all_of_them() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica, admin) = pair(&cluster)?;
    users(&admin, &json!({}))?;
    let guest = master.client()?;
    let id = sign_up(&guest, "ann@example.com")?;
    let (status, answer) = login(&guest, "ANN@example.com", PASSWORD)?;
    ensure!(status == 200 && answer["record"]["id"] == id.as_str(), "{status} {answer}");
    ensure!(answer["record"]["email"] == "ann@example.com", "one's own address shows: {answer}");
    for secret in ["password", "passwordHash", "tokenKey"] {
        ensure!(answer["record"].get(secret).is_none(), "{answer}");
    }
    let token = text(&answer, "token")?;
    let there = replica.client()?.with_token(&token);
    refreshed(&there, 200)?;
    let (status, again) = login(&replica.client()?, "ann@example.com", PASSWORD)?;
    ensure!(status == 200, "{status} {again}");
    ensure!(refresh(&guest.with_token(&text(&again, "token")?))?.0 == 200);
    // With and without the word Bearer.
    let bare = guest.with_header("authorization", &token)?;
    ensure!(refresh(&bare)?.0 == 200);
    for client in [guest.with_token(&token), there] {
        for path in ["/api/replica/status", "/api/replica/replicas", "/api/replica/changeset?db=default"] {
            ensure!(client.get(path)?.status == 403, "{path}");
        }
        ensure!(client.get("/api/collections")?.status == 403);
    }
    Ok(())
}

#[test]
fn an_unknown_user_and_a_wrong_password_get_the_same_answer() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica, admin) = pair(&cluster)?;
    users(&admin, &json!({}))?;
    admin.create_collection("posts", &[("title", "text")])?;
    sign_up(&admin, "ann@example.com")?;
    answered(&replica.admin()?, &format!("{USERS}/auth-methods"), 200)?;
    for client in [master.client()?, replica.client()?] {
        let known = login(&client, "ann@example.com", "a wrong password")?;
        let unknown = login(&client, "bob@example.com", "a wrong password")?;
        ensure!(known == unknown && known.0 == 400, "{known:?} {unknown:?}");
        ensure!(known.1["message"] == "Failed to authenticate." && known.1["data"] == json!({}), "{known:?}");
        let (status, blank) = login(&client, "", "")?;
        ensure!(status == 400 && blank["data"]["identity"].is_object() && blank["data"]["password"].is_object());
        let body = json!({"identity": "a", "password": "b"});
        ensure!(call(&client, Method::POST, "/api/collections/posts/auth-with-password", &body)?.0 == 404);
    }
    Ok(())
}

#[test]
fn a_token_is_worth_nothing_in_another_database_or_collection() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, _replica, admin) = pair(&cluster)?;
    admin.create_database("shop")?;
    users(&admin, &json!({}))?;
    users(&admin.with_db("shop"), &json!({}))?;
    users(&admin, &json!({"name": "others"}))?;
    sign_up(&admin, "ann@example.com")?;
    sign_up(&admin.with_db("shop"), "ann@example.com")?;
    let ann = as_record(&master.client()?, "ann@example.com", PASSWORD)?;
    ensure!(refresh(&ann)?.0 == 200 && refresh(&ann.with_db("shop"))?.0 == 401);
    let other = call(&ann, Method::POST, "/api/collections/others/auth-refresh", &Value::Null)?;
    ensure!(other.0 == 403, "{other:?}");
    Ok(())
}

#[test]
fn a_new_password_needs_the_old_one_and_ends_all_tokens_also_on_replicas() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica, admin) = pair(&cluster)?;
    users(&admin, &json!({}))?;
    let id = sign_up(&admin, "ann@example.com")?;
    let ann = as_record(&master.client()?, "ann@example.com", PASSWORD)?;
    let there = replica.client()?.with_token(&ann.token().context("a token")?);
    refreshed(&there, 200)?;
    let path = format!("{RECORDS}/{id}");
    let change = |body: Value| call(&ann, Method::PATCH, &path, &body);
    for (body, field) in [
        (json!({"password": "b".repeat(10), "passwordConfirm": "b".repeat(10)}), "oldPassword"),
        (
            json!({"password": "b".repeat(10), "passwordConfirm": "b".repeat(10), "oldPassword": "wrong one"}),
            "oldPassword",
        ),
        (json!({"password": "b".repeat(10), "oldPassword": PASSWORD}), "passwordConfirm"),
        (json!({"password": "b".repeat(10), "passwordConfirm": "c", "oldPassword": PASSWORD}), "passwordConfirm"),
        (json!({"email": "anne@example.com"}), "oldPassword"),
        (json!({"verified": true}), "verified"),
    ] {
        let (status, answer) = change(body.clone())?;
        ensure!(status == 400 && answer["data"][field].is_object(), "{body}: {status} {answer}");
    }
    ensure!(change(json!({"nick": "annie", "email": "ann@example.com", "verified": false}))?.0 == 200);
    ensure!(refresh(&ann)?.0 == 200, "nothing was changed that ends tokens");
    let (status, answer) =
        change(json!({"password": "b".repeat(10), "passwordConfirm": "b".repeat(10), "oldPassword": PASSWORD}))?;
    ensure!(status == 200, "{status} {answer}");
    ensure!(refresh(&ann)?.0 == 401);
    refreshed(&there, 401)?;
    as_record(&replica.client()?, "ann@example.com", &"b".repeat(10))?;
    ensure!(login(&replica.client()?, "ann@example.com", PASSWORD)?.0 == 400);
    Ok(())
}

#[test]
fn another_address_ends_all_tokens_and_is_not_verified() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, _replica, admin) = pair(&cluster)?;
    users(&admin, &json!({}))?;
    let id = sign_up(&admin, "ann@example.com")?;
    let path = format!("{RECORDS}/{id}");
    ensure!(done(&admin, Method::PATCH, &path, &json!({"verified": true}))?["verified"] == true);
    let ann = as_record(&master.client()?, "ann@example.com", PASSWORD)?;
    let changed = done(&ann, Method::PATCH, &path, &json!({"email": "anne@example.com", "oldPassword": PASSWORD}))?;
    ensure!(changed["verified"] == false, "{changed}");
    ensure!(refresh(&ann)?.0 == 401);
    let ann = as_record(&master.client()?, "anne@example.com", PASSWORD)?;
    // An admin needs no password, and what they say of the address holds.
    let changed = done(&admin, Method::PATCH, &path, &json!({"email": "ann@example.org", "verified": true}))?;
    ensure!(changed["verified"] == true && changed["email"] == "ann@example.org", "{changed}");
    ensure!(refresh(&ann)?.0 == 401);
    Ok(())
}

#[test]
fn an_address_shows_to_oneself_to_admins_and_where_it_is_visible() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, _replica, admin) = pair(&cluster)?;
    users(&admin, &json!({}))?;
    let guest = master.client()?;
    let (ann, _bob) = (sign_up(&guest, "ann@example.com")?, sign_up(&guest, "bob@example.com")?);
    let path = format!("{RECORDS}/{ann}");
    let (as_ann, as_bob) =
        (as_record(&guest, "ann@example.com", PASSWORD)?, as_record(&guest, "bob@example.com", PASSWORD)?);
    let shows = |client: &Client| Ok::<_, anyhow::Error>(client.get(&path)?.ok()?.json()?.get("email").is_some());
    ensure!(shows(&as_ann)? && shows(&admin)? && !shows(&as_bob)? && !shows(&guest)?);
    done(&as_ann, Method::PATCH, &path, &json!({"emailVisibility": true}))?;
    ensure!(shows(&as_bob)? && shows(&guest)?);
    Ok(())
}

#[test]
fn an_admin_gets_a_token_in_a_records_name_that_a_refresh_does_not_prolong() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica, admin) = pair(&cluster)?;
    users(&admin, &json!({}))?;
    let id = sign_up(&admin, "ann@example.com")?;
    let path = format!("{USERS}/impersonate/{id}");
    let made = done(&admin, Method::POST, &path, &json!({"duration": 600}))?;
    ensure!(made["record"]["id"] == id.as_str(), "{made}");
    let ann = master.client()?.with_token(&text(&made, "token")?);
    let record = format!("{RECORDS}/{id}");
    ensure!(done(&ann, Method::PATCH, &record, &json!({"nick": "annie"}))?["nick"] == "annie");
    let (status, same) = refresh(&ann)?;
    ensure!(status == 200 && same["token"] == made["token"] && same["record"]["id"] == id.as_str(), "{same}");
    ensure!(refresh(&admin)?.0 == 403, "an admin is no record of this collection");
    // The replica knows the bearer by its own copy: its address shows to itself.
    let there = replica.client()?.with_token(&text(&made, "token")?);
    eventually("the token is good on the replica", READY, || {
        Ok(there.get(&record)?.ok()?.json()?.get("email").is_some())
    })?;
    for (client, expected) in [(master.client()?, 401), (ann, 403)] {
        ensure!(call(&client, Method::POST, &path, &json!({}))?.0 == expected);
    }
    ensure!(admin.send(Method::POST, &path, None)?.status == 200, "without a body it lasts as long as a login's");
    for wrong in [json!({"duration": -1}), json!({"duration": "1h"}), json!({"duration": 1_000_000_000_000_u64})] {
        ensure!(call(&admin, Method::POST, &path, &wrong)?.0 == 400, "{wrong}");
    }
    ensure!(call(&admin, Method::POST, &format!("{USERS}/impersonate/nobody"), &json!({}))?.0 == 404);
    Ok(())
}

#[test]
fn rules_say_who_logs_in_and_who_manages_others() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, _replica, admin) = pair(&cluster)?;
    let rules = json!({
        "authRule": "verified = true", "manageRule": "@request.auth.nick = 'boss'",
        "updateRule": "id = @request.auth.id || @request.auth.nick = 'boss'",
    });
    users(&admin, &rules)?;
    let guest = master.client()?;
    let (ann, boss) = (sign_up(&guest, "ann@example.com")?, sign_up(&guest, "boss@example.com")?);
    ensure!(login(&guest, "boss@example.com", PASSWORD)?.0 == 403);
    done(&admin, Method::PATCH, &format!("{RECORDS}/{boss}"), &json!({"verified": true, "nick": "boss"}))?;
    let boss = as_record(&guest, "boss@example.com", PASSWORD)?;
    let change = json!({"verified": true, "password": "b".repeat(10), "passwordConfirm": "b".repeat(10)});
    let changed = done(&boss, Method::PATCH, &format!("{RECORDS}/{ann}"), &change)?;
    ensure!(changed["verified"] == true && changed["email"] == "ann@example.com", "{changed}");
    as_record(&guest, "ann@example.com", &"b".repeat(10))?;
    let lying =
        json!({"email": "eve@example.com", "password": PASSWORD, "passwordConfirm": PASSWORD, "verified": true});
    let (status, answer) = call(&guest, Method::POST, RECORDS, &lying)?;
    ensure!(status == 400 && answer["data"]["verified"].is_object(), "{status} {answer}");
    Ok(())
}

#[test]
fn a_collection_says_how_its_records_log_in() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, _replica, admin) = pair(&cluster)?;
    let options = json!({
        "indexes": ["CREATE UNIQUE INDEX idx_nick ON users (nick)"],
        "passwordAuth": {"enabled": true, "identityFields": ["email", "nick"]},
    });
    users(&admin, &options)?;
    let guest = master.client()?;
    sign_up(&guest, "ann@example.com")?;
    let methods = done(&guest, Method::GET, &format!("{USERS}/auth-methods"), &Value::Null)?;
    ensure!(methods["password"] == json!({"enabled": true, "identityFields": ["email", "nick"]}), "{methods}");
    ensure!(methods["oauth2"]["enabled"] == false && methods["mfa"]["enabled"] == false, "{methods}");
    as_record(&guest, "n", PASSWORD)?;
    let by = |field: &str, identity: &str| {
        let body = json!({"identity": identity, "password": PASSWORD, "identityField": field});
        call(&guest, Method::POST, &format!("{USERS}/auth-with-password?fields=token"), &body)
    };
    let (status, answer) = by("nick", "n")?;
    ensure!(status == 200 && answer.get("record").is_none() && answer["token"].is_string(), "{status} {answer}");
    ensure!(by("email", "n")?.0 == 400 && by("id", "n")?.0 == 400);
    for absent in ["request-otp", "auth-with-oauth2", "request-password-reset", "confirm-verification"] {
        let (status, answer) = call(&guest, Method::POST, &format!("{USERS}/{absent}"), &json!({}))?;
        ensure!(status == 404 && text(&answer, "message")?.contains("needs"), "{absent}: {status} {answer}");
    }
    done(&admin, Method::PATCH, USERS, &json!({"passwordAuth": {"enabled": false, "identityFields": ["email"]}}))?;
    ensure!(login(&guest, "ann@example.com", PASSWORD)?.0 == 403);
    Ok(())
}
