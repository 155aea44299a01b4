//! The sync agent as a process of its own. Everything is in the library: see `vski_sync_agent::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    vski_sync_agent::cli::main()
}
