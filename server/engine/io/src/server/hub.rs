//! The hub: the one thread of a worker whose calls run in greenlets.
//!
//! It waits in an event loop of its own (gevent's), where it watches two descriptors: the reactor's epoll, readable
//! while that has events (epoll(7)), and the wake. When one of them is readable it leads for a turn that waits for
//! nothing, and starts a greenlet for each request that became ready. So in the usual case a request is read, run and
//! answered by one thread without a switch.
//!
//! A greenlet that computes without letting others run blocks the hub. The watchdog notices that something waits and
//! the hub has made no turn between two looks, and leads until the hub is back, as it does when all app threads are
//! in calls. It also asks the hub once a second for a turn: a hub that makes none for as long as a call may take is
//! blocked for good, and its worker has to go.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, SeqCst},
};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use super::lead::LEAD_WAIT;
use super::watchdog::BEAT;
use super::{LEADER_APP, LEADER_NONE, Notice, Server, Work, lock};
use crate::reactor::{Call, Order, Reactor, Role, Turn};
use crate::sys::Waker;

/// Calls started in one turn, so that they run before further requests are read.
const CALLS_PER_TURN: usize = 64;

/// What the watchdog and the hub know of each other.
pub(super) struct Hub {
    wake: Waker,
    is_woken: AtomicBool,
    /// Turns of the hub.
    turns: AtomicU64,
    /// `turns` when the watchdog last looked, and whether something waited for the hub then.
    looked_turns: AtomicU64,
    is_wanted: AtomicBool,
    asked: Mutex<Asked>,
}

/// When the watchdog last asked the hub for a turn.
#[derive(Default)]
struct Asked {
    /// 0 for never.
    at_us: u64,
    /// `Hub::turns` at that time.
    turns: u64,
    is_reported: bool,
}

/// What a turn of the hub came to.
pub struct HubTurn {
    /// The engine is done: there will be no more.
    pub is_over: bool,
    /// The next turn is due by then, whatever happens.
    pub until_due: Duration,
}

impl Hub {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            wake: Waker::new()?,
            is_woken: AtomicBool::new(false),
            turns: AtomicU64::new(0),
            looked_turns: AtomicU64::new(0),
            is_wanted: AtomicBool::new(false),
            asked: Mutex::default(),
        })
    }

    /// A turn begins: whoever wakes the hub from now on wants another one.
    fn begin_turn(&self) {
        self.turns.fetch_add(1, SeqCst);
        if self.is_woken.load(SeqCst) {
            self.wake.clear();
            self.is_woken.store(false, SeqCst);
        }
    }
}

impl Server {
    /// The descriptors whose readability asks for a turn: the reactor's, and the wake. `None` without a hub.
    #[must_use]
    pub fn hub_fds(&self) -> Option<(RawFd, RawFd)> {
        self.hub.as_ref().map(|hub| (self.epoll.raw(), hub.wake.raw()))
    }

    pub(super) fn wake_hub(&self) {
        if let Some(hub) = &self.hub
            && !hub.is_woken.swap(true, SeqCst)
        {
            hub.wake.wake();
        }
    }

    /// After a call: what it left for the reactor may need a turn that no event of a socket will ask for.
    pub(super) fn wake_hub_after_call(&self) {
        if self.hub.is_some() && (self.ready_count.load(SeqCst) > 0 || self.order() != Order::Serve)
        {
            self.wake_hub();
        }
    }

    /// One turn: adds ready calls to `calls`, up to `room`. `None`, and nothing has happened, while the watchdog leads:
    /// then [`Server::hub_turn_after_watchdog`].
    pub fn hub_turn(&self, room: usize, calls: &mut Vec<Call>) -> Option<HubTurn> {
        match self.lead.try_lock() {
            Ok(reactor) => Some(self.hub_lead(reactor, room, calls)),
            Err(TryLockError::Poisoned(reactor)) => {
                Some(self.hub_lead(reactor.into_inner(), room, calls))
            }
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// As [`Server::hub_turn`]; waits for the watchdog to leave the lead, which it does at once.
    pub fn hub_turn_after_watchdog(&self, room: usize, calls: &mut Vec<Call>) -> HubTurn {
        self.lead_wanted.fetch_add(1, SeqCst);
        self.waker.wake();
        let reactor = self.lead.lock().unwrap_or_else(PoisonError::into_inner);
        self.lead_wanted.fetch_sub(1, SeqCst);
        self.hub_lead(reactor, room, calls)
    }

    fn hub_lead(
        &self,
        mut reactor: MutexGuard<'_, Reactor>,
        room: usize,
        calls: &mut Vec<Call>,
    ) -> HubTurn {
        if let Some(hub) = &self.hub {
            hub.begin_turn();
        }
        self.leader.store(LEADER_APP, SeqCst);
        self.take_returned(&mut reactor);
        self.take_waiting(room, calls);
        let mut is_done = false;
        while calls.len() < room.min(CALLS_PER_TURN) {
            match reactor.turn(Role::App, self.order(), Some(Duration::ZERO)) {
                Turn::Call(call) => calls.push(call),
                Turn::Idle => {}
                Turn::Done => is_done = true,
            }
            if !reactor.is_amid_events() {
                break;
            }
        }
        if calls.len() == room {
            // Nobody is free: what is ready waits, and nothing new is accepted.
            reactor.turn(Role::Watchdog, self.order(), Some(Duration::ZERO));
        }
        if reactor.take_wake() {
            self.waker.clear();
        }
        let has_more = self.publish_ready(&mut reactor) || reactor.is_amid_events();
        if has_more && calls.len() < room {
            self.wake_hub();
        }
        if self.flush_threads() {
            self.wake_hub();
        }
        self.tell_shut(&mut reactor);
        self.advertise(room - calls.len());
        let until_due = reactor.until_due(LEAD_WAIT);
        self.leader.store(LEADER_NONE, SeqCst);
        drop(reactor);
        let is_over = self.is_done.load(Acquire)
            || (is_done && calls.is_empty() && matches!(self.finish(), Work::End));
        HubTurn { is_over, until_due }
    }

    fn take_waiting(&self, room: usize, calls: &mut Vec<Call>) {
        if self.ready_count.load(Acquire) == 0 {
            return;
        }
        let mut run_queue = lock(&self.run_queue);
        let count = run_queue.ready.len().min(room);
        calls.extend(run_queue.ready.drain(..count));
        self.count_taken(count);
    }

    /// Whether the watchdog may sleep long.
    pub(super) fn is_hub_quiet(&self) -> bool {
        let is_wanted = self.hub.as_ref().is_some_and(|hub| hub.is_wanted.load(Relaxed));
        self.calls.load(SeqCst) == 0 && !is_wanted
    }

    /// At each look of the watchdog: leads in the place of a hub that something has been waiting for since the last one.
    pub(super) fn watch_hub(&self) {
        let Some(hub) = &self.hub else { return };
        let turns = hub.turns.load(SeqCst);
        let is_wanted = self.ready_count.load(SeqCst) > 0 || self.epoll.has_events();
        let was_wanted = hub.is_wanted.swap(is_wanted, Relaxed);
        let is_away = hub.looked_turns.swap(turns, Relaxed) == turns;
        if is_wanted
            && was_wanted
            && is_away
            && let Ok(reactor) = self.lead.try_lock()
        {
            self.advertise(0);
            self.wake_hub();
            self.watchdog_lead(reactor);
        }
    }

    /// Asks the hub for a turn, and gives the worker up when there is none for `limit_us`.
    pub(super) fn question_hub(&self, now_us: u64, limit_us: u64) {
        let Some(hub) = &self.hub else { return };
        let turns = hub.turns.load(SeqCst);
        let mut asked = lock(&hub.asked);
        let elapsed_us = now_us.saturating_sub(asked.at_us);
        if asked.at_us == 0 || asked.turns != turns {
            if u128::from(elapsed_us) >= BEAT.as_micros() {
                *asked = Asked { at_us: now_us, turns, is_reported: false };
                self.wake_hub();
            }
        } else if elapsed_us >= limit_us && !asked.is_reported {
            asked.is_reported = true;
            drop(asked);
            self.give(Order::HandOver);
            self.notify(Notice::HubBlocked { elapsed_us });
        }
    }

    /// So much time was nobody's: the process did not run.
    pub(super) fn excuse_hub(&self, time_us: u64) {
        if let Some(hub) = &self.hub {
            lock(&hub.asked).at_us += time_us;
        }
    }

    /// Whether calls run in greenlets.
    #[must_use]
    pub fn has_hub(&self) -> bool {
        self.hub.is_some()
    }
}
