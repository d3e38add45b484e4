//! The grammar of a field value (RFC 9110 §5.5), for response fields and trailers.

/// TAB, SP, VCHAR or obs-text: what may stand in a field value (RFC 9110 §5.5).
#[inline]
#[allow(clippy::needless_bitwise_bool, reason = "branchless in is_field_value")]
pub(crate) fn is_field_byte(byte: u8) -> bool {
    (byte == b'\t') | ((byte >= b' ') & (byte != 0x7f))
}

/// Whether `value` may be a field value.
#[inline]
pub(crate) fn is_field_value(value: &[u8]) -> bool {
    match value.last_chunk::<16>() {
        // Some bytes are looked at twice; that is quicker than one by one.
        Some(last) => is_field_block(last) && value.as_chunks::<16>().0.iter().all(is_field_block),
        None => value.iter().all(|&b| is_field_byte(b)),
    }
}

/// As [`is_field_value`], for a length that makes it vector code; so without an early exit.
#[inline]
#[allow(clippy::needless_bitwise_bool, reason = "a lazy operator may branch on each byte")]
fn is_field_block(block: &[u8; 16]) -> bool {
    block.iter().fold(true, |all, &b| all & is_field_byte(b))
}
