//! The access log: one JSON object per line, gathered in memory, written in few large pieces.
//!
//! Nothing is lost at exit: the owner calls [`AccessLog::flush`] when the engine is done.

use std::io::Write;
use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError};

use prefork_core::NameId;

use crate::conn::Conn;
use crate::sys;

/// Bytes gathered above which whoever adds a line also writes.
const GATHERED_BYTES_MAX: usize = 256 * 1024;

/// One line in the making.
pub struct Entry<'a> {
    /// The connection, with its request still in the buffer.
    pub conn: &'a Conn,
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

/// The log of one worker.
pub struct AccessLog {
    fd: RawFd,
    worker_pid: u32,
    gathered: Mutex<Vec<u8>>,
    /// Held while writing, so that pieces stay in order.
    writing: Mutex<()>,
}

impl AccessLog {
    /// A log that is written to `fd`; -1 writes nothing.
    #[must_use]
    pub fn new(fd: RawFd) -> Self {
        let worker_pid = std::process::id();
        Self { fd, worker_pid, gathered: Mutex::default(), writing: Mutex::default() }
    }

    /// Adds a line.
    pub fn append(&self, entry: &Entry<'_>) {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        write_line(&mut gathered, entry, self.worker_pid, sys::wall_us());
        let is_full = gathered.len() > GATHERED_BYTES_MAX;
        drop(gathered);
        if is_full {
            self.flush();
        }
    }

    /// Writes what was gathered.
    pub fn flush(&self) {
        if self.gathered.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return;
        }
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let piece =
            std::mem::take(&mut *self.gathered.lock().unwrap_or_else(PoisonError::into_inner));
        if self.fd >= 0 {
            // A log that cannot be written must not stop the server, and there is no other place to say so.
            let _ = sys::write_all_wait(self.fd, &piece);
        }
    }
}

fn write_line(out: &mut Vec<u8>, entry: &Entry<'_>, worker_pid: u32, wall_us: u64) {
    let conn = entry.conn;
    out.extend_from_slice(b"{\"time\":\"");
    write_time(out, wall_us);
    out.extend_from_slice(b"\",\"remote\":");
    write_string(out, conn.peer.host.as_bytes());
    let head = conn.head();
    let bytes = conn.partial();
    for (name, span) in
        [("method", head.map(|h| h.method_name)), ("target", head.map(|h| h.target))]
    {
        let _ = write!(out, ",\"{name}\":");
        match span.filter(|s| !s.is_empty() && s.end as usize <= bytes.len()) {
            Some(span) => write_string(out, span.of(bytes)),
            None => out.extend_from_slice(b"null"),
        }
    }
    let minor = head.map_or(1, |h| h.minor);
    let _ = write!(
        out,
        ",\"protocol\":\"HTTP/1.{minor}\",\"status\":{},\"bytes\":{},\"duration_us\":{},\"queue_us\":{}",
        entry.status, entry.body_bytes, entry.duration_us, entry.queue_us
    );
    if let Some(code) = entry.refusal {
        let _ = write!(out, ",\"refusal\":\"{code}\"");
    } else {
        for (name, id) in [("referer", NameId::REFERER), ("user_agent", NameId::USER_AGENT)] {
            if let Some(value) = head.and_then(|h| h.value(bytes, id)) {
                let _ = write!(out, ",\"{name}\":");
                write_string(out, value);
            }
        }
    }
    let _ = writeln!(out, ",\"worker\":{worker_pid}}}");
}

const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

/// `2026-11-22T13:05:48.123Z`
fn write_time(out: &mut Vec<u8>, wall_us: u64) {
    let seconds = wall_us / 1_000_000;
    let date = prefork_core::reply::http_date(seconds);
    let month = MONTHS.chunks(3).position(|m| m == &date[8..11]).unwrap_or(0) + 1;
    out.extend_from_slice(&date[12..16]);
    let _ = write!(out, "-{month:02}-");
    out.extend_from_slice(&date[5..7]);
    out.push(b'T');
    out.extend_from_slice(&date[17..25]);
    let _ = write!(out, ".{:03}Z", wall_us / 1000 % 1000);
}

/// A JSON string (RFC 8259 §7). Bytes that are no UTF-8 are written as the Latin-1 characters they would be: the log
/// stays readable by any parser whatever a client sends.
fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for &byte in chunk.valid().as_bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                0..0x20 | 0x7f => write_escape(out, byte),
                _ => out.push(byte),
            }
        }
        for &byte in chunk.invalid() {
            write_escape(out, byte);
        }
    }
    out.push(b'"');
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    let _ = write!(out, "\\u{byte:04x}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        write_string(&mut out, bytes);
        String::from_utf8(out).unwrap_or_default()
    }

    #[test]
    fn hostile_bytes_stay_inside_their_json_string() {
        assert_eq!(string(b"a\"b\\c\nd\x7f"), r#""a\"b\\c\u000ad\u007f""#);
        assert_eq!(string(b"/\xff\xc3\xa9"), "\"/\\u00ff\u{e9}\"");
        assert_eq!(string(b""), "\"\"");
    }

    #[test]
    fn time_is_iso_8601_with_milliseconds() {
        let mut out = Vec::new();
        write_time(&mut out, 784_111_777_045_999);
        assert_eq!(out, b"1994-11-06T08:49:37.045Z");
    }
}
