//! Reads a request head: bytes → [`Head`], need more, or [`Reject`] (RFC 9112 §§2–3, 5–7).
//!
//! The caller keeps the bytes and calls [`parse`] again when there are more of them; each byte is
//! searched for a line end once, and each line is judged once, when its end has come. So the
//! verdict depends on the bytes alone, never on how they were cut into packets.
//!
//! Grammar is judged strictly: what two servers could read differently is refused.

mod fields;
mod host;
mod line;
mod request_line;

use crate::limits::{LEADING_EMPTY_LINES, Limits};
use crate::name::NameId;
use crate::reject::Reject;

use fields::{Connection, TransferEncoding, finish, read_field};
use line::{Line, LineBound, find_line_end};
use request_line::read_request_line;

pub use request_line::decode_path;

/// A part of the buffer that was given to [`parse`], counted from its first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// Behind the last byte.
    pub end: u32,
}

/// Largest head whose offsets fit a [`Span`]; larger limits are taken as this.
const HEAD_BYTES_MAX: usize = 1 << 30;

impl Span {
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "below HEAD_BYTES_MAX")]
    fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// The bytes of this part; `buf` is the buffer that was parsed.
    #[inline]
    #[must_use]
    pub fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.start as usize..self.end as usize]
    }

    /// Length in bytes.
    #[inline]
    #[must_use]
    pub const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it has no bytes.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// One field line that the application may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Number of the name, when it is a known one.
    pub id: NameId,
    /// For known names: an earlier field of this head has the same name. For unknown names it is
    /// always false, the caller has to look.
    pub is_repeat: bool,
    /// The name as sent.
    pub name: Span,
    /// The value without white space around it.
    pub value: Span,
}

/// The methods that have cells of their own in the stats table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    #[default]
    Other,
}

/// How the length of the request body is known (RFC 9112 §6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    #[default]
    None,
    /// Content-Length, in bytes; may be 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// What [`parse`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The head is not complete; call again with the same bytes and more.
    Partial,
    /// The head is complete and ends before this index; a body, or the next request, follows.
    Done(usize),
}

/// A request head. Reusable: nothing is allocated once `fields` has grown.
///
/// Its content is valid after [`Parsed::Done`], together with the buffer that was parsed.
#[derive(Debug, Default)]
pub struct Head {
    /// The method, as far as it is counted.
    pub method: Method,
    /// The method as sent.
    pub method_name: Span,
    /// The target as sent.
    pub target: Span,
    /// The target's path, still encoded; `*` for `OPTIONS *`. Use [`Head::path`].
    pub path: Span,
    /// What follows the first `?` of the target.
    pub query: Span,
    /// The path has a `%`; see [`decode_path`].
    pub is_path_encoded: bool,
    /// 0 or 1, of HTTP/1.x; what claims to be above 1.1 is answered as 1.1 (RFC 9110 §2.5).
    pub minor: u8,
    /// How long the body is.
    pub framing: Framing,
    /// The client wants the connection kept after this request.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends its body.
    pub expects_continue: bool,
    /// `host[:port]` of the target's authority, else of Host; empty when an HTTP/1.0 request has none.
    pub host: Span,
    /// The field lines in order; without those whose name has an underscore. Host has the value of
    /// `host`.
    pub fields: Vec<Field>,
    /// The value of the last field `SCRIPT_NAME`, which is not among `fields`; empty without one. See
    /// [`crate::forwarded::script_name`].
    pub script_name: Span,
    progress: Progress,
}

/// How far [`parse`] came, to go on from there.
#[derive(Debug, Default)]
struct Progress {
    line: Line,
    leading_lines: usize,
    phase: Phase,
    /// Lines counted against the limit, dropped ones included.
    field_lines: usize,
    /// The known names so far, one bit each.
    seen: u64,
    content_length: Option<u64>,
    transfer_encoding: Option<TransferEncoding>,
    /// From the target's authority, which beats Host (RFC 9112 §3.2.2).
    authority: Option<Span>,
    connection: Connection,
    expects_continue: bool,
}

/// Which line comes next.
#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Nothing of the request has been looked at.
    #[default]
    Fresh,
    RequestLine,
    Fields,
    Done,
}

impl Progress {
    fn has_seen(&self, id: NameId) -> bool {
        self.seen & bit(id) != 0
    }
}

/// The bit of a known name in [`Progress::seen`].
#[inline]
fn bit(id: NameId) -> u64 {
    1 << id.index()
}

impl Head {
    /// An empty head with room for the fields of an ordinary request.
    #[must_use]
    pub fn new() -> Self {
        Self { fields: Vec::with_capacity(32), ..Self::default() }
    }

    /// Forgets everything but the memory. [`parse`] does it by itself after [`Parsed::Done`];
    /// needed when a half-read head is given up.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// Whether [`parse`] has looked at any byte of a request that is not complete.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        matches!(self.progress.phase, Phase::RequestLine | Phase::Fields)
    }

    /// The path as sent, never empty: `http://host` asks for `/`.
    #[inline]
    #[must_use]
    pub fn path<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        if self.path.is_empty() { b"/" } else { self.path.of(buf) }
    }

    /// The value of the first field of this known name.
    #[must_use]
    pub fn value<'a>(&self, buf: &'a [u8], id: NameId) -> Option<&'a [u8]> {
        // Most of what is asked for is not there.
        if self.progress.phase == Phase::Done && !self.progress.has_seen(id) {
            return None;
        }
        let mut fields = self.fields.iter();
        fields.find(|field| field.id == id).map(|field| field.value.of(buf))
    }
}

impl Head {
    /// The value of the only field of this known name; `None` when there are several.
    #[must_use]
    pub fn only_value<'a>(&self, buf: &'a [u8], id: NameId) -> Option<&'a [u8]> {
        let value = self.value(buf, id)?;
        let is_repeated = self.fields.iter().any(|field| field.id == id && field.is_repeat);
        (!is_repeated).then_some(value)
    }
}

/// Reads a request head from the beginning of `buf`.
///
/// To be called with the same `head` and a `buf` that has grown, until it is done. Offsets are
/// relative to the beginning of `buf`, which may move in memory between calls.
///
/// # Errors
/// The first [`Reject`] that the bytes call for. The head is then of no use.
pub fn parse(buf: &[u8], limits: &Limits, head: &mut Head) -> Result<Parsed, Reject> {
    if buf.is_empty() {
        return Ok(Parsed::Partial);
    }
    if head.progress.phase == Phase::Done {
        head.clear();
    }
    if head.progress.phase != Phase::Fields && !read_first_lines(buf, limits, head)? {
        return Ok(Parsed::Partial);
    }
    read_fields(buf, limits, head)
}

/// Reads up to the request line; false when it has not come yet.
fn read_first_lines(buf: &[u8], limits: &Limits, head: &mut Head) -> Result<bool, Reject> {
    head.progress.phase = Phase::RequestLine;
    let bound = LineBound::new(limits, limits.request_line, Reject::RequestLineTooLong);
    while let Some(end) = find_line_end(buf, &mut head.progress.line, &bound)? {
        let start = head.progress.line.start;
        head.progress.line = Line::at(end + 2);
        if start < end {
            head.progress.phase = Phase::Fields;
            read_request_line(buf, start, end, head)?;
            return Ok(true);
        }
        head.progress.leading_lines += 1;
        if head.progress.leading_lines > LEADING_EMPTY_LINES {
            return Err(Reject::LeadingLines);
        }
    }
    Ok(false)
}

/// Reads the field lines up to the empty line.
///
/// What changes with each line is copied here and back: kept in registers, it costs least.
fn read_fields(buf: &[u8], limits: &Limits, head: &mut Head) -> Result<Parsed, Reject> {
    let bound = LineBound::new(limits, limits.request_field_size, Reject::FieldTooLarge);
    let Progress { mut line, mut field_lines, mut seen, .. } = head.progress;
    while let Some(end) = find_line_end(buf, &mut line, &bound)? {
        if line.start == end {
            head.progress.seen = seen;
            finish(head)?;
            return Ok(Parsed::Done(end + 2));
        }
        field_lines += 1;
        if field_lines > limits.request_fields {
            return Err(Reject::TooManyFields);
        }
        seen = read_field(buf, line.start, end, seen, head)?;
        line = Line::at(end + 2);
    }
    (head.progress.line, head.progress.field_lines, head.progress.seen) = (line, field_lines, seen);
    Ok(Parsed::Partial)
}

/// The value of one hexadecimal digit.
#[inline]
pub(crate) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
