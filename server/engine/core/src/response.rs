//! Writes a response: status, fields and body → bytes (RFC 9112 §§4–7, PEP 3333).
//!
//! [`ResponseHead`] builds the head while the application's status and fields are read; what it then
//! promises about the body is a [`BodyEncoder`], through which every body byte goes.

use crate::field_value::is_field_value;
use crate::name::is_token;

/// What of the request decides how its response looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// HTTP/1.0 knows no chunks.
    pub minor: u8,
    /// A response to HEAD has no body.
    pub is_head: bool,
    /// The connection is to be kept, as far as the request and the server are concerned.
    pub keep_alive: bool,
}

/// Why the application's response cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidResponse {
    /// Not three digits, and perhaps a space and a reason without control characters (PEP 3333).
    Status,
    /// 1xx, which is no answer, or below 100.
    StatusNotFinal,
    /// The name is no token.
    FieldName,
    /// The value has a control character.
    FieldValue,
    /// The field belongs to the connection, which is the server's (PEP 3333: hop-by-hop).
    HopByHop,
    /// Content-Length is not a number of bytes, or is given twice with different ones.
    ContentLength,
}

impl InvalidResponse {
    /// What is wrong and what is right, for the exception that the application sees.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Status => {
                "status must be three digits, a space and a reason without control characters, as in '200 OK'"
            }
            Self::StatusNotFinal => {
                "status must be from 200 to 999: an application cannot send interim responses"
            }
            Self::FieldName => "a header name must be a token: letters, digits and !#$%&'*+-.^_`|~",
            Self::FieldValue => {
                "a header value must not contain control characters such as CR, LF and NUL"
            }
            Self::HopByHop => {
                "hop-by-hop headers belong to the server (PEP 3333): leave this header out"
            }
            Self::ContentLength => "Content-Length must be one decimal number of bytes",
        }
    }
}

impl std::fmt::Display for InvalidResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for InvalidResponse {}

/// The fields that the server adds where the application gave none, composed once for all responses of one date.
#[derive(Clone, Debug, Default)]
pub struct OwnFields {
    /// The line of `Server`, then that of `Date`.
    lines: Vec<u8>,
    date_start: usize,
}

impl OwnFields {
    /// `Server`, unless it is empty, and `Date`, an [`http_date`](crate::date::http_date).
    #[must_use]
    pub fn new(server: &[u8], date: &[u8]) -> Self {
        let mut lines = Vec::new();
        if !server.is_empty() {
            write_field(&mut lines, b"Server", server);
        }
        let date_start = lines.len();
        write_field(&mut lines, b"Date", date);
        Self { lines, date_start }
    }

    /// Those that the application has not given.
    fn missing(&self, has_server: bool, has_date: bool) -> &[u8] {
        let start = if has_server { self.date_start } else { 0 };
        let end = if has_date { self.date_start } else { self.lines.len() };
        &self.lines[start..end]
    }
}

/// A response head in the making.
///
/// The bytes go to the end of a buffer that is given to every call, so that the caller may keep
/// the buffer for the life of a connection. After an error, or to replace a response that was not
/// sent (`exc_info`), truncate the buffer to where it began and start again.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    request: RequestInfo,
    status: u16,
    content_length: Option<u64>,
    has_date: bool,
    has_server: bool,
}

impl ResponseHead {
    /// Writes the status line.
    ///
    /// # Errors
    /// [`InvalidResponse::Status`], [`InvalidResponse::StatusNotFinal`].
    #[inline]
    pub fn start(
        out: &mut Vec<u8>,
        request: RequestInfo,
        status: &[u8],
    ) -> Result<Self, InvalidResponse> {
        let code = read_status(status)?;
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status);
        // The space before a reason stands even when there is none.
        out.extend_from_slice(if status.len() == 3 { b" \r\n" } else { b"\r\n" });
        Ok(Self { request, status: code, content_length: None, has_date: false, has_server: false })
    }

    /// Writes one field of the application.
    ///
    /// # Errors
    /// [`InvalidResponse::FieldName`], [`InvalidResponse::FieldValue`], [`InvalidResponse::HopByHop`],
    /// [`InvalidResponse::ContentLength`].
    #[inline]
    pub fn field(
        &mut self,
        out: &mut Vec<u8>,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), InvalidResponse> {
        if !is_token(name) {
            return Err(InvalidResponse::FieldName);
        }
        if !is_field_value(value) {
            return Err(InvalidResponse::FieldValue);
        }
        match name_role(name) {
            Role::Plain => {}
            Role::HopByHop => return Err(InvalidResponse::HopByHop),
            Role::ContentLength => {
                let length = read_length(value)?;
                if self.content_length.is_some_and(|given| given != length) {
                    return Err(InvalidResponse::ContentLength);
                }
                self.content_length = Some(length);
                return Ok(());
            }
            Role::Date => self.has_date = true,
            Role::Server => self.has_server = true,
        }
        write_field(out, name, value);
        Ok(())
    }

    /// The three digits of the status.
    #[inline]
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The Content-Length that the application gave.
    #[inline]
    #[must_use]
    pub const fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Writes the server's own fields and the empty line, and decides how the body is framed.
    ///
    /// `whole_body` is the length of the body where the caller has all of it; it is sent as
    /// Content-Length when the application gave none.
    #[inline]
    #[must_use]
    pub fn finish(
        self,
        out: &mut Vec<u8>,
        own: &OwnFields,
        whole_body: Option<u64>,
    ) -> BodyEncoder {
        out.extend_from_slice(own.missing(self.has_server, self.has_date));
        let framing = self.framing(whole_body);
        self.write_framing(out, framing);
        let keep_alive = self.request.keep_alive && framing != Framing::UntilClose;
        match (keep_alive, self.request.minor) {
            (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
            (true, 0) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (true, _) => {}
        }
        out.extend_from_slice(b"\r\n");
        BodyEncoder { framing, keep_alive, excess: 0 }
    }

    fn framing(&self, whole_body: Option<u64>) -> Framing {
        if self.request.is_head || matches!(self.status, 204 | 304) {
            return Framing::None;
        }
        match self.content_length.or(whole_body) {
            Some(length) => Framing::Length(length),
            None if self.request.minor == 0 => Framing::UntilClose,
            None => Framing::Chunked,
        }
    }

    /// A response without body keeps the Content-Length that the application gave (of the body
    /// that GET would have had), except 204, which must have none (RFC 9110 §8.6).
    fn write_framing(&self, out: &mut Vec<u8>, framing: Framing) {
        let length = match framing {
            Framing::Chunked => return write_field(out, b"Transfer-Encoding", b"chunked"),
            Framing::UntilClose => return,
            Framing::None if self.status == 204 => return,
            Framing::None => self.content_length,
            Framing::Length(length) => Some(length),
        };
        if let Some(length) = length {
            out.extend_from_slice(b"Content-Length: ");
            write_decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Most bytes of status and fields that are remembered.
const REMEMBERED_BYTES_MAX: usize = 4096;

/// Writes heads, and remembers the last one: apps send the same status and first fields again and again, and what is the
/// same is neither judged nor composed a second time.
#[derive(Debug, Default)]
pub struct HeadWriter {
    /// Status, names and values, one after the other.
    given: Vec<u8>,
    /// The lines they became.
    written: Vec<u8>,
    lines: Vec<RememberedLine>,
}

/// The status line, or that of one field.
#[derive(Debug)]
struct RememberedLine {
    /// The status, or the name, is up to here in `given`, and the value, which a status has not, follows up to there.
    name_end: usize,
    given_end: usize,
    written_end: usize,
    /// The head after this line.
    head: ResponseHead,
}

impl HeadWriter {
    /// Writes a status and fields as [`ResponseHead`] does; `None`, and `out` is of no use, when one of them is invalid or
    /// missing.
    pub fn write<'a>(
        &mut self,
        out: &mut Vec<u8>,
        request: RequestInfo,
        status: &'a [u8],
        mut fields: impl Iterator<Item = Option<(&'a [u8], &'a [u8])>>,
    ) -> Option<ResponseHead> {
        let mut known = 0;
        let mut next = Some((status, &b""[..]));
        while let Some((name, value)) = next
            && self.has(known, name, value)
        {
            known += 1;
            next = transposed(fields.next())?;
        }
        let mut head = None;
        if let Some(last) = known.checked_sub(1).and_then(|last| self.lines.get(last)) {
            out.extend_from_slice(&self.written[..last.written_end]);
            head = Some(ResponseHead { request, ..last.head });
        }
        if next.is_some() {
            self.forget_from(known);
        }
        while let Some((name, value)) = next {
            let start = out.len();
            let head = head_with(&mut head, out, request, name, value)?;
            self.remember(known, name, value, &out[start..], head);
            known += 1;
            next = transposed(fields.next())?;
        }
        head
    }

    fn has(&self, number: usize, name: &[u8], value: &[u8]) -> bool {
        let Some(line) = self.lines.get(number) else { return false };
        let start = number.checked_sub(1).map_or(0, |before| self.lines[before].given_end);
        self.given[start..line.name_end] == *name
            && self.given[line.name_end..line.given_end] == *value
    }

    fn forget_from(&mut self, number: usize) {
        self.lines.truncate(number);
        let ends = self.lines.last().map(|line| (line.given_end, line.written_end));
        let (given_end, written_end) = ends.unwrap_or_default();
        self.given.truncate(given_end);
        self.written.truncate(written_end);
    }

    /// Remembers a line, unless one before it was not.
    fn remember(
        &mut self,
        number: usize,
        name: &[u8],
        value: &[u8],
        written: &[u8],
        head: &ResponseHead,
    ) {
        let size = self.given.len() + name.len() + value.len();
        if self.lines.len() < number || size > REMEMBERED_BYTES_MAX {
            return;
        }
        self.given.extend_from_slice(name);
        let name_end = self.given.len();
        self.given.extend_from_slice(value);
        self.written.extend_from_slice(written);
        self.lines.push(RememberedLine {
            name_end,
            given_end: self.given.len(),
            written_end: self.written.len(),
            head: head.clone(),
        });
    }
}

/// Writes the status where there is no head so far, else a field.
fn head_with<'a>(
    head: &'a mut Option<ResponseHead>,
    out: &mut Vec<u8>,
    request: RequestInfo,
    name: &[u8],
    value: &[u8],
) -> Option<&'a ResponseHead> {
    match head {
        Some(head) => head.field(out, name, value).ok()?,
        None => *head = Some(ResponseHead::start(out, request, name).ok()?),
    }
    head.as_ref()
}

/// `Some(None)`, a field that is missing, becomes `None`.
#[inline]
#[allow(clippy::option_option, reason = "the end of the fields, or one that is none")]
fn transposed<T>(next: Option<Option<T>>) -> Option<Option<T>> {
    match next {
        None => Some(None),
        Some(None) => None,
        Some(field) => Some(field),
    }
}

/// How the body that follows a response head is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// No body, whatever the application yields.
    None,
    /// Bytes still to come.
    Length(u64),
    Chunked,
    /// The end of the connection is the end of the body (HTTP/1.0).
    UntilClose,
}

/// The body that a response head promised: counts what the application yields against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyEncoder {
    framing: Framing,
    keep_alive: bool,
    excess: u64,
}

impl BodyEncoder {
    /// How many of the next `len` bytes may be sent; what is above is to be thrown away.
    #[inline]
    #[must_use]
    pub fn admit(&mut self, len: usize) -> usize {
        let admitted = match &mut self.framing {
            Framing::None => 0,
            Framing::Chunked | Framing::UntilClose => return len,
            Framing::Length(left) => {
                let admitted = usize::try_from(*left).map_or(len, |left| left.min(len));
                *left -= admitted as u64;
                admitted
            }
        };
        if self.framing != Framing::None {
            self.excess += (len - admitted) as u64;
        }
        admitted
    }

    /// Appends one block of the body to `out`, framed as promised. An empty block writes nothing.
    #[inline]
    pub fn write(&mut self, out: &mut Vec<u8>, block: &[u8]) {
        let admitted = &block[..self.admit(block.len())];
        if admitted.is_empty() {
            return;
        }
        self.write_prefix(out, admitted.len());
        out.extend_from_slice(admitted);
        out.extend_from_slice(self.suffix());
    }

    /// What goes before a block of `len` > 0 admitted bytes that is sent without being copied.
    #[inline]
    pub fn write_prefix(&self, out: &mut Vec<u8>, len: usize) {
        if self.framing == Framing::Chunked {
            write_hex(out, len);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// What goes behind such a block.
    #[inline]
    #[must_use]
    pub fn suffix(&self) -> &'static [u8] {
        if self.framing == Framing::Chunked { b"\r\n" } else { b"" }
    }

    /// Ends the body that the application has yielded in full: appends what closes it to `out`
    /// and returns whether the connection can carry another request.
    ///
    /// It cannot when bytes are missing: the client would read the next response as this body.
    #[inline]
    #[must_use]
    pub fn finish(&mut self, out: &mut Vec<u8>) -> bool {
        if self.framing == Framing::Chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        self.keep_alive && self.missing() == 0
    }

    /// Whether all promised bytes were admitted, so that what the application still yields need
    /// not be waited for.
    #[inline]
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// Whether blocks go out as chunks.
    #[inline]
    #[must_use]
    pub fn is_chunked(&self) -> bool {
        self.framing == Framing::Chunked
    }

    /// Bytes promised and not yielded so far.
    #[inline]
    #[must_use]
    pub fn missing(&self) -> u64 {
        if let Framing::Length(left) = self.framing { left } else { 0 }
    }

    /// Bytes yielded above the promised length.
    #[inline]
    #[must_use]
    pub const fn excess(&self) -> u64 {
        self.excess
    }
}

/// `"200 OK"` → 200. The reason may be empty, as RFC 9112 §4 has it and other servers allow.
#[inline]
fn read_status(status: &[u8]) -> Result<u16, InvalidResponse> {
    let (digits, reason) = status.split_first_chunk::<3>().ok_or(InvalidResponse::Status)?;
    let is_reason = matches!(reason, [] | [b' ', ..]) && is_field_value(reason);
    if !is_reason || !digits.iter().all(u8::is_ascii_digit) {
        return Err(InvalidResponse::Status);
    }
    match digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0')) {
        code @ 200.. => Ok(code),
        _ => Err(InvalidResponse::StatusNotFinal),
    }
}

/// What a response field is to the server.
enum Role {
    Plain,
    HopByHop,
    ContentLength,
    Date,
    Server,
}

/// The hop-by-hop list is that of RFC 2616 §13.5.1, which PEP 3333 refers to.
#[inline]
fn name_role(name: &[u8]) -> Role {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    match name.len() {
        2 if is("te") => Role::HopByHop,
        4 if is("date") => Role::Date,
        6 if is("server") => Role::Server,
        7 if is("upgrade") || is("trailer") => Role::HopByHop,
        8 if is("trailers") => Role::HopByHop,
        10 if is("connection") || is("keep-alive") => Role::HopByHop,
        14 if is("content-length") => Role::ContentLength,
        17 if is("transfer-encoding") => Role::HopByHop,
        18 if is("proxy-authenticate") => Role::HopByHop,
        19 if is("proxy-authorization") => Role::HopByHop,
        _ => Role::Plain,
    }
}

fn read_length(value: &[u8]) -> Result<u64, InvalidResponse> {
    let digits = value.trim_ascii();
    let is_decimal = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| is_decimal);
    text.and_then(|text| text.parse().ok()).ok_or(InvalidResponse::ContentLength)
}

#[inline]
pub(crate) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn write_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789"[(number % 10) as usize];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn write_hex(out: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0; 16];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[number % 16];
        number /= 16;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The interim response that lets a client send its body (RFC 9110 §15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
