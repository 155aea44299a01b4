//! Answers and bodies that handlers put together themselves, as the document tells them. Never made: what they say is
//! compared with a running server by the tests.
#![expect(dead_code, reason = "only their schemas are used")]

use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::replication::verdict::ReplicaRow;
use crate::store::auth::keys::{ApiKey, KeyKind};

/// What is wrong, and what to do.
#[derive(ToSchema)]
pub struct Error {
    /// One sentence.
    error: String,
    /// The status.
    code: u16,
    /// The status, too.
    status: u16,
    /// The same sentence.
    message: String,
    /// Details: per refused field `{code, message}`.
    #[schema(value_type = Object)]
    data: Map<String, Value>,
}

/// Bytes.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub struct Binary(Vec<u8>);

/// What became of one request of a batch.
#[derive(ToSchema)]
pub struct BatchAnswer {
    status: u16,
    /// The record; none where it was deleted.
    #[schema(value_type = Option<Object>)]
    body: Option<Map<String, Value>>,
}

/// A token that stands for the caller where files are asked for.
#[derive(ToSchema)]
pub struct FileToken {
    token: String,
}

/// A record: its fields by name, as its collection has them. `fields=` may leave out any of them.
#[derive(ToSchema)]
#[schema(value_type = Object)]
pub struct Record(Map<String, Value>);

/// Some of the records that were found.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct RecordPage {
    page: u64,
    per_page: u64,
    /// -1 where they were not counted.
    total_items: i64,
    /// -1 where they were not counted.
    total_pages: i64,
    items: Vec<Record>,
}

/// How many records were made.
#[derive(ToSchema)]
pub struct Imported {
    imported: u64,
}

/// A record that logged in. `fields=` may leave out any of it.
#[derive(ToSchema)]
pub struct RecordSession {
    #[schema(required = false)]
    token: String,
    #[schema(required = false)]
    record: Record,
}

/// How one logs in.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct AuthMethods {
    password: PasswordMethod,
    #[schema(value_type = Object)]
    oauth2: Value,
    #[schema(value_type = Object)]
    mfa: Value,
    #[schema(value_type = Object)]
    otp: Value,
    email_password: bool,
    username_password: bool,
    #[schema(value_type = Vec<Object>)]
    auth_providers: Vec<Value>,
}

/// With a password.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct PasswordMethod {
    enabled: bool,
    identity_fields: Vec<String>,
}

/// An admin. `fields=` may leave out any of it.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct AdminRecord {
    #[schema(required = false)]
    id: String,
    #[schema(required = false)]
    email: String,
    #[schema(required = false)]
    created: String,
    #[schema(required = false)]
    updated: String,
    #[schema(required = false)]
    collection_id: String,
    #[schema(required = false)]
    collection_name: String,
}

/// Some of the admins.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct AdminPage {
    page: u64,
    per_page: u64,
    total_items: u64,
    total_pages: u64,
    items: Vec<AdminRecord>,
}

/// An admin who logged in, under two names. `fields=` may leave out any of it.
#[derive(ToSchema)]
pub struct AdminSession {
    #[schema(required = false)]
    token: String,
    #[schema(required = false)]
    admin: AdminRecord,
    #[schema(required = false)]
    record: AdminRecord,
}

/// API keys, without their secrets.
#[derive(ToSchema)]
pub struct KeyList {
    items: Vec<ApiKey>,
}

/// A new API key.
#[derive(ToSchema)]
pub struct MadeKey {
    id: String,
    name: String,
    kind: KeyKind,
    expires: String,
    created: String,
    /// The key itself, told this once.
    key: String,
}

/// What kind of collection.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum CollectionType {
    /// Records.
    Base,
    /// Records that can log in.
    Auth,
    /// A SELECT.
    View,
}

/// What a field holds.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum FieldType {
    Text,
    Editor,
    Number,
    Bool,
    Email,
    Url,
    Date,
    Autodate,
    Select,
    Json,
    Relation,
    Password,
    File,
}

/// A field; the options of its type stand beside these.
#[derive(ToSchema)]
pub struct Field {
    id: String,
    name: String,
    r#type: FieldType,
    required: bool,
    hidden: bool,
    presentable: bool,
    system: bool,
}

/// A field that is wanted; the options of its type stand beside these.
#[derive(ToSchema)]
pub struct WantedField {
    /// Stays the same for as long as the field does.
    #[schema(required = false)]
    id: String,
    name: String,
    r#type: FieldType,
    #[schema(required = false)]
    required: bool,
    #[schema(required = false)]
    hidden: bool,
    #[schema(required = false)]
    presentable: bool,
}

/// A collection. Rules: null is admins only, "" everyone, else a filter. `fields=` may leave out any of it.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Collection {
    #[schema(required = false)]
    id: String,
    #[schema(required = false)]
    name: String,
    #[schema(required = false)]
    r#type: CollectionType,
    #[schema(required = false)]
    system: bool,
    #[schema(required = false)]
    fields: Vec<Field>,
    #[schema(required = false)]
    indexes: Vec<String>,
    list_rule: Option<String>,
    view_rule: Option<String>,
    create_rule: Option<String>,
    update_rule: Option<String>,
    delete_rule: Option<String>,
    /// Of a view: its SELECT.
    view_query: Option<String>,
    #[schema(required = false)]
    created: String,
    #[schema(required = false)]
    updated: String,
}

/// A collection that is wanted. Rules: null is admins only, "" everyone, else a filter.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct WantedCollection {
    #[schema(required = false)]
    id: String,
    #[schema(required = false)]
    name: String,
    #[schema(required = false)]
    r#type: CollectionType,
    #[schema(required = false)]
    fields: Vec<WantedField>,
    #[schema(required = false)]
    indexes: Vec<String>,
    list_rule: Option<String>,
    view_rule: Option<String>,
    create_rule: Option<String>,
    update_rule: Option<String>,
    delete_rule: Option<String>,
    /// Of a view: its SELECT.
    view_query: Option<String>,
}

/// Some of the collections.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CollectionPage {
    page: u64,
    per_page: u64,
    total_items: i64,
    total_pages: i64,
    items: Vec<Collection>,
}

/// Collections to make or change.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CollectionImport {
    collections: Vec<WantedCollection>,
    /// Whether those that are not mentioned are deleted.
    #[schema(required = false)]
    delete_missing: bool,
}

/// What a migration did.
#[derive(ToSchema)]
pub struct Migrated {
    db: String,
    /// The log's version before.
    before: u64,
    /// The log's version after.
    version: u64,
    /// What the log says of it.
    entry: MigrationEntry,
}

/// What the log says of a migration.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum MigrationEntry {
    Schema,
    Changes,
    Epoch,
    None,
}

/// Who answers.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Health {
    status: String,
    mode: String,
    id: String,
    public_url: Option<String>,
    version: String,
}

/// Whether this node is fit for traffic, and each database.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Readiness {
    /// `ready`, `not ready` or `lagging`.
    status: String,
    mode: String,
    id: String,
    #[schema(value_type = Vec<Object>)]
    dbs: Vec<Value>,
    /// On a replica: its clock against its master's.
    clock_skew_seconds: Option<f64>,
}

/// The schema of a database.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct SchemaSync {
    db: String,
    version: u64,
    schema_version: u64,
    hash: String,
    objects: Vec<SchemaObject>,
}

/// A table, index, trigger or view.
#[derive(ToSchema)]
pub struct SchemaObject {
    r#type: String,
    name: String,
    table: String,
    sql: String,
}

/// What to expect of a copy.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct SnapshotManifest {
    id: String,
    db: String,
    database_id: String,
    position: String,
    /// Bytes.
    size: u64,
    /// BLAKE3 of each MiB.
    chunks: Vec<String>,
    /// BLAKE3 of the whole.
    blake3: String,
    /// SHA-256 over everything above.
    sha256: String,
}

/// The overview of a snapshot, or ranges of one table.
#[derive(ToSchema)]
#[schema(value_type = Object)]
pub struct Ranges(Map<String, Value>);

/// The replicas that were heard of.
#[derive(ToSchema)]
pub struct ReplicaList {
    replicas: Vec<ReplicaRow>,
}

/// How a sync of all databases ended.
#[derive(ToSchema)]
pub struct SyncReport {
    #[schema(value_type = Vec<Object>)]
    dbs: Vec<Value>,
    #[schema(value_type = Object)]
    outcome: Value,
    #[schema(value_type = Vec<Object>, required = false)]
    verified: Vec<Value>,
}
