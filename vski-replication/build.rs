//! Stops the build with a clear line where the bundled SQLite would lack its session extension.

fn main() {
    println!("cargo::rerun-if-env-changed=LIBSQLITE3_FLAGS");
    let flags = std::env::var("LIBSQLITE3_FLAGS").unwrap_or_default();
    for needed in ["-DSQLITE_ENABLE_SESSION", "-DSQLITE_ENABLE_PREUPDATE_HOOK"] {
        if !flags.split_whitespace().any(|flag| flag == needed) {
            println!(
                "cargo::error=LIBSQLITE3_FLAGS lacks {needed}: run cargo inside the VSKI workspace, \
                 whose .cargo/config.toml sets it, or export it and build libsqlite3-sys anew"
            );
        }
    }
}
