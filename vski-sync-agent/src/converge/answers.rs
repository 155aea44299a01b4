//! What the master answers about ranges and rows, taken apart and checked against the hashes that were found right
//! before: nothing of it goes on unless all of it is what was promised.

use vski_replication::ranges::{
    Hex, Listed, RangesHasher, RangesPage, RowError, RowHash, TableDigest, frames, row_hash,
};

use crate::error::AgentError;
use crate::source::SourceError;

/// A table's ranges, page by page. Only the last page shows whether all of them are what the overview promised: until
/// then they wait, and nothing else is done with them.
#[derive(Default)]
pub(crate) struct Ranges {
    hasher: RangesHasher,
    /// How many there were so far.
    count: usize,
    /// Where the last one ends; `None` before the first and after the table's last.
    end: Option<Hex>,
    complete: bool,
}

impl Ranges {
    /// The number of the next range to ask for.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Whether the table's last range was among them.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The ranges of the next page, each with its number and where it begins.
    pub(crate) fn add(&mut self, page: RangesPage) -> Result<Vec<Listed>, AgentError> {
        let last = page.ranges.iter().position(|range| range.end.is_none());
        let is_last = last.is_some_and(|last| last + 1 == page.ranges.len());
        if self.complete || page.ranges.is_empty() || last.is_some() != is_last {
            return Err(malformed_ranges("they do not tile the table"));
        }
        self.complete = is_last;
        let mut found = Vec::with_capacity(page.ranges.len());
        for range in page.ranges {
            self.hasher.add(&range);
            let start = std::mem::replace(&mut self.end, range.end.clone());
            found.push(Listed { at: self.count, start, range });
            self.count += 1;
        }
        Ok(found)
    }

    /// Whether all that were added are all that the overview promised.
    pub(crate) fn check(&self, table: &TableDigest) -> Result<(), AgentError> {
        if self.complete && self.hasher.finish(&table.name) == *table {
            return Ok(());
        }
        Err(malformed_ranges("they are not those that the overview promised"))
    }
}

/// The rows' hashes of neighbouring ranges, a list for each, as the ranges promised them.
pub(super) fn row_hashes(body: &[u8], run: &[Listed]) -> Result<Vec<Vec<RowHash>>, AgentError> {
    let lists = frames(body).map_err(malformed)?;
    if lists.len() != run.len() {
        return Err(malformed("it has another number of ranges than asked for"));
    }
    run.iter()
        .zip(lists)
        .map(|(listed, list)| listed.range.row_hashes(list))
        .collect::<Result<_, RowError>>()
        .map_err(malformed)
}

/// The first of the rows that were asked for, at least one, as their hashes promised them: an answer may end early.
pub(super) fn rows<'a>(body: &'a [u8], wanted: &[RowHash]) -> Result<Vec<&'a [u8]>, AgentError> {
    let rows = frames(body).map_err(malformed)?;
    let right = !rows.is_empty()
        && rows.len() <= wanted.len()
        && rows.iter().zip(wanted).all(|(row, hash)| row_hash(row) == *hash);
    if right { Ok(rows) } else { Err(malformed("its rows are not those that were asked for")) }
}

fn malformed_ranges(reason: &str) -> AgentError {
    SourceError::Malformed { call: "snapshot ranges", reason: reason.to_owned() }.into()
}

fn malformed(reason: impl std::fmt::Display) -> AgentError {
    SourceError::Malformed { call: "snapshot rows", reason: reason.to_string() }.into()
}

#[cfg(test)]
mod tests {
    use vski_replication::damage::damaged;
    use vski_replication::ranges::{Range, frame};

    use super::*;

    /// The rows of three ranges.
    const TABLE: [&[&[u8]]; 3] = [&[b"one", b"", b"three"], &[], &[b"four"]];

    /// The ranges, and the body with the hashes of their rows.
    fn ranges() -> (Vec<Range>, Vec<u8>) {
        let (mut ranges, mut body) = (Vec::new(), Vec::new());
        for (at, rows) in TABLE.iter().enumerate() {
            let list: Vec<u8> = rows.iter().flat_map(|row| row_hash(row)).collect();
            let hash = Hex(blake3::hash(&list).as_bytes().to_vec());
            ranges.push(Range { end: (at < 2).then(|| Hex(vec![at as u8])), rows: rows.len() as u64, hash });
            frame(&list, &mut body);
        }
        (ranges, body)
    }

    /// The ranges in pages of two and one.
    fn pages() -> [RangesPage; 2] {
        let (mut ranges, _) = ranges();
        let last = ranges.split_off(2);
        [RangesPage { ranges }, RangesPage { ranges: last }]
    }

    fn digest() -> TableDigest {
        let mut hasher = RangesHasher::default();
        ranges().0.iter().for_each(|range| hasher.add(range));
        hasher.finish("t")
    }

    /// All ranges, if they are what the digest promised.
    fn read(pages: impl IntoIterator<Item = RangesPage>, digest: &TableDigest) -> Result<Vec<Listed>, AgentError> {
        let (mut ranges, mut listed) = (Ranges::default(), Vec::new());
        for page in pages {
            listed.extend(ranges.add(page)?);
        }
        ranges.check(digest).map(|()| listed)
    }

    fn listed() -> Vec<Listed> {
        read(pages(), &digest()).unwrap()
    }

    #[test]
    fn ranges_are_numbered_across_pages_and_each_begins_where_the_one_before_ends() {
        let found = listed();
        assert_eq!(found.iter().map(|listed| listed.at).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(found[0].start, None);
        assert!(found.windows(2).all(|pair| pair[1].start == pair[0].range.end));
        assert_eq!(found.into_iter().map(|listed| listed.range).collect::<Vec<_>>(), ranges().0);
    }

    #[test]
    fn pages_that_do_not_tile_the_table_are_refused() {
        let [first, last] = pages();
        let empty = RangesPage { ranges: Vec::new() };
        let reversed = RangesPage { ranges: first.ranges.iter().rev().cloned().collect() };
        let beyond = RangesPage { ranges: last.ranges.iter().chain(&first.ranges).cloned().collect() };
        for (what, pages) in [
            ("no last one", vec![first.clone()]),
            ("an empty page", vec![first.clone(), empty, last.clone()]),
            ("another order", vec![reversed, last.clone()]),
            ("one twice", vec![first.clone(), first.clone(), last.clone()]),
            ("some left out", vec![last.clone()]),
            ("more after the last", vec![beyond]),
            ("a page after the last", vec![first, last.clone(), last]),
        ] {
            assert!(read(pages, &digest()).is_err(), "{what}");
        }
        let more = TableDigest { rows: 5, ..digest() };
        assert!(read(pages(), &more).is_err(), "another number of rows");
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_of_pages_of_ranges_is_refused_or_means_the_same() {
        let (intact, digest) = (pages(), digest());
        for at in 0..2 {
            for (what, json) in damaged(&serde_json::to_vec(&intact[at]).unwrap()) {
                // A flip may make a hex digit a capital one.
                let Ok(page) = serde_json::from_slice(&json) else { continue };
                let mut pages = intact.clone();
                pages[at] = page;
                assert!(read(pages.clone(), &digest).is_err() || pages == intact, "page {at}: {what}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_of_an_answer_with_hashes_is_refused() {
        let (run, (_, body)) = (listed(), ranges());
        let lists = row_hashes(&body, &run).unwrap();
        assert_eq!(lists.iter().map(Vec::len).collect::<Vec<_>>(), [3, 0, 1]);
        for (what, body) in damaged(&body) {
            assert!(row_hashes(&body, &run).is_err(), "{what}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_of_an_answer_with_rows_is_refused_or_leaves_whole_rows() {
        let (wanted, mut body): (Vec<_>, _) = (TABLE[0].iter().map(|row| row_hash(row)).collect(), vec![]);
        TABLE[0].iter().for_each(|row| frame(row, &mut body));
        assert_eq!(rows(&body, &wanted).unwrap(), TABLE[0]);
        // An answer may end after any row.
        let ends = [7, 11];
        for (what, damaged) in damaged(&body) {
            match rows(&damaged, &wanted) {
                Ok(first) => {
                    assert!(ends.contains(&damaged.len()), "{what}");
                    assert!(!first.is_empty() && TABLE[0].starts_with(&first), "{what}");
                }
                Err(_) => assert!(!ends.contains(&damaged.len()), "{what}"),
            }
        }
    }

    #[test]
    fn more_rows_than_were_asked_for_are_refused() {
        let (wanted, mut body) = ([row_hash(b"one")], Vec::new());
        frame(b"one", &mut body);
        assert!(rows(&body, &wanted).is_ok());
        frame(b"two", &mut body);
        assert!(rows(&body, &wanted).is_err());
        assert!(rows(&[], &wanted).is_err(), "none");
    }
}
