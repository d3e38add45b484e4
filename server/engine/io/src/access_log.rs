//! The access log: one JSON object per line, gathered in memory, written in few large pieces by a thread of its own.
//!
//! A pipe takes up to 4096 bytes in one go; larger pieces of several workers would mix. So what is not a regular file gets
//! smaller pieces, which end with a line. What could not be written is counted: [`AccessLog::take_lost`].
//!
//! Knows no connection: it is given a [`Record`] of plain values.

use std::io::Write;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sys;

/// Bytes gathered above which lines are dropped: whoever reads the log has stopped.
const GATHERED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The writer gathers for so long before it writes.
const GATHER_FOR: Duration = Duration::from_millis(5);

/// How long the end of the engine waits for a reader that has stopped.
const LAST_WRITE_WAIT: Duration = Duration::from_secs(2);

/// `PIPE_BUF`: what a pipe, and in practice a socket or a terminal, takes in one go.
const PIECE_BYTES_MAX: usize = 4096;

/// Longest line, its end included.
const LINE_BYTES_MAX: usize = PIECE_BYTES_MAX;

/// Longest value of a line that would be longer: of three such values and the rest, a line is still short enough.
const SHORTENED_BYTES: usize = 1000;

/// `\u00ff`
const ESCAPE_BYTES: usize = 6;

/// Set aside for an ordinary line.
const LINE_ROOM: usize = 512;

/// Memory that the writer keeps from one piece to the next.
const KEPT_BYTES: usize = 256 * 1024;

/// What one line says.
pub struct Record<'a> {
    /// The client's address; empty for a unix socket.
    pub remote: &'a str,
    /// The method as sent; `None` when it was not read.
    pub method: Option<&'a [u8]>,
    /// The target as sent; `None` when it was not read.
    pub target: Option<&'a [u8]>,
    /// 0 or 1, of HTTP/1.x.
    pub minor: u8,
    /// The field of that name; left out of the line when there is none.
    pub referer: Option<&'a [u8]>,
    /// As `referer`.
    pub user_agent: Option<&'a [u8]>,
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
    /// Lines that nobody will read, and that have not been reported.
    lost: AtomicU64,
    /// For the writer: there are lines, or the end has come.
    wake: Condvar,
    /// For whoever ends the engine: all is written.
    written: Condvar,
}

#[derive(Default)]
struct State {
    gathered: Vec<u8>,
    stamp: Stamp,
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
            lost: AtomicU64::new(0),
            wake: Condvar::new(),
            written: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line; never waits for the log's reader.
    pub fn append(&self, record: &Record<'_>) {
        let now_us = sys::wall_us();
        let mut state = self.lock();
        if state.gathered.len() > GATHERED_BYTES_MAX {
            state.dropped += 1;
            return;
        }
        let is_first = state.gathered.is_empty();
        let State { gathered, stamp, .. } = &mut *state;
        write_line(gathered, stamp, record, self.worker_pid, now_us);
        if is_first && !state.is_writing {
            self.wake.notify_one();
        }
    }

    /// The life of the writer, a thread of its own: a reader that stops stops nobody else.
    pub fn write(&self) {
        let mut spare = Vec::new();
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
            let mut lines = std::mem::replace(&mut state.gathered, std::mem::take(&mut spare));
            let dropped = std::mem::take(&mut state.dropped);
            drop(state);
            self.put(&lines, dropped);
            lines.clear();
            lines.shrink_to(KEPT_BYTES);
            spare = lines;
            state = self.lock();
        }
    }

    /// Writes lines, and how many there would have been after them. A log that cannot be written stops nobody.
    fn put(&self, lines: &[u8], dropped: u64) {
        let most = if sys::is_regular_file(self.fd) { usize::MAX } else { PIECE_BYTES_MAX };
        let write = |piece: &[u8]| sys::write_all_wait(self.fd, piece).is_ok();
        let mut lost = write_pieces(lines, most, write);
        if dropped > 0 {
            let line = format!("{{\"dropped\":{dropped},\"worker\":{}}}\n", self.worker_pid);
            write(line.as_bytes());
            lost += dropped;
        }
        self.lost.fetch_add(lost, Relaxed);
    }

    /// Lines that were lost since this was last asked: their reader was too slow, or they could not be written.
    pub fn take_lost(&self) -> u64 {
        if self.lost.load(Relaxed) == 0 { 0 } else { self.lost.swap(0, Relaxed) }
    }

    /// Ends the writer once all lines are written, and waits for that. Those that a reader which has stopped leaves
    /// unwritten are lost.
    pub fn finish(&self) {
        let mut state = self.lock();
        state.is_over = true;
        self.wake.notify_one();
        let is_busy = |state: &mut State| state.is_writing || !state.gathered.is_empty();
        let (state, _) = self
            .written
            .wait_timeout_while(state, LAST_WRITE_WAIT, is_busy)
            .unwrap_or_else(PoisonError::into_inner);
        self.lost.fetch_add(count_lines(&state.gathered) + state.dropped, Relaxed);
    }
}

/// What of a line changes less often than each time.
#[derive(Default)]
struct Stamp {
    second: u64,
    /// `2026-11-22T13:05:48.`
    text: Vec<u8>,
}

impl Stamp {
    /// Adds `2026-11-22T13:05:48.123Z`.
    fn write(&mut self, out: &mut Vec<u8>, wall_us: u64) {
        let second = wall_us / 1_000_000;
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text.clear();
            write_second(&mut self.text, second);
        }
        out.extend_from_slice(&self.text);
        let milliseconds = wall_us / 1000 % 1000;
        let digit = |number: u64| b"0123456789"[(number % 10) as usize];
        out.extend_from_slice(&[
            digit(milliseconds / 100),
            digit(milliseconds / 10),
            digit(milliseconds),
            b'Z',
        ]);
    }
}

/// Adds one line, of [`LINE_BYTES_MAX`] at most: a longer one is written again with shortened values.
fn write_line(
    out: &mut Vec<u8>,
    stamp: &mut Stamp,
    record: &Record<'_>,
    worker_pid: u32,
    wall_us: u64,
) {
    let start = out.len();
    write_values(out, stamp, record, worker_pid, wall_us, usize::MAX);
    if out.len() - start > LINE_BYTES_MAX {
        out.truncate(start);
        write_values(out, stamp, record, worker_pid, wall_us, SHORTENED_BYTES);
    }
}

fn write_values(
    out: &mut Vec<u8>,
    stamp: &mut Stamp,
    record: &Record<'_>,
    worker_pid: u32,
    wall_us: u64,
    most: usize,
) {
    let text = |out: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>| {
        out.extend_from_slice(name);
        match value {
            Some(value) => write_string(out, shortened(value, most)),
            None => out.extend_from_slice(b"null"),
        }
    };
    let number = |out: &mut Vec<u8>, name: &[u8], value: u64| {
        out.extend_from_slice(name);
        write_number(out, value);
    };
    out.reserve(LINE_ROOM);
    out.extend_from_slice(b"{\"time\":\"");
    stamp.write(out, wall_us);
    text(out, b"\",\"remote\":", Some(record.remote.as_bytes()));
    text(out, b",\"method\":", record.method);
    text(out, b",\"target\":", record.target);
    out.extend_from_slice(match record.minor {
        0 => b",\"protocol\":\"HTTP/1.0\"",
        _ => b",\"protocol\":\"HTTP/1.1\"",
    });
    number(out, b",\"status\":", u64::from(record.status));
    number(out, b",\"bytes\":", record.body_bytes);
    number(out, b",\"duration_us\":", record.duration_us);
    number(out, b",\"queue_us\":", record.queue_us);
    if let Some(code) = record.refusal {
        text(out, b",\"refusal\":", Some(code.as_bytes()));
    }
    if let Some(value) = record.referer {
        text(out, b",\"referer\":", Some(value));
    }
    if let Some(value) = record.user_agent {
        text(out, b",\"user_agent\":", Some(value));
    }
    if most != usize::MAX {
        out.extend_from_slice(b",\"shortened\":true");
    }
    number(out, b",\"worker\":", u64::from(worker_pid));
    out.extend_from_slice(b"}\n");
}

/// Most bytes of a value that take no more than `most` as a JSON string, escapes included.
fn shortened(value: &[u8], most: usize) -> &[u8] {
    if most == usize::MAX {
        return value;
    }
    let mut cost = 0;
    let fits = |&byte: &u8| {
        cost += if is_plain(&[byte]) { 1 } else { ESCAPE_BYTES };
        cost <= most
    };
    &value[..value.iter().copied().take_while(fits).count()]
}

/// Writes `lines` in pieces of at most `most` bytes that end with a line; returns how many lines could not be written.
fn write_pieces(mut lines: &[u8], most: usize, mut write: impl FnMut(&[u8]) -> bool) -> u64 {
    let mut lost = 0;
    while !lines.is_empty() {
        let window = &lines[..lines.len().min(most)];
        let end = match window.iter().rposition(|&byte| byte == b'\n') {
            Some(at) => at + 1,
            None => lines.iter().position(|&byte| byte == b'\n').map_or(lines.len(), |at| at + 1),
        };
        if !write(&lines[..end]) {
            lost += count_lines(&lines[..end]);
        }
        lines = &lines[end..];
    }
    lost
}

#[allow(clippy::naive_bytecount)] // of what is lost only
fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

/// `2026-11-22T13:05:48.`
fn write_second(out: &mut Vec<u8>, seconds: u64) {
    let date = prefork_core::date::http_date(seconds);
    let month = MONTHS.chunks(3).position(|name| name == &date[8..11]).unwrap_or(0) + 1;
    out.extend_from_slice(&date[12..16]);
    let _ = write!(out, "-{month:02}-");
    out.extend_from_slice(&date[5..7]);
    out.push(b'T');
    out.extend_from_slice(&date[17..25]);
    out.push(b'.');
}

fn write_number(out: &mut Vec<u8>, mut number: u64) {
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

/// Whether all of it is ASCII that stands for itself in a JSON string. Without an early exit in a block: it would keep
/// this from being vector code.
fn is_plain(bytes: &[u8]) -> bool {
    let is_special = |b: u8| !(b' '..0x7f).contains(&b) || b == b'"' || b == b'\\';
    let has_special = |block: &[u8]| block.iter().fold(false, |any, &b| any | is_special(b));
    let (blocks, rest) = bytes.as_chunks::<16>();
    !blocks.iter().any(|block| has_special(block)) && !has_special(rest)
}

/// A JSON string (RFC 8259 §7). Bytes that are no UTF-8 are written as the Latin-1 characters they would be: the log
/// stays readable by any parser whatever a client sends.
fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
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
        let mut stamp = Stamp::default();
        stamp.write(&mut out, 784_111_777_045_999);
        stamp.write(&mut out, 784_111_777_999_000);
        stamp.write(&mut out, 784_111_778_000_000);
        let expected: &[&[u8]] = &[
            b"1994-11-06T08:49:37.045Z",
            b"1994-11-06T08:49:37.999Z",
            b"1994-11-06T08:49:38.000Z",
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn pieces_end_with_a_line_and_what_is_lost_is_counted() {
        let lines = b"one\ntwo\nthree\nfour is longer than a piece\nfive\n";
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        let write = |piece: &[u8]| {
            pieces.push(piece.to_vec());
            piece.len() > 6
        };
        assert_eq!(write_pieces(lines, 9, write), 2);
        let expected: &[&[u8]] =
            &[b"one\ntwo\n", b"three\n", b"four is longer than a piece\n", b"five\n"];
        assert_eq!(pieces, expected);
    }

    #[test]
    fn a_value_is_shortened_by_what_it_takes_with_its_escapes() {
        assert_eq!(shortened(b"plain text", 5), b"plain");
        assert_eq!(shortened(b"a\"\"\"", 13), b"a\"\"");
        assert_eq!(shortened(b"a\"\"\"", usize::MAX), b"a\"\"\"");
    }

    #[test]
    fn numbers_are_decimal() {
        let mut out = Vec::new();
        for number in [0, 7, 10, u64::MAX] {
            write_number(&mut out, number);
            out.push(b' ');
        }
        assert_eq!(out, b"0 7 10 18446744073709551615 ");
    }
}
