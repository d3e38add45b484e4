//! Ends this process when the one that owns it (the arbiter) is gone, by a thread that needs nothing of Python.
//!
//! A call that holds the GIL for good keeps every Python thread from noticing; the process would hold its addresses
//! until the machine restarts.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::thread;
use std::time::Duration;

use crate::sys::{self, BROKEN, Epoll, NO_EVENT};

/// It needs little: two system calls and a sleep.
const STACK_BYTES: usize = 64 * 1024;

/// Once the other end of `channel` is closed, refuses further handshakes on `listeners`, and ends this process when
/// `grace` has gone by. The process itself is to have ended by then.
///
/// # Errors
/// The thread cannot be started; out of descriptors.
pub fn outlive_no_longer(channel: RawFd, listeners: Vec<RawFd>, grace: Duration) -> io::Result<()> {
    let end = End::of(channel)?;
    let watch = move || {
        if end.wait().is_err() {
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

/// The end of a socket pair's other end.
///
/// By epoll(7), which forgets a descriptor that is closed: poll(2) would keep the channel open while it waits, and the
/// arbiter would not see that the app has closed all descriptors. Nor is the epoll's own ever closed here: its number
/// may be another's by then.
struct End(ManuallyDrop<Epoll>);

impl End {
    fn of(channel: RawFd) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(channel, BROKEN, 0)?;
        Ok(Self(ManuallyDrop::new(epoll)))
    }

    /// Waits for it, whatever there is to read until then.
    fn wait(&self) -> io::Result<()> {
        while self.0.wait(&mut [NO_EVENT], None)? == 0 {}
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::sync::mpsc;

    use super::*;
    use crate::sys::{send, socket_pair};

    const MOMENT: Duration = Duration::from_millis(50);

    #[test]
    fn the_end_is_waited_for_past_what_can_be_read() {
        let [ours, theirs] = socket_pair().unwrap();
        assert_eq!(send(theirs.as_raw_fd(), b"order").unwrap(), 5);
        let end = End::of(ours.as_raw_fd()).unwrap();
        let (ended, has_ended) = mpsc::channel();
        thread::spawn(move || ended.send(end.wait()));
        assert!(has_ended.recv_timeout(MOMENT).is_err(), "its owner is alive");
        drop(theirs);
        has_ended.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    }

    #[test]
    fn a_channel_that_is_closed_here_is_seen_as_closed_there() {
        let [ours, theirs] = socket_pair().unwrap();
        let end = End::of(ours.as_raw_fd()).unwrap();
        let (ended, has_ended) = mpsc::channel();
        thread::spawn(move || ended.send(end.wait()));
        assert!(has_ended.recv_timeout(MOMENT).is_err(), "it waits");
        drop(ours);
        End::of(theirs.as_raw_fd()).unwrap().wait().unwrap();
        assert!(has_ended.recv_timeout(MOMENT).is_err(), "that was no end of its owner");
    }
}
