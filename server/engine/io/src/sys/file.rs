//! Files and pipes, and descriptors of any kind.

use std::io;
use std::mem::zeroed;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
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
