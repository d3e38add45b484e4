//! What a connection sends by itself: refusals, the rest of an answer, and its end.

use std::io;
use std::os::fd::AsRawFd;

use prefork_core::{Method, Reject};

use super::{After, Conn, Next, State};
use crate::accounting;
use crate::buffer::Pool;
use crate::out_queue::Flushed;
use crate::shared::Shared;
use crate::sys;

/// How long a client may go on sending what nobody reads before the connection is cut.
const LINGER_US: u64 = 2_000_000;

impl Conn {
    /// The call is over and its answer is sent or in `unsent`: makes the connection ready for what follows.
    /// The request's buffer stays when bytes of a next request are in it.
    pub fn finish_call(&mut self, after: After, shared: &Shared, now_us: u64) -> Next {
        self.answered += 1;
        self.received = 0;
        self.made_id = None;
        self.ready_us = 0;
        if let Some(buffer) = self.buffer.as_mut() {
            buffer.next_request();
        }
        if self.unsent.is_empty() {
            return self.after_answer(after, shared, now_us);
        }
        self.state = State::Answer(after);
        self.on_writable(shared, now_us)
    }

    /// There may be room to send: goes on with the answer, then with what comes after it.
    pub fn on_writable(&mut self, shared: &Shared, now_us: u64) -> Next {
        let State::Answer(after) = self.state else { return Next::Wait };
        let mut sent = 0;
        let flushed = self.unsent.flush(self.fd.as_raw_fd(), &mut sent);
        shared.count_sent(sent);
        match flushed {
            Flushed::Broken => {
                self.count_left(shared);
                Next::Close
            }
            Flushed::Blocked | Flushed::More => {
                let patience = shared.settings.response_patience;
                self.deadline_us = self.unsent.deadline_us(self.fd.as_raw_fd(), patience, now_us);
                if flushed == Flushed::More { Next::Yield } else { Next::Wait }
            }
            Flushed::All => self.after_answer(after, shared, now_us),
        }
    }

    /// The answer is sent: the next request, or the end.
    fn after_answer(&mut self, after: After, shared: &Shared, now_us: u64) -> Next {
        match after {
            After::Keep => {
                self.state = State::Head;
                self.is_left_counted = false;
                self.deadline_us = now_us + shared.settings.keep_alive_us;
                Next::Wait
            }
            After::Close => Next::Close,
            After::Linger => {
                sys::shut_down_write(self.fd.as_raw_fd());
                self.state = State::Linger;
                self.deadline_us = now_us + LINGER_US;
                self.discard()
            }
        }
    }

    pub(super) fn discard(&mut self) -> Next {
        let mut sink = [0u8; 16 * 1024];
        self.is_unread = false;
        // Bounded, so that one client cannot keep the reactor; what still comes raises a new edge, and the deadline ends
        // it in any case.
        for _ in 0..16 {
            match sys::receive(self.fd.as_raw_fd(), &mut sink) {
                Ok(0) => return Next::Close,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Next::Wait,
                Err(_) => return Next::Close,
            }
        }
        Next::Wait
    }

    /// Answers a refused request by itself and gives the connection up.
    pub fn refuse(
        &mut self,
        reject: Reject,
        shared: &Shared,
        pool: &mut Pool,
        now_us: u64,
    ) -> Next {
        accounting::note_refusal(shared, &self.received_request(), reject.status(), reject.code());
        self.answer_and_close(reject.status(), reject.message(), shared, pool, now_us)
    }

    pub(super) fn answer_and_close(
        &mut self,
        status: u16,
        why: &str,
        shared: &Shared,
        pool: &mut Pool,
        now_us: u64,
    ) -> Next {
        let is_head = self.head().is_some_and(|head| head.method == Method::Head);
        self.unsent.push(&shared.plain_answer(status, why, is_head));
        self.release(pool);
        self.state = State::Answer(After::Linger);
        self.on_writable(shared, now_us)
    }
}
