//! Reads the field lines and what they mean for the server (RFC 9112 §§5–7): framing, keep-alive, Host.
//!
//! What the application alone has a use for is passed on unread.

#![allow(clippy::inline_always, reason = "one call per field line is a tenth of its cost")]

use crate::name::{self, NameId};
use crate::reject::Reject;
use crate::scan;

use super::host::is_host;
use super::{Field, Framing, Head, Phase, Progress, Span, bit};

/// What the Connection fields wish, the stronger wish last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Connection {
    #[default]
    Unsaid,
    KeepAlive,
    Close,
}

/// What a Transfer-Encoding field asks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum TransferEncoding {
    Chunked,
    Refused(Reject),
}

/// `name ":" OWS value OWS` (RFC 9112 §5), and what the server itself must know of it.
#[inline(always)]
pub(super) fn read_field(
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
                if name.eq_ignore_ascii_case(b"script_name") {
                    head.script_name = value;
                }
                return Ok(seen);
            }
        }
        record_field(value.of(buf), id, is_repeat, &mut head.progress)?;
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
fn record_field(
    value: &[u8],
    id: NameId,
    is_repeat: bool,
    progress: &mut Progress,
) -> Result<(), Reject> {
    match id {
        NameId::HOST if is_repeat => return Err(Reject::HostRepeated),
        NameId::HOST if !is_host(value) => return Err(Reject::Host),
        NameId::CONNECTION => record_connection(value, progress),
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
fn record_connection(value: &[u8], progress: &mut Progress) {
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

/// Judges the head as a whole: what one field alone cannot tell.
pub(super) fn finish(head: &mut Head) -> Result<(), Reject> {
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
    resolve_host(head)
}

/// Exactly one Host in HTTP/1.1; the target's authority takes its place (RFC 9112 §3.2).
fn resolve_host(head: &mut Head) -> Result<(), Reject> {
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
