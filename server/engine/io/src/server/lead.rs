//! Leader/Followers: who of the app threads drives the reactor, and how requests and connections go between it and them.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::sync::{MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use super::{LEADER_APP, LEADER_NONE, Notice, Server, Work, lock};
use crate::access_log::AccessLog;
use crate::reactor::{Reactor, Role, Turn};
use crate::stats::cell;
use crate::sys;

/// The longest wait of a leader: returned connections with their deadlines are looked at this often.
pub(super) const LEAD_WAIT: Duration = Duration::from_secs(1);

impl Server {
    /// Looks for work without waiting.
    pub fn poll(&self) -> Work {
        if let Some(work) = self.take_ready() {
            return work;
        }
        match self.lead.try_lock() {
            Ok(reactor) => self.lead(reactor, Duration::ZERO),
            Err(TryLockError::Poisoned(reactor)) => self.lead(reactor.into_inner(), Duration::ZERO),
            Err(TryLockError::WouldBlock) => Work::Nothing,
        }
    }

    /// Waits for work.
    pub fn wait(&self) -> Work {
        self.waiting.fetch_add(1, SeqCst);
        let work = loop {
            // Each time: another worker may have reserved this thread, and given the request to a third one.
            self.advertise(self.waiting.load(SeqCst));
            let work = self.take_ready().unwrap_or_else(|| self.wait_once());
            if !matches!(work, Work::Nothing) {
                break work;
            }
        };
        self.advertise(self.waiting.fetch_sub(1, SeqCst) - 1);
        work
    }

    fn wait_once(&self) -> Work {
        let reactor = match self.lead.try_lock() {
            Ok(reactor) => reactor,
            Err(TryLockError::Poisoned(reactor)) => reactor.into_inner(),
            Err(TryLockError::WouldBlock) => {
                if self.leader.load(SeqCst) == LEADER_APP {
                    self.park();
                    return Work::Nothing;
                }
                self.lead_wanted.fetch_add(1, SeqCst);
                self.waker.wake();
                let reactor = lock(&self.lead);
                self.lead_wanted.fetch_sub(1, SeqCst);
                reactor
            }
        };
        self.lead(reactor, LEAD_WAIT)
    }

    fn take_ready(&self) -> Option<Work> {
        if self.is_done.load(Acquire) {
            return Some(Work::End);
        }
        if self.ready_count.load(Acquire) == 0 {
            return None;
        }
        let call = lock(&self.run_queue).ready.pop_front()?;
        self.count_taken(1);
        self.taken.fetch_add(1, Relaxed);
        Some(Work::Call(call))
    }

    /// One turn of an app thread.
    fn lead(&self, mut reactor: MutexGuard<'_, Reactor>, wait: Duration) -> Work {
        self.leader.store(LEADER_APP, SeqCst);
        self.lead_count.fetch_add(1, Relaxed);
        self.take_returned(&mut reactor);
        // The watchdog may have left ready requests a moment ago, before it gave the lead away.
        let wait = if self.ready_count.load(SeqCst) > 0 { Duration::ZERO } else { wait };
        let is_sending = wait > Duration::ZERO && self.flush_threads();
        let wait = if is_sending { Duration::ZERO } else { wait };
        let turn = reactor.turn(Role::App, self.order(), Some(wait));
        if reactor.take_wake() {
            self.waker.clear();
        }
        let has_more = self.publish_ready(&mut reactor);
        self.tell_shut(&mut reactor);
        self.leader.store(LEADER_NONE, SeqCst);
        drop(reactor);
        if has_more {
            self.run_queue_changed.notify_all();
        }
        match turn {
            Turn::Call(call) => Work::Call(call),
            Turn::Idle => Work::Nothing,
            Turn::Done => self.finish(),
        }
    }

    /// Gives connections whose calls are over back to the reactor.
    pub(super) fn take_returned(&self, reactor: &mut Reactor) {
        if self.returned_count.load(Acquire) == 0 {
            return;
        }
        let returned = std::mem::take(&mut lock(&self.run_queue).returned);
        self.returned_count.fetch_sub(returned.len(), AcqRel);
        let now_us = sys::monotonic_us();
        for (conn, next) in returned {
            reactor.take_back(conn, next, now_us);
        }
    }

    /// Puts further ready requests where any app thread finds them.
    pub(super) fn publish_ready(&self, reactor: &mut Reactor) -> bool {
        if !reactor.has_ready() {
            return false;
        }
        let ready = reactor.take_ready();
        let mut run_queue = lock(&self.run_queue);
        self.ready_count.fetch_add(ready.len(), AcqRel);
        self.shared.table.add(cell::waiting, ready.len() as u64);
        run_queue.ready.extend(ready);
        true
    }

    /// So many requests do not wait here any more.
    pub(super) fn count_taken(&self, count: usize) {
        self.ready_count.fetch_sub(count, SeqCst);
        self.shared.table.sub(cell::waiting, count as u64);
    }

    /// Tells what the main thread should know.
    pub(super) fn tell_shut(&self, reactor: &mut Reactor) {
        if let Some(why) = self.shared.take_spool_failure() {
            self.notify(Notice::SpoolFailed { why });
        }
        self.report_lost_lines();
        if reactor.is_shut() && !self.is_shut.swap(true, Relaxed) {
            // Their numbers may soon belong to something else.
            reactor.forget_listeners();
            self.notify(Notice::Shut);
        }
    }

    fn report_lost_lines(&self) {
        let lines = self.shared.log.as_ref().map_or(0, AccessLog::take_lost);
        if lines > 0 {
            self.notify(Notice::LogLost { lines });
        }
    }

    pub(super) fn finish(&self) -> Work {
        if self.calls.load(SeqCst) > 0
            || self.ready_count.load(SeqCst) > 0
            || self.returned_count.load(SeqCst) > 0
        {
            return Work::Nothing;
        }
        if !self.is_done.swap(true, SeqCst) {
            if let Some(log) = &self.shared.log {
                log.finish();
                self.report_lost_lines();
            }
            if !self.is_shut.swap(true, Relaxed) {
                self.notify(Notice::Shut);
            }
            self.notify(Notice::Drained);
            self.wake_all();
        }
        Work::End
    }

    /// Waits until another thread leaves the lead or has a request to spare.
    fn park(&self) {
        let mut run_queue = lock(&self.run_queue);
        self.parked.fetch_add(1, SeqCst);
        while run_queue.ready.is_empty()
            && !run_queue.is_lead_offered
            && !self.is_done.load(Acquire)
        {
            // The leader's flag changes without this lock: the watchdog's tick is what ends a missed offer.
            run_queue =
                self.run_queue_changed.wait(run_queue).unwrap_or_else(PoisonError::into_inner);
        }
        run_queue.is_lead_offered = false;
        self.parked.fetch_sub(1, SeqCst);
    }

    pub(super) fn offer_lead(&self) {
        lock(&self.run_queue).is_lead_offered = true;
        self.run_queue_changed.notify_one();
    }
}
