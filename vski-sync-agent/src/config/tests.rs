use clap::Parser;
use vski_replication::token::Claims;

use super::*;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    sync: SyncArgs,
}

/// Flags alone: the variables of whoever runs the tests must not matter.
fn flags(flags: &[&str]) -> Flags {
    use clap::{CommandFactory, FromArgMatches};
    let command = Flags::command().mut_args(|arg| arg.env(None::<&'static str>));
    Flags::from_arg_matches(
        &command.try_get_matches_from(std::iter::once("test").chain(flags.iter().copied())).unwrap(),
    )
    .unwrap()
}

fn node(list: &[&str]) -> Result<NodeConfig, String> {
    flags(list).node.resolve().map_err(|error| error.to_string())
}

fn sync(list: &[&str]) -> Result<SyncConfig, String> {
    flags(list).sync.resolve().map_err(|error| error.to_string())
}

#[test]
fn a_missing_or_empty_secret_is_refused_with_what_to_do() {
    for list in [&[][..], &["--jwt-secret", ""], &["--jwt-secret", " "]] {
        let error = node(list).unwrap_err();
        assert!(error.starts_with("JWT_SECRET is not set: set it") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn the_previous_secret_may_be_a_file_that_is_there_during_a_rotation_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwt-secret-previous");
    let list = ["--jwt-secret", "new", "--jwt-secret-previous-file", path.to_str().unwrap()];
    let accepts = |secret: &str| {
        let token = Secrets::new(secret, None).mint(&Claims::replica("r1", 60));
        node(&list).unwrap().secrets.verify(&token).is_ok()
    };
    assert!(accepts("new") && !accepts("old"), "without the file");
    std::fs::write(&path, "\n").unwrap();
    assert!(accepts("new") && !accepts("old"), "with an empty one");
    std::fs::write(&path, "old\n").unwrap();
    assert!(accepts("new") && accepts("old"), "during a rotation");
    let error = node(&["--jwt-secret-file", path.with_extension("none").to_str().unwrap()]).map(drop).unwrap_err();
    assert!(error.contains("JWT_SECRET_FILE"), "{error}");
}

#[test]
fn a_secret_is_read_from_its_file_without_the_last_newline_and_the_plain_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, "from the file\n").unwrap();
    let file = path.to_str().unwrap();
    let token = |secret: &str| Secrets::new(secret, None).mint(&Claims::operator());
    let from_file = node(&["--jwt-secret-file", file]).unwrap();
    assert!(from_file.secrets.verify(&token("from the file")).is_ok() && from_file.secret_is_short);
    let plain = node(&["--jwt-secret-file", file, "--jwt-secret", "plain"]).unwrap();
    assert!(plain.secrets.verify(&token("plain")).is_ok());
    assert!(plain.secrets.verify(&token("from the file")).is_err());
    let both = node(&["--jwt-secret", "plain", "--jwt-secret-previous-file", file]).unwrap();
    assert!(both.secrets.verify(&token("from the file")).is_ok());
}

#[test]
fn an_unreadable_or_empty_secret_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    let error = node(&["--jwt-secret-file", path.to_str().unwrap()]).unwrap_err();
    assert!(error.contains("JWT_SECRET_FILE") && error.contains("secret"), "{error}");
    std::fs::write(&path, "\n").unwrap();
    let error = node(&["--jwt-secret-file", path.to_str().unwrap()]).unwrap_err();
    assert!(error.contains("is empty"), "{error}");
}

#[test]
fn a_bad_node_id_is_refused_with_the_rule() {
    for id in ["a b", "é", &"x".repeat(64)] {
        let error = node(&["--jwt-secret", "s", "--replica-id", id]).unwrap_err();
        assert!(error.contains("REPLICA_ID") && error.contains("1 to 63"), "{error}");
    }
    assert_eq!(node(&["--jwt-secret", "s", "--replica-id", ""]).unwrap().replica_id, None);
}

#[test]
fn a_master_address_is_http_or_https_and_loses_slash_and_user_info() {
    assert!(sync(&[]).unwrap_err().contains("MASTER_URL is not set"));
    for bad in ["master:3001", "ftp://master", "not a url", "http://m/?x=1", "http://user:hunter2@"] {
        let error = sync(&["--master-url", bad]).unwrap_err();
        assert!(error.starts_with("MASTER_URL") && !error.contains("hunter2"), "{error}");
    }
    let config = sync(&["--master-url", "https://user:hunter2@master:3001/base/"]).unwrap();
    assert_eq!(config.master_url, "https://master:3001/base");
}

#[test]
fn the_schedule_follows_mode_and_interval() {
    let schedule = |list: &[&str]| sync(&[&["--master-url", "http://m"], list].concat()).map(|sync| sync.schedule);
    assert_eq!(schedule(&[]), Ok(Schedule::Every(Duration::from_secs(60))));
    assert_eq!(schedule(&["--sync-interval", "0"]), Ok(Schedule::Manual));
    assert_eq!(schedule(&["--sync-mode", "stream"]), Ok(Schedule::Stream));
    assert!(schedule(&["--sync-mode", "stream", "--sync-interval", "0"]).unwrap_err().contains("contradict"));
}

#[test]
fn node_local_databases_are_always_omitted_and_default_never() {
    let omit = |list: &str| sync(&["--master-url", "http://m", "--replica-omit-dbs", list]).map(|sync| sync.omit);
    assert_eq!(omit("").unwrap(), ["stats", "workflows"].map(str::to_owned).into());
    assert_eq!(omit(" logs, stats,").unwrap(), ["logs", "stats", "workflows"].map(str::to_owned).into());
    assert!(omit("default").unwrap_err().contains("admins"));
    assert!(omit("a/b").unwrap_err().contains("no database name"));
}
