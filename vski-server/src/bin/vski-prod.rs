//! `vski-prod`: the server under the name that the quick start uses.

fn main() -> std::process::ExitCode {
    vski_server::cli::main()
}
