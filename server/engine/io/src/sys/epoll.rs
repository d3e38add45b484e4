//! epoll(7).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::errno::check;
use super::wait::{Direction, wait_for};

/// One readiness report: `data` is what [`Epoll::add`] was given.
pub type Event = libc::epoll_event;

/// Readable, or the peer ended its side.
pub const READ: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP).cast_unsigned();

/// The peer ended its side.
pub const PEER_ENDED: u32 = libc::EPOLLRDHUP.cast_unsigned();

/// Writable.
pub const WRITE: u32 = libc::EPOLLOUT.cast_unsigned();

/// Report changes only.
pub const EDGE: u32 = libc::EPOLLET.cast_unsigned();

/// The connection is broken in both directions.
pub const BROKEN: u32 = (libc::EPOLLHUP | libc::EPOLLERR).cast_unsigned();

/// An event that says nothing, to fill a batch with.
pub const NO_EVENT: Event = Event { events: 0, u64: 0 };

/// An epoll instance.
pub struct Epoll(OwnedFd);

impl Epoll {
    /// # Errors
    /// The process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed; the result, when not negative, is a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Self(fd))
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
        let mut event = Event { events, u64: data };
        // SAFETY: `event` lives through the call; the kernel copies it.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &raw mut event) })?;
        Ok(())
    }

    /// The descriptor, to wait on: readable while it has events.
    #[must_use]
    pub fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Whether there are events to take.
    #[must_use]
    pub fn has_events(&self) -> bool {
        wait_for(self.raw(), Direction::Read, Duration::ZERO).unwrap_or(false)
    }

    /// # Errors
    /// `EEXIST`, `ENOMEM`, `ENOSPC`.
    pub fn add(&self, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, events, data)
    }

    /// Changes the interest; what is ready now is reported again, edge-triggered or not.
    ///
    /// # Errors
    /// `ENOENT` when the descriptor was removed.
    pub fn modify(&self, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, events, data)
    }

    /// Forgets `fd`; one that is not there is no error.
    pub fn remove(&self, fd: RawFd) {
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
    }

    /// Fills `events` from the front; returns how many. `None` waits for ever, zero does not wait.
    /// A signal ends the wait with 0.
    ///
    /// # Errors
    /// None that a correct program meets.
    pub fn wait(&self, events: &mut [Event], timeout: Option<Duration>) -> io::Result<usize> {
        let timeout_ms = timeout.map_or(-1, |t| {
            // Rounded up: a wait that ends just before its deadline would spin.
            i32::try_from(t.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        let capacity = i32::try_from(events.len()).unwrap_or(i32::MAX);
        // SAFETY: the kernel writes at most `capacity` events to the slice.
        let result = unsafe {
            libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), capacity, timeout_ms)
        };
        match check(result) {
            Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }
}
