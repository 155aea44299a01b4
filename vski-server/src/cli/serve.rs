use std::process::ExitCode;

use vski_replication::connection;
use vski_sync_agent::telemetry;

use crate::config::ServeArgs;

/// Runs a node; whatever keeps it from starting is one line and exit code 2.
pub fn execute(args: &ServeArgs) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {}", message.replace('\n', " "));
            ExitCode::from(2)
        }
    }
}

fn run(args: &ServeArgs) -> Result<(), String> {
    let config = args.resolve()?;
    connection::check_version()?;
    let telemetry = telemetry::init("vski-server", config.node.log_format, config.node.otlp_endpoint.as_deref());
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("start the runtime: {error}"))?;
    let result = runtime.block_on(crate::serve::run(config));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    telemetry.shutdown();
    result
}
