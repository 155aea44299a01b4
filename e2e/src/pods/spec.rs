//! Only what is emulated can be deserialized.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// `spec` of a pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSpec {
    pub containers: Vec<Container>,
    #[serde(default)]
    pub init_containers: Vec<Container>,
    #[serde(default)]
    pub volumes: Vec<Volume>,
    #[serde(default)]
    pub security_context: PodSecurity,
    #[serde(default = "thirty")]
    pub termination_grace_period_seconds: u64,
    /// Must be false: no token is mounted here.
    automount_service_account_token: bool,
    /// Must be false: no variables of Services are set here.
    enable_service_links: bool,
    /// There is no API to be known to.
    #[serde(rename = "serviceAccountName")]
    _service_account_name: Option<String>,
    /// There is one node.
    #[serde(rename = "topologySpreadConstraints")]
    _topology_spread_constraints: Option<Value>,
    /// There is one node.
    #[serde(rename = "affinity")]
    _affinity: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSecurity {
    #[serde(default)]
    pub run_as_non_root: bool,
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub fs_group: Option<u32>,
    /// `Always` does more of the same.
    #[serde(rename = "fsGroupChangePolicy")]
    _fs_group_change_policy: Option<String>,
    seccomp_profile: Option<SeccompProfile>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SeccompProfile {
    /// Must be RuntimeDefault, which is Docker's own.
    r#type: String,
}

/// One container of a pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Container {
    pub name: String,
    pub image: String,
    image_pull_policy: Option<String>,
    /// Of an init container: `Always` makes it a sidecar.
    pub restart_policy: Option<String>,
    pub command: Option<Vec<String>>,
    pub args: Option<Vec<String>>,
    #[serde(default)]
    pub env: Vec<Variable>,
    #[serde(default)]
    pub env_from: Vec<EnvironmentSource>,
    #[serde(default)]
    pub ports: Vec<Port>,
    pub startup_probe: Option<Probe>,
    pub liveness_probe: Option<Probe>,
    pub readiness_probe: Option<Probe>,
    pub lifecycle: Option<Lifecycle>,
    #[serde(default)]
    pub resources: Resources,
    #[serde(default)]
    pub security_context: Security,
    #[serde(default)]
    pub volume_mounts: Vec<Mount>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variable {
    pub name: String,
    pub value: Option<String>,
    pub value_from: Option<ValueSource>,
}

#[derive(Clone, Debug, Deserialize)]
pub enum ValueSource {
    #[serde(rename = "fieldRef")]
    Field(FieldRef),
    #[serde(rename = "configMapKeyRef")]
    ConfigMapKey(KeyRef),
    #[serde(rename = "secretKeyRef")]
    SecretKey(KeyRef),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldRef {
    pub field_path: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRef {
    pub name: String,
    pub key: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum EnvironmentSource {
    ConfigMapRef(NameRef),
    SecretRef(NameRef),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameRef {
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    pub name: Option<String>,
    pub container_port: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    pub http_get: Option<HttpGet>,
    pub exec: Option<Exec>,
    #[serde(default)]
    pub initial_delay_seconds: u64,
    #[serde(default = "ten")]
    pub period_seconds: u64,
    #[serde(default = "one")]
    pub timeout_seconds: u64,
    #[serde(default = "three")]
    pub failure_threshold: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpGet {
    pub path: String,
    pub port: Value,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    pub command: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lifecycle {
    pub pre_stop: PreStop,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreStop {
    pub sleep: Sleep,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sleep {
    pub seconds: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    #[serde(default)]
    pub requests: BTreeMap<String, String>,
    #[serde(default)]
    pub limits: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Security {
    pub allow_privilege_escalation: Option<bool>,
    #[serde(default)]
    pub read_only_root_filesystem: bool,
    #[serde(default)]
    pub capabilities: Capabilities,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    #[serde(default)]
    pub drop: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    pub name: String,
    pub mount_path: String,
    #[serde(default)]
    pub read_only: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    pub name: String,
    pub persistent_volume_claim: Option<Claim>,
    pub secret: Option<SecretVolume>,
    pub config_map: Option<ConfigMapVolume>,
    pub empty_dir: Option<EmptyDir>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Claim {
    pub claim_name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretVolume {
    pub secret_name: String,
    pub default_mode: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMapVolume {
    pub name: String,
    pub default_mode: Option<u32>,
}

/// Without a size: nobody is evicted here.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmptyDir {}

/// `spec` of a StatefulSet.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetSpec {
    /// Whoever scales the set says how many.
    #[serde(rename = "replicas")]
    _replicas: Option<u64>,
    pub service_name: String,
    pub template: Template,
    #[serde(default)]
    pub volume_claim_templates: Vec<ClaimTemplate>,
    #[serde(default)]
    pod_management_policy: ManagementPolicy,
    /// Our rules have compared it with the template.
    #[serde(rename = "selector")]
    _selector: Value,
    /// Claims are never removed here.
    #[serde(rename = "persistentVolumeClaimRetentionPolicy")]
    _retention: Option<RetentionPolicy>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
enum ManagementPolicy {
    #[default]
    OrderedReady,
    Parallel,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RetentionPolicy {
    when_deleted: String,
    when_scaled: String,
}

/// A pod's template, or the pod itself without its kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    pub metadata: Metadata,
    pub spec: PodSpec,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    pub name: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(rename = "namespace")]
    _namespace: Option<String>,
    #[serde(rename = "annotations")]
    _annotations: Option<Value>,
}

/// The size, class and mode of a claim are the provisioner's business.
#[derive(Clone, Debug, Deserialize)]
pub struct ClaimTemplate {
    pub metadata: Metadata,
}

impl SetSpec {
    /// Reads the `spec` of a StatefulSet.
    pub fn parse(set: &Value) -> Result<Self> {
        let spec: Self = serde_json::from_value(set["spec"].clone()).context("a StatefulSet that is not emulated")?;
        if let Some(policy) = &spec._retention {
            let kept = policy.when_deleted == "Retain" && policy.when_scaled == "Retain";
            ensure!(kept, "claims that are deleted are not emulated");
        }
        spec.template.spec.check()?;
        Ok(spec)
    }

    /// Whether pods start one after another.
    pub fn is_ordered(&self) -> bool {
        self.pod_management_policy == ManagementPolicy::OrderedReady
    }
}

impl PodSpec {
    /// Refuses values that are not emulated.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.automount_service_account_token, "automountServiceAccountToken is not emulated");
        ensure!(!self.enable_service_links, "enableServiceLinks is not emulated");
        let seccomp = self.security_context.seccomp_profile.as_ref();
        ensure!(seccomp.is_none_or(|profile| profile.r#type == "RuntimeDefault"), "seccompProfile is not emulated");
        for container in self.init_containers.iter().chain(&self.containers) {
            let pull = container.image_pull_policy.as_deref();
            ensure!(matches!(pull, Some("IfNotPresent" | "Never")), "imagePullPolicy {pull:?} is not emulated");
            let probes = [&container.startup_probe, &container.liveness_probe, &container.readiness_probe];
            for probe in probes.into_iter().flatten() {
                ensure!(probe.http_get.is_some() != probe.exec.is_some(), "a probe needs one handler that is emulated");
            }
        }
        let policy = |container: &Container| container.restart_policy.clone();
        ensure!(self.containers.iter().all(|container| policy(container).is_none()), "restartPolicy of a container");
        let sidecars = self.init_containers.iter().filter_map(policy);
        ensure!(sidecars.into_iter().all(|policy| policy == "Always"), "restartPolicy of an init container");
        Ok(())
    }

    /// Ports of all containers.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        let containers = self.init_containers.iter().chain(&self.containers);
        containers.flat_map(|container| container.ports.iter().map(|port| port.container_port))
    }
}

impl Container {
    /// An init container that goes on running.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }

    /// The number of a port that is given by number or name.
    pub fn port(&self, port: &Value) -> Result<u16> {
        let named = self.ports.iter().find(|known| known.name.is_some() && known.name.as_deref() == port.as_str());
        let number = port.as_u64().and_then(|number| u16::try_from(number).ok());
        named.map(|known| known.container_port).or(number).with_context(|| format!("{} has no port {port}", self.name))
    }
}

fn thirty() -> u64 {
    30
}

fn ten() -> u64 {
    10
}

fn one() -> u64 {
    1
}

fn three() -> u32 {
    3
}
