//! Files and pipes, and descriptors of any kind.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::errno::{check, check_size, retry};
use super::wait::{Direction, wait_for};

/// # Errors
/// Not an open descriptor.
pub fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    Ok(())
}

/// A second, close-on-exec descriptor of the same thing.
///
/// # Errors
/// Not open, or out of descriptors.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(check(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3))?) })
}

/// Sends at most `length` bytes of `file` from `offset`, which moves on; 0 is the end of the file.
///
/// # Errors
/// `WouldBlock` when nothing fits; `InvalidInput` for a descriptor that cannot be sent; else sendfile(2).
pub fn send_file(fd: RawFd, file: RawFd, offset: &mut i64, length: usize) -> io::Result<usize> {
    // SAFETY: `offset` lives through the call. sendfile has no flag against SIGPIPE: CPython ignores that signal,
    // and `Server::new` makes sure of it.
    retry(|| check_size(unsafe { libc::sendfile(fd, file, offset, length) }))
}

/// Has the kernel read no more of a file ahead than is asked for. Where it reads ahead megabytes (8 MiB on some machines),
/// one small piece of a file that is not in memory would take tens of milliseconds.
pub fn read_no_further(file: RawFd) {
    // SAFETY: no pointers. It is advice: a failure changes nothing.
    unsafe { libc::posix_fadvise(file, 0, 0, libc::POSIX_FADV_RANDOM) };
}

/// Whether `fd` is a regular file: appending to it is atomic at any size.
#[must_use]
pub fn is_regular_file(fd: RawFd) -> bool {
    // SAFETY: all-zero is a valid value of this plain struct.
    let mut status: libc::stat = unsafe { zeroed() };
    // SAFETY: `status` lives through the call.
    let result = unsafe { libc::fstat(fd, &raw mut status) };
    result == 0 && status.st_mode & libc::S_IFMT == libc::S_IFREG
}

/// Whether a regular file ends in the middle of a line. `fd` may be open for writing only; true where that is not to be known.
#[must_use]
pub fn ends_amid_line(fd: RawFd) -> bool {
    let last = || -> io::Result<Option<u8>> {
        let file = std::fs::File::open(format!("/proc/self/fd/{fd}"))?;
        let Some(at) = file.metadata()?.len().checked_sub(1) else { return Ok(None) };
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        Ok(Some(byte[0]))
    };
    !matches!(last(), Ok(None | Some(b'\n')))
}

/// A lock that processes share by the number of one of their open files.
pub struct SharedLock(OwnedFd);

impl SharedLock {
    /// The lock on the open file `fd`, for this thread: by an open file of its own, as such a lock belongs to one
    /// (`F_OFD_SETLK`). It keeps out the record locks of `fcntl(2)` too, this process's own included.
    ///
    /// # Errors
    /// open(2): no `/proc`, or `fd` is not open.
    pub fn new(fd: RawFd) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{fd}");
        Ok(Self(std::fs::OpenOptions::new().read(true).write(true).open(path)?.into()))
    }

    /// Runs `action` while no other process or thread has the lock. Without it if that cannot be had.
    pub fn hold<T>(&self, action: impl FnOnce() -> T) -> T {
        self.change(libc::F_WRLCK);
        let result = action();
        self.change(libc::F_UNLCK);
        result
    }

    #[allow(clippy::cast_possible_truncation)] // constants of the kernel's, which fit
    fn change(&self, kind: libc::c_int) {
        // SAFETY: all-zero is a valid value of this plain struct; it means the whole file.
        let mut lock: libc::flock = unsafe { zeroed() };
        lock.l_type = kind as libc::c_short;
        let _ = retry(|| {
            // SAFETY: `lock` lives through the call, the descriptor is ours.
            check(unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_OFD_SETLKW, &raw mut lock) })
        });
    }
}

/// Writes all of `bytes` to a file, pipe or terminal, waiting as long as that takes.
///
/// # Errors
/// write(2).
pub fn write_all_wait(fd: RawFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: the kernel reads at most `bytes.len()` bytes of the slice.
        let result =
            retry(|| check_size(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) }));
        match result {
            Ok(count) => bytes = &bytes[count..],
            // Somebody made the log's pipe non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_for(fd, Direction::Write, Duration::from_secs(1))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
