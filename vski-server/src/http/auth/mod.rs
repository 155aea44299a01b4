//! Logging in, and what it takes: admins, records of auth collections, API keys for machines.
//!
//! Absent, because they need a mail server or another site: one-time passwords, OAuth2, multi-factor login, verification
//! and changes of an address by mail, forgotten passwords. docs/API.md says so.

/// Who asks: by token or API key.
pub mod caller;

/// Admins: log in, list, make, change, remove.
pub mod admins;

/// Records of auth collections: log in, and tokens.
pub mod records;

/// API keys: make, list, revoke.
mod keys;

/// How often somebody may try.
pub mod limit;

use utoipa_axum::router::OpenApiRouter;

use super::state::MasterState;
use crate::app::App;

/// What every node answers: logins, and reads of admins and keys.
pub fn read_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(admins::read_router()).merge(records::read_router()).merge(keys::read_router())
}

/// What a master answers beside.
pub fn write_router() -> OpenApiRouter<MasterState> {
    OpenApiRouter::new().merge(admins::write_router()).merge(keys::write_router())
}
