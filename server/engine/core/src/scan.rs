//! Finds the first byte that stops a scan. Knows no grammar beyond "which byte stops me".
//!
//! Whole blocks without such a byte are passed over first: the compiler turns the question of one
//! block into a handful of vector instructions, which safe code cannot name itself.

#![allow(clippy::inline_always, reason = "called, a block costs more than it takes to look at")]
#![allow(clippy::needless_bitwise_bool, reason = "a lazy operator may branch on each byte")]

/// Bytes looked at in one step.
const BLOCK: usize = 16;

/// First index at or after `from` whose byte stops the scan, else the length.
#[inline(always)]
fn find(bytes: &[u8], from: usize, stops: impl Fn(u8) -> bool) -> usize {
    let mut at = from;
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        if has_stop(block, &stops) {
            return at + first(mask(block, &stops));
        }
        at += BLOCK;
    }
    if let (true, Some(block)) = (at < bytes.len(), bytes.last_chunk()) {
        // The sixteen bytes that end the input; those before `at` are shifted out.
        let known = at + BLOCK - bytes.len();
        return bytes.len().min(at + first(mask(block, &stops) >> (8 * known)));
    }
    while at < bytes.len() && !stops(bytes[at]) {
        at += 1;
    }
    at
}

/// Whether any byte stops the scan. No early exit: it would keep this from being vector code.
#[inline(always)]
fn has_stop(block: &[u8; BLOCK], stops: impl Fn(u8) -> bool) -> bool {
    block.iter().fold(false, |any, &b| any | stops(b))
}

/// All ones at each byte that stops the scan; the first byte is the lowest.
#[inline(always)]
fn mask(block: &[u8; BLOCK], stops: impl Fn(u8) -> bool) -> u128 {
    u128::from_le_bytes(block.map(|b| if stops(b) { 0xff } else { 0 }))
}

/// Index of the lowest marked byte; [`BLOCK`] when there is none.
#[inline(always)]
fn first(mask: u128) -> usize {
    mask.trailing_zeros() as usize / 8
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

/// First byte at or after `from` that ends a path or has a meaning in it: up to SP, `#`, `%`, `?`, above ASCII.
#[inline]
pub fn path_stop(bytes: &[u8], from: usize) -> usize {
    find(bytes, from, |b| (b <= b' ') | (b >= 0x80) | (b == b'#') | (b == b'%') | (b == b'?'))
}

/// First byte at or after `from` that ends a query: up to SP, `#`, or above ASCII.
#[inline]
pub fn query_stop(bytes: &[u8], from: usize) -> usize {
    find(bytes, from, |b| (b <= b' ') | (b >= 0x80) | (b == b'#'))
}
