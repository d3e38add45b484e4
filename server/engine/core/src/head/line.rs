//! Finds the end of each line of a head, and judges a line that is too long or ends wrongly (RFC 9112 §2.2).
//!
//! Knows nothing of what a line says.

#![allow(clippy::inline_always, reason = "one call per field line is a tenth of its cost")]

use crate::limits::Limits;
use crate::reject::Reject;
use crate::scan;

use super::HEAD_BYTES_MAX;

/// A line that is being read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    pub(super) start: usize,
    /// No line end and no control character comes before this index.
    scanned: usize,
}

impl Line {
    #[inline(always)]
    pub(super) fn at(start: usize) -> Self {
        Self { start, scanned: start }
    }
}

/// How far the CR of a line may be away, and what to say when it is further.
pub(super) struct LineBound {
    line_bytes: usize,
    too_long: Reject,
    /// Index of the CR of a head's last line, at most.
    head_end: usize,
}

impl LineBound {
    pub(super) fn new(limits: &Limits, line_bytes: usize, too_long: Reject) -> Self {
        let head_end = limits.head_bytes.min(HEAD_BYTES_MAX).saturating_sub(2);
        Self { line_bytes: line_bytes.min(HEAD_BYTES_MAX), too_long, head_end }
    }

    /// What the line that begins here is, when it goes on behind both bounds.
    #[cold]
    fn reject(&self, line_start: usize) -> Reject {
        let is_line_first = line_start + self.line_bytes <= self.head_end;
        if is_line_first { self.too_long } else { Reject::HeadTooLarge }
    }
}

/// Returns the index of the CR that ends the current line, or `None` when it has not come yet.
///
/// Which error comes first is decided by position alone, so it does not matter how much of the
/// line was there at an earlier call.
#[inline(always)]
pub(super) fn find_line_end(
    buf: &[u8],
    line: &mut Line,
    bound: &LineBound,
) -> Result<Option<usize>, Reject> {
    let stop = scan::control(buf, line.scanned);
    if stop > bound.head_end || stop - line.start > bound.line_bytes {
        return Err(bound.reject(line.start));
    }
    if buf.get(stop..stop + 2) == Some(b"\r\n") {
        return Ok(Some(stop));
    }
    line.scanned = stop;
    why_no_end(&buf[stop..]).map_or(Ok(None), Err)
}

/// What is wrong where a line should end; nothing, when its end has not come.
#[cold]
fn why_no_end(rest: &[u8]) -> Option<Reject> {
    match rest {
        [] | [b'\r'] => None,
        [b'\r', ..] => Some(Reject::BareCr),
        [b'\n', ..] => Some(Reject::BareLf),
        _ => Some(Reject::ControlCharacter),
    }
}
