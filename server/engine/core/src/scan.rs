//! Finds the first byte that stops a scan. Knows no grammar beyond "which byte stops me".
//!
//! Whole blocks without such a byte are passed over first: the compiler turns the question of one
//! block into a handful of vector instructions, which safe code cannot name itself.

#![allow(clippy::needless_bitwise_bool, reason = "a lazy operator may branch on each byte")]

/// Bytes passed over in one step.
const BLOCK: usize = 16;

/// First index at or after `from` whose byte stops the scan, else the length.
#[inline]
fn find(bytes: &[u8], from: usize, stops: impl Fn(u8) -> bool) -> usize {
    let mut at = from;
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk::<BLOCK>) {
        // No early exit: it would keep the loop from becoming vector instructions.
        if block.iter().fold(false, |any, &b| any | stops(b)) {
            break;
        }
        at += BLOCK;
    }
    while at < bytes.len() && !stops(bytes[at]) {
        at += 1;
    }
    at
}

/// First control character except TAB at or after `from`: in a valid head, the CR of a line.
#[inline]
pub fn control(bytes: &[u8], from: usize) -> usize {
    find(bytes, from, |b| ((b < b' ') & (b != b'\t')) | (b == 0x7f))
}

/// First `:` at or after `from`.
#[inline]
pub fn colon(bytes: &[u8], from: usize) -> usize {
    find(bytes, from, |b| b == b':')
}

/// First byte at or after `from` that ends a path or has a meaning in it: up to SP, `#`, `%`, `?`.
#[inline]
pub fn path_stop(bytes: &[u8], from: usize) -> usize {
    find(bytes, from, |b| (b <= b' ') | (b == b'#') | (b == b'%') | (b == b'?'))
}

/// First byte at or after `from` that ends a query: up to SP, or `#`.
#[inline]
pub fn query_stop(bytes: &[u8], from: usize) -> usize {
    find(bytes, from, |b| (b <= b' ') | (b == b'#'))
}
