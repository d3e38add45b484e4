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
