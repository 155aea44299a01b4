//! `healthcheck`: asks the server, or, in a container whose process is the agent, the agent.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use clap::Args;
use vski_sync_agent::healthcheck::{self, Probe, Unhealthy};

#[derive(Args)]
pub struct HealthcheckArgs {
    #[command(flatten)]
    probe: Probe,
    /// Address on which the server listens
    #[arg(long, env = "HOST", default_value = "0.0.0.0")]
    host: IpAddr,
    /// Port on which the server listens
    #[arg(long, env = "PORT", default_value_t = 3001)]
    port: u16,
    /// Address on which the agent listens: it is asked if the server does not answer
    #[arg(long, env = "AGENT_ADDR")]
    agent_addr: Option<String>,
}

pub fn execute(args: &HealthcheckArgs) -> ExitCode {
    let agent = args.agent_addr.as_deref().filter(|address| !address.is_empty());
    let asked = args.probe.ask(&SocketAddr::new(args.host, args.port).to_string());
    healthcheck::report(match (asked, agent) {
        (Err(Unhealthy::Silent { .. }), Some(agent)) => args.probe.ask(agent),
        (asked, _) => asked,
    })
}
