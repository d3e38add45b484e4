//! Ends this process when the one that owns it (the arbiter) is gone, by a thread that needs nothing of Python.
//!
//! A call that holds the GIL for good keeps every Python thread from noticing; the process would hold its addresses
//! until the machine restarts.

use std::io;
use std::os::fd::RawFd;
use std::thread;
use std::time::Duration;

use crate::sys;

/// It needs little: two system calls and a sleep.
const STACK_BYTES: usize = 64 * 1024;

/// Once the other end of `channel` is closed, refuses further handshakes on `listeners`, and ends this process when
/// `grace` has gone by. The process itself is to have ended by then.
///
/// # Errors
/// The thread cannot be started.
pub fn outlive_no_longer(channel: RawFd, listeners: Vec<RawFd>, grace: Duration) -> io::Result<()> {
    let watch = move || {
        if sys::wait_for_end(channel).is_err() {
            return;
        }
        for listener in listeners {
            // Where the kernel forbids it, or Python was here first: connections come until the queue is empty.
            let _ = sys::refuse_handshakes(listener);
        }
        thread::sleep(grace);
        sys::exit_now(0);
    };
    thread::Builder::new().name("prefork-owner".into()).stack_size(STACK_BYTES).spawn(watch)?;
    Ok(())
}
