//! The engine of one worker: app threads, the watchdog, and who of them drives the reactor.
//!
//! One lock, the *lead*, goes with the reactor. An app thread without a call takes the lead, polls, and leaves with
//! the first ready request; so in the usual case a request is read, run and answered by one thread without a switch.
//! When the lead was vacant for a whole tick (1 ms), calls take long: the watchdog gives the lead to a parked app
//! thread, or takes it itself when there is none. Then it gathers ready requests, and an app thread that comes back
//! takes the oldest of them or asks for the lead by the waker.
//!
//! Nobody here holds the lead while waiting for the GIL: this crate does not know that there is one.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, SeqCst},
};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::access_log::AccessLog;
use crate::call_state::{Thread, Threads};
use crate::conn::Next;
use crate::forked;
use crate::handover::HandoverSockets;
use crate::reactor::{Call, Order, Reactor};
use crate::settings::Settings;
use crate::shared::Shared;
use crate::stats::{Table, cell};
use crate::sys::{self, Epoll, Waker};

mod balance;
mod calls;
pub mod hub;
mod lead;
mod sending;
mod watchdog;

use hub::Hub;
pub use sending::{Sent, Wait};
use watchdog::{Watchdog, watch};

const LEADER_NONE: u8 = 0;
const LEADER_APP: u8 = 1;
const LEADER_WATCHDOG: u8 = 2;

/// What the worker's main thread is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A call is over its time.
    Timeout {
        /// What Python calls the thread that is in it.
        thread_ident: u64,
        /// The request's method as sent.
        method: Vec<u8>,
        /// The request's target as sent.
        target: Vec<u8>,
        /// How long it has been running.
        elapsed_us: u64,
    },
    /// The hub has not come back from its greenlets for longer than a call may take.
    HubBlocked {
        /// For how long.
        elapsed_us: u64,
    },
    /// Something could not be kept in the spool, which was answered with 503.
    SpoolFailed {
        /// What the system says.
        why: String,
    },
    /// The app set a header that belongs to the server, which was left out; once for each name.
    LeftOut {
        /// Its name in lower case.
        name: Vec<u8>,
    },
    /// Lines of the access log were lost.
    LogLost {
        /// How many.
        lines: u64,
    },
    /// The worker has served as many requests as it should.
    MaxRequests,
    /// No connection is accepted any more: the listeners can be closed.
    Shut,
    /// No connection and no call is left.
    Drained,
}

/// What an app thread gets to do.
pub enum Work {
    /// A call.
    Call(Call),
    /// Nothing now.
    Nothing,
    /// The engine is done: go home.
    End,
}

/// Requests between the reactor and the app threads, and connections on their way back.
#[derive(Default)]
struct RunQueue {
    ready: VecDeque<Call>,
    returned: Vec<(Call, Next)>,
    /// The lead is offered to one parked thread.
    is_lead_offered: bool,
}

/// See the head of this file.
pub struct Server {
    /// Settings, counters, log.
    pub shared: Arc<Shared>,
    epoll: Arc<Epoll>,
    waker: Waker,
    notify: Waker,
    notices: Mutex<Vec<Notice>>,
    /// Names of the app's headers that were left out so far; hop-by-hop ones, so there are few.
    left_out: Mutex<Vec<Vec<u8>>>,
    lead: Mutex<Reactor>,
    leader: AtomicU8,
    /// Grows with each lead of an app thread.
    lead_count: AtomicU64,
    /// App threads that wait for the watchdog to give the lead.
    lead_wanted: AtomicUsize,
    run_queue: Mutex<RunQueue>,
    run_queue_changed: Condvar,
    ready_count: AtomicUsize,
    /// Requests that app threads took from the run queue, without leading for them.
    taken: AtomicU64,
    returned_count: AtomicUsize,
    parked: AtomicUsize,
    /// Calls that ended while others waited: for each of them one new connection may be accepted.
    accept_credit: AtomicUsize,
    /// App threads in [`Server::wait`].
    waiting: AtomicUsize,
    threads: Threads,
    /// Where all calls run in greenlets of one thread.
    hub: Option<Hub>,
    calls: AtomicUsize,
    order: AtomicU8,
    is_shut: AtomicBool,
    is_done: AtomicBool,
    answered: AtomicU64,
    watchdog: Watchdog,
    has_handover: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// # Errors
    /// A descriptor that cannot be used; no slot of that number; out of descriptors.
    pub fn new(
        settings: Settings,
        listeners: &[RawFd],
        stats_fd: RawFd,
        slot: usize,
        log_fd: RawFd,
        handover: Option<HandoverSockets>,
    ) -> io::Result<Arc<Self>> {
        sys::ignore_sigpipe();
        forked::watch();
        let threads = Threads::new(settings.threads);
        let hub = settings.has_hub.then(Hub::new).transpose()?;
        let table = Table::map(stats_fd, slot)?;
        table.set(cell::threads, settings.threads as u64);
        let format = settings.access_format.clone();
        let log = format.map(|format| AccessLog::new(log_fd, format, settings.access_log_lock_fd));
        let shared = Arc::new(Shared::new(settings, table, log));
        let epoll = Arc::new(Epoll::new()?);
        let waker = Waker::new()?;
        let reactor =
            Reactor::new(epoll.clone(), shared.clone(), listeners, handover, waker.raw())?;
        Ok(Arc::new(Self {
            shared,
            epoll,
            waker,
            notify: Waker::new()?,
            notices: Mutex::default(),
            left_out: Mutex::default(),
            lead: Mutex::new(reactor),
            leader: AtomicU8::new(LEADER_NONE),
            lead_count: AtomicU64::new(0),
            lead_wanted: AtomicUsize::new(0),
            run_queue: Mutex::default(),
            run_queue_changed: Condvar::new(),
            ready_count: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            returned_count: AtomicUsize::new(0),
            parked: AtomicUsize::new(0),
            accept_credit: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            threads,
            hub,
            calls: AtomicUsize::new(0),
            order: AtomicU8::new(Order::Serve as u8),
            is_shut: AtomicBool::new(false),
            is_done: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            watchdog: Watchdog::default(),
            has_handover: handover.is_some(),
        }))
    }

    /// The descriptor that is readable while [`Server::notices`] has something.
    #[must_use]
    pub fn notify_fd(&self) -> RawFd {
        self.notify.raw()
    }

    /// Takes all notices.
    #[must_use]
    pub fn notices(&self) -> Vec<Notice> {
        let mut notices = lock(&self.notices);
        self.notify.clear();
        std::mem::take(&mut *notices)
    }

    /// A header of the app was left out because it belongs to the server.
    pub fn note_left_out(&self, name: &[u8]) {
        let name = name.to_ascii_lowercase();
        let mut known = lock(&self.left_out);
        if !known.contains(&name) {
            known.push(name.clone());
            drop(known);
            self.notify(Notice::LeftOut { name });
        }
    }

    fn notify(&self, notice: Notice) {
        lock(&self.notices).push(notice);
        self.notify.wake();
    }

    fn order(&self) -> Order {
        match self.order.load(Acquire) {
            0 => Order::Serve,
            1 => Order::HandOver,
            2 => Order::Close,
            _ => Order::Stop,
        }
    }

    /// Gives an order; one that is less than an earlier one changes nothing.
    pub fn give(&self, order: Order) {
        self.order.fetch_max(order as u8, SeqCst);
        self.wake_all();
    }

    fn wake_all(&self) {
        self.waker.wake();
        self.wake_hub();
        let run_queue = lock(&self.run_queue);
        self.run_queue_changed.notify_all();
        drop(run_queue);
        self.wake_watchdog();
    }

    /// No connection and no call is left.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.shared.table.own(cell::connections).load(Relaxed) == 0 && self.calls.load(Acquire) == 0
    }

    /// Makes the calling thread an app thread; returns its number, or `None` when all are there.
    pub fn join(self: &Arc<Self>, ident: u64) -> Option<usize> {
        if !self.watchdog.is_started.swap(true, SeqCst) {
            let server = Arc::downgrade(self);
            let named = |name: &str| std::thread::Builder::new().name(name.into());
            named("prefork-watchdog").spawn(move || watch(&server)).ok()?;
            if self.shared.log.is_some() {
                let shared = self.shared.clone();
                let write = move || shared.log.iter().for_each(AccessLog::write);
                named("prefork-log").spawn(write).ok()?;
            }
        }
        let number = self.threads.join()?;
        self.threads[number].set_ident(ident);
        Some(number)
    }

    /// The app thread of that number.
    #[must_use]
    pub fn thread(&self, number: usize) -> &Thread {
        &self.threads[number]
    }
}
