//! What the master answers about rows, taken apart and checked against the hashes that were found right before: nothing
//! of it goes on unless all of it is what was promised.

use vski_replication::ranges::{RowHash, TableRanges, frames, row_hash};

use crate::error::AgentError;
use crate::source::SourceError;

/// The rows' hashes in the ranges from `first` to `last`, a list for each, as `ranges` promised them.
pub(super) fn row_hashes(
    body: &[u8],
    ranges: &TableRanges,
    (first, last): (usize, usize),
) -> Result<Vec<Vec<RowHash>>, AgentError> {
    let lists = frames(body).map_err(malformed)?;
    if lists.len() != last - first + 1 {
        return Err(malformed("it has another number of ranges than asked for"));
    }
    let promised = &ranges.ranges[first..=last];
    promised.iter().zip(lists).map(|(range, list)| range.row_hashes(list).map_err(malformed)).collect()
}

/// The rows that were asked for by their places, as their hashes promised them.
pub(super) fn rows(body: &[u8], wanted: &[(usize, RowHash)]) -> Result<Vec<Vec<u8>>, AgentError> {
    let rows = frames(body).map_err(malformed)?;
    let right = rows.len() == wanted.len() && rows.iter().zip(wanted).all(|(row, (_, hash))| row_hash(row) == *hash);
    if !right {
        return Err(malformed("its rows are not those that were asked for"));
    }
    Ok(rows.into_iter().map(<[u8]>::to_vec).collect())
}

fn malformed(reason: impl std::fmt::Display) -> AgentError {
    SourceError::Malformed { call: "snapshot rows", reason: reason.to_string() }.into()
}

#[cfg(test)]
mod tests {
    use vski_replication::ranges::{Hex, Range, frame};

    use super::*;
    use crate::testing::damaged;

    /// The rows of three ranges.
    const TABLE: [&[&[u8]]; 3] = [&[b"one", b"", b"three"], &[], &[b"four"]];

    /// The ranges, and the body with the hashes of their rows.
    fn ranges() -> (TableRanges, Vec<u8>) {
        let (mut ranges, mut body) = (Vec::new(), Vec::new());
        for (at, rows) in TABLE.iter().enumerate() {
            let list: Vec<u8> = rows.iter().flat_map(|row| row_hash(row)).collect();
            let hash = Hex(blake3::hash(&list).as_bytes().to_vec());
            ranges.push(Range { end: (at < 2).then(|| Hex(vec![at as u8])), rows: rows.len() as u64, hash });
            frame(&list, &mut body);
        }
        (TableRanges { rows: 4, hash: Hex(Vec::new()), ranges }, body)
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_of_an_answer_with_hashes_is_refused() {
        let (ranges, body) = ranges();
        let lists = row_hashes(&body, &ranges, (0, 2)).unwrap();
        assert_eq!(lists.iter().map(Vec::len).collect::<Vec<_>>(), [3, 0, 1]);
        for (what, body) in damaged(&body) {
            assert!(row_hashes(&body, &ranges, (0, 2)).is_err(), "{what}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_of_an_answer_with_rows_is_refused() {
        let (wanted, mut body): (Vec<_>, _) = (TABLE[0].iter().map(|row| row_hash(row)).enumerate().collect(), vec![]);
        TABLE[0].iter().for_each(|row| frame(row, &mut body));
        assert_eq!(rows(&body, &wanted).unwrap(), TABLE[0]);
        for (what, body) in damaged(&body) {
            assert!(rows(&body, &wanted).is_err(), "{what}");
        }
    }
}
