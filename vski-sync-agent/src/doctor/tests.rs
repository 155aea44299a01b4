use std::path::Path;

use vski_replication::files::{self, FileRow};
use vski_replication::position::DatabaseId;
use vski_replication::{changelog, connection};

use super::*;

fn levels(findings: &[Finding]) -> Vec<Level> {
    findings.iter().map(|finding| finding.level).collect()
}

#[test]
fn a_secret_is_long_and_no_pattern() {
    for (secret, level) in [
        ("short", Level::Warning),
        ("abababababababababababababababababab", Level::Warning),
        ("0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978", Level::Ok),
    ] {
        assert_eq!(settings::strength(secret).level, level, "{secret}");
        assert!(!settings::strength(secret).what.contains(secret), "a secret is not told");
    }
}

#[test]
fn free_space_must_hold_the_largest_database_and_at_least_a_gibibyte() {
    for (free, largest, level) in [
        (2 << 30, 0, Level::Ok),
        (1 << 29, 0, Level::Warning),
        (0, 0, Level::Error),
        (2 << 30, 3 << 30, Level::Warning),
    ] {
        assert_eq!(directory::enough(free, largest).level, level, "{free} {largest}");
    }
}

#[test]
fn files_of_another_user_are_named() {
    let (one, two) = (Path::new("a.db"), Path::new("b.db"));
    assert_eq!(directory::strangers(7, &[(one, 7), (two, 7)]), None);
    let found = directory::strangers(7, &[(one, 7), (two, 0)]).unwrap();
    assert!(found.what.contains("b.db") && found.level == Level::Warning, "{found:?}");
}

#[test]
fn clocks_apart_are_a_warning_before_they_are_an_error() {
    let levels: Vec<Level> = [0, -4_000, 6_000, -61_000].map(|skew| master::skew(skew).level).into();
    assert_eq!(levels, [Level::Ok, Level::Ok, Level::Warning, Level::Error]);
}

#[test]
fn a_database_is_looked_at_and_left_as_it_was() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = DataDir::untouched(temporary.path());
    let writer = connection::writer(&dir.database("default")).unwrap();
    changelog::create(&writer, DatabaseId([1; 16])).unwrap();
    drop(writer);
    assert_eq!(levels(&databases::examine(&dir, Role::Master, true)), [Level::Ok]);
    let writer = connection::writer(&dir.database("default")).unwrap();
    writer.execute_batch("CREATE TABLE _vski_kept_t_9 (a); CREATE TABLE unsafe (a)").unwrap();
    drop(writer);
    let found = databases::examine(&dir, Role::Master, false);
    assert_eq!(levels(&found), [Level::Error, Level::Info], "{found:?}");
    assert!(found[0].what.contains("unsafe") && found[1].what.contains("_vski_kept_t_9"));
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 1);
}

#[test]
fn files_that_are_no_databases_of_ours_are_told() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = DataDir::untouched(temporary.path());
    for (file, content) in [("x y.db", ""), ("noise.db", "this is no database, whatever its name says")] {
        std::fs::write(temporary.path().join(file), content).unwrap();
    }
    connection::writer(&dir.database("other")).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    let found = databases::examine(&dir, Role::Master, false);
    assert_eq!(levels(&found), [Level::Warning, Level::Error, Level::Error], "{found:?}");
    assert_eq!(levels(&databases::examine(&dir, Role::Replica, false))[2], Level::Warning);
}

#[test]
fn a_directory_that_is_not_there_is_an_error_and_is_not_made() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join("data");
    let found = directory::examine(&DataDir::untouched(&root), Role::Master);
    assert_eq!(levels(&found), [Level::Error]);
    assert!(!root.exists());
}

#[test]
fn each_finding_has_a_line_and_its_repair_another() {
    let text = report::table(&[Finding::ok("good"), Finding::warning("bad", "mend it")]);
    assert_eq!(text, "ok       good\nwarning  bad\n         -> mend it\n");
}

#[test]
fn uploaded_files_that_are_missing_or_damaged_are_told_with_a_remedy() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = DataDir::untouched(temporary.path());
    let writer = connection::writer(&dir.database("default")).unwrap();
    changelog::create(&writer, DatabaseId([1; 16])).unwrap();
    files::TABLES.iter().for_each(|sql| writer.execute_batch(sql).unwrap());
    let text = |text: &str| text.to_owned();
    for name in ["one.txt", "two.txt"] {
        let blake3 = blake3::hash(b"abc").to_hex().to_string();
        let (collection, record, field) = (text("c"), text("r"), text("f"));
        let row = FileRow { name: text(name), collection, record, field, size: 3, blake3 };
        files::insert(&writer, &row, "").unwrap();
    }
    drop(writer);
    let last = |role, deep| databases::examine(&dir, role, deep).pop().unwrap();
    std::fs::create_dir_all(dir.files("default")).unwrap();
    std::fs::write(dir.file("default", "one.txt").unwrap(), "abX").unwrap();
    let found = last(Role::Master, false);
    assert_eq!(found.level, Level::Error);
    assert!(found.what.contains("of 2 uploaded files 1 are missing and 0 damaged: two.txt (missing)"), "{found:?}");
    assert!(found.repair.unwrap().contains("storage/default"));
    assert_eq!(last(Role::Replica, false).level, Level::Warning);
    std::fs::write(dir.file("default", "two.txt").unwrap(), "abc").unwrap();
    assert_eq!(last(Role::Replica, false).level, Level::Ok, "only the bytes are others");
    let found = last(Role::Replica, true);
    assert!(found.level == Level::Error && found.what.contains("one.txt (other bytes"), "{found:?}");
    assert!(found.repair.unwrap().contains("verify --repair"));
}
