//! What a read of data has to pass first: the replica is not too far behind (MAX_LAG_SECONDS), and it holds what the
//! caller has written or seen (`X-Vski-Min-Position`).

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use vski_replication::clock;

use super::around::{Around, Within};
use super::caching;
use super::error::ApiError;
use super::extract::DbName;
use super::position::{self, Wanted, WritePosition};
use crate::app::{App, Databases};
use crate::config::Fallback;
use crate::replication::arrival::{self, Arrival};

/// Lets a read through, or answers it.
pub async fn gate(State(app): State<App>, request: Request, next: Next) -> Response {
    match passed(&app, request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal,
    }
}

/// The same for a read that answers in JSON: its answer gets a tag.
#[derive(Clone)]
pub struct Tagged(pub App);

impl Around for Tagged {
    fn around<S: Within>(
        &self,
        request: Request,
        within: &mut S,
    ) -> impl Future<Output = Response> + Send + 'static + use<S> {
        let (app, mut within) = (self.0.clone(), within.take());
        async move {
            let request = match passed(&app, request).await {
                Ok(request) => request,
                Err(refusal) => return refusal,
            };
            match caching::known(&request) {
                Some(known) => caching::tag(&known, within.handle(request).await).await,
                None => within.handle(request).await,
            }
        }
    }
}

async fn passed(app: &App, request: Request) -> Result<Request, Response> {
    let (mut parts, body) = request.into_parts();
    check(app, &mut parts).await?;
    Ok(Request::from_parts(parts, body))
}

async fn check(app: &App, parts: &mut Parts) -> Result<(), Response> {
    let DbName(db) = DbName::from_request_parts(parts, &()).await.map_err(ApiError::into_response)?;
    let wanted = position::wanted(&parts.headers, &db).map_err(ApiError::into_response)?;
    check_lag(app, &db).map_err(ApiError::into_response)?;
    for Wanted { position, by_cookie } in &wanted {
        let arrival = arrival::wait(app, &position.db, position.epoch, position.version).await;
        match arrival.map_err(|error| ApiError::from(error).into_response())? {
            Arrival::Here => {}
            Arrival::Late => return Err(late(app, parts, position)),
            // A browser cannot read again without it.
            Arrival::Never if *by_cookie => {}
            Arrival::Never => return Err(foreign(position).into_response()),
            Arrival::Beyond { head } => return Err(beyond(position, head).into_response()),
        }
    }
    Ok(())
}

/// A database that was not copied yet is the handler's to refuse.
fn check_lag(app: &App, db: &str) -> Result<(), ApiError> {
    let (Databases::Replica(replica), Some(max)) = (&app.databases, app.freshness.max_lag()) else { return Ok(()) };
    let states = replica.states()?;
    let Some(state) = states.iter().find(|state| state.name == db && state.bootstrapped) else { return Ok(()) };
    let limit = format!("it serves reads only up to {} s behind: ask another node", max.as_secs());
    let message = match state.lag_seconds(clock::now_ms()) {
        Some(lag) if lag <= max.as_secs_f64() => return Ok(()),
        Some(lag) => format!("this replica of {db} may be {lag:.1} s behind its master, and {limit}"),
        None => format!("how far this replica of {db} is behind its master is not known, and {limit}"),
    };
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message))
}

/// The position did not come in time: the caller goes on to the master, or tries again.
fn late(app: &App, parts: &Parts, position: &WritePosition) -> Response {
    let master = app.identity.master_url.as_ref().filter(|_| app.freshness.min_position_fallback == Fallback::Redirect);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if let Some(location) = master.and_then(|master| HeaderValue::from_str(&format!("{master}{path}")).ok()) {
        return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response();
    }
    let wait = app.freshness.min_position_wait;
    let message = format!("{} did not reach version {} here within {wait:?}: try again", position.db, position.version);
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response()
}

fn beyond(position: &WritePosition, head: u64) -> ApiError {
    let message = format!(
        "{position} is beyond this master's head, version {head}: it may have been restored from an older copy, without \
         that write: read again without the position"
    );
    ApiError::new(StatusCode::PRECONDITION_FAILED, message)
}

fn foreign(position: &WritePosition) -> ApiError {
    let message = format!("{position} is not in the history of this node: read again without it");
    ApiError::new(StatusCode::PRECONDITION_FAILED, message)
}
