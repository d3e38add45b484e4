//! The access log of one worker: lines gathered in memory, written in few large pieces by a thread of its own.
//!
//! A pipe takes up to 4096 bytes in one go; larger pieces of several workers would mix. So what is not a regular file gets
//! smaller pieces, which end with a line. What could not be written is counted: [`AccessLog::take_lost`].

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prefork_core::forwarded::Trusted;

use crate::access_line::{Format, LINE_BYTES_MAX, Record, Room, Stamp};
use crate::sys::{self, SharedLock};

/// Bytes gathered above which lines are dropped: whoever reads the log has stopped.
const GATHERED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The writer gathers for so long before it writes.
const GATHER_FOR: Duration = Duration::from_millis(5);

/// How long the end of the engine waits for a reader that has stopped.
const LAST_WRITE_WAIT: Duration = Duration::from_secs(2);

/// The same for a reader that goes on, however slowly.
const LAST_WRITES_WAIT: Duration = Duration::from_secs(10);

/// `PIPE_BUF`: what a pipe, and in practice a socket or a terminal, takes in one go.
const PIECE_BYTES_MAX: usize = LINE_BYTES_MAX;

/// Memory that the writer keeps from one piece to the next.
const KEPT_BYTES: usize = 256 * 1024;

/// See the head of this file.
pub struct AccessLog {
    fd: RawFd,
    /// Held for each piece, where other logs go to the same pipe: their records may be longer than what it takes in one go.
    shared: Option<SharedLock>,
    format: Arc<Format>,
    state: Mutex<State>,
    /// Lines could not be written to a file, so that it may end in the middle of one.
    has_failed: AtomicBool,
    /// Lines that nobody will read, and that have not been reported.
    lost: AtomicU64,
    /// Pieces written so far: they show that the log is read.
    pieces: AtomicU64,
    /// For the writer: there are lines, or the end has come.
    wake: Condvar,
    /// For whoever ends the engine: all is written.
    written: Condvar,
}

#[derive(Default)]
struct State {
    gathered: Lines,
    stamp: Stamp,
    /// Lines that had no room since the last write.
    dropped: u64,
    is_writing: bool,
    is_over: bool,
}

/// Lines one after the other, and room behind them that is ready to be written to.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    filled: usize,
}

impl Lines {
    fn is_empty(&self) -> bool {
        self.filled == 0
    }

    fn get(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Room for one line.
    fn room(&mut self) -> Option<&mut Room> {
        let wanted = self.filled + size_of::<Room>();
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted.next_power_of_two(), 0);
        }
        self.bytes[self.filled..].first_chunk_mut()
    }

    fn clear(&mut self) {
        self.filled = 0;
        if self.bytes.len() > KEPT_BYTES {
            self.bytes.truncate(KEPT_BYTES);
            self.bytes.shrink_to_fit();
        }
    }
}

impl AccessLog {
    /// A log that is written to `fd`, under the lock of `lock_fd` unless that is -1.
    #[must_use]
    pub fn new(fd: RawFd, format: Arc<Format>, lock_fd: RawFd) -> Self {
        Self {
            fd,
            shared: (lock_fd >= 0).then(|| SharedLock::new(lock_fd).ok()).flatten(),
            format,
            state: Mutex::default(),
            has_failed: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            pieces: AtomicU64::new(0),
            wake: Condvar::new(),
            written: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line; never waits for the log's reader. `trusted` are the peers believed about other addresses.
    pub fn append(&self, record: &Record<'_>, trusted: &Trusted) {
        let now_us = sys::wall_us();
        let mut state = self.lock();
        if state.gathered.filled > GATHERED_BYTES_MAX {
            state.dropped += 1;
            return;
        }
        let is_first = state.gathered.is_empty();
        let State { gathered, stamp, .. } = &mut *state;
        let Some(room) = gathered.room() else { return };
        gathered.filled += self.format.write(room, stamp, record, trusted, now_us);
        if is_first && !state.is_writing {
            self.wake.notify_one();
        }
    }

    /// The life of the writer, a thread of its own: a reader that stops stops nobody else.
    pub fn write(&self) {
        let mut spare = Lines::default();
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
            self.put(lines.get(), dropped);
            lines.clear();
            spare = lines;
            state = self.lock();
        }
    }

    /// Writes lines; those that had no room are only counted. A log that cannot be written stops nobody.
    fn put(&self, lines: &[u8], dropped: u64) {
        let is_file = sys::is_regular_file(self.fd);
        let most = if is_file { usize::MAX } else { PIECE_BYTES_MAX };
        let write_piece = |piece: &[u8]| {
            self.end_cut_line();
            let is_written = sys::write_all_wait(self.fd, piece).is_ok();
            self.pieces.fetch_add(1, Relaxed);
            self.has_failed.store(is_file && !is_written, Relaxed);
            is_written
        };
        let write = |piece: &[u8]| match &self.shared {
            Some(lock) => lock.hold(|| write_piece(piece)),
            None => write_piece(piece),
        };
        let lost = write_pieces(lines, most, write) + dropped;
        self.lost.fetch_add(lost, Relaxed);
    }

    /// After a full disk: lets no line begin behind the one that was cut off, by whichever worker.
    fn end_cut_line(&self) {
        if self.has_failed.load(Relaxed) && sys::ends_amid_line(self.fd) {
            let _ = sys::write_all_wait(self.fd, b"\n");
        }
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
        let began = Instant::now();
        loop {
            let pieces = self.pieces.load(Relaxed);
            let (waited, timeout) = self
                .written
                .wait_timeout_while(state, LAST_WRITE_WAIT, is_busy)
                .unwrap_or_else(PoisonError::into_inner);
            state = waited;
            let is_read = self.pieces.load(Relaxed) != pieces;
            if !timeout.timed_out() || !is_read || began.elapsed() >= LAST_WRITES_WAIT {
                break;
            }
        }
        self.lost.fetch_add(count_lines(state.gathered.get()) + state.dropped, Relaxed);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
