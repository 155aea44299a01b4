//! Who can do what: handlers that change something take the master, which a replica's router does not have.

use std::sync::Arc;

use axum::extract::FromRef;

use crate::app::App;
use crate::replication::compare::Compare;
use crate::replication::frames::SharedFrames;
use crate::replication::snapshot::Snapshots;
use crate::replication::turns::Turns;
use crate::store::master::Master;

/// The state of the routes that write.
#[derive(Clone)]
pub struct MasterState {
    /// What every route has.
    pub app: App,
    /// The databases, for writing.
    pub master: Arc<Master>,
}

/// The state of the routes that replicas ask, on a master and on a replica that others follow.
#[derive(Clone)]
pub struct SourceState {
    /// What every route has.
    pub app: App,
    /// Copies on offer.
    pub snapshots: Arc<Snapshots>,
    /// What is in those copies.
    pub compare: Arc<Compare>,
    /// What all long polls have in common.
    pub polls: Arc<Polls>,
}

/// What long polls share.
#[derive(Default)]
pub struct Polls {
    /// Entries that were encoded for one, for the others.
    pub frames: SharedFrames,
    /// When each of them is answered.
    pub turns: Turns,
}

impl SourceState {
    /// Offers these copies.
    pub fn new(app: &App, snapshots: Arc<Snapshots>) -> Self {
        let compare = Arc::new(Compare::new(&snapshots));
        Self { app: app.clone(), snapshots, compare, polls: Arc::default() }
    }
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

impl FromRef<SourceState> for App {
    fn from_ref(state: &SourceState) -> Self {
        state.app.clone()
    }
}

impl FromRef<SourceState> for Arc<Snapshots> {
    fn from_ref(state: &SourceState) -> Self {
        Arc::clone(&state.snapshots)
    }
}

impl FromRef<SourceState> for Arc<Compare> {
    fn from_ref(state: &SourceState) -> Self {
        Arc::clone(&state.compare)
    }
}

impl FromRef<SourceState> for Arc<Polls> {
    fn from_ref(state: &SourceState) -> Self {
        Arc::clone(&state.polls)
    }
}
