//! Reads a request head: bytes → [`Head`], need more, or [`Reject`] (RFC 9112 §§2–3, 5–7).
//!
//! The caller keeps the bytes and calls [`parse`] again when there are more of them; each byte is
//! searched for a line end once, and each line is judged once, when its end has come. So the
//! verdict depends on the bytes alone, never on how they were cut into packets.
//!
//! Grammar is judged strictly: what two servers could read differently is refused.

#![allow(clippy::inline_always, reason = "one call per field line is a tenth of its cost")]

use crate::limits::{LEADING_EMPTY_LINES, Limits, METHOD_BYTES};
use crate::name::{self, NameId, is_reg_name_byte};
use crate::reject::Reject;
use crate::scan;

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

/// What the Connection fields wish, the stronger wish last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Connection {
    #[default]
    Unsaid,
    KeepAlive,
    Close,
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

/// What a Transfer-Encoding field asks for.
#[derive(Clone, Copy, Debug)]
enum TransferEncoding {
    Chunked,
    Refused(Reject),
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
        let mut fields = self.fields.iter();
        fields.find(|field| field.id == id).map(|field| field.value.of(buf))
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

/// A line that is being read.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    start: usize,
    /// No line end and no control character comes before this index.
    scanned: usize,
}

impl Line {
    #[inline(always)]
    fn at(start: usize) -> Self {
        Self { start, scanned: start }
    }
}

/// How far the CR of a line may be away, and what to say when it is further.
struct LineBound {
    line_bytes: usize,
    too_long: Reject,
    /// Index of the CR of a head's last line, at most.
    head_end: usize,
}

impl LineBound {
    fn new(limits: &Limits, line_bytes: usize, too_long: Reject) -> Self {
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
fn find_line_end(buf: &[u8], line: &mut Line, bound: &LineBound) -> Result<Option<usize>, Reject> {
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

/// `method SP target SP HTTP/x.y` (RFC 9112 §3), with exactly these two spaces.
fn read_request_line(buf: &[u8], start: usize, end: usize, head: &mut Head) -> Result<(), Reject> {
    let line = &buf[start..end];
    let method_len = line.iter().position(|&b| b == b' ').ok_or(Reject::RequestLine)?;
    let method = &line[..method_len];
    head.method = read_method(method)?;
    head.method_name = Span::new(start, start + method_len);

    let rest = &line[method_len + 1..];
    let (rest, version) = rest.split_last_chunk::<8>().ok_or(Reject::RequestLine)?;
    let target = rest.strip_suffix(b" ").ok_or(Reject::RequestLine)?;
    let target_start = start + method_len + 1;
    head.target = Span::new(target_start, target_start + target.len());
    head.minor = read_version(*version)?;
    read_target(buf, method, head)
}

fn read_method(method: &[u8]) -> Result<Method, Reject> {
    Ok(match method {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"PATCH" => Method::Patch,
        b"DELETE" => Method::Delete,
        b"OPTIONS" => Method::Options,
        _ if !name::is_token(method) => return Err(Reject::Method),
        b"CONNECT" => return Err(Reject::MethodNotImplemented),
        _ if method.len() > METHOD_BYTES => return Err(Reject::MethodNotImplemented),
        _ => Method::Other,
    })
}

fn read_version(version: [u8; 8]) -> Result<u8, Reject> {
    match &version {
        b"HTTP/1.1" => Ok(1),
        b"HTTP/1.0" => Ok(0),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            if *major == b'1' {
                Ok(1)
            } else {
                Err(Reject::VersionNotSupported)
            }
        }
        _ => Err(Reject::Version),
    }
}

/// Takes the target apart (RFC 9112 §3.2): origin form, absolute form, or `*` for OPTIONS.
fn read_target(buf: &[u8], method: &[u8], head: &mut Head) -> Result<(), Reject> {
    let (start, end) = (head.target.start as usize, head.target.end as usize);
    match head.target.of(buf) {
        [b'/', ..] => read_path(buf, start, end, head),
        b"*" if method == b"OPTIONS" => {
            head.path = head.target;
            head.query = Span::new(end, end);
            Ok(())
        }
        target => {
            let path_start = start + read_authority(target, start, head)?;
            read_path(buf, path_start, end, head)
        }
    }
}

/// Splits `[path]["?" query]`. Bytes above 0x7f pass, as curl and old clients send them raw.
fn read_path(buf: &[u8], start: usize, end: usize, head: &mut Head) -> Result<(), Reject> {
    let mut stop = scan::path_stop(buf, start);
    while buf.get(stop) == Some(&b'%') {
        head.is_path_encoded = true;
        if buf[stop..end].starts_with(b"%00") {
            return Err(Reject::PathNul);
        }
        stop = scan::path_stop(buf, stop + 1);
    }
    let path_end = stop.min(end);
    head.path = Span::new(start, path_end);
    head.query = Span::new(end, end);
    if stop < end && buf[stop] == b'?' {
        head.query = Span::new(stop + 1, end);
        stop = scan::query_stop(buf, stop + 1);
    }
    // Anything else that stopped the scan inside the target is a space, a TAB or a fragment.
    if stop < end { Err(Reject::Target) } else { Ok(()) }
}

/// `http://authority` of an absolute form; returns its length. No user information (RFC 9110 §4.2.4).
fn read_authority(target: &[u8], start: usize, head: &mut Head) -> Result<usize, Reject> {
    let is_scheme = |scheme: &[u8]| {
        target.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
    };
    let scheme_len = match () {
        () if is_scheme(b"http://") => 7,
        () if is_scheme(b"https://") => 8,
        () => return Err(Reject::Target),
    };
    let authority = &target[scheme_len..];
    let len = authority.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(authority.len());
    if !is_host(&authority[..len]) {
        return Err(Reject::Host);
    }
    let authority_start = start + scheme_len;
    head.progress.authority = Some(Span::new(authority_start, authority_start + len));
    Ok(scheme_len + len)
}

/// `name ":" OWS value OWS` (RFC 9112 §5), and what the server itself must know of it.
#[inline(always)]
fn read_field(
    buf: &[u8],
    start: usize,
    end: usize,
    seen: u64,
    head: &mut Head,
) -> Result<u64, Reject> {
    let colon = scan::colon(buf, start);
    if colon >= end {
        return Err(why_no_field(&buf[start..end]));
    }
    let id = NameId::within(buf, start, colon);
    let is_repeat = seen & bit(id) != 0;
    let value = trim(buf, colon + 1, end);
    if !id.is_ordinary() {
        if id == NameId::UNKNOWN {
            let name = &buf[start..colon];
            if !name::is_token(name) {
                return Err(why_no_field(name));
            }
            if name::has_underscore(name) {
                return Ok(seen);
            }
        }
        heed(value.of(buf), id, is_repeat, &mut head.progress)?;
    }
    head.fields.push(Field { id, is_repeat, name: Span::new(start, colon), value });
    // Unknown names share a bit that is never set: whoever needs to, looks for their repeats.
    Ok((seen | bit(id)) & !bit(NameId::UNKNOWN))
}

/// Names what is wrong with a line that has no colon, or a name that is no token.
#[cold]
fn why_no_field(part: &[u8]) -> Reject {
    match (part.first(), part.last()) {
        (Some(b' ' | b'\t'), _) => Reject::ObsFold,
        (_, Some(b' ' | b'\t')) => Reject::SpaceBeforeColon,
        _ => Reject::FieldName,
    }
}

/// The part without SP and TAB at both ends. A line has no other byte below SP.
#[inline(always)]
fn trim(buf: &[u8], start: usize, end: usize) -> Span {
    let start = start + usize::from(buf[start] == b' ');
    // Nearly always that was all: a visible byte at both ends.
    if start < end && buf[start] > b' ' && buf[end - 1] > b' ' {
        return Span::new(start, end);
    }
    trim_more(buf, start, end)
}

#[cold]
fn trim_more(buf: &[u8], mut start: usize, mut end: usize) -> Span {
    while start < end && buf[start] <= b' ' {
        start += 1;
    }
    while start < end && buf[end - 1] <= b' ' {
        end -= 1;
    }
    Span::new(start, end)
}

/// Notes what a field means for the server.
#[inline]
fn heed(value: &[u8], id: NameId, is_repeat: bool, progress: &mut Progress) -> Result<(), Reject> {
    match id {
        NameId::HOST if is_repeat => return Err(Reject::HostRepeated),
        NameId::HOST if !is_host(value) => return Err(Reject::Host),
        NameId::CONNECTION => heed_connection(value, progress),
        NameId::CONTENT_LENGTH if is_repeat => return Err(Reject::ContentLengthRepeated),
        NameId::CONTENT_LENGTH => progress.content_length = Some(read_length(value)?),
        NameId::CONTENT_TYPE if is_repeat => return Err(Reject::ContentTypeRepeated),
        NameId::TRANSFER_ENCODING if is_repeat => return Err(Reject::TransferEncoding),
        NameId::TRANSFER_ENCODING => {
            progress.transfer_encoding = Some(read_transfer_encoding(value));
        }
        NameId::EXPECT if value.eq_ignore_ascii_case(b"100-continue") => {
            progress.expects_continue = true;
        }
        NameId::EXPECT => return Err(Reject::Expectation),
        _ => {}
    }
    Ok(())
}

/// Splits a comma-separated list (RFC 9110 §5.6.1); empty elements are kept.
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii)
}

/// `close` beats `keep-alive`; other options name fields that are nothing to this server.
fn heed_connection(value: &[u8], progress: &mut Progress) {
    let wish = match connection_option(value) {
        Connection::Unsaid => elements(value).map(connection_option).max(),
        said => Some(said), // nearly always the only option
    };
    progress.connection = progress.connection.max(wish.unwrap_or_default());
}

#[inline]
fn connection_option(option: &[u8]) -> Connection {
    match option.len() {
        5 if option.eq_ignore_ascii_case(b"close") => Connection::Close,
        10 if option.eq_ignore_ascii_case(b"keep-alive") => Connection::KeepAlive,
        _ => Connection::Unsaid,
    }
}

/// `1*DIGIT`, at most 64 bits (RFC 9110 §8.6).
fn read_length(value: &[u8]) -> Result<u64, Reject> {
    if value.is_empty() {
        return Err(Reject::ContentLength);
    }
    value
        .iter()
        .try_fold(0_u64, |length, &b| {
            let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
            length.checked_mul(10)?.checked_add(digit)
        })
        .ok_or(Reject::ContentLength)
}

/// Only `chunked` alone can be decoded; of the rest, tells the malformed from the unknown.
///
/// Judged again in [`finish`], as it matters more that a Content-Length or HTTP/1.0 came with it.
fn read_transfer_encoding(value: &[u8]) -> TransferEncoding {
    if value.eq_ignore_ascii_case(b"chunked") {
        return TransferEncoding::Chunked;
    }
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let is_last_only = elements(value).last().is_some_and(|last| is_chunked(&last))
        && elements(value).filter(is_chunked).count() == 1;
    let is_list = elements(value).all(name::is_token);
    TransferEncoding::Refused(if is_last_only && is_list {
        Reject::TransferEncodingNotImplemented
    } else {
        Reject::TransferEncoding
    })
}

/// `uri-host [":" port]` (RFC 9110 §7.2), not empty: http and https URIs always have a host.
fn is_host(value: &[u8]) -> bool {
    let name_len = value.iter().position(|&b| !is_reg_name_byte(b)).unwrap_or(value.len());
    match &value[name_len..] {
        [] => name_len > 0,
        [b':', port @ ..] => name_len > 0 && is_port(port),
        [b'[', literal @ ..] => name_len == 0 && is_ip_literal(literal),
        _ => false,
    }
}

/// `*DIGIT`; more than five are no port.
fn is_port(port: &[u8]) -> bool {
    port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

/// `IPv6address "]" [ ":" port ]`. No address of a future version has ever been defined.
fn is_ip_literal(literal: &[u8]) -> bool {
    let Some(end) = literal.iter().position(|&b| b == b']') else {
        return false;
    };
    let is_address = std::str::from_utf8(&literal[..end])
        .is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    is_address
        && match &literal[end + 1..] {
            [] => true,
            [b':', port @ ..] => is_port(port),
            _ => false,
        }
}

/// Judges the head as a whole: what one field alone cannot tell.
fn finish(head: &mut Head) -> Result<(), Reject> {
    let progress = &mut head.progress;
    progress.phase = Phase::Done;
    head.framing = match (progress.transfer_encoding, progress.content_length) {
        (Some(_), Some(_)) => return Err(Reject::LengthAndEncoding),
        (Some(_), None) if head.minor == 0 => return Err(Reject::TransferEncodingVersion),
        (Some(TransferEncoding::Refused(reject)), None) => return Err(reject),
        (Some(TransferEncoding::Chunked), None) => Framing::Chunked,
        (None, Some(length)) => Framing::Length(length),
        (None, None) => Framing::None,
    };
    head.keep_alive = match progress.connection {
        Connection::Close => false,
        Connection::KeepAlive => true,
        Connection::Unsaid => head.minor == 1,
    };
    // In 1.0 nobody knows what 100 is; without a body there is nothing to wait for.
    head.expects_continue = progress.expects_continue
        && head.minor == 1
        && !matches!(head.framing, Framing::None | Framing::Length(0));
    settle_host(head)
}

/// Exactly one Host in HTTP/1.1; the target's authority takes its place (RFC 9112 §3.2).
fn settle_host(head: &mut Head) -> Result<(), Reject> {
    let is_given = head.progress.has_seen(NameId::HOST);
    if !is_given && head.minor == 1 {
        return Err(Reject::HostMissing);
    }
    let mut fields = head.fields.iter_mut();
    let field = if is_given { fields.find(|field| field.id == NameId::HOST) } else { None };
    match (field, head.progress.authority) {
        (Some(field), Some(authority)) => {
            field.value = authority;
            head.host = authority;
        }
        (Some(field), None) => head.host = field.value,
        (None, Some(authority)) => head.host = authority,
        (None, None) => {}
    }
    Ok(())
}

/// Decodes `%XX` of `path` into `out`, which is cleared first (RFC 3986 §2.1).
///
/// What is no escape stays as it is, as browsers send a lone `%` and every WSGI server passes it
/// on. Only needed when [`Head::is_path_encoded`]. An encoded NUL was refused by [`parse`].
pub fn decode_path(path: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut rest = path;
    while let Some(at) = rest.iter().position(|&b| b == b'%') {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let escape = match rest {
            [_, high, low, ..] => hex(*high).zip(hex(*low)),
            _ => None,
        };
        if let Some((high, low)) = escape {
            out.push(high << 4 | low);
            rest = &rest[3..];
        } else {
            out.push(b'%');
            rest = &rest[1..];
        }
    }
    out.extend_from_slice(rest);
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
