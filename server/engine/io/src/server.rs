//! The engine of one worker: app threads, the helper, and who of them drives the reactor.
//!
//! One lock, the *lead*, goes with the reactor. An app thread without a call takes the lead, polls, and leaves with
//! the first ready request; so in the usual case a request is read, run and answered by one thread without a switch.
//! When the lead was vacant for a whole tick (1 ms), calls take long: the helper gives the lead to a parked app
//! thread, or takes it itself when there is none. Then it gathers ready requests, and an app thread that comes back
//! takes the oldest of them or asks for the lead by ringing the bell.
//!
//! Nobody here holds the lead while waiting for the GIL: this crate does not know that there is one.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, SeqCst},
};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use crate::access_log::AccessLog;
use crate::accounting::{self, Outcome};
use crate::conn::Next;
use crate::forked;
use crate::handover::Pair;
use crate::pace::Patience;
use crate::reactor::{Call, Order, Reactor, Role, Turn};
use crate::settings::Settings;
use crate::shared::Shared;
use crate::stats::{Table, cell};
use crate::sys::{self, Bell, Direction, Epoll};
use crate::threads::{Overdue, Thread, Threads};
use crate::unsent::{FileOut, Flushed, SLICE_BYTES, SharedBytes, UNSENT_BYTES_MAX, Unsent};

pub mod hub;

use hub::Hub;

/// The helper looks this often while calls run.
const TICK: Duration = Duration::from_millis(1);

/// Ticks without a call running before the helper parks.
const QUIET_TICKS: u32 = 4;

/// A call longer than this makes its thread wake another one to lead in the meantime.
const SLOW_CALL_US: u64 = 300;

/// The longest wait of a leader: returned connections with their deadlines are looked at this often.
const LEAD_WAIT: Duration = Duration::from_secs(1);

/// A client that has not caught up with its answer for so long costs its thread no more: the answer is spilled.
const SPILL_AFTER: Duration = Duration::from_millis(2);

/// An answer that waits for its client because the spool is full asks again so often.
const ROOM_RETRY: Duration = Duration::from_millis(100);

/// The longest sleep of the helper: it shows this often that it lives (`watchdog_us`).
const BEAT: Duration = Duration::from_secs(1);

/// A look that comes so much later than planned: the process did not run in between, nor did its calls.
const PAUSE_US: u64 = 100_000;

/// After a panic of the helper, before it looks again.
const PANIC_PAUSE: Duration = Duration::from_millis(100);

/// The longest wait of the helper when it leads: passed connections are looked for this often.
const HELPER_WAIT: Duration = Duration::from_millis(20);

const LEADER_NONE: u8 = 0;
const LEADER_APP: u8 = 1;
const LEADER_HELPER: u8 = 2;

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

/// How sending went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Sent, or held for the client.
    Fine,
    /// The client is gone, or had its 504 already.
    Gone,
}

/// Requests between the reactor and the app threads, and connections on their way back.
#[derive(Default)]
struct Desk {
    ready: VecDeque<Call>,
    returned: Vec<(Call, Next)>,
    /// The lead is offered to one parked thread.
    is_lead_offered: bool,
}

/// How a call waits until its client's socket is ready; false when that takes too long. A thread blocks
/// ([`sys::wait_for`]), a greenlet lets others run.
pub type Wait<'a> = &'a mut dyn FnMut(RawFd, Direction, Duration) -> io::Result<bool>;

/// See the head of this file.
pub struct Server {
    /// Settings, counters, log.
    pub context: Arc<Shared>,
    epoll: Arc<Epoll>,
    bell: Bell,
    notify: Bell,
    notices: Mutex<Vec<Notice>>,
    /// Names of the app's headers that were left out so far; hop-by-hop ones, so there are few.
    left_out: Mutex<Vec<Vec<u8>>>,
    lead: Mutex<Reactor>,
    leader: AtomicU8,
    /// Grows with each lead of an app thread.
    lead_count: AtomicU64,
    /// App threads that wait for the helper to give the lead.
    lead_wanted: AtomicUsize,
    desk: Mutex<Desk>,
    desk_changed: Condvar,
    ready_count: AtomicUsize,
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
    helper: Helper,
    has_pair: bool,
}

/// Where the helper sleeps.
#[derive(Default)]
struct Helper {
    is_started: AtomicBool,
    is_parked: AtomicBool,
    is_awake: Mutex<bool>,
    wake: Condvar,
    /// When it planned to look at the calls again; 0 when it had no plan.
    look_due_us: AtomicU64,
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
        pair: Option<Pair>,
    ) -> io::Result<Arc<Self>> {
        sys::ignore_sigpipe();
        forked::watch();
        let threads = Threads::new(settings.threads);
        let hub = settings.has_hub.then(Hub::new).transpose()?;
        let table = Table::map(stats_fd, slot)?;
        let log = AccessLog::new(log_fd);
        let context = Arc::new(Shared::new(settings, table, log));
        let epoll = Arc::new(Epoll::new()?);
        let bell = Bell::new()?;
        let reactor = Reactor::new(epoll.clone(), context.clone(), listeners, pair, bell.raw())?;
        Ok(Arc::new(Self {
            context,
            epoll,
            bell,
            notify: Bell::new()?,
            notices: Mutex::default(),
            left_out: Mutex::default(),
            lead: Mutex::new(reactor),
            leader: AtomicU8::new(LEADER_NONE),
            lead_count: AtomicU64::new(0),
            lead_wanted: AtomicUsize::new(0),
            desk: Mutex::default(),
            desk_changed: Condvar::new(),
            ready_count: AtomicUsize::new(0),
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
            helper: Helper::default(),
            has_pair: pair.is_some(),
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
        self.notify.hush();
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
        self.notify.ring();
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
        self.bell.ring();
        self.wake_hub();
        let desk = lock(&self.desk);
        self.desk_changed.notify_all();
        drop(desk);
        self.wake_helper();
    }

    /// No connection and no call is left.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.context.table.own(cell::connections).load(Relaxed) == 0
            && self.calls.load(Acquire) == 0
    }

    /// Makes the calling thread an app thread; returns its number, or `None` when all are there.
    pub fn join(self: &Arc<Self>, ident: u64) -> Option<usize> {
        if !self.helper.is_started.swap(true, SeqCst) {
            let server = Arc::downgrade(self);
            let named = |name: &str| std::thread::Builder::new().name(name.into());
            named("prefork-watchdog").spawn(move || help(&server)).ok()?;
            if self.context.settings.is_access_logged {
                let context = self.context.clone();
                named("prefork-log").spawn(move || context.log.write()).ok()?;
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
                self.bell.ring();
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
        let call = lock(&self.desk).ready.pop_front()?;
        self.ready_count.fetch_sub(1, AcqRel);
        Some(Work::Call(call))
    }

    /// One turn of an app thread.
    fn lead(&self, mut reactor: MutexGuard<'_, Reactor>, wait: Duration) -> Work {
        self.leader.store(LEADER_APP, SeqCst);
        self.lead_count.fetch_add(1, Relaxed);
        self.absorb(&mut reactor);
        // The helper may have left ready requests a moment ago, before it gave the lead away.
        let wait = if self.ready_count.load(SeqCst) > 0 { Duration::ZERO } else { wait };
        let is_sending = wait > Duration::ZERO && self.flush_threads();
        let wait = if is_sending { Duration::ZERO } else { wait };
        let turn = reactor.turn(Role::App, self.order(), Some(wait));
        if reactor.take_bell() {
            self.bell.hush();
        }
        let has_more = self.spread(&mut reactor);
        self.tell_shut(&mut reactor);
        self.leader.store(LEADER_NONE, SeqCst);
        drop(reactor);
        if has_more {
            self.desk_changed.notify_all();
        }
        match turn {
            Turn::Call(call) => Work::Call(call),
            Turn::Idle => Work::Nothing,
            Turn::Done => self.finish(),
        }
    }

    /// Tells what the main thread should know.
    fn tell_shut(&self, reactor: &mut Reactor) {
        if let Some(why) = self.context.take_spool_failure() {
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
        let lines = self.context.log.take_lost();
        if lines > 0 {
            self.notify(Notice::LogLost { lines });
        }
    }

    /// Gives connections whose calls are over back to the reactor.
    fn absorb(&self, reactor: &mut Reactor) {
        if self.returned_count.load(Acquire) == 0 {
            return;
        }
        let returned = std::mem::take(&mut lock(&self.desk).returned);
        self.returned_count.fetch_sub(returned.len(), AcqRel);
        let now_us = sys::monotonic_us();
        for (conn, next) in returned {
            reactor.take_back(conn, next, now_us);
        }
    }

    /// Puts further ready requests where any app thread finds them.
    fn spread(&self, reactor: &mut Reactor) -> bool {
        if !reactor.has_ready() {
            return false;
        }
        let ready = reactor.take_ready();
        let mut desk = lock(&self.desk);
        self.ready_count.fetch_add(ready.len(), AcqRel);
        desk.ready.extend(ready);
        true
    }

    /// Passes requests that wait here for an app thread to workers that have one; when this worker is to leave, to
    /// whoever comes.
    fn share(&self, reactor: &mut Reactor) {
        let is_leaving = match self.order() {
            Order::Serve => false,
            Order::HandOver => true,
            Order::Close | Order::Stop => return,
        };
        while self.ready_count.load(SeqCst) > 0 {
            let Some(call) = lock(&self.desk).ready.pop_front() else { return };
            let target = if is_leaving { None } else { self.context.table.reserve_idle() };
            let passed =
                if is_leaving || target.is_some() { reactor.pass_call(call) } else { Err(call) };
            let Err(call) = passed else {
                self.ready_count.fetch_sub(1, SeqCst);
                continue;
            };
            if let Some(slot) = target {
                self.context.table.release_idle(slot);
            }
            lock(&self.desk).ready.push_front(call);
            return;
        }
    }

    /// Tells the other workers how many app threads wait here.
    fn advertise(&self, waiting: usize) {
        let idle = if self.order() == Order::Serve { waiting as u64 } else { 0 };
        self.context.table.set(cell::idle_threads, idle);
    }

    fn finish(&self) -> Work {
        if self.calls.load(SeqCst) > 0
            || self.ready_count.load(SeqCst) > 0
            || self.returned_count.load(SeqCst) > 0
        {
            return Work::Nothing;
        }
        if !self.is_done.swap(true, SeqCst) {
            if self.context.settings.is_access_logged {
                self.context.log.finish();
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
        let mut desk = lock(&self.desk);
        self.parked.fetch_add(1, SeqCst);
        while desk.ready.is_empty() && !desk.is_lead_offered && !self.is_done.load(Acquire) {
            // The leader's flag changes without this lock: the helper's tick is what ends a missed offer.
            desk = self.desk_changed.wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
        desk.is_lead_offered = false;
        self.parked.fetch_sub(1, SeqCst);
    }

    fn offer_lead(&self) {
        lock(&self.desk).is_lead_offered = true;
        self.desk_changed.notify_one();
    }

    /// A call begins: now the app thread of that number has it.
    pub fn begin(&self, number: usize, call: &Call) -> u64 {
        let now_us = sys::monotonic_us();
        let thread = &self.threads[number];
        thread.begin(call, now_us, self.context.settings.request_timeout_us > 0);
        self.calls.fetch_add(1, SeqCst);
        // The helper looks at the calls again after it said that it parks: one of the two sees the other.
        if self.helper.is_parked.load(SeqCst) {
            self.wake_helper();
        }
        let table = &self.context.table;
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
    pub fn end(&self, number: usize, mut call: Call, outcome: Outcome, keeps: bool) {
        let thread = &self.threads[number];
        let is_timed = self.context.settings.request_timeout_us > 0;
        let ended = thread.end(is_timed);
        let is_expired = ended.is_expired;
        let context = &self.context;
        let (status, end_us) =
            if is_expired { (504, sys::monotonic_us()) } else { (outcome.status, outcome.end_us) };
        accounting::note_answer(
            context,
            &call.received_request(),
            &Outcome { status, end_us, is_counted: is_expired, ..outcome },
        );
        context.table.sub(cell::in_flight, 1);
        if ended.is_overdue {
            context.table.sub(cell::overdue, 1);
        }
        self.renew_oldest();
        thread.is_slow.store(end_us.saturating_sub(outcome.start_us) > SLOW_CALL_US, Relaxed);
        call.closes = !keeps || is_expired;
        // A client that wanted to go on may be sending: a plain close would reset what it has not read yet.
        call.lingers = call.closes && (!call.is_body_received() || call.request().head.keep_alive);
        let next = if is_expired { Next::Close } else { call.finish_call(context, end_us) };
        let answered = self.answered.fetch_add(1, Relaxed) + 1;
        if answered == context.settings.max_requests {
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
        if thread.end(self.context.settings.request_timeout_us > 0).is_overdue {
            self.context.table.sub(cell::overdue, 1);
        }
        self.context.table.sub(cell::in_flight, 1);
        self.renew_oldest();
        self.bell.ring();
        lock(&self.lead).abandon(token);
        self.calls.fetch_sub(1, AcqRel);
        self.wake_hub_after_call();
    }

    fn renew_oldest(&self) {
        let oldest =
            self.threads.iter().map(Thread::start_us).filter(|&us| us > 0).min().unwrap_or(0);
        self.context.table.set(cell::oldest_start_us, oldest);
    }

    fn give_back(&self, mut conn: Call, next: Next, now_us: u64) {
        if let Ok(mut reactor) = self.lead.try_lock() {
            reactor.take_back(conn, next, now_us);
            self.spread(&mut reactor);
            return;
        }
        // The leader must look at once when there is something to do; else an event of the socket tells it: changing
        // the interest reports again what came in the meantime.
        let is_quiet = next == Next::Wait
            && !conn.has_leftover()
            && conn.unsent.is_empty()
            && self.order() == Order::Serve;
        let (fd, token) = (conn.raw_fd(), conn.token);
        conn.is_write_armed = false;
        let mut desk = lock(&self.desk);
        desk.returned.push((conn, next));
        self.returned_count.fetch_add(1, AcqRel);
        if !is_quiet || self.epoll.modify(fd, sys::READ | sys::EDGE, token).is_err() {
            self.bell.ring();
        }
    }

    /// Whether an answer may keep the connection of `call` for another request.
    #[must_use]
    pub fn may_keep(&self, call: &Call) -> bool {
        call.request().head.keep_alive
            && self.context.settings.keep_alive_us > 0
            && !call.is_stuck_here
            && match self.order() {
                Order::Serve => true,
                Order::HandOver => self.has_pair,
                Order::Close | Order::Stop => false,
            }
    }

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
                    self.context.count_disconnect();
                    return Sent::Gone;
                }
            }
            self.context.count_sent(sent as u64);
            if sent == head.len() + body.as_ref().map_or(0, |(_, end)| *end) {
                return Sent::Fine;
            }
        }
        let add = |unsent: &mut Unsent| {
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
            self.context.count_disconnect();
        }
        sent
    }

    fn wait_for_room(&self, thread: &Thread, wait: Wait<'_>) -> Sent {
        let mut is_spilling = thread.with_unsent(|unsent, _| unsent.is_spilling());
        loop {
            match self.flush_thread(thread) {
                Flushed::All => return Sent::Fine,
                Flushed::Broken => return Sent::Gone,
                Flushed::Blocked | Flushed::More => {}
            }
            let has_room = |unsent: &mut Unsent| {
                unsent.held() <= UNSENT_BYTES_MAX / 2 && unsent.cover(&self.context.memory)
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
        let patience = self.context.settings.response_patience;
        if !is_full || self.context.response_spool.is_none() {
            return patience;
        }
        self.context.press();
        patience.under_pressure()
    }

    /// Moves what is unsent to the spool; false when that has no room.
    fn spill(&self, unsent: &mut Unsent) -> bool {
        let Some(spool) = &self.context.response_spool else { return false };
        unsent.spill(spool).unwrap_or_else(|error| {
            self.context.note_spool_failure(&error);
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
        call.unsent.is_empty() || call.unsent.cover(&self.context.memory)
    }

    /// Moves to the spool what memory should not hold of a complete answer; when that is full waits for the client.
    /// None of that is the app's time.
    pub fn store(&self, number: usize, call: &mut Call, wait: Wait<'_>) {
        let thread = &self.threads[number];
        thread.begin_waiting(sys::monotonic_us());
        if !self.wait_to_store(call, wait) {
            // Too slow, or gone: what comes next finds the connection closed.
            sys::shut_down(call.raw_fd());
            call.unsent = Unsent::default();
            self.context.count_disconnect();
        }
        thread.end_waiting(sys::monotonic_us());
    }

    fn wait_to_store(&self, call: &mut Call, wait: Wait<'_>) -> bool {
        let fd = call.raw_fd();
        loop {
            if self.flush(&mut call.unsent, fd) == Flushed::Broken {
                return false;
            }
            if call.unsent.cover(&self.context.memory) || self.spill(&mut call.unsent) {
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
        call.intake.resume(now_us);
        let deadline_us = call.intake.deadline_us(self.context.settings.body_patience);
        self.threads[number].begin_waiting(now_us);
        (call.raw_fd(), Duration::from_micros(deadline_us.saturating_sub(now_us)))
    }

    /// That wait is over; to be called while the call is not.
    pub fn end_body_wait(&self, number: usize) {
        self.threads[number].end_waiting(sys::monotonic_us());
    }

    /// Whether the client is so far behind that there has to be room before the app adds to the answer.
    #[must_use]
    pub fn is_behind(&self, number: usize) -> bool {
        let thread = &self.threads[number];
        thread.has_unsent()
            && thread.with_unsent(|unsent, _| {
                unsent.held() > UNSENT_BYTES_MAX || !unsent.cover(&self.context.memory)
            })
    }

    /// Goes on with the answers that apps are still producing; true when more can be sent at once.
    fn flush_threads(&self) -> bool {
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

    fn flush(&self, unsent: &mut Unsent, fd: RawFd) -> Flushed {
        let mut sent = 0;
        let flushed = unsent.flush(fd, &mut sent);
        self.context.count_sent(sent);
        flushed
    }

    /// Adds a file behind everything sent so far; whoever leads sends it, while the app closes it or the thread serves
    /// others.
    pub fn send_file(&self, number: usize, call: &mut Call, head: &[u8], file: FileOut) -> Sent {
        let thread = &self.threads[number];
        if forked::is_forked() || !thread.claim() {
            return Sent::Gone;
        }
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

    fn wake_helper(&self) {
        *lock(&self.helper.is_awake) = true;
        self.helper.wake.notify_one();
    }

    /// Whether an app thread waits for the next request, however many calls run in others.
    fn is_quiet(&self) -> bool {
        if self.hub.is_some() {
            return self.is_hub_quiet();
        }
        self.leader.load(SeqCst) == LEADER_APP
    }

    /// Sleeps for a tick, or, when all is quiet, until woken or a call may be over its time.
    fn helper_sleep(&self, is_long: bool, until_timeout: Option<Duration>) {
        let mut is_awake = lock(&self.helper.is_awake);
        let mut timeout = if self.hub.is_some() { hub::LOOK } else { TICK };
        if is_long {
            timeout = until_timeout.map_or(BEAT, |left| left.clamp(TICK, BEAT));
            self.helper.is_parked.store(true, SeqCst);
        }
        // Again after the flag is up: a call may have begun before anybody could see it.
        if !*is_awake && (!is_long || (self.is_quiet() && !self.is_done.load(SeqCst))) {
            self.plan_look(timeout);
            is_awake = self
                .helper
                .wake
                .wait_timeout(is_awake, timeout)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        self.helper.is_parked.store(false, SeqCst);
        *is_awake = false;
    }

    fn plan_look(&self, within: Duration) {
        let within_us = u64::try_from(within.as_micros()).unwrap_or(0);
        self.helper.look_due_us.store(sys::monotonic_us() + within_us, Relaxed);
    }

    /// Shows that the helper lives, and takes out of the calls' time what was a pause of the whole process (SIGSTOP, a
    /// frozen container, a suspended machine). Nobody else judges calls, so none is judged before that.
    fn beat(&self, now_us: u64) {
        self.context.table.set(cell::watchdog_us, now_us);
        let due_us = self.helper.look_due_us.swap(0, Relaxed);
        let late_us = if due_us == 0 { 0 } else { now_us.saturating_sub(due_us) };
        if late_us > PAUSE_US {
            for thread in self.threads.iter() {
                thread.excuse(late_us);
                let _ = thread.try_with_unsent(|unsent, _| unsent.excuse(late_us));
            }
            self.excuse_hub(late_us);
        }
    }

    /// What the helper does at each look; returns when the next overdue call is due.
    fn watch_calls(&self) -> Option<Duration> {
        let limit_us = self.context.settings.request_timeout_us;
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
                let count = || self.context.table.add(cell::overdue, 1);
                if let Some(overdue) = thread.mark_overdue(start_us, count) {
                    self.expire(thread, overdue, elapsed_us);
                }
            }
        }
        nearest
    }

    fn expire(&self, thread: &Thread, overdue: Overdue, elapsed_us: u64) {
        let context = &self.context;
        context.table.add(cell::timeouts, 1);
        let is_head = overdue.method == b"HEAD";
        let is_answered = thread.expire(&overdue, |fd| {
            let answer = context.plain_answer(504, "the application took too long", is_head);
            // A full socket is the client's loss: it has the end of the connection.
            context.count_sent(sys::send(fd, &answer).unwrap_or(0) as u64);
            sys::shut_down_write(fd);
        });
        if is_answered {
            context.table.count_answer(overdue.row, 504, elapsed_us);
        }
        let Overdue { method, target, .. } = overdue;
        let thread_ident = thread.ident();
        if self.hub.is_none() {
            self.give(Order::HandOver);
        }
        self.notify(Notice::Timeout { thread_ident, method, target, elapsed_us });
    }

    /// The helper leads until an app thread wants to.
    fn helper_lead(&self, mut reactor: MutexGuard<'_, Reactor>) {
        self.leader.store(LEADER_HELPER, SeqCst);
        while self.lead_wanted.load(SeqCst) == 0 && !self.is_done.load(SeqCst) {
            let until_timeout = self.watch_calls();
            self.absorb(&mut reactor);
            let is_queued = self.ready_count.load(SeqCst) > 0;
            let has_more = self.flush_threads();
            let rest = if is_queued || has_more { TICK } else { HELPER_WAIT };
            let wait = until_timeout.map_or(rest, |left| left.min(rest));
            self.plan_look(wait);
            let turn = reactor.turn(Role::Helper, self.order(), Some(wait));
            reactor.take_some(self.accept_credit.swap(0, Relaxed).min(self.threads.most()));
            if reactor.take_bell() {
                self.bell.hush();
            }
            let has_more = self.spread(&mut reactor);
            self.share(&mut reactor);
            self.tell_shut(&mut reactor);
            if matches!(turn, Turn::Done) && self.calls.load(SeqCst) == 0 {
                self.finish();
            }
            if has_more {
                self.wake_hub();
            }
            if self.parked.load(SeqCst) > 0 || self.calls.load(SeqCst) == 0 {
                if has_more {
                    self.desk_changed.notify_all();
                }
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

/// The helper's life: it keeps the engine only weakly, so that a dropped engine ends it.
///
/// A panic costs one look. A helper that panics at every look is silent, and the arbiter replaces the worker.
fn help(server: &Weak<Server>) {
    let mut looks = Looks::default();
    while let Some(server) = server.upgrade() {
        if server.is_done.load(SeqCst) {
            server.context.table.set(cell::watchdog_us, 0);
            return;
        }
        if catch_unwind(AssertUnwindSafe(|| looks.next(&server))).is_err() {
            let _ = server.leader.compare_exchange(LEADER_HELPER, LEADER_NONE, SeqCst, SeqCst);
            std::thread::sleep(PANIC_PAUSE);
        }
    }
}

/// What the helper remembers from one look to the next.
#[derive(Default)]
struct Looks {
    /// Leads of app threads by the last look.
    leads: u64,
    /// Looks in a row at which an app thread was waiting for the next request.
    quiet: u32,
    until_timeout: Option<Duration>,
}

impl Looks {
    /// Sleeps, then sees to overdue calls and to a lead that nobody has.
    fn next(&mut self, server: &Server) {
        self.quiet = if server.is_quiet() { self.quiet + 1 } else { 0 };
        server.helper_sleep(self.quiet >= QUIET_TICKS, self.until_timeout);
        self.until_timeout = server.watch_calls();
        if server.hub.is_some() {
            server.watch_hub();
            return;
        }
        let _ = server.flush_threads();
        let leads = server.lead_count.load(SeqCst);
        let is_vacant = leads == self.leads && server.leader.load(SeqCst) == LEADER_NONE;
        self.leads = leads;
        if !is_vacant {
            return;
        }
        if server.parked.load(SeqCst) > 0 {
            server.offer_lead();
        } else if server.calls.load(SeqCst) > 0
            && let Ok(reactor) = server.lead.try_lock()
        {
            server.helper_lead(reactor);
        }
    }
}
