//! The access log: one JSON object per line, gathered in memory, written in few large pieces by a thread of its own.
//!
//! Nothing is lost at exit: [`AccessLog::finish`] waits for the last piece.

use std::io::Write;
use std::os::fd::RawFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prefork_core::NameId;

use crate::conn::Conn;
use crate::sys;

/// Bytes gathered above which lines are dropped: whoever reads the log has stopped.
const GATHERED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The writer gathers for so long before it writes.
const GATHER_FOR: Duration = Duration::from_millis(5);

/// How long the end of the engine waits for a reader that has stopped.
const LAST_WRITE_WAIT: Duration = Duration::from_secs(2);

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
    state: Mutex<State>,
    /// For the writer: there are lines, or the end has come.
    wake: Condvar,
    /// For whoever ends the engine: all is written.
    written: Condvar,
}

#[derive(Default)]
struct State {
    gathered: Vec<u8>,
    /// Lines that had no room since the last write.
    dropped: u64,
    is_writing: bool,
    is_over: bool,
}

impl AccessLog {
    /// A log that is written to `fd`.
    #[must_use]
    pub fn new(fd: RawFd) -> Self {
        Self {
            fd,
            worker_pid: std::process::id(),
            state: Mutex::default(),
            wake: Condvar::new(),
            written: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line; never waits for the log's reader.
    pub fn append(&self, entry: &Entry<'_>) {
        let now_us = sys::wall_us();
        let mut state = self.lock();
        if state.gathered.len() > GATHERED_BYTES_MAX {
            state.dropped += 1;
            return;
        }
        let is_first = state.gathered.is_empty();
        write_line(&mut state.gathered, entry, self.worker_pid, now_us);
        if is_first && !state.is_writing {
            self.wake.notify_one();
        }
    }

    /// The life of the writer, a thread of its own: a reader that stops stops nobody else.
    pub fn write(&self) {
        let mut state = self.lock();
        loop {
            while state.gathered.is_empty() && !state.is_over {
                state.is_writing = false;
                self.written.notify_all();
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.is_writing = true;
            if state.gathered.is_empty() {
                state.is_writing = false;
                self.written.notify_all();
                return;
            }
            if !state.is_over {
                drop(state);
                std::thread::sleep(GATHER_FOR);
                state = self.lock();
            }
            let piece = std::mem::take(&mut state.gathered);
            let dropped = std::mem::take(&mut state.dropped);
            drop(state);
            // A log that cannot be written must not stop the server, and there is no other place to say so.
            let _ = sys::write_all_wait(self.fd, &piece);
            if dropped > 0 {
                let line = format!("{{\"dropped\":{dropped},\"worker\":{}}}\n", self.worker_pid);
                let _ = sys::write_all_wait(self.fd, line.as_bytes());
            }
            state = self.lock();
        }
    }

    /// Ends the writer once all lines are written, and waits for that, unless the reader has stopped.
    pub fn finish(&self) {
        let mut state = self.lock();
        state.is_over = true;
        self.wake.notify_one();
        let is_busy = |state: &mut State| state.is_writing || !state.gathered.is_empty();
        drop(self.written.wait_timeout_while(state, LAST_WRITE_WAIT, is_busy));
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
