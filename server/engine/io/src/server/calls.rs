//! The beginning and the end of a call, as the engine sees it.

use std::sync::atomic::Ordering::{AcqRel, Relaxed, SeqCst};

use super::{Notice, Server, lock};
use crate::accounting::{self, CallResult};
use crate::call_state::Thread;
use crate::conn::{After, Next};
use crate::reactor::{Call, Order};
use crate::stats::cell;
use crate::sys;

/// A call longer than this makes its thread wake another one to lead in the meantime.
const SLOW_CALL_US: u64 = 300;

impl Server {
    /// A call begins: now the app thread of that number has it.
    pub fn begin(&self, number: usize, call: &mut Call) -> u64 {
        let now_us = sys::monotonic_us();
        let thread = &self.threads[number];
        if self.shared.names_requests() {
            call.name_request(&self.shared);
        }
        self.shared.table.set_line(number, call.request_line(self.shared.settings.hides_queries));
        thread.begin(call, now_us, self.shared.settings.request_timeout_us > 0);
        self.calls.fetch_add(1, SeqCst);
        // The watchdog looks at the calls again after it said that it parks: one of the two sees the other.
        if self.watchdog.is_parked.load(SeqCst) {
            self.wake_watchdog();
        }
        let table = &self.shared.table;
        table.add(cell::in_flight, 1);
        let oldest = table.own(cell::oldest_start_us);
        if oldest.load(Relaxed) == 0 {
            oldest.store(now_us, Relaxed);
        }
        if thread.is_slow.load(Relaxed) && self.parked.load(SeqCst) > 0 {
            self.offer_lead();
        }
        now_us
    }

    /// A call is over, its answer sent or held: counts it and gives its connection back.
    ///
    /// `keeps` says whether the answer promised to keep the connection.
    pub fn end(&self, number: usize, mut call: Call, outcome: CallResult, keeps: bool) {
        let thread = &self.threads[number];
        let is_timed = self.shared.settings.request_timeout_us > 0;
        call.is_left_counted = thread.has_left();
        let ended = thread.end(is_timed);
        let is_expired = ended.is_expired;
        let shared = &self.shared;
        let (status, end_us) =
            if is_expired { (504, sys::monotonic_us()) } else { (outcome.status, outcome.end_us) };
        accounting::note_answer(
            shared,
            &call.received_request(),
            &CallResult { status, end_us, is_counted: is_expired, ..outcome },
        );
        shared.table.clear_line(number);
        shared.table.sub(cell::in_flight, 1);
        if ended.is_overdue {
            shared.table.sub(cell::overdue, 1);
        }
        self.renew_oldest();
        thread.is_slow.store(end_us.saturating_sub(outcome.start_us) > SLOW_CALL_US, Relaxed);
        let closes = !keeps || is_expired;
        // A client that wanted to go on may be sending: a plain close would reset what it has not read yet.
        let lingers = !call.is_body_received() || call.request().head.keep_alive;
        let after = match (closes, lingers) {
            (false, _) => After::Keep,
            (true, false) => After::Close,
            (true, true) => After::Linger,
        };
        let next = if is_expired { Next::Close } else { call.finish_call(after, shared, end_us) };
        let answered = self.answered.fetch_add(1, Relaxed) + 1;
        if answered == shared.settings.max_requests {
            self.notify(Notice::MaxRequests);
        }
        self.give_back(call, next, end_us);
        if self.ready_count.load(Relaxed) > 0 {
            self.accept_credit.fetch_add(1, Relaxed);
        }
        self.calls.fetch_sub(1, AcqRel);
        self.wake_hub_after_call();
    }

    /// A call was lost in a panic, its connection with it.
    pub fn abandon(&self, number: usize, token: u64) {
        let thread = &self.threads[number];
        drop(thread.take_unsent());
        if thread.end(self.shared.settings.request_timeout_us > 0).is_overdue {
            self.shared.table.sub(cell::overdue, 1);
        }
        self.shared.table.clear_line(number);
        self.shared.table.sub(cell::in_flight, 1);
        self.renew_oldest();
        self.waker.wake();
        lock(&self.lead).abandon(token);
        self.calls.fetch_sub(1, AcqRel);
        self.wake_hub_after_call();
    }

    fn renew_oldest(&self) {
        let oldest =
            self.threads.iter().map(Thread::start_us).filter(|&us| us > 0).min().unwrap_or(0);
        self.shared.table.set(cell::oldest_start_us, oldest);
    }

    fn give_back(&self, conn: Call, next: Next, now_us: u64) {
        if let Ok(mut reactor) = self.lead.try_lock() {
            reactor.take_back(conn, next, now_us);
            self.publish_ready(&mut reactor);
            return;
        }
        // The leader must look at once when there is something to do; else an event of the socket tells it: changing
        // the interest reports again what came in the meantime.
        let is_quiet = next == Next::Wait
            && !conn.has_leftover()
            && conn.unsent.is_empty()
            && self.order() == Order::Serve;
        let (fd, token) = (conn.raw_fd(), conn.token);
        let mut run_queue = lock(&self.run_queue);
        run_queue.returned.push((conn, next));
        self.returned_count.fetch_add(1, AcqRel);
        if !is_quiet || self.epoll.modify(fd, sys::READ | sys::EDGE, token).is_err() {
            self.waker.wake();
        }
    }

    /// Whether an answer may keep the connection of `call` for another request.
    #[must_use]
    pub fn may_keep(&self, call: &Call) -> bool {
        call.request().head.keep_alive
            && self.shared.settings.keep_alive_us > 0
            && !call.handover_failed
            && match self.order() {
                Order::Serve => true,
                Order::HandOver => self.has_handover,
                Order::Close | Order::Stop => false,
            }
    }
}
