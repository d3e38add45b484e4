//! The system calls of the engine, each as one safe function (but for the fork); all unsafe code of this crate is here, in `stats` (the
//! mapped table) and in `forked` (a handler of fork).
//!
//! Everything here is non-blocking unless its name says `wait`. `EINTR` never reaches a caller.

mod clock;
mod epoll;
mod errno;
mod file;
mod listener;
mod passing;
mod process;
mod socket;
mod wait;
mod waker;

pub use clock::{monotonic_us, wall_us};
pub use epoll::{BROKEN, EDGE, Epoll, Event, NO_EVENT, PEER_ENDED, READ, WRITE};
pub use file::{
    SharedLock, duplicate, ends_amid_line, is_regular_file, read_no_further, send_file,
    set_nonblocking, write_all_wait,
};
pub use listener::{accept, listen_queue, refuse_handshakes, refuses_handshakes};
pub use passing::{receive_descriptor, send_descriptor, socket_pair};
pub use process::{exit_now, fork_twice, ignore_sigpipe, random_number, set_child_subreaper};
pub use socket::{
    Address, acknowledge, local_address, peer_address, receive, send, send_two, set_no_delay,
    shut_down, shut_down_write, unacknowledged,
};
pub use wait::{Direction, wait_for};
pub use waker::Waker;
