//! What nodes tell of themselves, and whether it is true.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use e2e::client::Client;
use e2e::cluster::READY;
use e2e::eventually;
use serde_json::{Value, json};

use super::part::Part;

/// Lags are rounded, seconds.
pub const ROUNDING: f64 = 0.1;

/// The address of a container in the network between nodes, which this machine reaches.
pub fn address(part: &Part) -> Result<Ipv4Addr> {
    let format = "{{range $name, $found := .NetworkSettings.Networks}}{{$name}} {{$found.IPAddress}}\n{{end}}";
    let networks = part.fact(format)?;
    let inner = networks.lines().find_map(|line| line.split_once("-inner "));
    let (_, address) = inner.with_context(|| format!("{} is not on the inner network: {networks}", part.name()))?;
    address.parse().with_context(|| format!("{address} as an address"))
}

/// A client of an agent's own listener.
pub fn agent_client(agent: &Part) -> Result<Client> {
    Client::new(&format!("http://{}:9301", address(agent)?))
}

/// A number in `/metrics`; a series that nothing has touched yet is 0.
pub fn metric(client: &Client, series: &str) -> Result<f64> {
    let text = client.get("/metrics")?.ok()?.body;
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(Ok(0.0), |value| value.parse().with_context(|| format!("{series} {value}")))
}

/// Fails unless an agent has copied its only database once, over all restarts, and never had to converge.
pub fn assert_copied_once(agent: &Part) -> Result<()> {
    let lines = agent.lines();
    let times = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    for (text, wanted) in [("bootstrap finished", 1), ("the copy has converged", 0)] {
        ensure!(times(text) == wanted, "{} says {} times: {text}", agent.name(), times(text));
    }
    Ok(())
}

/// What a replica's `/readyz` says of the default database.
pub fn readiness(client: &Client) -> Result<Value> {
    let body = client.get("/readyz")?.ok()?.json()?;
    let found = body["dbs"].as_array().into_iter().flatten().find(|entry| entry["name"] == "default");
    found.cloned().with_context(|| format!("no default database in {body}"))
}

/// The lag that a replica's `/readyz` tells, seconds.
pub fn lag(client: &Client) -> Result<f64> {
    readiness(client)?["lagSeconds"].as_f64().context("no lag")
}

/// Waits until an agent has met an error of that name, by its metrics.
pub fn wait_for_error(agent: &Part, name: &str) -> Result<()> {
    let (client, series) = (agent_client(agent)?, error_series(name));
    eventually(&format!("{} meets {name}", agent.name()), READY, || Ok(metric(&client, &series)? > 0.0))
}

/// The metric that counts an error which is tried again.
pub fn error_series(name: &str) -> String {
    format!("vski_sync_errors_total{{db=\"default\",error=\"{name}\",state=\"retrying\"}}")
}

/// Writes records on the master, one after another, and reads each on the replica. Until one is there, the lag that the
/// replica states must say that it may lack what is as old as that record.
pub fn assert_lag_is_true(admin: &Client, replica: &Client, collection: &str, writes: usize) -> Result<()> {
    for n in 0..writes {
        let made = admin.create_record(collection, &json!({"n": n, "note": "x".repeat(1_000)}))?;
        let (written, id) = (Instant::now(), made["id"].as_str().context("a record without id")?);
        let mut lie = None;
        eventually(&format!("record {n} arrives"), READY, || {
            // Asked in this order: what is missing after the answer was missing when the lag was computed.
            let (age, stated) = (written.elapsed().as_secs_f64(), lag(replica)?);
            let arrived = replica.record(collection, id)?.is_some();
            lie = (!arrived && stated + ROUNDING < age).then_some((age, stated));
            Ok(arrived || lie.is_some())
        })?;
        if let Some((age, stated)) = lie {
            bail!("record {n} is missing after {age:.3} s, and the lag is said to be {stated:.3} s");
        }
    }
    Ok(())
}
