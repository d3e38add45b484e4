//! The watchdog thread (`prefork-watchdog`): judges overdue calls, and leads while every app thread is in one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::{LEADER_APP, LEADER_NONE, LEADER_WATCHDOG, Notice, Server, lock};
use prefork_core::Method;

use crate::access_line::without_query;
use crate::accounting;
use crate::call_state::{Overdue, Thread};
use crate::reactor::{Order, Reactor, Role, Turn};
use crate::stats::cell;
use crate::sys;

/// The watchdog looks this often while calls run.
const TICK: Duration = Duration::from_millis(1);

/// The same where calls run in greenlets: so often it looks whether the hub comes.
const HUB_TICK: Duration = Duration::from_millis(5);

/// Looks in a row without a lead after which one is missed, although app threads go from one waiting request to the next.
const BUSY_LOOKS: u32 = 5;

/// Calls that are shorter, on average, need no lead of the watchdog: an app thread is back before it would be of use.
const SHORT_CALL: Duration = TICK;

/// Ticks without a call running before the watchdog parks.
const QUIET_TICKS: u32 = 4;

/// The longest sleep of the watchdog: it shows this often that it lives (`watchdog_us`).
pub(super) const BEAT: Duration = Duration::from_secs(1);

/// A look that comes so much later than planned: the process did not run in between, nor did its calls.
const PAUSE_US: u64 = 100_000;

/// After a panic of the watchdog, before it looks again.
const PANIC_PAUSE: Duration = Duration::from_millis(100);

/// The longest wait of the watchdog when it leads: passed connections are looked for this often.
const WATCHDOG_WAIT: Duration = Duration::from_millis(20);

/// Where the watchdog sleeps.
#[derive(Default)]
pub(super) struct Watchdog {
    pub(super) is_started: AtomicBool,
    pub(super) is_parked: AtomicBool,
    is_awake: Mutex<bool>,
    wake: Condvar,
    /// When it planned to look at the calls again; 0 when it had no plan.
    look_due_us: AtomicU64,
}

impl Server {
    pub(super) fn wake_watchdog(&self) {
        *lock(&self.watchdog.is_awake) = true;
        self.watchdog.wake.notify_one();
    }

    /// Whether an app thread waits for the next request, however many calls run in others.
    pub(super) fn is_quiet(&self) -> bool {
        if self.hub.is_some() {
            return self.is_hub_quiet();
        }
        self.leader.load(SeqCst) == LEADER_APP
    }

    /// Sleeps for a tick, or, when all is quiet, until woken or a call may be over its time.
    fn watchdog_sleep(&self, is_long: bool, until_timeout: Option<Duration>) {
        let mut is_awake = lock(&self.watchdog.is_awake);
        let mut timeout = if self.hub.is_some() { HUB_TICK } else { TICK };
        if is_long {
            timeout = until_timeout.map_or(BEAT, |left| left.clamp(TICK, BEAT));
            self.watchdog.is_parked.store(true, SeqCst);
        }
        // Again after the flag is up: a call may have begun before anybody could see it.
        if !*is_awake && (!is_long || (self.is_quiet() && !self.is_done.load(SeqCst))) {
            self.plan_look(timeout);
            is_awake = self
                .watchdog
                .wake
                .wait_timeout(is_awake, timeout)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        self.watchdog.is_parked.store(false, SeqCst);
        *is_awake = false;
    }

    fn plan_look(&self, within: Duration) {
        let within_us = u64::try_from(within.as_micros()).unwrap_or(0);
        self.watchdog.look_due_us.store(sys::monotonic_us() + within_us, Relaxed);
    }

    /// Shows that the watchdog lives, and takes out of the calls' time what was a pause of the whole process (SIGSTOP, a
    /// frozen container, a suspended machine). Nobody else judges calls, so none is judged before that.
    fn beat(&self, now_us: u64) {
        self.shared.table.set(cell::watchdog_us, now_us);
        let due_us = self.watchdog.look_due_us.swap(0, Relaxed);
        let late_us = if due_us == 0 { 0 } else { now_us.saturating_sub(due_us) };
        if late_us > PAUSE_US {
            for thread in self.threads.iter() {
                thread.excuse(late_us);
                let _ = thread.try_with_unsent(|unsent, _| unsent.excuse(late_us));
            }
            self.excuse_hub(late_us);
        }
    }

    /// What the watchdog does at each look; returns when the next overdue call is due.
    fn watch_calls(&self) -> Option<Duration> {
        let limit_us = self.shared.settings.request_timeout_us;
        let now_us = sys::monotonic_us();
        self.beat(now_us);
        if limit_us > 0 {
            self.question_hub(now_us, limit_us);
        }
        let mut nearest = None;
        for thread in self.threads.iter() {
            let start_us = thread.start_us();
            if start_us == 0 || limit_us == 0 {
                continue;
            }
            let elapsed_us = thread.elapsed_us(start_us, now_us);
            if elapsed_us < limit_us {
                let left = Duration::from_micros(limit_us - elapsed_us);
                nearest = Some(nearest.map_or(left, |n: Duration| n.min(left)));
            } else {
                let count = || self.shared.table.add(cell::overdue, 1);
                if let Some(overdue) = thread.mark_overdue(start_us, count) {
                    self.expire(thread, &overdue, start_us, elapsed_us);
                }
            }
        }
        nearest
    }

    fn expire(&self, thread: &Thread, overdue: &Overdue, start_us: u64, elapsed_us: u64) {
        let shared = &self.shared;
        shared.table.add(cell::timeouts, 1);
        let request = &overdue.request;
        let head = request.parse(&shared.settings.limits);
        let is_head = head.method == Method::Head;
        let is_answered = thread.expire(overdue, |fd| {
            let answer = shared.plain_answer(504, "the application took too long", is_head);
            // A full socket is the client's loss: it has the end of the connection.
            shared.count_sent(sys::send(fd, &answer).unwrap_or(0) as u64);
            sys::shut_down_write(fd);
        });
        if is_answered {
            let queue_us = start_us.saturating_sub(request.ready_us);
            accounting::note_timeout(shared, &request.received(&head), elapsed_us, queue_us);
        }
        let method = head.method_name.of(&request.head).to_vec();
        let target = head.target.of(&request.head);
        let target = if shared.settings.hides_queries { without_query(target) } else { target };
        let target = target.to_vec();
        let thread_ident = thread.ident();
        if self.hub.is_none() {
            self.give(Order::HandOver);
        }
        self.notify(Notice::Timeout { thread_ident, method, target, elapsed_us });
    }

    /// The watchdog leads until an app thread wants to.
    pub(super) fn watchdog_lead(&self, mut reactor: MutexGuard<'_, Reactor>) {
        self.leader.store(LEADER_WATCHDOG, SeqCst);
        let (start, taken) = (Instant::now(), self.taken.load(Relaxed));
        while self.lead_wanted.load(SeqCst) == 0 && !self.is_done.load(SeqCst) {
            let until_timeout = self.watch_calls();
            self.take_returned(&mut reactor);
            let is_queued = self.ready_count.load(SeqCst) > 0;
            let has_more = self.flush_threads();
            let rest = if is_queued || has_more { TICK } else { WATCHDOG_WAIT };
            let wait = until_timeout.map_or(rest, |left| left.min(rest));
            self.plan_look(wait);
            let turn = reactor.turn(Role::Watchdog, self.order(), Some(wait));
            reactor.take_some(self.accept_credit.swap(0, Relaxed).min(self.threads.most()));
            if reactor.take_wake() {
                self.waker.clear();
            }
            let has_more = self.publish_ready(&mut reactor);
            self.offload(&mut reactor);
            self.tell_shut(&mut reactor);
            if matches!(turn, Turn::Done) && self.calls.load(SeqCst) == 0 {
                self.finish();
            }
            if has_more {
                self.wake_hub();
            }
            if self.parked.load(SeqCst) > 0 || self.calls.load(SeqCst) == 0 {
                if has_more {
                    self.run_queue_changed.notify_all();
                }
                break;
            }
            let served = self.taken.load(Relaxed).wrapping_sub(taken);
            if are_short(served, start.elapsed()) {
                break;
            }
        }
        self.leader.store(LEADER_NONE, SeqCst);
        drop(reactor);
        if self.parked.load(SeqCst) > 0 {
            self.offer_lead();
        }
    }
}

/// The watchdog's life: it keeps the engine only weakly, so that a dropped engine ends it.
///
/// A panic costs one look. A watchdog that panics at every look is silent, and the arbiter replaces the worker.
pub(super) fn watch(server: &Weak<Server>) {
    let mut looks = Looks::default();
    while let Some(server) = server.upgrade() {
        if server.is_done.load(SeqCst) {
            server.shared.table.set(cell::watchdog_us, 0);
            return;
        }
        if catch_unwind(AssertUnwindSafe(|| looks.next(&server))).is_err() {
            let _ = server.leader.compare_exchange(LEADER_WATCHDOG, LEADER_NONE, SeqCst, SeqCst);
            std::thread::sleep(PANIC_PAUSE);
        }
    }
}

/// What the watchdog remembers from one look to the next.
#[derive(Default)]
struct Looks {
    vacancy: Vacancy,
    /// Looks in a row at which an app thread was waiting for the next request.
    quiet: u32,
    until_timeout: Option<Duration>,
}

impl Looks {
    /// Sleeps, then sees to overdue calls and to a lead that nobody has.
    fn next(&mut self, server: &Server) {
        self.quiet = if server.is_quiet() { self.quiet + 1 } else { 0 };
        server.watchdog_sleep(self.quiet >= QUIET_TICKS, self.until_timeout);
        self.until_timeout = server.watch_calls();
        if server.hub.is_some() {
            server.watch_hub();
            return;
        }
        let _ = server.flush_threads();
        let (leads, taken) = (server.lead_count.load(SeqCst), server.taken.load(Relaxed));
        let is_missed = self.vacancy.look(leads, taken);
        if !is_missed || server.leader.load(SeqCst) != LEADER_NONE {
            return;
        }
        if server.parked.load(SeqCst) > 0 {
            server.offer_lead();
        } else if server.calls.load(SeqCst) > 0
            && let Ok(reactor) = server.lead.try_lock()
        {
            server.watchdog_lead(reactor);
        }
    }
}

/// Whether so many requests, taken one after the other in `time`, were short calls.
fn are_short(served: u64, time: Duration) -> bool {
    served > 0 && time.as_micros() < u128::from(served) * SHORT_CALL.as_micros()
}

/// Whether a lead is missed, judged by what changes from look to look.
///
/// After a burst of requests an app thread takes those that wait one by one, without leading. As long as that goes
/// quickly it will lead soon by itself. The watchdog would only get in its way: each connection whose call ends then goes
/// through the run queue and wakes the watchdog, and as the watchdog reads its next request, the thread never comes to lead again.
#[derive(Default)]
struct Vacancy {
    /// Leads of app threads, and requests taken, by the last look.
    leads: u64,
    taken: u64,
    /// Looks since the last lead.
    looks: u32,
}

impl Vacancy {
    fn look(&mut self, leads: u64, taken: u64) -> bool {
        let (has_led, has_taken) = (leads != self.leads, taken != self.taken);
        (self.leads, self.taken) = (leads, taken);
        self.looks = if has_led { 0 } else { self.looks.saturating_add(1) };
        self.looks >= if has_taken { BUSY_LOOKS } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_is_missed_at_once_where_no_call_ends() {
        let mut vacancy = Vacancy::default();
        assert!(!vacancy.look(1, 0));
        assert!(vacancy.look(1, 0));
        assert!(vacancy.look(1, 0));
        assert!(!vacancy.look(2, 0));
    }

    #[test]
    fn threads_that_go_from_request_to_request_are_left_alone_for_a_while() {
        let mut vacancy = Vacancy::default();
        assert!(!vacancy.look(1, 0));
        for look in 1..BUSY_LOOKS {
            assert!(!vacancy.look(1, u64::from(look)), "look {look}");
        }
        assert!(vacancy.look(1, 100));
        assert!(!vacancy.look(2, 100));
        assert!(!vacancy.look(2, 101));
        assert!(vacancy.look(2, 101), "its call takes long");
    }

    #[test]
    fn calls_are_short_by_their_average() {
        assert!(!are_short(0, Duration::ZERO));
        assert!(are_short(1, Duration::from_micros(999)));
        assert!(!are_short(1, Duration::from_millis(1)));
        assert!(are_short(20, Duration::from_millis(19)));
    }
}
