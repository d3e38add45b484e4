//! Tells whether this process is a child that the app forked in the middle of a call.
//!
//! Such a child has copies of everything: it would answer the client a second time and take the parent's events off
//! the shared epoll. It must do neither.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static IS_FORKED: AtomicBool = AtomicBool::new(false);
static WATCH: Once = Once::new();

extern "C" fn in_child() {
    IS_FORKED.store(true, Relaxed);
}

/// From now on forks of this process are noticed in the child; this process itself counts as no child.
pub fn watch() {
    IS_FORKED.store(false, Relaxed);
    // SAFETY: the handler only stores to an atomic, which is safe between fork and exec.
    WATCH.call_once(|| unsafe {
        libc::pthread_atfork(None, None, Some(in_child));
    });
}

/// Whether this process was forked since [`watch`].
#[must_use]
pub fn is_forked() -> bool {
    IS_FORKED.load(Relaxed)
}
