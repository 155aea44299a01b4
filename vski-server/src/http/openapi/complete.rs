//! What the annotations beside handlers leave out, because it is true of all routes of a kind: parameters in the path, the
//! database, who may ask, what may be refused, headers of answers, ids of operations.

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;
use vski_replication::node::Role;

use crate::http::layers;

/// Who may call a route.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Everybody, and nobody is asked who they are.
    Open,
    /// Guests too, as far as rules let them.
    Anyone,
    Admin,
    Replica,
    Operator,
}

/// One operation, as its route says.
struct Route<'a> {
    method: &'a str,
    path: &'a str,
    tag: &'a str,
    role: Role,
}

/// The whole document of a node in this role.
pub fn complete(api: OpenApi, role: Role) -> Value {
    let mut document = serde_json::to_value(api).expect("the document's maps have text keys");
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document["components"]["securitySchemes"] = security_schemes();
    document["components"]["parameters"] = parameters();
    document["components"]["headers"] = headers();
    document["components"]["responses"] =
        REFUSALS.map(|(status, text)| (status.to_string(), refusal(text))).into_iter().collect();
    let Some(Value::Object(paths)) = document.get_mut("paths") else { return document };
    for (path, item) in &mut *paths {
        let Value::Object(operations) = item else { continue };
        operations.retain(|method, _| role == Role::Master || is_answered(method, path));
        for (method, operation) in operations {
            let tag = operation["tags"][0].as_str().unwrap_or_default().to_owned();
            Route { method, path, tag: &tag, role }.complete(operation);
        }
    }
    paths.retain(|_, item| item.as_object().is_some_and(|operations| !operations.is_empty()));
    document
}

/// Whether a replica takes it at all.
fn is_answered(method: &str, path: &str) -> bool {
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap_or_default();
    !layers::is_refused(&method, path)
}

impl Route<'_> {
    fn complete(&self, operation: &mut Value) {
        operation["operationId"] = self.operation_id().into();
        operation["security"] = self.access().security();
        let mut parameters = self.path_parameters();
        parameters.extend(operation["parameters"].take().as_array().cloned().unwrap_or_default());
        parameters.extend(self.common_parameters().iter().map(|name| reference("parameters", name)));
        operation["parameters"] = parameters.into();
        let has_body = !operation["requestBody"].is_null();
        let refusals = self.refusals(has_body);
        if !has_body {
            operation.as_object_mut().map(|operation| operation.shift_remove("requestBody"));
        }
        let Value::Object(responses) = &mut operation["responses"] else { return };
        for (status, response) in &mut *responses {
            if response["description"].is_null() {
                let status = status.parse().ok().and_then(|status| StatusCode::from_u16(status).ok());
                response["description"] =
                    status.and_then(|status| status.canonical_reason()).unwrap_or("Answer").into();
            }
            response["headers"] = self.answer_headers(status.starts_with('2'));
        }
        for status in refusals {
            let status = status.to_string();
            let refusal = reference("responses", &status);
            responses.entry(status).or_insert(refusal);
        }
        responses.sort_keys();
    }

    /// The method and the path, in one word.
    fn operation_id(&self) -> String {
        let mut id = self.method.to_owned();
        let words = self.path.split(|letter: char| !letter.is_ascii_alphanumeric() && !"{}".contains(letter));
        for word in words.filter(|word| !word.is_empty() && *word != "api") {
            let (by, name) = word.strip_prefix('{').map_or(("", word), |name| ("By", name.trim_end_matches('}')));
            let (first, rest) = name.split_at_checked(1).unwrap_or_default();
            id.extend([by, &first.to_uppercase(), rest]);
        }
        id
    }

    fn access(&self) -> Access {
        match self.tag {
            "health" | "documentation" => Access::Open,
            "replication" => Access::Replica,
            "operators" => Access::Operator,
            "records" if self.path.ends_with("/import") => Access::Admin,
            "files" if self.method == "post" => Access::Admin,
            "records" | "auth" | "files" | "batch" => Access::Anyone,
            _ if self.is_login() => Access::Open,
            _ => Access::Admin,
        }
    }

    fn is_login(&self) -> bool {
        self.path.ends_with("/auth-with-password")
    }

    fn reads_data(&self) -> bool {
        self.method == "get" && matches!(self.tag, "records" | "collections" | "files")
    }

    fn writes_data(&self) -> bool {
        self.method != "get"
            && matches!(self.tag, "records" | "collections" | "databases" | "admins" | "keys" | "batch")
            && !self.is_login()
            && !self.path.ends_with("/auth-refresh")
    }

    fn path_parameters(&self) -> Vec<Value> {
        let names = self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let parameter = |name| {
            let description = match name {
                "collection" => "Name or id of the collection.",
                "id" | "record" => "The id.",
                _ => "The name.",
            };
            json!({
                "name": name, "in": "path", "required": true, "description": description,
                "schema": { "type": "string", "minLength": 1 },
            })
        };
        names.map(parameter).collect()
    }

    fn common_parameters(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        if matches!(self.tag, "records" | "auth" | "collections" | "migrations" | "files" | "batch") {
            names.extend(["db", "X-DBName"]);
        }
        if self.reads_data() {
            names.push("X-Vski-Min-Position");
        }
        if self.tag == "replication" {
            names.extend(["X-Replica-Id", "X-Replica-Public-Url", "X-Replica-Boot-Id", "X-Vski-Version"]);
        }
        if self.path.ends_with("/changeset") {
            names.push("X-Vski-Frames");
        }
        names
    }

    fn answer_headers(&self, done: bool) -> Value {
        let mut names = vec!["X-Replica-Mode", "X-Replica-Id"];
        if self.role == Role::Replica {
            names.push("X-Master-Url");
        }
        if done && self.writes_data() {
            names.push("X-Vski-Position");
        }
        if self.tag == "replication" {
            names.push("X-Vski-Time");
        }
        if done && self.path.ends_with("/changeset") {
            names.extend(["X-Vski-Head", "X-Vski-Database-Id", "X-Vski-Schema-Hash"]);
        }
        names.iter().map(|name| ((*name).to_owned(), reference("headers", name))).collect()
    }

    fn refusals(&self, has_body: bool) -> Vec<u16> {
        let access = self.access();
        if self.tag == "documentation" || self.path == "/livez" {
            return Vec::new();
        }
        if self.tag == "health" {
            return vec![400, 500, 503];
        }
        let mut refusals = vec![400, 404, 500, 503];
        if !matches!(self.tag, "replication" | "operators" | "migrations") {
            refusals.push(408);
        }
        if access != Access::Open {
            refusals.extend([401, 403]);
        }
        if has_body {
            refusals.push(413);
        }
        if self.reads_data() {
            refusals.extend([304, 412]);
            if self.role == Role::Replica {
                refusals.push(307);
            }
        }
        if self.writes_data() || self.tag == "migrations" {
            refusals.extend([413, 507]);
        }
        let proves = self.tag == "records" && self.method == "patch";
        if self.is_login() || proves {
            refusals.push(429);
        }
        refusals
    }
}

impl Access {
    fn security(self) -> Value {
        match self {
            Self::Open => json!([]),
            Self::Anyone => json!([{}, { "token": [] }, { "apiKey": [] }]),
            Self::Admin => json!([{ "token": [] }, { "apiKey": [] }]),
            Self::Replica => json!([{ "replica": [] }]),
            Self::Operator => json!([{ "operator": [] }]),
        }
    }
}

/// What may be refused anywhere, in the envelope of all errors.
const REFUSALS: [(u16, &str); 14] = [
    (304, "The caller has this answer, by If-None-Match."),
    (307, "This replica has not got the position that was asked for: the master has."),
    (400, "The request is wrong: the text says what and how."),
    (401, "No valid token."),
    (403, "A valid caller who may not."),
    (404, "No such database, collection or record."),
    (408, "The request took too long: a write may have been stored all the same."),
    (412, "The position that was asked for is not in this node's history: read again without it."),
    (413, "The body, or what the request changes, is too large."),
    (422, "The database has tables that cannot be replicated."),
    (429, "Too many logins: Retry-After says how many seconds to wait."),
    (500, "The server could not do this: its log says why."),
    (503, "Overloaded, shutting down, not copied yet, or too far behind: try again after Retry-After seconds."),
    (507, "The data volume is full: nothing was stored."),
];

fn refusal(text: &str) -> Value {
    let names = ["X-Replica-Mode", "X-Replica-Id"];
    let headers: Map<_, _> = names.iter().map(|name| ((*name).to_owned(), reference("headers", name))).collect();
    let schema = reference("schemas", "Error");
    json!({ "description": text, "headers": headers, "content": { "application/json": { "schema": schema } } })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn security_schemes() -> Value {
    let bearer = |text| json!({ "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": text });
    json!({
        "token": bearer("An admin's or an auth record's token, from auth-with-password."),
        "apiKey": {
            "type": "apiKey", "in": "header", "name": "X-API-Key", "description": "A machine's key, made by an admin.",
        },
        "replica": bearer("A replica's token, signed with JWT_SECRET; for some routes an admin's will do."),
        "operator": bearer("A token that a command makes of JWT_SECRET on the node's machine."),
    })
}

fn parameters() -> Value {
    let parameter = |place: &str, name: &str, text: &str| {
        let value = json!({
            "name": name, "in": place, "required": false, "description": text, "schema": { "type": "string" },
        });
        (name.to_owned(), value)
    };
    let header = |name, text| parameter("header", name, text);
    let all = [
        parameter("query", "db", "The database; `default` unless this or X-DBName names another."),
        header("X-DBName", "The database, unless `db` names one."),
        header("X-Vski-Min-Position", "What the answer has to show at least: what X-Vski-Position said."),
        header("X-Replica-Id", "The calling node's id."),
        header("X-Replica-Public-Url", "Where clients reach the calling node."),
        header("X-Replica-Boot-Id", "A random id of the calling process."),
        header("X-Vski-Version", "The version of the calling program."),
        header("X-Vski-Frames", "`traced`: entries may end with the traces of their writes."),
    ];
    all.into_iter().collect()
}

fn headers() -> Value {
    let header =
        |name: &str, text: &str| (name.to_owned(), json!({ "description": text, "schema": { "type": "string" } }));
    let all = [
        header("X-Replica-Mode", "`master` or `replica`."),
        header("X-Replica-Id", "The id of the node that answers."),
        header("X-Master-Url", "The master's address."),
        header("X-Vski-Position", "Where the write stands: `<db>:<generation>-<epoch id>:<version>`."),
        header("X-Vski-Time", "The node's clock when it was asked and when it answered, ms since 1970."),
        header("X-Vski-Head", "The position of the log's head."),
        header("X-Vski-Database-Id", "The database's identity."),
        header("X-Vski-Schema-Hash", "The schema at the head."),
    ];
    all.into_iter().collect()
}
