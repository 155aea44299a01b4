//! Which master may be followed: a pure comparison of both positions, made before anything it sends is applied.
//!
//! What is left after this check (the master lacks the local head, or the entries after it) only the master's log can
//! tell; it answers 409 or 410.

use vski_replication::position::{DatabaseId, Position};

/// Why this master's history is not followed. The local copy keeps being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another database under the same name: never merged.
    #[error("the master's database is {master}, this copy is of {local}")]
    ForeignMaster {
        /// The copy's database.
        local: DatabaseId,
        /// The master's database.
        master: DatabaseId,
    },
    /// An old master came back after another one was promoted.
    #[error("the master is in generation {master}, this copy already follows generation {local}")]
    StaleMaster {
        /// The copy's generation.
        local: u64,
        /// The master's generation.
        master: u64,
    },
    /// Two nodes opened the same generation on their own.
    #[error("the master's epoch is {master}, this copy follows {local}: two masters took writes")]
    SplitBrain {
        /// The copy's epoch.
        local: vski_replication::position::Epoch,
        /// The master's epoch.
        master: vski_replication::position::Epoch,
    },
}

/// Compares the local copy (identity, position) with the master (identity, head).
pub(crate) fn check(local: (DatabaseId, Position), master: (DatabaseId, Position)) -> Result<(), Refusal> {
    let ((local_id, position), (master_id, head)) = (local, master);
    let (ours, theirs) = (position.epoch, head.epoch);
    if local_id != master_id {
        return Err(Refusal::ForeignMaster { local: local_id, master: master_id });
    }
    if theirs.generation < ours.generation {
        return Err(Refusal::StaleMaster { local: ours.generation, master: theirs.generation });
    }
    if theirs.generation == ours.generation && theirs.id != ours.id {
        return Err(Refusal::SplitBrain { local: ours, master: theirs });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vski_replication::position::{Chain, Epoch, EpochId};

    const US: DatabaseId = DatabaseId([1; 16]);

    fn at(generation: u64, epoch: u8, version: u64) -> Position {
        Position { epoch: Epoch { generation, id: EpochId([epoch; 8]) }, version, chain: Chain([version as u8; 32]) }
    }

    #[test]
    fn the_same_epoch_may_be_followed_ahead_behind_or_equal() {
        for version in [0, 5, 9] {
            assert_eq!(check((US, at(2, 7, 5)), (US, at(2, 7, version))), Ok(()));
        }
    }

    #[test]
    fn a_higher_generation_supersedes_a_lower_one() {
        assert_eq!(check((US, at(1, 7, 5)), (US, at(2, 8, 6))), Ok(()));
    }

    #[test]
    fn another_database_is_foreign_whatever_its_position() {
        let refusal = check((US, at(1, 7, 5)), (DatabaseId([2; 16]), at(1, 7, 5)));
        assert!(matches!(refusal, Err(Refusal::ForeignMaster { .. })));
    }

    #[test]
    fn a_lower_generation_is_stale_even_when_its_log_is_longer() {
        let refusal = check((US, at(2, 8, 5)), (US, at(1, 7, 50)));
        assert_eq!(refusal, Err(Refusal::StaleMaster { local: 2, master: 1 }));
    }

    #[test]
    fn the_same_generation_under_another_id_is_a_split_brain() {
        assert!(matches!(check((US, at(2, 8, 5)), (US, at(2, 9, 5))), Err(Refusal::SplitBrain { .. })));
    }
}
