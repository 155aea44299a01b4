//! `vski-server`: see `vski-server --help`.

fn main() -> std::process::ExitCode {
    vski_server::cli::main()
}
