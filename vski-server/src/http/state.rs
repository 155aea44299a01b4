//! Who can write: handlers that change something take the master, which a replica's router does not have.

use std::sync::Arc;

use axum::extract::FromRef;

use crate::app::App;
use crate::replication::compare::Compare;
use crate::replication::replicas::Replicas;
use crate::replication::snapshot::Snapshots;
use crate::store::master::Master;

/// The state of a master's routes.
#[derive(Clone)]
pub struct MasterState {
    /// What every route has.
    pub app: App,
    /// The databases, for writing.
    pub master: Arc<Master>,
    /// Copies on offer.
    pub snapshots: Arc<Snapshots>,
    /// What is in those copies.
    pub compare: Arc<Compare>,
    /// The replicas that were heard of.
    pub replicas: Arc<Replicas>,
}

impl FromRef<MasterState> for App {
    fn from_ref(state: &MasterState) -> Self {
        state.app.clone()
    }
}

impl FromRef<MasterState> for Arc<Master> {
    fn from_ref(state: &MasterState) -> Self {
        Arc::clone(&state.master)
    }
}

impl FromRef<MasterState> for Arc<Snapshots> {
    fn from_ref(state: &MasterState) -> Self {
        Arc::clone(&state.snapshots)
    }
}

impl FromRef<MasterState> for Arc<Replicas> {
    fn from_ref(state: &MasterState) -> Self {
        Arc::clone(&state.replicas)
    }
}

impl FromRef<MasterState> for Arc<Compare> {
    fn from_ref(state: &MasterState) -> Self {
        Arc::clone(&state.compare)
    }
}
