//! Small changes to a seed, for the replay of a corpus.

/// Bytes of what a seed is changed to at most, as the search has it.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// One to four small changes, with parts of `other`; `below` gives a number below another.
pub(crate) fn changed(seed: &[u8], other: &[u8], mut below: impl FnMut(usize) -> usize) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=below(4) {
        let at = below(bytes.len() + 1);
        match below(6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << below(8),
            2 if at < bytes.len() => {
                bytes[at] = *b"\0\xff/\"{}[]:9= \n".get(below(14)).unwrap_or(&0x80)
            }
            3 if at < bytes.len() => drop(bytes.remove(at)),
            4 => bytes.insert(at, u8::try_from(below(256)).expect("a byte")),
            _ => {
                let from = below(other.len() + 1);
                let end = (from + below(600)).min(other.len());
                bytes.splice(at..at, other[from..end].iter().copied());
            }
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}
