//! Waiting for one descriptor, by poll(2).

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::clock::monotonic_us;
use super::errno::check;

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Bytes to read, or the end.
    Read,
    /// Room to write.
    Write,
}

/// Waits until `fd` is ready or broken; false when `timeout` went by.
///
/// # Errors
/// poll(2).
pub fn wait_for(fd: RawFd, direction: Direction, timeout: Duration) -> io::Result<bool> {
    let events = match direction {
        Direction::Read => libc::POLLIN,
        Direction::Write => libc::POLLOUT,
    };
    let end_us =
        monotonic_us().saturating_add(u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX));
    loop {
        let left_ms = end_us.saturating_sub(monotonic_us()).div_ceil(1000);
        let mut poll = libc::pollfd { fd, events, revents: 0 };
        // SAFETY: one pollfd, which lives through the call.
        let result =
            unsafe { libc::poll(&raw mut poll, 1, i32::try_from(left_ms).unwrap_or(i32::MAX)) };
        match check(result) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
