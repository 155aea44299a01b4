//! A node dies, and at once another container has its address: how long a load balancer asks that.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::client::records;
use e2e::docker::docker;
use e2e::eventually;

use super::balancer::Balanced;
use super::project::READY;
use e2e::reads::NODES;

/// Reads in a row that have to be a node's before the load balancer counts as rid of the stranger.
const IN_A_ROW: usize = 100;

/// How long after a node's death its address may be asked: 5 s, as README.md says, since Docker's names are asked for each
/// second, and what a busy machine adds.
const ASKED: Duration = Duration::from_secs(5 + 15);

/// The stranger answers everything with 200. HAProxy lets nobody's answer through; Nginx and Traefik only look at the
/// status, and stop asking as soon as Docker's name server has told them.
pub fn scenario(balanced: &Balanced) -> Result<()> {
    let project = &balanced.project;
    let old = project.address("r001")?;
    project.kill("r001")?;
    let died = Instant::now();
    let stranger =
        eventually("its address is free", READY, || project.stranger("stranger", &["--ip", &old], &[]).map(Some))?;
    let to_r001 = balanced.of("r001")?;
    let (mut fine, mut strange, mut failed, mut last) = (0, 0, 0, Duration::ZERO);
    eventually("only nodes are asked", READY, || {
        while fine < IN_A_ROW {
            let client = if fine % 2 == 0 { &to_r001 } else { &balanced.admin };
            let asked = died.elapsed();
            let reply = client.get(&records("posts"))?;
            match reply.header("x-replica-id") {
                Some(node) if reply.status == 200 => {
                    ensure!(NODES.contains(&node) && node != "r001", "{reply:?}");
                    fine += 1;
                }
                _ => {
                    *if reply.body.starts_with("stranger") { &mut strange } else { &mut failed } += 1;
                    (fine, last) = (0, asked);
                }
            }
        }
        Ok(true)
    })?;
    println!("      {strange} answers of a stranger, {failed} failed, the last {last:?} after the death");
    ensure!(balanced.service != "haproxy" || strange == 0, "a stranger's answer came through HAProxy");
    ensure!(last <= ASKED, "the address was asked {last:?} after its node's death");
    docker(&["rm", "--force", stranger.trim()]).context("remove the stranger")?;
    project.compose(&["start", "r001"])?;
    balanced.caught_up()
}
