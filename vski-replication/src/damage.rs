//! Bytes as a bad line may deliver them, for tests.

/// Every single flipped bit and every truncation of `intact`, with a name.
pub fn damaged(intact: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let flipped = (0..intact.len() * 8).map(|bit| {
        let mut bytes = intact.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        (format!("bit {bit}"), bytes)
    });
    flipped.chain((0..intact.len()).map(|length| (format!("cut at {length}"), intact[..length].to_vec())))
}
