//! Answers on their way out: at once, later by whoever leads, or through the spool.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

use super::Server;
use crate::call_state::Thread;
use crate::forked;
use crate::out_queue::{
    FileSegment, Flushed, OutQueue, SLICE_BYTES, SharedBytes, UNSENT_BYTES_MAX,
};
use crate::pace::Patience;
use crate::reactor::Call;
use crate::sys::{self, Direction};

/// A client that has not caught up with its answer for so long costs its thread no more: the answer is spilled.
const SPILL_AFTER: Duration = Duration::from_millis(2);

/// An answer that waits for its client because the spool is full asks again so often.
const ROOM_RETRY: Duration = Duration::from_millis(100);

/// How sending went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Sent, or held for the client.
    Fine,
    /// The client is gone, or had its 504 already.
    Gone,
}

/// How a call waits until its client's socket is ready; false when that takes too long. A thread blocks
/// ([`sys::wait_for`]), a greenlet lets others run.
pub type Wait<'a> = &'a mut dyn FnMut(RawFd, Direction, Duration) -> io::Result<bool>;

impl Server {
    /// Sends `head` and then `body[..end]` as part of an answer. What the client does not take at once is sent later,
    /// out of the memory it is in. `is_rest` says that the app has nothing to add.
    pub fn send(
        &self,
        number: usize,
        call: &mut Call,
        head: &[u8],
        body: Option<(SharedBytes, usize)>,
        is_rest: bool,
    ) -> Sent {
        let thread = &self.threads[number];
        if forked::is_forked() || !thread.claim() {
            return Sent::Gone;
        }
        self.look_for_client(thread, call);
        let mut sent = 0;
        if !thread.has_unsent() && call.unsent.is_empty() {
            let result = match &body {
                Some((body, end)) => {
                    let slice = (*end).min(SLICE_BYTES);
                    sys::send_two(call.raw_fd(), head, &(**body).as_ref()[..slice])
                }
                None => sys::send(call.raw_fd(), head),
            };
            match result {
                Ok(count) => sent = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    self.count_left(thread);
                    return Sent::Gone;
                }
            }
            self.shared.count_sent(sent as u64);
            if sent == head.len() + body.as_ref().map_or(0, |(_, end)| *end) {
                return Sent::Fine;
            }
        }
        let add = |unsent: &mut OutQueue| {
            unsent.push(&head[sent.min(head.len())..]);
            if let Some((body, end)) = body {
                unsent.push_shared(body, sent.saturating_sub(head.len()), end);
            }
        };
        if is_rest {
            if thread.has_unsent() {
                call.unsent = thread.take_unsent();
            }
            add(&mut call.unsent);
        } else {
            thread.with_unsent(|unsent, _| add(unsent));
            self.watch_room(call);
        }
        Sent::Fine
    }

    /// Adds a file behind everything sent so far; whoever leads sends it, while the app closes it or the thread serves
    /// others.
    pub fn send_file(
        &self,
        number: usize,
        call: &mut Call,
        head: &[u8],
        file: FileSegment,
    ) -> Sent {
        let thread = &self.threads[number];
        if forked::is_forked() || !thread.claim() {
            return Sent::Gone;
        }
        self.look_for_client(thread, call);
        thread.with_unsent(|unsent, _| {
            unsent.push(head);
            unsent.push_file(file);
        });
        self.watch_room(call);
        Sent::Fine
    }

    /// From now on whoever leads is woken when the client takes more. A failure only leaves it to the next look.
    fn watch_room(&self, call: &Call) {
        let interest = sys::READ | sys::WRITE | sys::EDGE;
        let _ = self.epoll.modify(call.raw_fd(), interest, call.token);
    }

    /// Whether the client is so far behind that there has to be room before the app adds to the answer.
    #[must_use]
    pub fn is_behind(&self, number: usize) -> bool {
        let thread = &self.threads[number];
        thread.has_unsent()
            && thread.with_unsent(|unsent, _| {
                unsent.held() > UNSENT_BYTES_MAX || !unsent.cover(&self.shared.memory)
            })
    }

    /// Makes room for more of an answer that goes on: gives its client a moment, moves to the spool what it has not
    /// taken by then, and when that is full waits for it; `Gone` when it is too slow.
    ///
    /// None of that is the app's time.
    pub fn make_room(&self, number: usize, wait: Wait<'_>) -> Sent {
        let thread = &self.threads[number];
        thread.begin_waiting(sys::monotonic_us());
        let sent = self.wait_for_room(thread, wait);
        thread.end_waiting(sys::monotonic_us());
        if sent == Sent::Gone {
            drop(thread.take_unsent());
            self.count_left(thread);
        }
        sent
    }

    /// A client that ended its side while the app was answering is counted. It is sent its answer all the same: it may
    /// have ended that side only. The kernel takes a small answer to a client that is gone like any other.
    fn look_for_client(&self, thread: &Thread, call: &Call) {
        if call.client_ended.load(Acquire) {
            self.count_left(thread);
        }
    }

    fn count_left(&self, thread: &Thread) {
        if thread.note_left() {
            self.shared.count_disconnect();
        }
    }

    fn wait_for_room(&self, thread: &Thread, wait: Wait<'_>) -> Sent {
        let mut is_spilling = thread.with_unsent(|unsent, _| unsent.is_spilling());
        loop {
            match self.flush_thread(thread) {
                Flushed::All => return Sent::Fine,
                Flushed::Broken => return Sent::Gone,
                Flushed::Blocked | Flushed::More => {}
            }
            let has_room = |unsent: &mut OutQueue| {
                unsent.held() <= UNSENT_BYTES_MAX / 2 && unsent.cover(&self.shared.memory)
            };
            if thread.with_unsent(|unsent, _| has_room(unsent))
                || is_spilling && thread.with_unsent(|unsent, _| self.spill(unsent))
            {
                return Sent::Fine;
            }
            let moment = if is_spilling { ROOM_RETRY } else { SPILL_AFTER };
            let patience = self.patience(is_spilling);
            is_spilling = true;
            let waited = thread.with_unsent(|unsent, fd| {
                let now_us = sys::monotonic_us();
                (fd, unsent.deadline_us(fd, patience, now_us).saturating_sub(now_us))
            });
            let (fd, left_us) = waited;
            let time = moment.min(Duration::from_micros(left_us));
            if time.is_zero() || wait(fd, Direction::Write, time).is_err() {
                return Sent::Gone;
            }
        }
    }

    /// How long an app thread waits for its client; less when the spool is full, and then others are asked to make way.
    fn patience(&self, is_full: bool) -> Patience {
        let patience = self.shared.settings.response_patience;
        if !is_full || self.shared.response_spool.is_none() {
            return patience;
        }
        self.shared.press();
        patience.under_pressure()
    }

    /// Moves what is unsent to the spool; false when that has no room.
    fn spill(&self, unsent: &mut OutQueue) -> bool {
        let Some(spool) = &self.shared.response_spool else { return false };
        unsent.spill(spool).unwrap_or_else(|error| {
            self.shared.note_spool_failure(&error);
            false
        })
    }

    /// An answer is complete: takes what the client has not taken of it over into the connection. False when there is
    /// no memory for that, and [`Server::store`] is to be called.
    #[must_use]
    pub fn hold(&self, number: usize, call: &mut Call) -> bool {
        if self.threads[number].has_unsent() {
            call.unsent = self.threads[number].take_unsent();
        }
        call.unsent.is_empty() || call.unsent.cover(&self.shared.memory)
    }

    /// Moves to the spool what memory should not hold of a complete answer; when that is full waits for the client.
    /// None of that is the app's time.
    pub fn store(&self, number: usize, call: &mut Call, wait: Wait<'_>) {
        let thread = &self.threads[number];
        thread.begin_waiting(sys::monotonic_us());
        if !self.wait_to_store(call, wait) {
            // Too slow, or gone: what comes next finds the connection closed.
            sys::shut_down(call.raw_fd());
            call.unsent = OutQueue::default();
            self.count_left(thread);
        }
        thread.end_waiting(sys::monotonic_us());
    }

    fn wait_to_store(&self, call: &mut Call, wait: Wait<'_>) -> bool {
        let fd = call.raw_fd();
        loop {
            if self.flush(&mut call.unsent, fd) == Flushed::Broken {
                return false;
            }
            if call.unsent.cover(&self.shared.memory) || self.spill(&mut call.unsent) {
                return true;
            }
            let (now_us, patience) = (sys::monotonic_us(), self.patience(true));
            let left_us = call.unsent.deadline_us(fd, patience, now_us).saturating_sub(now_us);
            let time = ROOM_RETRY.min(Duration::from_micros(left_us));
            if time.is_zero() || wait(fd, Direction::Write, time).is_err() {
                return false;
            }
        }
    }

    /// From now on the call waits for more of its body; returns where to wait for it, and how long. The client's time is
    /// not the app's: a slow upload is no reason to give a worker up.
    pub fn begin_body_wait(&self, number: usize, call: &mut Call) -> (RawFd, Duration) {
        let now_us = sys::monotonic_us();
        let deadline_us = call.resume_body(self.shared.settings.body_patience, now_us);
        self.threads[number].begin_waiting(now_us);
        (call.raw_fd(), Duration::from_micros(deadline_us.saturating_sub(now_us)))
    }

    /// That wait is over; to be called while the call is not.
    pub fn end_body_wait(&self, number: usize) {
        self.threads[number].end_waiting(sys::monotonic_us());
    }

    /// Goes on with the answers that apps are still producing; true when more can be sent at once.
    pub(super) fn flush_threads(&self) -> bool {
        let mut has_more = false;
        for thread in self.threads.iter().filter(|thread| thread.has_unsent()) {
            // A broken connection is noticed by the app thread, at its next block. One that moves its answer to the
            // spool right now is left alone: the disk may be slow.
            let flushed = thread.try_with_unsent(|unsent, fd| self.flush(unsent, fd));
            has_more |= flushed == Some(Flushed::More);
        }
        has_more
    }

    fn flush_thread(&self, thread: &Thread) -> Flushed {
        thread.with_unsent(|unsent, fd| self.flush(unsent, fd))
    }

    fn flush(&self, unsent: &mut OutQueue, fd: RawFd) -> Flushed {
        let mut sent = 0;
        let flushed = unsent.flush(fd, &mut sent);
        self.shared.count_sent(sent);
        flushed
    }
}
