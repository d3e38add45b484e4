//! What concerns the whole process.

use std::io;

use super::errno::check;

/// Ignores SIGPIPE, which sendfile(2) cannot be told to leave out.
pub fn ignore_sigpipe() {
    // SAFETY: SIG_IGN installs no handler code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Makes this process the parent of its orphaned descendants (`prctl(2)`, `PR_SET_CHILD_SUBREAPER`).
///
/// # Errors
/// The kernel refuses.
pub fn set_child_subreaper() -> io::Result<()> {
    // SAFETY: this prctl takes no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })?;
    Ok(())
}

/// Forks a process that is not this one's child, by one in between that ends at once.
///
/// 0 in the new process, here the pid of the one in between, which is to be reaped: exit status 1 says that the second
/// fork failed.
///
/// # Errors
/// The first fork failed.
///
/// # Safety
/// The new process has the calling thread alone: it must not wait for what another thread holds.
pub unsafe fn fork_twice() -> io::Result<i32> {
    // SAFETY: the caller's. The process in between calls nothing but fork and _exit.
    let between = check(unsafe { libc::fork() })?;
    if between == 0 {
        // SAFETY: as above.
        match unsafe { libc::fork() } {
            0 => {}
            -1 => exit_now(1),
            _ => exit_now(0),
        }
    }
    Ok(between)
}

/// Ends this process at once: no destructor and no exit function runs, in whatever state other threads are.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: it takes no pointers and does not return.
    unsafe { libc::_exit(code) }
}

/// A random number; the clock's where the kernel has none yet.
#[must_use]
pub fn random_number() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer lives through the call and is as long as said.
    let count =
        unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    if count == 8 {
        u64::from_ne_bytes(bytes)
    } else {
        super::wall_us() ^ u64::from(std::process::id()) << 40
    }
}
