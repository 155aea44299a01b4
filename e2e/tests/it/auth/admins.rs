use super::*;

const RECORDS: &str = "/api/collections/_superusers/records";

#[test]
fn admins_are_made_listed_changed_and_removed_at_both_paths() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica, admin) = pair(&cluster)?;
    let ann = json!({"email": "ann@example.com", "password": "a good password", "passwordConfirm": "a good password"});
    let made = done(&admin, Method::POST, RECORDS, &ann)?;
    ensure!(made["collectionName"] == "_superusers" && made["email"] == "ann@example.com", "{made}");
    ensure!(!made.to_string().contains("argon2") && made.get("tokenKey").is_none(), "{made}");
    let id = text(&made, "id")?;
    let (status, again) = call(&admin, Method::POST, RECORDS, &ann)?;
    ensure!(status == 400 && again["data"]["email"]["code"] == "validation_not_unique", "{status} {again}");
    for base in ["/api/admins", RECORDS] {
        let listed = done(&admin, Method::GET, &format!("{base}?perPage=1&page=2"), &Value::Null)?;
        ensure!(listed["totalItems"] == 2 && listed["items"] == json!([made]), "{listed}");
        ensure!(done(&admin, Method::GET, &format!("{base}/{id}"), &Value::Null)? == made);
        for method in [Method::GET, Method::PATCH, Method::DELETE] {
            let path = format!("{base}/{id}");
            ensure!(call(&master.client()?, method.clone(), &path, &json!({}))?.0 == 401, "{method} {path}");
        }
    }
    // A replica has it, too, and writes nothing.
    answered(&replica.admin()?, &format!("{RECORDS}/{id}"), 200)?;
    ensure!(call(&replica.admin()?, Method::DELETE, &format!("{RECORDS}/{id}"), &Value::Null)?.0 == 403);
    done(&admin, Method::DELETE, &format!("/api/admins/{id}"), &Value::Null)?;
    ensure!(call(&admin, Method::GET, &format!("{RECORDS}/{id}"), &Value::Null)?.0 == 404);
    Ok(())
}

#[test]
fn the_last_admin_stays() -> Result<()> {
    let cluster = Cluster::new()?;
    let (_master, _replica, admin) = pair(&cluster)?;
    let listed = done(&admin, Method::GET, "/api/admins", &Value::Null)?;
    let only = text(&listed["items"][0], "id")?;
    let (status, answer) = call(&admin, Method::DELETE, &format!("/api/admins/{only}"), &Value::Null)?;
    ensure!(status == 400 && text(&answer, "message")?.contains("last admin"), "{status} {answer}");
    ensure!(admin.get("/api/collections")?.status == 200);
    Ok(())
}

#[test]
fn an_admins_new_password_ends_their_tokens_on_every_node() -> Result<()> {
    let cluster = Cluster::new()?;
    let (master, replica, admin) = pair(&cluster)?;
    let ann = json!({"email": "ann@example.com", "password": "a good password"});
    let id = text(&done(&admin, Method::POST, "/api/admins", &ann)?, "id")?;
    let mine = master.client()?.login("ann@example.com", "a good password")?;
    let there = replica.client()?.with_token(&mine.token().context("a token")?);
    answered(&there, "/api/collections", 200)?;
    let path = format!("/api/admins/{id}");
    let change = |old: &str, again: &str| {
        let body = json!({"password": "another password", "passwordConfirm": again, "oldPassword": old});
        call(&mine, Method::PATCH, &path, &body)
    };
    let (status, answer) = change("a bad password", "another password")?;
    ensure!(status == 400 && answer["data"]["oldPassword"].is_object(), "{status} {answer}");
    let (status, answer) = change("a good password", "something else")?;
    ensure!(status == 400 && answer["data"]["passwordConfirm"].is_object(), "{status} {answer}");
    ensure!(mine.get("/api/collections")?.status == 200, "nothing was changed yet");
    ensure!(change("a good password", "another password")?.0 == 200);
    ensure!(mine.get("/api/collections")?.status == 403);
    answered(&there, "/api/collections", 403)?;
    replica.client()?.login("ann@example.com", "another password")?;
    Ok(())
}
