//! How a line of the access log looks: a format, compiled once, and the record of one request.
//!
//! A format is a row of segments: a literal, then a field of the record. JSON leaves a field out that a request does not
//! have, text writes `-`. What a format does not name costs nothing.
//!
//! Knows no connection: it is given a [`Record`] of plain values.

use std::io::Write;

use prefork_core::forwarded::{self, Trusted};
use prefork_core::head::Span;
use prefork_core::name::is_token;
use prefork_core::{Head, NameId, identity};

/// Longest line, its end included: `PIPE_BUF`, what a pipe takes in one go.
pub const LINE_BYTES_MAX: usize = 4096;

/// Room behind the longest line: literals and numbers are copied in whole blocks.
const SLACK_BYTES: usize = BLOCK_BYTES;

/// What a line is written to.
pub type Room = [u8; LINE_BYTES_MAX + SLACK_BYTES];

/// Values of a line that would be too long are shortened to the first of these with which it is not.
const SHORTENED_BYTES: [usize; 6] = [1000, 500, 250, 100, 40, 10];

/// `\u00ff`
const ESCAPE_BYTES: usize = 6;

/// So many bytes of a value are judged at once.
const JUDGED_BYTES: usize = 16;

/// A literal up to this length is copied without a look at its length.
const BLOCK_BYTES: usize = 32;

/// What of a request a line can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// When the line is written: ISO 8601 in JSON, `[22/Nov/2026:13:05:48 +0000]` in text.
    Time,
    /// The client's address: of the peer, or as trusted proxies tell it.
    Client,
    /// The peer's address.
    Remote,
    /// The user of HTTP Basic authentication.
    User,
    /// The method as sent.
    Method,
    /// The target as sent.
    Target,
    /// The target up to `?`.
    Path,
    /// What follows the first `?` of the target.
    Query,
    /// `HTTP/1.1`
    Protocol,
    /// Method, target and protocol.
    RequestLine,
    /// `Host`, or the authority of the target.
    Host,
    /// The status sent.
    Status,
    /// Bytes of the body sent.
    Bytes,
    /// Time in the app, in microseconds.
    DurationUs,
    /// The same in milliseconds.
    DurationMs,
    /// The same in whole seconds.
    DurationS,
    /// The same in seconds with six decimals.
    DurationDecimal,
    /// Time from the complete request to the start of its call, in microseconds.
    QueueUs,
    /// Code of the refusal, when the server answered by itself.
    Refusal,
    /// The field of that name.
    Referer,
    /// The field of that name.
    UserAgent,
    /// The id taken or made.
    RequestId,
    /// The trace id of `traceparent`.
    TraceId,
    /// Any field of the head, by its name; its number where it is a known one.
    Header(NameId, Box<[u8]>),
}

const FIELDS: [(&str, Field); 23] = [
    ("time", Field::Time),
    ("client", Field::Client),
    ("remote", Field::Remote),
    ("user", Field::User),
    ("method", Field::Method),
    ("target", Field::Target),
    ("path", Field::Path),
    ("query", Field::Query),
    ("protocol", Field::Protocol),
    ("request_line", Field::RequestLine),
    ("host", Field::Host),
    ("status", Field::Status),
    ("bytes", Field::Bytes),
    ("duration_us", Field::DurationUs),
    ("duration_ms", Field::DurationMs),
    ("duration_s", Field::DurationS),
    ("duration_decimal", Field::DurationDecimal),
    ("queue_us", Field::QueueUs),
    ("refusal", Field::Refusal),
    ("referer", Field::Referer),
    ("user_agent", Field::UserAgent),
    ("request_id", Field::RequestId),
    ("trace_id", Field::TraceId),
];

impl Field {
    /// The field of that name; `header:NAME` for a field of the head.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        if let Some(header) = name.strip_prefix("header:") {
            let header = header.as_bytes();
            return is_token(header).then(|| Self::Header(NameId::of(header), header.into()));
        }
        FIELDS.iter().find(|(known, _)| *known == name).map(|(_, field)| field.clone())
    }
}

/// What one line says.
pub struct Record<'a> {
    /// The peer's address; empty for a unix socket.
    pub remote: &'a str,
    /// What the peer says of other addresses is believed.
    pub is_trusted: bool,
    /// The head, perhaps half read.
    pub head: Option<&'a Head>,
    /// The buffer that `head` was read from.
    pub bytes: &'a [u8],
    /// The id made for the request; empty for none.
    pub made_id: &'a [u8],
    /// The status sent.
    pub status: u16,
    /// Bytes of the body sent.
    pub body_bytes: u64,
    /// Time in the app.
    pub duration_us: u64,
    /// Time from the complete request to the start of its call.
    pub queue_us: u64,
    /// Code of the refusal, when the engine answered by itself.
    pub refusal: Option<&'static str>,
}

impl<'a> Record<'a> {
    fn field(&self, id: NameId) -> Option<&'a [u8]> {
        self.head?.value(self.bytes, id)
    }

    /// The first field of a name that has no number.
    fn unknown(&self, name: &[u8]) -> Option<&'a [u8]> {
        let mut fields = self.head?.fields.iter();
        let found = fields.find(|field| field.name.of(self.bytes).eq_ignore_ascii_case(name));
        found.map(|field| field.value.of(self.bytes))
    }

    fn span(&self, of: impl FnOnce(&Head) -> Span) -> Option<&'a [u8]> {
        let span = of(self.head?);
        let is_read = !span.is_empty() && span.end as usize <= self.bytes.len();
        is_read.then(|| span.of(self.bytes))
    }

    fn remote(&self) -> Option<&'a [u8]> {
        (!self.remote.is_empty()).then_some(self.remote.as_bytes())
    }

    fn client(&self, trusted: &Trusted) -> Option<&'a [u8]> {
        let told = match self.head {
            Some(head) if self.is_trusted => forwarded::client(head, self.bytes, trusted),
            _ => None,
        };
        told.or_else(|| self.remote())
    }

    fn trace_id(&self) -> Option<&'a [u8]> {
        identity::trace_id(self.head?, self.bytes)
    }

    fn user(&self) -> Option<Vec<u8>> {
        identity::basic_user(self.head?, self.bytes)
    }

    fn request_line(&self, hides_query: bool) -> Option<Vec<u8>> {
        let target = self.span(|head| head.target)?;
        let target = if hides_query { without_query(target) } else { target };
        let method = self.span(|head| head.method_name)?;
        Some([method, b" ", target, b" ", protocol(self)].concat())
    }

    fn request_id(&self) -> Option<&'a [u8]> {
        if !self.made_id.is_empty() {
            return Some(self.made_id);
        }
        identity::request_id(self.head?, self.bytes)
    }
}

/// Up to `?`.
#[must_use]
pub fn without_query(target: &[u8]) -> &[u8] {
    &target[..target.iter().position(|&b| b == b'?').unwrap_or(target.len())]
}

/// Text that is written as it is, in a whole block.
#[derive(Debug)]
struct Literal {
    block: [u8; BLOCK_BYTES],
    len: usize,
}

impl Literal {
    /// The blocks that `text` needs, at least one.
    fn split(text: &str) -> Vec<Self> {
        let blocks = text.as_bytes().chunks(BLOCK_BYTES).map(Self::new);
        if text.is_empty() { vec![Self::new(b"")] } else { blocks.collect() }
    }

    fn new(text: &[u8]) -> Self {
        let mut block = [0; BLOCK_BYTES];
        block[..text.len()].copy_from_slice(text);
        Self { block, len: text.len() }
    }
}

#[derive(Debug)]
struct Segment {
    /// What of the literal is more than one block; rare.
    begin: Vec<Literal>,
    before: Literal,
    field: Field,
}

impl Segment {
    fn new(literal: &str, field: Field) -> Self {
        let mut begin = Literal::split(literal);
        let before = begin.pop().unwrap_or_else(|| Literal::new(b""));
        Self { begin, before, field }
    }
}

/// How all lines of a log look.
#[derive(Debug)]
pub struct Format {
    is_json: bool,
    hides_queries: bool,
    segments: Vec<Segment>,
    last: Vec<Literal>,
    names_request_id: bool,
}

impl Format {
    /// A format of `parts`, each a literal and the field that follows it; what follows the last one is `last`.
    ///
    /// For JSON the literals are names of keys, comma and colon included, and `last` closes the object.
    #[must_use]
    pub fn new(is_json: bool, hides_queries: bool, parts: &[(String, Field)], last: &str) -> Self {
        let segments = parts.iter();
        let segments =
            segments.map(|(before, field)| Segment::new(before, field.clone())).collect();
        let names_request_id = parts.iter().any(|(_, field)| *field == Field::RequestId);
        let last = Literal::split(&format!("{last}\n"));
        Self { is_json, hides_queries, segments, last, names_request_id }
    }

    /// Whether lines say the request's id, so that each request needs one.
    #[must_use]
    pub fn names_request_id(&self) -> bool {
        self.names_request_id
    }

    /// Writes one line; returns its length, at most [`LINE_BYTES_MAX`].
    pub fn write(
        &self,
        room: &mut Room,
        stamp: &mut Stamp,
        record: &Record<'_>,
        trusted: &Trusted,
        wall_us: u64,
    ) -> usize {
        stamp.renew(self.is_json, wall_us);
        let mut fill = |most| {
            let mut line = Line { rest: &mut room[..], most };
            self.fill(&mut line, stamp, record, trusted);
            line.len()
        };
        let len = fill(usize::MAX);
        len.or_else(|| SHORTENED_BYTES.into_iter().find_map(fill)).unwrap_or(0)
    }

    fn fill(&self, line: &mut Line<'_>, stamp: &Stamp, record: &Record<'_>, trusted: &Trusted) {
        for segment in &self.segments {
            match self.value(&segment.field, record, trusted) {
                Value::Composed => self.put_composed(line, segment, record),
                Value::Nothing if self.is_json => {}
                value => {
                    line.begin(segment);
                    if self.is_json { line.json(&value, stamp) } else { line.text(&value, stamp) }
                }
            }
        }
        if self.is_json && line.most != usize::MAX {
            line.bytes(b",\"shortened\":true");
        }
        line.literals(&self.last);
    }

    #[inline]
    fn value<'a>(&self, field: &Field, record: &Record<'a>, trusted: &Trusted) -> Value<'a> {
        let shown = |url: &'a [u8]| if self.hides_queries { without_query(url) } else { url };
        match field {
            Field::Time => Value::Time,
            Field::Status => Value::Number(u64::from(record.status)),
            Field::Bytes => Value::Number(record.body_bytes),
            Field::DurationUs => Value::Number(record.duration_us),
            Field::DurationMs => Value::Number(record.duration_us / 1000),
            Field::DurationS => Value::Number(record.duration_us / 1_000_000),
            Field::DurationDecimal => Value::Decimal(record.duration_us),
            Field::QueueUs => Value::Number(record.queue_us),
            Field::Protocol => Value::Plain(protocol(record)),
            Field::RequestId => Value::plain(record.request_id()),
            Field::Client => Value::plain(record.client(trusted)),
            Field::Remote => Value::plain(record.remote()),
            Field::TraceId => Value::plain(record.trace_id()),
            Field::Refusal => Value::plain(record.refusal.map(str::as_bytes)),
            // A token, and a name or an address: refused otherwise.
            Field::Method => Value::plain(record.span(|head| head.method_name)),
            Field::Target => Value::any(record.span(|head| head.target).map(shown)),
            Field::Host => Value::plain(record.span(|head| head.host)),
            Field::Path => Value::any(record.span(|head| head.target).map(without_query)),
            Field::Query if self.hides_queries => Value::Nothing,
            Field::Query => Value::any(record.span(|head| head.query)),
            Field::Referer | Field::Header(NameId::REFERER, _) => {
                Value::any(record.field(NameId::REFERER).map(shown))
            }
            Field::UserAgent => Value::any(record.field(NameId::USER_AGENT)),
            Field::Header(NameId::UNKNOWN, name) => Value::any(record.unknown(name)),
            Field::Header(id, _) => Value::any(record.field(*id)),
            Field::User | Field::RequestLine => Value::Composed,
        }
    }

    /// The text of a [`Value::Composed`].
    #[cold]
    fn compose(&self, field: &Field, record: &Record<'_>) -> Option<Vec<u8>> {
        if *field == Field::User { record.user() } else { record.request_line(self.hides_queries) }
    }

    /// As [`Format::value`] with what is composed first.
    #[cold]
    fn put_composed(&self, line: &mut Line<'_>, segment: &Segment, record: &Record<'_>) {
        let text = self.compose(&segment.field, record);
        if !self.is_json {
            line.begin(segment);
            line.escaped(text.as_deref().unwrap_or_default());
        } else if let Some(text) = text {
            line.begin(segment);
            line.quoted(&text, true);
        }
    }
}

/// What a field has to say of one request.
enum Value<'a> {
    Nothing,
    Time,
    Number(u64),
    /// Microseconds, shown as seconds.
    Decimal(u64),
    /// Bytes that stand for themselves in any line.
    Plain(&'a [u8]),
    /// Bytes that the client chose.
    Any(&'a [u8]),
    /// Put together of several parts, or decoded: see [`Format::compose`].
    Composed,
}

impl<'a> Value<'a> {
    #[inline]
    fn plain(text: Option<&'a [u8]>) -> Self {
        text.map_or(Self::Nothing, Self::Plain)
    }

    #[inline]
    fn any(text: Option<&'a [u8]>) -> Self {
        text.map_or(Self::Nothing, Self::Any)
    }
}

fn protocol(record: &Record<'_>) -> &'static [u8] {
    if record.head.is_some_and(|head| head.minor == 0) { b"HTTP/1.0" } else { b"HTTP/1.1" }
}

/// A line that is being written.
struct Line<'a> {
    /// Where to go on. Less than the slack from the first thing on that did not fit, and then nothing.
    rest: &'a mut [u8],
    /// Most bytes of a value.
    most: usize,
}

#[allow(clippy::inline_always, reason = "once per field: as calls they cost a sixth of a line")]
impl<'a> Line<'a> {
    /// How long it is; `None` when it did not fit.
    fn len(&self) -> Option<usize> {
        LINE_BYTES_MAX.checked_sub(self.rest.len().checked_sub(SLACK_BYTES)?)
    }

    /// The next `len` bytes.
    #[inline(always)]
    fn take(&mut self, len: usize) -> Option<&'a mut [u8]> {
        let (place, rest) = std::mem::take(&mut self.rest).split_at_mut_checked(len)?;
        self.rest = rest;
        Some(place)
    }

    /// Writes a whole block, of which only the first `len` bytes count.
    #[inline(always)]
    fn block<const N: usize>(&mut self, block: [u8; N], len: usize) {
        let rest = std::mem::take(&mut self.rest);
        if let Some(place) = rest.first_chunk_mut() {
            *place = block;
            self.rest = rest.get_mut(len..).unwrap_or_default();
        }
    }

    #[inline(always)]
    fn begin(&mut self, segment: &Segment) {
        if !segment.begin.is_empty() {
            self.literals(&segment.begin);
        }
        self.literal(&segment.before);
    }

    fn literals(&mut self, literals: &[Literal]) {
        for literal in literals {
            self.literal(literal);
        }
    }

    #[inline(always)]
    fn literal(&mut self, literal: &Literal) {
        self.block(literal.block, literal.len);
    }

    #[inline(always)]
    fn bytes(&mut self, bytes: &[u8]) {
        if let Some(place) = self.take(bytes.len()) {
            copy(place, bytes);
        }
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        self.block([byte], 1);
    }

    #[inline(always)]
    fn number(&mut self, number: u64) {
        if number >= 10_000 {
            return self.long_number(number);
        }
        let digits = u32::from_le_bytes(four_digits(number));
        let leading = u32::from(number < 10) + u32::from(number < 100) + u32::from(number < 1000);
        self.block((digits >> (8 * leading)).to_le_bytes(), 4 - leading as usize);
    }

    #[cold]
    fn long_number(&mut self, number: u64) {
        self.number(number / 10_000);
        self.block(four_digits(number % 10_000), 4);
    }

    /// Microseconds as seconds with six decimals.
    fn decimal(&mut self, us: u64) {
        self.number(us / 1_000_000);
        self.byte(b'.');
        for place in [100_000, 10_000, 1000, 100, 10, 1] {
            self.byte(digit(us / place));
        }
    }

    #[inline(always)]
    fn json(&mut self, value: &Value<'_>, stamp: &Stamp) {
        match value {
            Value::Nothing | Value::Composed => {}
            Value::Time => self.bytes(&stamp.iso),
            Value::Number(number) => self.number(*number),
            Value::Decimal(us) => self.decimal(*us),
            Value::Plain(text) => self.quoted(text, false),
            Value::Any(text) => self.quoted(text, true),
        }
    }

    fn text(&mut self, value: &Value<'_>, stamp: &Stamp) {
        match value {
            Value::Nothing | Value::Composed => self.byte(b'-'),
            Value::Time => self.bytes(&stamp.common),
            Value::Number(number) => self.number(*number),
            Value::Decimal(us) => self.decimal(*us),
            Value::Plain(text) | Value::Any(text) => self.escaped(text),
        }
    }

    /// A JSON string; `is_judged` says that its bytes may need an escape.
    #[inline(always)]
    fn quoted(&mut self, text: &[u8], is_judged: bool) {
        if !self.quoted_plain(text, is_judged) {
            self.json_string(text);
        }
    }

    /// Writes a string whose bytes stand for themselves; false, and nothing is written, when they do not, or when that
    /// cannot be told in whole blocks: those reach a few bytes behind it, which are written later.
    #[inline(always)]
    fn quoted_plain(&mut self, text: &[u8], is_judged: bool) -> bool {
        let len = text.len();
        if len > self.most || self.rest.len() < len + 2 + JUDGED_BYTES {
            return false;
        }
        self.rest[0] = b'"';
        copy(&mut self.rest[1..=len], text);
        if is_judged {
            self.rest[len + 1..][..JUDGED_BYTES].fill(b' ');
            let (blocks, _) = self.rest[1..=len + JUDGED_BYTES].as_chunks::<JUDGED_BYTES>();
            if blocks.iter().any(has_special) {
                return false;
            }
        }
        self.rest[len + 1] = b'"';
        self.rest = &mut std::mem::take(&mut self.rest)[len + 2..];
        true
    }

    /// A JSON string (RFC 8259 §7). Bytes that are no UTF-8 are written as the Latin-1 characters they would be: the
    /// log stays readable by any parser whatever a client sends.
    #[cold]
    fn json_string(&mut self, text: &[u8]) {
        self.byte(b'"');
        for chunk in shortened(text, self.most).utf8_chunks() {
            for &byte in chunk.valid().as_bytes() {
                match byte {
                    b'"' | b'\\' => self.bytes(&[b'\\', byte]),
                    0..0x20 | 0x7f => self.escape("\\u00", byte),
                    _ => self.byte(byte),
                }
            }
            for &byte in chunk.invalid() {
                self.escape("\\u00", byte);
            }
        }
        self.byte(b'"');
    }

    /// Text in a line that is split by quotes and blanks: no byte of it can end the line or its quotes.
    fn escaped(&mut self, text: &[u8]) {
        let text = if text.is_empty() { b"-" } else { text };
        for &byte in shortened(text, self.most) {
            match byte {
                b'"' | b'\\' => self.bytes(&[b'\\', byte]),
                b' '..0x7f => self.byte(byte),
                _ => self.escape("\\x", byte),
            }
        }
    }

    fn escape(&mut self, before: &str, byte: u8) {
        let mut text = Vec::with_capacity(ESCAPE_BYTES);
        let _ = write!(text, "{before}{byte:02x}");
        self.bytes(&text);
    }
}

#[inline]
fn digit(number: u64) -> u8 {
    b"0123456789"[(number % 10) as usize]
}

/// 00 to 99.
static TWO_DIGITS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0_u8;
    while number < 100 {
        pairs[number as usize] = [b'0' + number / 10, b'0' + number % 10];
        number += 1;
    }
    pairs
};

/// The digits of a number below 10,000, zeros before them.
#[inline]
fn four_digits(number: u64) -> [u8; 4] {
    let [a, b] = TWO_DIGITS[(number / 100 % 100) as usize];
    let [c, d] = TWO_DIGITS[(number % 100) as usize];
    [a, b, c, d]
}

/// Most bytes of a value that take no more than `most`, escapes included.
fn shortened(value: &[u8], most: usize) -> &[u8] {
    if most == usize::MAX {
        return value;
    }
    let mut cost = 0;
    let fits = |&byte: &u8| {
        cost += if is_special(byte) { ESCAPE_BYTES } else { 1 };
        cost <= most
    };
    &value[..value.iter().copied().take_while(fits).count()]
}

/// Whether [`is_special`] holds for any byte. No early exit: it would keep this from being vector code.
#[inline]
#[allow(clippy::needless_bitwise_bool, reason = "a lazy operator may branch on each byte")]
fn has_special(block: &[u8; JUDGED_BYTES]) -> bool {
    let is_special = |b: u8| !(b' '..0x7f).contains(&b) | (b == b'"') | (b == b'\\');
    block.iter().fold(false, |any, &b| any | is_special(b))
}

/// Whether it needs an escape in a JSON string, or may need one.
#[inline]
fn is_special(byte: u8) -> bool {
    !(b' '..0x7f).contains(&byte) || byte == b'"' || byte == b'\\'
}

/// Copies a few bytes without a call; both are of one length.
#[inline]
fn copy(to: &mut [u8], from: &[u8]) {
    match from.len() {
        8..=16 => copy_ends::<8>(to, from),
        4..=7 => copy_ends::<4>(to, from),
        2..=3 => copy_ends::<2>(to, from),
        1 => copy_ends::<1>(to, from),
        0 => {}
        17..=32 => copy_ends::<16>(to, from),
        _ => to.copy_from_slice(from),
    }
}

/// Copies the first and the last N bytes, which together are all.
#[inline]
fn copy_ends<const N: usize>(to: &mut [u8], from: &[u8]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk::<N>()) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<N>(), from.last_chunk::<N>()) {
        *to = *from;
    }
}

/// The time of a line, of which most changes once a second.
#[derive(Debug)]
pub struct Stamp {
    second: u64,
    /// `"2026-11-22T13:05:48.123Z"`, quotes included.
    iso: [u8; 26],
    /// `[22/Nov/2026:13:05:48 +0000]`
    common: [u8; 28],
}

impl Default for Stamp {
    fn default() -> Self {
        Self { second: u64::MAX, iso: [0; 26], common: [0; 28] }
    }
}

const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

impl Stamp {
    #[inline]
    fn renew(&mut self, with_milliseconds: bool, wall_us: u64) {
        let second = wall_us / 1_000_000;
        if second != self.second {
            self.second = second;
            self.begin_second();
        }
        if with_milliseconds {
            let milliseconds = wall_us / 1000;
            self.iso[21] = digit(milliseconds / 100);
            self.iso[22] = digit(milliseconds / 10);
            self.iso[23] = digit(milliseconds);
        }
    }

    fn begin_second(&mut self) {
        let date = prefork_core::date::http_date(self.second);
        let month = MONTHS.chunks(3).position(|name| name == &date[8..11]).unwrap_or(0) as u64 + 1;
        let (day, name, year, clock) = (&date[5..7], &date[8..11], &date[12..16], &date[17..25]);
        let month = [digit(month / 10), digit(month)];
        let iso = [b"\"", year, b"-", &month, b"-", day, b"T", clock, b".000Z\""].concat();
        let common = [b"[", day, b"/", name, b"/", year, b":", clock, b" +0000]"].concat();
        self.iso.copy_from_slice(&iso);
        self.common.copy_from_slice(&common);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use prefork_core::{Limits, Parsed, head};

    const NAMES: &[&str] =
        &["time", "client", "method", "target", "host", "status", "bytes", "referer"];

    fn json(names: &[&str], hides_queries: bool) -> Format {
        let parts: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(at, name)| {
                let open = if at == 0 { "{" } else { "," };
                (format!("{open}\"{name}\":"), Field::of(name).unwrap())
            })
            .collect();
        Format::new(true, hides_queries, &parts, ",\"pid\":7}")
    }

    fn written(format: &Format, request: &str, record: impl FnOnce(&mut Record<'_>)) -> String {
        let mut parsed = Head::new();
        let done = head::parse(request.as_bytes(), &Limits::default(), &mut parsed);
        assert!(matches!(done, Ok(Parsed::Done(_))));
        let mut of = Record {
            remote: "10.0.0.1",
            is_trusted: true,
            head: Some(&parsed),
            bytes: request.as_bytes(),
            made_id: b"",
            status: 200,
            body_bytes: 5,
            duration_us: 1_234_567,
            queue_us: 8,
            refusal: None,
        };
        record(&mut of);
        let mut room = [0; LINE_BYTES_MAX + SLACK_BYTES];
        let trusted = Trusted::parse(["10.0.0.0/8"]).unwrap();
        let len =
            format.write(&mut room, &mut Stamp::default(), &of, &trusted, 784_111_777_045_999);
        String::from_utf8(room[..len].to_vec()).unwrap()
    }

    #[test]
    fn json_has_the_fields_asked_for_and_leaves_out_what_is_not_there() {
        let request = "GET /a?b=c HTTP/1.1\r\nHost: shop\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
        assert_eq!(
            written(&json(NAMES, false), request, |_| ()),
            "{\"time\":\"1994-11-06T08:49:37.045Z\",\"client\":\"192.0.2.1\",\"method\":\"GET\",\
             \"target\":\"/a?b=c\",\"host\":\"shop\",\"status\":200,\"bytes\":5,\"pid\":7}\n"
        );
        let untrusted = written(&json(NAMES, true), request, |record| record.is_trusted = false);
        assert!(
            untrusted.contains("\"client\":\"10.0.0.1\",\"method\":\"GET\",\"target\":\"/a\",")
        );
    }

    #[test]
    fn hostile_bytes_stay_inside_their_json_string() {
        let request = "GET / HTTP/1.1\r\nHost: t\r\nReferer: a\"b\\c\td\u{e9}\r\n\r\n";
        let line = written(&json(&["referer"], false), request, |_| ());
        assert_eq!(line, "{\"referer\":\"a\\\"b\\\\c\\u0009d\u{e9}\",\"pid\":7}\n");
    }

    #[test]
    fn text_is_the_combined_format_and_quotes_what_would_break_it() {
        let parts =
            ["client", "user", "time", "request_line", "status", "bytes", "referer", "user_agent"];
        let before = ["", " - ", " ", " \"", "\" ", " ", " \"", "\" \""];
        let parts: Vec<_> = parts
            .iter()
            .zip(before)
            .map(|(name, before)| (before.to_owned(), Field::of(name).unwrap()))
            .collect();
        let format = Format::new(false, false, &parts, "\"");
        let fields = "Host: t\r\nAuthorization: Basic YTpi\r\nUser-Agent: x\"\\\u{e9}\r\n";
        assert_eq!(
            written(&format, &format!("GET /a HTTP/1.0\r\n{fields}\r\n"), |_| ()),
            "10.0.0.1 - a [06/Nov/1994:08:49:37 +0000] \"GET /a HTTP/1.0\" 200 5 \"-\" \"x\\\"\\\\\\xc3\\xa9\"\n"
        );
    }

    #[test]
    fn a_line_that_just_fits_is_whole() {
        let format = json(&["target", "referer"], false);
        let whole = |size: usize| {
            let target = "t".repeat(size - 1);
            let request = format!("GET /{target} HTTP/1.1\r\nHost: t\r\nReferer: r\r\n\r\n");
            written(&format, &request, |_| ())
        };
        let around = whole(100).len() - 100;
        for size in LINE_BYTES_MAX - around - 80..LINE_BYTES_MAX - around + 80 {
            let line = whole(size);
            let fits = size + around <= LINE_BYTES_MAX;
            assert_eq!(line.contains("shortened"), !fits, "{size}");
            assert!(line.ends_with("\"pid\":7}\n") && line.len() <= LINE_BYTES_MAX, "{line}");
            assert!(!fits || line.len() == size + around && line.contains(&"t".repeat(size - 1)));
        }
    }

    #[test]
    fn a_line_is_never_too_long() {
        let format = json(&["target", "host", "referer", "user_agent", "bytes"], false);
        for size in [3000, 4050, 4060, 4070, 4080, 4090, 5000, 8000] {
            let target = "t".repeat(size);
            let request = format!(
                "GET /{target} HTTP/1.1\r\nHost: t\r\nReferer: {target}\r\nUser-Agent: {}\r\n\r\n",
                "\u{e9}\"".repeat(900)
            );
            let line = written(&format, &request, |_| ());
            assert!((1000..=LINE_BYTES_MAX).contains(&line.len()), "{}", line.len());
            assert!(line.ends_with(",\"shortened\":true,\"pid\":7}\n"), "{line}");
        }
    }

    #[test]
    fn a_block_is_judged_as_its_bytes_are() {
        for byte in 0..=255 {
            for place in 0..JUDGED_BYTES {
                let mut block = *b"plain text, ok~ ";
                block[place] = byte;
                assert_eq!(has_special(&block), is_special(byte), "{byte} at {place}");
            }
        }
    }

    #[test]
    fn numbers_are_decimal() {
        let mut room = [0; LINE_BYTES_MAX + SLACK_BYTES];
        let mut line = Line { rest: &mut room, most: usize::MAX };
        let numbers = [0, 7, 10, 99, 100, 999, 1000, 9999, 10_000, 100_020_003, u64::MAX];
        for number in numbers {
            line.number(number);
            line.byte(b' ');
        }
        line.decimal(1_000_023);
        let end = line.len().unwrap();
        let expected = numbers.map(|number| number.to_string()).join(" ") + " 1.000023";
        assert_eq!(&room[..end], expected.as_bytes());
    }

    #[test]
    fn a_value_is_shortened_by_what_it_takes_with_its_escapes() {
        assert_eq!(shortened(b"plain text", 5), b"plain");
        assert_eq!(shortened(b"a\"\"\"", 13), b"a\"\"");
        assert_eq!(shortened(b"a\"\"\"", usize::MAX), b"a\"\"\"");
    }
}
