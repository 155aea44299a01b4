use vski_replication::changelog::Cut;
use vski_replication::entry::Kind;

use super::*;

fn log() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    changelog::create(&conn, DatabaseId([1; 16])).unwrap();
    conn
}

/// Adds entries with this much payload.
fn append(conn: &Connection, count: u64, bytes: usize) {
    for _ in 0..count {
        let head = changelog::head(conn).unwrap();
        let entry = head.next(Kind::Changes, head.position.epoch, head.schema_hash, vec![7; bytes]);
        changelog::append(conn, &entry).unwrap();
    }
}

fn prune(conn: &Connection, up_to: u64) {
    changelog::prune(conn, Cut { before_ms: i64::MAX, excess_bytes: 0, up_to }).unwrap();
}

fn asked(position: Position, zstd: bool) -> Asked {
    Asked { position, held_ms: None, form: Form { traced: false, zstd } }
}

/// What a poll without an end of its patience finds.
fn look(conn: &Connection, asked: Asked, polls: &Polls) -> Found {
    let quick = find(conn, asked, None, polls, true).unwrap();
    quick.unwrap_or_else(|| find(conn, asked, None, polls, false).unwrap().unwrap())
}

/// A replica that follows, and how many answers it got that were encoded for another.
struct Follower {
    asked: Asked,
    shared: u64,
}

impl Follower {
    fn poll(&mut self, conn: &Connection, polls: &Polls) {
        let found = look(conn, self.asked, polls);
        if found.standing == Standing::AtHead {
            return;
        }
        assert_eq!(found.standing, Standing::Behind);
        self.shared += u64::from(matches!(found.entries, Entries::Encoded(_)));
        let frames = self.asked.frames(found.entries, found.head.position, polls).unwrap();
        let Frames { bytes, zstd } = frames;
        let frames = if zstd { zstd::decode_all(&bytes[..]).unwrap() } else { bytes.to_vec() };
        let mut frames = frames.as_slice();
        while let Some(entry) = Entry::decode(&mut frames).unwrap() {
            assert_eq!(entry.version, self.asked.position.version + 1, "once, and in order");
            self.asked.position = entry.position();
        }
        assert_eq!(self.asked.position, found.head.position);
    }
}

#[test]
fn whoever_follows_gets_each_entry_once_whether_it_was_encoded_for_them_or_for_another() {
    let (conn, polls) = (log(), Polls::default());
    let start = changelog::head(&conn).unwrap().position;
    let mut all: Vec<_> = (0..60).map(|n| Follower { asked: asked(start, n % 2 == 0), shared: 0 }).collect();
    for round in 0..30 {
        append(&conn, round % 4, 100);
        // Each has its turn in another rhythm, so that they stand at several positions.
        let turns = (0_u64..).zip(&mut all).filter(|(n, _)| (n + round).is_multiple_of(1 + n % 5));
        turns.for_each(|(_, follower)| follower.poll(&conn, &polls));
    }
    let head = changelog::head(&conn).unwrap().position;
    for follower in &mut all {
        follower.poll(&conn, &polls);
        assert_eq!(follower.asked.position, head);
    }
    assert!(all.iter().map(|follower| follower.shared).sum::<u64>() > 300);
}

#[test]
fn entries_that_were_pruned_since_are_not_given_out_though_they_are_still_encoded() {
    let (conn, polls) = (log(), Polls::default());
    let asked = asked(changelog::head(&conn).unwrap().position, false);
    append(&conn, 3, 100);
    let found = look(&conn, asked, &polls);
    asked.frames(found.entries, found.head.position, &polls).unwrap();
    assert!(matches!(look(&conn, asked, &polls).entries, Entries::Encoded(_)));
    prune(&conn, 1);
    assert!(matches!(look(&conn, asked, &polls).standing, Standing::BelowBase { .. }));
}

#[test]
fn a_position_of_another_history_is_told_so_though_its_version_is_encoded() {
    let (conn, polls) = (log(), Polls::default());
    append(&conn, 1, 100);
    let asked = asked(changelog::head(&conn).unwrap().position, false);
    append(&conn, 1, 100);
    let found = look(&conn, asked, &polls);
    asked.frames(found.entries, found.head.position, &polls).unwrap();
    let other = Asked { position: Position { chain: Chain([9; 32]), ..asked.position }, ..asked };
    assert!(matches!(look(&conn, other, &polls).standing, Standing::Diverged { .. }));
}

#[test]
fn much_is_not_read_in_passing() {
    for (count, bytes, quick) in [
        (1, 100, true),
        (QUICK_ENTRIES, 100, true),
        (QUICK_ENTRIES + 1, 100, false),
        (1, usize::try_from(QUICK_BYTES).unwrap() + 1, false),
    ] {
        let (conn, polls) = (log(), Polls::default());
        let asked = asked(changelog::head(&conn).unwrap().position, false);
        append(&conn, count, bytes);
        assert_eq!(find(&conn, asked, None, &polls, true).unwrap().is_some(), quick, "{count} of {bytes}");
        assert_eq!(look(&conn, asked, &polls).standing, Standing::Behind);
    }
}
