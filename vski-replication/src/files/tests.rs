use std::collections::HashSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn directory() -> (tempfile::TempDir, DataDir) {
    let temporary = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temporary.path()).unwrap();
    (temporary, dir)
}

fn database() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    TABLES.iter().for_each(|sql| conn.execute_batch(sql).unwrap());
    conn
}

fn row(name: &str) -> FileRow {
    let text = |text: &str| text.to_owned();
    FileRow {
        name: text(name),
        collection: text("c"),
        record: text("r"),
        field: text("f"),
        size: 3,
        blake3: blake3::hash(b"abc").to_hex().to_string(),
    }
}

fn store(dir: &DataDir, name: &str, bytes: &[u8]) {
    let mut part = Part::open(dir, "default", name).unwrap();
    part.write(bytes).unwrap();
    part.install().unwrap();
}

#[test]
fn a_stored_name_keeps_what_can_be_read_of_the_clients() {
    for (original, base, extension) in [
        ("photo.JPG", "photo_", ".jpg"),
        ("C:\\Users\\me\\my photo (1).png", "my_photo_1_", ".png"),
        ("../../etc/passwd", "passwd_", ""),
        (".htaccess", "file_", ".htaccess"),
        ("été à Paris.tar.gz", "t_Paris_tar_", ".gz"),
        ("", "file_", ""),
        ("..", "file_", ""),
        ("a.not an extension", "a_not_an_extension_", ""),
    ] {
        let name = new_name(original, None);
        assert!(name.starts_with(base) && name.ends_with(extension), "{original:?} became {name:?}");
        assert_eq!(name.len(), base.len() + RANDOM_CHARS + extension.len(), "{original:?} became {name:?}");
        assert_ne!(new_name(original, None), name);
    }
    assert!(new_name("x", Some("pdf")).ends_with(".pdf"));
}

proptest! {
    #[test]
    fn whatever_a_client_calls_it_a_file_stays_in_its_directory(original in ".*", extension in ".{0,20}") {
        let name = new_name(&original, Some(&extension));
        prop_assert!(is_file_name(&name), "{:?} became {:?}", original, name);
    }
}

#[test]
fn names_that_could_leave_the_directory_are_none() {
    for name in ["", ".", "..", "a/b", "a\\b", ".part-a", "a\0", "ä", "a b", &"a".repeat(MAX_NAME + 1)] {
        assert!(!is_file_name(name), "{name:?}");
    }
}

#[test]
fn a_part_goes_on_where_an_earlier_attempt_ended() {
    let (_keep, dir) = directory();
    let mut part = Part::open(&dir, "default", "a_1.txt").unwrap();
    part.write(b"ab").unwrap();
    drop(part);
    let mut part = Part::open(&dir, "default", "a_1.txt").unwrap();
    assert_eq!(part.size(), 2);
    part.write(b"c").unwrap();
    assert_eq!(part.hash(), row("a_1.txt").blake3);
    assert!(!dir.has_file("default", &row("a_1.txt")));
    part.install().unwrap();
    assert!(dir.has_file("default", &row("a_1.txt")));
    assert_eq!(std::fs::read_dir(dir.files("default")).unwrap().count(), 1);
}

#[test]
fn rows_are_found_by_name_number_and_record() {
    let conn = database();
    for name in ["a", "b", "c"] {
        insert(&conn, &row(name), "now").unwrap();
    }
    assert_eq!(find(&conn, "b").unwrap(), Some(row("b")));
    assert_eq!(numbered(&conn, 2, 10).unwrap(), [(2, row("b")), (3, row("c"))]);
    assert_eq!(count_after(&conn, 1).unwrap(), 2);
    remove(&conn, "c", "another", "b").unwrap();
    assert!(find(&conn, "b").unwrap().is_some(), "another record's file");
    remove_all(&conn, "c", "r").unwrap();
    assert_eq!(find(&conn, "a").unwrap(), None);
    let older = Connection::open_in_memory().unwrap();
    assert_eq!(find(&older, "a").unwrap(), None);
    assert_eq!(numbered(&older, 0, 10).unwrap(), []);
}

#[test]
fn a_file_without_a_row_goes_after_the_grace_period_and_no_other() {
    let (_keep, dir) = directory();
    for name in ["named", "orphan", "under-way"] {
        store(&dir, name, b"abc");
    }
    drop(Part::open(&dir, "default", "left-behind").unwrap());
    std::fs::write(dir.files("default").join(".strange"), "not ours").unwrap();
    let (mut sweeper, start) = (Sweeper::default(), Instant::now());
    let mut look = |seconds, kept: &[&str]| {
        let needed = Needed { named: kept.iter().map(|&name| name.to_owned()).collect(), ..Needed::default() };
        let at = start + Duration::from_secs(seconds);
        sweeper.sweep::<FileError>(&dir, "default", Duration::from_secs(60), at, |_| Ok(needed)).unwrap()
    };
    assert_eq!(look(0, &["named", "under-way"]), 0);
    assert_eq!(look(59, &["named"]), 0);
    assert_eq!(look(61, &["named", "under-way"]), 2);
    assert_eq!(look(300, &["named"]), 0, "its time begins when its row is first missed");
    let mut left: Vec<_> =
        std::fs::read_dir(dir.files("default")).unwrap().map(|file| file.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".strange", "named", "under-way"]);
}

#[test]
fn files_that_are_missing_or_not_what_their_rows_say_are_counted_and_named() {
    let ((_temporary, dir), conn) = (directory(), database());
    for name in ["good", "gone", "short", "changed"] {
        insert(&conn, &row(name), "").unwrap();
    }
    for (name, bytes) in [("good", &b"abc"[..]), ("short", b"ab"), ("changed", b"abX"), ("nobodys", b"abc")] {
        store(&dir, name, bytes);
    }
    let shallow = Audit::run(&conn, &dir, "default", false, 9).unwrap();
    let mut first = vec![("gone".to_owned(), Flaw::Missing), ("short".to_owned(), Flaw::Size(2))];
    assert_eq!(shallow, Audit { files: 4, missing: 1, damaged: 1, first: first.clone() });
    let deep = Audit::run(&conn, &dir, "default", true, 9).unwrap();
    first.push(("changed".to_owned(), Flaw::Bytes));
    assert_eq!(deep, Audit { files: 4, missing: 1, damaged: 2, first });
    assert_eq!(deep.told(1), "gone (missing), ...");
    assert_eq!(Audit::run(&conn, &dir, "default", true, 1).unwrap().first.len(), 1);

    let kept = set_aside(&dir, "default", "changed").unwrap().unwrap();
    assert_eq!(std::fs::read(kept).unwrap(), b"abX");
    assert!(!dir.file("default", "changed").unwrap().exists());
    assert_eq!(set_aside(&dir, "default", "changed").unwrap(), None);
}

#[test]
fn many_files_are_compared_in_steps() {
    let ((_temporary, dir), conn) = (directory(), database());
    (0..2_500).for_each(|n| insert(&conn, &row(&format!("f{n}")), "").unwrap());
    let audit = Audit::run(&conn, &dir, "default", false, 3).unwrap();
    assert_eq!((audit.files, audit.missing, audit.first.len()), (2_500, 2_500, 3));
}

#[test]
fn a_part_that_does_not_grow_is_swept_though_a_row_names_it_unless_it_is_being_written() {
    let (_temporary, dir) = directory();
    for name in ["named", "upload"] {
        Part::open(&dir, "default", name).unwrap().write(b"a").unwrap();
    }
    let (mut sweeper, start) = (Sweeper::default(), Instant::now());
    let mut look = |seconds| {
        let set = |name: &str| HashSet::from([name.to_owned()]);
        let needed = Needed { named: set("named"), under_way: set("upload") };
        let at = start + Duration::from_secs(seconds);
        sweeper.sweep::<FileError>(&dir, "default", Duration::from_secs(60), at, |_| Ok(needed)).unwrap()
    };
    assert_eq!(look(0), 0);
    let mut part = Part::open(&dir, "default", "named").unwrap();
    part.write(b"b").unwrap();
    assert_eq!(look(61), 0, "it has grown");
    assert_eq!(look(122), 1);
    assert!(!dir.files("default").join(".part-named").exists() && dir.files("default").join(".part-upload").exists());
}

#[test]
fn a_changeset_that_does_not_name_the_table_changes_no_row_of_it() {
    let conn = Connection::open_in_memory().unwrap();
    let head = crate::changelog::create(&conn, crate::position::DatabaseId([1; 16])).unwrap();
    TABLES.iter().for_each(|sql| conn.execute_batch(sql).unwrap());
    conn.execute_batch("CREATE TABLE other (id TEXT PRIMARY KEY NOT NULL)").unwrap();
    let entry = |sql: &str| {
        let session = crate::session::Session::start(&conn).unwrap();
        conn.execute_batch(sql).unwrap();
        head.next(Kind::Changes, head.position.epoch, head.schema_hash, session.changeset().unwrap())
    };
    let row = "INSERT INTO _files VALUES ('a', 'c', 'r', 'f', 1, '', '')";
    assert!(!may_change(&entry("INSERT INTO other VALUES ('_files')")));
    assert!(may_change(&entry(row)));
    assert!(may_change(&entry("INSERT INTO other VALUES ('b'); DELETE FROM _files")));
    assert!(may_change(&head.next(Kind::Schema, head.position.epoch, head.schema_hash, Vec::new())));
}
