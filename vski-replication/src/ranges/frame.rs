//! How rows, and keys or hashes of theirs, travel together: each behind its length.

use super::RowError;

/// Puts rows, or anything else with a length, one behind the other: length of 4 bytes, then the bytes.
pub fn frame(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(u32::try_from(bytes.len()).expect("a row is at most 2 GiB").to_be_bytes());
    out.extend(bytes);
}

/// The same for bytes that `write` appends, without a copy of them; nothing is added if it says `false`.
pub fn frame_with<E>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>) -> Result<bool, E> {
    let begin = out.len();
    out.extend([0; 4]);
    let written = write(out)?;
    if written {
        let length = u32::try_from(out.len() - begin - 4).expect("a row is at most 2 GiB");
        out[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
    } else {
        out.truncate(begin);
    }
    Ok(written)
}

/// The frames that [`frame`] has put together.
pub fn frames(mut input: &[u8]) -> Result<Vec<&[u8]>, RowError> {
    let mut found = Vec::new();
    while !input.is_empty() {
        let (length, rest) = input.split_first_chunk().ok_or(RowError)?;
        let (bytes, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or(RowError)?;
        found.push(bytes);
        input = rest;
    }
    Ok(found)
}
