//! Runs the pods of rendered manifests over Docker, as a kubelet on one node would.
//!
//! A pod is a pause container, which holds network, IPC and names, and its containers in it: volumes with fsGroup,
//! variables from ConfigMaps, Secrets and fields, securityContext, limits, init containers in order, native sidecars
//! (wait for their startup, stop last), the three probes, restarts with backoff, preStop pauses. StatefulSets scale,
//! update and keep claims.
//!
//! A field that is not emulated is an error, as is an unknown one. Knowingly ignored, because there is one node and no
//! API: affinity, topology spread, service accounts, the size of a claim. Services are names that lead to all pods that
//! they select, **ready or not**; NetworkPolicies, budgets and autoscalers do nothing here.

/// What a pod's specification may say.
mod spec;

/// The variables of a container.
mod environment;

/// Volumes and what is in them.
mod volumes;

/// What `docker run` is told for a container.
mod arguments;

/// Probes of a container.
mod probes;

/// A container that is kept running.
mod keeper;

/// A pod from its first container to its last.
mod pod;

/// StatefulSets, claims and what an operator does to them.
mod namespace;

pub use environment::secret;
pub use namespace::Namespace;
pub use pod::{Event, What};

/// How namespaces mark what they make.
pub const SCOPE: crate::docker::Scope = crate::docker::Scope { label: "dev.vski.e2e.pods", word: "pods" };

/// Fails for a StatefulSet that says anything that is not emulated.
pub fn check(set: &serde_json::Value) -> anyhow::Result<()> {
    spec::SetSpec::parse(set).map(drop)
}
