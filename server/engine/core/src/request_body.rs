//! Decodes a request body, piece by piece: Content-Length or chunked (RFC 9112 §§6–7).
//!
//! The decoder holds no bytes: it says which part of the caller's input is body data. What it
//! says depends on the bytes alone, not on how they were cut.

use std::ops::Range;

use crate::field_value::is_field_byte;
use crate::head::{Framing, hex};
use crate::limits::{
    CHUNK_EXTENSION_BYTES, CHUNK_LINE_BYTES, Limits, TRAILER_BYTES, TRAILER_FIELDS,
};
use crate::name::is_token_byte;
use crate::reject::Reject;

/// What one call of [`BodyDecoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// So many bytes of the input are dealt with, data included.
    pub consumed: usize,
    /// Which part of the input is body data; empty when there was none yet.
    pub data: Range<usize>,
}

/// The decoder of one request body.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    /// Decoded bytes still allowed, for chunked bodies.
    allowed: u64,
    /// Bytes of the current chunk line, or of all trailers.
    line_bytes: usize,
    /// Bytes of all chunk extensions so far.
    extension_bytes: usize,
    trailer_fields: usize,
}

/// Where in the body the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    /// Body of known length: bytes to come.
    Length(u64),
    /// In a chunk-size line, with the size so far.
    Line(Line, u64),
    /// In chunk data: bytes to come.
    Data(u64),
    /// Behind chunk data: its CR, its LF.
    DataCr,
    DataLf,
    Trailer(Trailer),
}

/// Where in `1*HEXDIG *( BWS ";" BWS name [ BWS "=" BWS value ] ) CRLF` (RFC 9112 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    FirstDigit,
    Digits,
    /// White space before a `;`: the line must not end here.
    BeforeSemicolon,
    NameStart,
    Name,
    /// White space behind a name: `=` or `;` must come.
    BehindName,
    ValueStart,
    Token,
    Quoted,
    QuotedPair,
    /// Behind the closing quote.
    QuotedEnd,
    Lf,
}

/// Where in `*( field-line CRLF ) CRLF` (RFC 9112 §7.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trailer {
    Start,
    Name,
    Value,
    Lf,
    LastLf,
}

const CHUNK_START: State = State::Line(Line::FirstDigit, 0);

impl BodyDecoder {
    /// A decoder for a body framed like this.
    ///
    /// # Errors
    /// [`Reject::BodyTooLarge`] when the announced length is above the limit.
    pub fn new(framing: Framing, limits: &Limits) -> Result<Self, Reject> {
        let allowed = if limits.request_body == 0 { u64::MAX } else { limits.request_body };
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) if length > allowed => return Err(Reject::BodyTooLarge),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => CHUNK_START,
        };
        Ok(Self { state, allowed, line_bytes: 0, extension_bytes: 0, trailer_fields: 0 })
    }

    /// Whether the whole body, trailers included, has been consumed.
    #[inline]
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of body data that must still come, as far as known; 0 at the end of the body.
    /// For a chunked body, those of the current chunk.
    #[inline]
    #[must_use]
    pub fn expected(&self) -> u64 {
        match self.state {
            State::Length(left) | State::Data(left) => left,
            _ => 0,
        }
    }

    /// Reads `input` up to the end of one piece of data, the end of the body, or its own end.
    ///
    /// To be called again with the rest of the input until that is empty or [`BodyDecoder::is_done`];
    /// what is left then belongs to the next request. An input that ends before the body is done
    /// is no error here: the caller knows whether more can come.
    ///
    /// # Errors
    /// The [`Reject`] that the bytes call for. The decoder is then of no use.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, Reject> {
        let mut at = 0;
        while at < input.len() {
            match self.state {
                State::Done => break,
                State::Length(left) => {
                    let len = take(left, input.len() - at);
                    self.state = match left - len as u64 {
                        0 => State::Done,
                        left => State::Length(left),
                    };
                    return Ok(Step { consumed: at + len, data: at..at + len });
                }
                State::Data(left) => {
                    let len = take(left, input.len() - at);
                    self.state = match left - len as u64 {
                        0 => State::DataCr,
                        left => State::Data(left),
                    };
                    return Ok(Step { consumed: at + len, data: at..at + len });
                }
                State::Line(line, size) => self.state = self.step_line(line, size, input[at])?,
                State::DataCr if input[at] == b'\r' => self.state = State::DataLf,
                State::DataLf if input[at] == b'\n' => self.state = CHUNK_START,
                State::DataCr | State::DataLf => return Err(Reject::ChunkEnd),
                State::Trailer(trailer) => self.state = self.step_trailer(trailer, input[at])?,
            }
            at += 1;
        }
        Ok(Step { consumed: at, data: at..at })
    }

    /// Decodes all of `input` that belongs to the body, appends the data to `out`, and returns
    /// how many bytes were consumed.
    ///
    /// # Errors
    /// As [`BodyDecoder::decode`]; `out` then holds the data before the error.
    pub fn decode_into(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Reject> {
        let mut at = 0;
        while at < input.len() && !self.is_done() {
            let step = self.decode(&input[at..])?;
            out.extend_from_slice(&input[at..][step.data]);
            at += step.consumed;
        }
        Ok(at)
    }

    /// One byte of a chunk-size line.
    fn step_line(&mut self, line: Line, size: u64, byte: u8) -> Result<State, Reject> {
        self.line_bytes += 1;
        if self.line_bytes > CHUNK_LINE_BYTES + 2 {
            return Err(Reject::ChunkLineTooLong);
        }
        match (line, byte) {
            (Line::Lf, b'\n') => self.begin_chunk(size),
            (Line::Lf, _) => Err(Reject::BareCr),
            (_, b'\n') => Err(Reject::BareLf),
            (Line::Digits, b'\r') => Ok(State::Line(Line::Lf, size)),
            (Line::Digits, b';') => Ok(State::Line(Line::NameStart, size)),
            (Line::Digits, b' ' | b'\t') => Ok(State::Line(Line::BeforeSemicolon, size)),
            (Line::FirstDigit | Line::Digits, _) => {
                // An empty size is refused: read as zero, it would end the body early.
                let digit = hex(byte).ok_or(Reject::ChunkSize)?;
                let size = size.checked_mul(16).ok_or(Reject::ChunkSize)?;
                Ok(State::Line(Line::Digits, size | u64::from(digit)))
            }
            (_, _) => {
                self.extension_bytes += 1;
                if self.extension_bytes > CHUNK_EXTENSION_BYTES {
                    return Err(Reject::ChunkLineTooLong);
                }
                let line = step_extension(line, byte).ok_or(Reject::ChunkExtension)?;
                Ok(State::Line(line, size))
            }
        }
    }

    /// Behind a whole chunk-size line: data of that size, or the trailers.
    fn begin_chunk(&mut self, size: u64) -> Result<State, Reject> {
        self.line_bytes = 0;
        self.allowed = self.allowed.checked_sub(size).ok_or(Reject::BodyTooLarge)?;
        Ok(if size == 0 { State::Trailer(Trailer::Start) } else { State::Data(size) })
    }

    /// One byte of the trailers. They are held to the grammar of field lines and dropped: WSGI has
    /// no place for them, and merged into the head they would get past what a proxy had checked.
    fn step_trailer(&mut self, trailer: Trailer, byte: u8) -> Result<State, Reject> {
        self.line_bytes += 1;
        if self.line_bytes > TRAILER_BYTES {
            return Err(Reject::TrailersTooLarge);
        }
        let next = match (trailer, byte) {
            (Trailer::LastLf, b'\n') => return Ok(State::Done),
            (Trailer::Lf, b'\n') => Trailer::Start,
            (Trailer::Lf | Trailer::LastLf, _) => return Err(Reject::BareCr),
            (_, b'\n') => return Err(Reject::BareLf),
            (Trailer::Start, b'\r') => Trailer::LastLf,
            (Trailer::Start, _) if is_token_byte(byte) => {
                self.trailer_fields += 1;
                if self.trailer_fields > TRAILER_FIELDS {
                    return Err(Reject::TrailersTooLarge);
                }
                Trailer::Name
            }
            (Trailer::Name, b':') => Trailer::Value,
            (Trailer::Name, _) if is_token_byte(byte) => Trailer::Name,
            (Trailer::Value, b'\r') => Trailer::Lf,
            (Trailer::Value, _) if is_field_byte(byte) => Trailer::Value,
            (Trailer::Start | Trailer::Name | Trailer::Value, _) => return Err(Reject::Trailer),
        };
        Ok(State::Trailer(next))
    }
}

/// One byte of the extensions; `None` where the grammar does not allow it.
fn step_extension(line: Line, byte: u8) -> Option<Line> {
    let next = match (line, byte) {
        (Line::Name | Line::Token | Line::QuotedEnd, b'\r') => Line::Lf,
        (Line::Quoted, b'"') => Line::QuotedEnd,
        (Line::Quoted, b'\\') => Line::QuotedPair,
        (Line::Quoted | Line::QuotedPair, _) if is_field_byte(byte) => Line::Quoted,
        (Line::ValueStart, b'"') => Line::Quoted,
        (Line::Name | Line::BehindName, b'=') | (Line::ValueStart, b' ' | b'\t') => {
            Line::ValueStart
        }
        (Line::ValueStart | Line::Token, _) if is_token_byte(byte) => Line::Token,
        (Line::NameStart | Line::Name, _) if is_token_byte(byte) => Line::Name,
        (
            Line::BeforeSemicolon | Line::Name | Line::BehindName | Line::Token | Line::QuotedEnd,
            b';',
        )
        | (Line::NameStart, b' ' | b'\t') => Line::NameStart,
        (Line::Name | Line::BehindName, b' ' | b'\t') => Line::BehindName,
        (Line::BeforeSemicolon | Line::Token | Line::QuotedEnd, b' ' | b'\t') => {
            Line::BeforeSemicolon
        }
        _ => return None,
    };
    Some(next)
}

#[inline]
fn take(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}
