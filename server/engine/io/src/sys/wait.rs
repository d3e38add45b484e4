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

/// Waits until the other end of a socket pair is closed, whatever there is to read until then.
///
/// # Errors
/// poll(2), or `fd` is not open.
pub fn wait_for_end(fd: RawFd) -> io::Result<()> {
    loop {
        // The end and errors are reported without being asked for.
        let mut poll = libc::pollfd { fd, events: 0, revents: 0 };
        // SAFETY: one pollfd, which lives through the call.
        match check(unsafe { libc::poll(&raw mut poll, 1, -1) }) {
            Ok(_) if poll.revents & libc::POLLNVAL != 0 => {
                return Err(io::Error::from_raw_os_error(libc::EBADF));
            }
            Ok(_) if poll.revents & libc::POLLHUP != 0 => return Ok(()),
            Ok(_) => return Err(io::Error::other("the descriptor is not a socket pair's")),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::sync::mpsc;

    use super::*;
    use crate::sys::{send, socket_pair};

    #[test]
    fn the_end_is_waited_for_past_what_can_be_read() {
        let [ours, theirs] = socket_pair().unwrap();
        assert_eq!(send(theirs.as_raw_fd(), b"order").unwrap(), 5);
        let (ended, has_ended) = mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let result = wait_for_end(ours.as_raw_fd());
            ended.send(()).unwrap();
            result
        });
        assert!(has_ended.recv_timeout(Duration::from_millis(50)).is_err(), "its owner is alive");
        drop(theirs);
        waiter.join().unwrap().unwrap();
    }

    #[test]
    fn a_closed_descriptor_is_not_taken_for_the_end() {
        assert!(wait_for_end(1_000_000).is_err());
    }
}
