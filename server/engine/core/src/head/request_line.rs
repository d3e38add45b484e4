//! Reads the request line: method, target, version (RFC 9112 §3), and decodes a path.

use crate::limits::METHOD_BYTES;
use crate::name;
use crate::reject::Reject;
use crate::scan;

use super::host::is_host;
use super::{Head, Method, Span, hex};

/// `method SP target SP HTTP/x.y` (RFC 9112 §3), with exactly these two spaces.
pub(super) fn read_request_line(
    buf: &[u8],
    start: usize,
    end: usize,
    head: &mut Head,
) -> Result<(), Reject> {
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

/// Splits `[path]["?" query]`. Bytes above 0x7f have to be escaped (RFC 9112 §3.2, RFC 3986 §2).
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
    // Anything else that stopped the scan inside the target is a space, a TAB, a fragment or above ASCII.
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

/// Decodes `%XX` of `path` into `out`, which is cleared first (RFC 3986 §2.1).
///
/// What is no escape stays as it is, as browsers send a lone `%` and every WSGI server passes it
/// on. Only needed when [`Head::is_path_encoded`]. An encoded NUL was refused by [`parse`](super::parse).
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
