//! Two logs compared by a position: whether a peer has a prefix of this log, and whether this log has a client's write.

use rusqlite::{Connection, params};

use super::rows::{signed, unsigned};
use super::{LogError, base, head, position_at};
use crate::position::{Epoch, Position};

/// What a node's log says to a peer that stands at some position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The peer stands at this log's head.
    AtHead,
    /// This log has the peer's position and entries after it.
    Behind,
    /// This log has another history there, or none. Both agree no later than `common`.
    Diverged {
        /// The last position both may share; what they share beyond it is nothing.
        common: Position,
    },
    /// The entries after the peer's position are gone: the log begins at `base`.
    BelowBase {
        /// Position before the first stored entry.
        base: Position,
    },
}

/// Compares a peer's position with this log.
pub fn standing(conn: &Connection, peer: Position) -> Result<Standing, LogError> {
    standing_between(conn, peer, base(conn)?.position, head(conn)?.position)
}

/// The same, where this log's base and head were read before, in the same transaction.
pub fn standing_between(
    conn: &Connection,
    peer: Position,
    base: Position,
    head: Position,
) -> Result<Standing, LogError> {
    if peer == head {
        return Ok(Standing::AtHead);
    }
    if peer.version < base.version {
        return Ok(Standing::BelowBase { base });
    }
    if position_at(conn, peer.version)? == Some(peer) {
        return Ok(Standing::Behind);
    }
    Ok(Standing::Diverged { common: common(conn, base, peer)? })
}

/// Whether this log contains the entry that some node wrote as `version` of `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contains {
    /// It does.
    Yes,
    /// It may once the log is longer.
    NotYet,
    /// It never will, or cannot tell any more: another history, or an epoch that ended below the log's base.
    No,
}

/// Looks for an entry by the part of its position that a client keeps.
pub fn contains(conn: &Connection, epoch: Epoch, version: u64) -> Result<Contains, LogError> {
    let (head, base) = (head(conn)?.position, base(conn)?.position);
    if epoch.generation > head.epoch.generation || (epoch == head.epoch && version > head.version) {
        return Ok(Contains::NotYet);
    }
    // Below the base only its own epoch is known; above it, who wrote each version.
    let wrote = if version < base.version { Some(base.epoch) } else { position_at(conn, version)?.map(|at| at.epoch) };
    Ok(if wrote == Some(epoch) { Contains::Yes } else { Contains::No })
}

/// The last position of ours below the peer's that the peer's epoch, or an older one, wrote.
fn common(conn: &Connection, base: Position, peer: Position) -> Result<Position, LogError> {
    let mut statement = conn.prepare_cached(
        "SELECT max(version) FROM _vski_changelog
         WHERE version < ?1 AND ((generation = ?2 AND epoch = ?3) OR generation < ?2)",
    )?;
    let at = params![signed(peer.version), signed(peer.epoch.generation), peer.epoch.id.0];
    let version: Option<i64> = statement.query_row(at, |row| row.get(0))?;
    match version {
        Some(version) => Ok(position_at(conn, unsigned(version)?)?.unwrap_or(base)),
        None => Ok(base),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changelog::tests::log;
    use crate::changelog::{Cut, Head, append, prune};
    use crate::entry::Kind;
    use crate::position::{Chain, EpochId};

    #[test]
    fn a_peer_is_at_the_head_behind_or_diverged() {
        let (conn, positions) = log(5);
        assert_eq!(standing(&conn, positions[5]).unwrap(), Standing::AtHead);
        for position in &positions[..5] {
            assert_eq!(standing(&conn, *position).unwrap(), Standing::Behind);
        }
        let forked = Position { chain: Chain([9; 32]), ..positions[3] };
        assert_eq!(standing(&conn, forked).unwrap(), Standing::Diverged { common: positions[2] });
        let ahead = Position { version: 9, ..forked };
        assert_eq!(standing(&conn, ahead).unwrap(), Standing::Diverged { common: positions[5] });
        let other = Position { epoch: Epoch { generation: 1, id: EpochId([0; 8]) }, ..forked };
        assert_eq!(standing(&conn, other).unwrap(), Standing::Diverged { common: positions[0] });
    }

    #[test]
    fn a_peer_below_the_base_is_told_so() {
        let (conn, positions) = log(5);
        let base = positions[2];
        prune(&conn, Cut { before_ms: i64::MAX, excess_bytes: 0, up_to: 2 }).unwrap();
        assert_eq!(standing(&conn, positions[1]).unwrap(), Standing::BelowBase { base });
        assert_eq!(standing(&conn, base).unwrap(), Standing::Behind);
    }

    #[test]
    fn a_log_contains_what_its_lineage_wrote_and_nothing_of_another_branch() {
        let (conn, positions) = log(3);
        let first = positions[3].epoch;
        let second = Epoch { generation: 2, id: EpochId([2; 8]) };
        let other = Epoch { generation: 1, id: EpochId([3; 8]) };
        let mut head = head(&conn).unwrap();
        assert_eq!(contains(&conn, second, 4).unwrap(), Contains::NotYet, "a newer generation may still come");
        assert_eq!(contains(&conn, first, 4).unwrap(), Contains::NotYet);
        for kind in [Kind::Epoch, Kind::Changes] {
            let entry = head.next(kind, second, head.schema_hash, Vec::new());
            append(&conn, &entry).unwrap();
            head = Head::after(&entry);
        }
        assert_eq!(contains(&conn, first, 3).unwrap(), Contains::Yes);
        assert_eq!(contains(&conn, second, 5).unwrap(), Contains::Yes);
        assert_eq!(contains(&conn, second, 6).unwrap(), Contains::NotYet);
        assert_eq!(contains(&conn, first, 4).unwrap(), Contains::No, "the branch that was left at version 3");
        assert_eq!(contains(&conn, first, 9).unwrap(), Contains::No);
        assert_eq!(contains(&conn, other, 2).unwrap(), Contains::No);
        conn.execute_batch("DELETE FROM _vski_changelog WHERE version <= 2; UPDATE _vski_base SET version = 2")
            .unwrap();
        assert_eq!(contains(&conn, first, 1).unwrap(), Contains::Yes);
        assert_eq!(contains(&conn, other, 1).unwrap(), Contains::No);
    }
}
