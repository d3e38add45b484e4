//! The response of the server itself to a request that is refused or fails: status and one sentence.

use crate::reject::Reject;
use crate::response::{write_decimal, write_field};

/// Appends the whole response to a request that was refused; the connection ends with it.
pub fn write_reject(out: &mut Vec<u8>, reject: Reject, is_head: bool, server: &[u8], date: &[u8]) {
    write_error(out, reject.status(), reject.message(), is_head, server, date);
}

/// Appends a whole error response of the server itself, `status` with one sentence as its body.
/// The connection ends with it.
pub fn write_error(
    out: &mut Vec<u8>,
    status: u16,
    sentence: &str,
    is_head: bool,
    server: &[u8],
    date: &[u8],
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write_decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    if !server.is_empty() {
        write_field(out, b"Server", server);
    }
    write_field(out, b"Date", date);
    write_field(out, b"Content-Type", b"text/plain; charset=utf-8");
    out.extend_from_slice(b"Content-Length: ");
    write_decimal(out, sentence.len() as u64 + 1);
    out.extend_from_slice(b"\r\nConnection: close\r\n\r\n");
    if !is_head {
        out.extend_from_slice(sentence.as_bytes());
        out.push(b'\n');
    }
}

/// The reason phrase of a status that the server itself sends.
const fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}
