//! A replica takes over. `POST /api/replica/handover`, for operators: this master takes no more writes; answered once all
//! that it has taken are in its log. `DELETE`: it takes them again. Reads and replication go on. A restart forgets it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use vski_replication::names::route;

use super::error::ApiError;
use super::extract::Caller;
use super::state::MasterState;
use crate::app::AdminToken;
use crate::store::master::Master;

/// The route of a master.
pub fn router() -> OpenApiRouter<MasterState> {
    OpenApiRouter::new().routes(routes!(hand_over, take_back))
}

/// Takes no more writes, because a replica takes over.
#[utoipa::path(post, path = route::HANDOVER, tag = "operators", responses((status = 204)))]
async fn hand_over(State(master): State<Arc<Master>>, caller: Caller) -> Result<StatusCode, ApiError> {
    require_operator(&caller)?;
    master.hand_over().await?;
    tracing::warn!("a replica takes over: no more writes are taken here until a restart");
    Ok(StatusCode::NO_CONTENT)
}

/// Takes writes again.
#[utoipa::path(delete, path = route::HANDOVER, tag = "operators", responses((status = 204)))]
async fn take_back(State(master): State<Arc<Master>>, caller: Caller) -> Result<StatusCode, ApiError> {
    require_operator(&caller)?;
    master.take_writes();
    tracing::warn!("the replica did not take over: writes are taken again");
    Ok(StatusCode::NO_CONTENT)
}

fn require_operator(caller: &Caller) -> Result<(), ApiError> {
    match caller.require_admin()? {
        AdminToken::Operator => Ok(()),
        AdminToken::Admin(_) | AdminToken::Key(_) => {
            Err(ApiError::forbidden("only commands may do this: send an operator's token"))
        }
    }
}
