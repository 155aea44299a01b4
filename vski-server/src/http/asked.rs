//! A request as rules and filters see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts, Query};
use axum::http::request::Parts;

use super::error::ApiError;
use super::extract::Caller;
use crate::app::App;
use crate::filter::RequestInfo;

/// Who asks, how, and with which headers and parameters; the body comes later.
pub struct Asked(pub RequestInfo);

impl<S: Send + Sync> FromRequestParts<S> for Asked
where
    App: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let mut info = RequestInfo::new(caller.requester(), parts.method.clone());
        info.headers = Arc::new(parts.headers.clone());
        if parts.uri.query().is_some() {
            let query: Result<Query<Vec<(String, String)>>, _> = Query::try_from_uri(&parts.uri);
            info.query = Arc::new(query.map(|Query(pairs)| BTreeMap::from_iter(pairs)).unwrap_or_default());
        }
        Ok(Self(info))
    }
}
