//! What a request leaves behind: counters of the stats table, and a line of the access log.
//!
//! Takes what it needs of a request as a [`Received`], so it does not know connections either.

use std::time::{SystemTime, UNIX_EPOCH};

use prefork_core::{Head, Method, identity};

use crate::access_line::Record;
use crate::shared::Shared;
use crate::stats::exemplars::Traced;
use crate::stats::{Table, cell};

/// The request that is counted and logged.
pub struct Received<'a> {
    /// The peer's address; empty for a unix socket.
    pub remote: &'a str,
    /// What the peer says of other addresses is believed.
    pub is_trusted: bool,
    /// Its head, perhaps half read.
    pub head: Option<&'a Head>,
    /// The buffer that `head` was read from.
    pub bytes: &'a [u8],
    /// The id made for it; empty for none.
    pub made_id: &'a [u8],
    /// Bytes received of it, body included.
    pub size: u64,
    /// When it was complete enough to be called, monotonic.
    pub ready_us: u64,
}

/// What a call came to, for counters and log.
#[derive(Clone, Copy, Debug)]
pub struct CallResult {
    /// The status sent.
    pub status: u16,
    /// Bytes of the body sent.
    pub body_bytes: u64,
    /// When the call began and ended, monotonic.
    pub start_us: u64,
    /// See `start_us`.
    pub end_us: u64,
    /// A timeout has counted and logged it already.
    pub is_counted: bool,
}

/// Counts and logs a request that the engine answers by itself.
pub fn note_refusal(shared: &Shared, request: &Received<'_>, status: u16, code: &'static str) {
    if count_probe(shared, request) {
        return;
    }
    shared.table.add(cell::rejects, 1);
    shared.table.add(cell::bytes_in, request.size);
    shared.table.count_answer(request.method() as usize, status);
    log(shared, &Record { status, refusal: Some(code), ..request.record() });
}

/// Counts and logs an answered call.
pub fn note_answer(shared: &Shared, request: &Received<'_>, outcome: &CallResult) {
    let duration_us = outcome.end_us.saturating_sub(outcome.start_us);
    let queue_us = outcome.start_us.saturating_sub(request.ready_us);
    shared.table.add(cell::busy_us, duration_us);
    if outcome.is_counted || count_probe(shared, request) {
        return;
    }
    let CallResult { status, body_bytes, .. } = *outcome;
    shared.table.add(cell::bytes_in, request.size);
    shared.table.count_answer(request.method() as usize, status);
    shared.table.observe_call(status, queue_us, duration_us);
    if shared.notes_calls {
        keep_exemplar(shared, request, status, queue_us, duration_us);
        log(shared, &Record { status, body_bytes, duration_us, queue_us, ..request.record() });
    }
}

/// Counts and logs the answer to a call that has not come to its end in time, and may never do so.
pub fn note_timeout(shared: &Shared, request: &Received<'_>, duration_us: u64, queue_us: u64) {
    if count_probe(shared, request) {
        return;
    }
    shared.table.add(cell::bytes_in, request.size);
    shared.table.count_answer(request.method() as usize, 504);
    shared.table.observe_call(504, queue_us, duration_us);
    keep_exemplar(shared, request, 504, queue_us, duration_us);
    let refusal = Some("app_timeout");
    log(shared, &Record { status: 504, refusal, duration_us, queue_us, ..request.record() });
}

/// Counts the request if it is a probe, which is counted nowhere else, and not logged.
fn count_probe(shared: &Shared, request: &Received<'_>) -> bool {
    let is_probe = request.is_probe(&shared.table);
    if is_probe {
        shared.table.add(cell::probes, 1);
    }
    is_probe
}

/// Keeps the request's trace beside the buckets that it was counted in, if that is wanted and it has one.
fn keep_exemplar(
    shared: &Shared,
    request: &Received<'_>,
    status: u16,
    queue_us: u64,
    duration_us: u64,
) {
    if !shared.table.keeps_exemplars() {
        return;
    }
    let Some(head) = request.head else { return };
    if let Some(trace_id) = identity::sampled_trace_id(head, request.bytes) {
        let time_us = unix_us();
        shared.table.keep_exemplar(&Traced { trace_id, status, queue_us, duration_us, time_us });
    }
}

/// Microseconds since 1970; 0 where the clock is before that.
fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(0)
}

fn log(shared: &Shared, record: &Record<'_>) {
    if let Some(log) = &shared.log {
        log.append(record, &shared.settings.trusted);
    }
}

impl Received<'_> {
    /// Whether the agent asks for the app's health: no traffic.
    #[must_use]
    pub fn is_probe(&self, table: &Table) -> bool {
        let number = self.head.and_then(|head| identity::probe_number(head, self.bytes));
        number.is_some_and(|number| number == table.boot_id())
    }

    fn method(&self) -> Method {
        self.head.map_or(Method::Other, |head| head.method)
    }

    /// A line of the access log that has nothing of the answer so far.
    fn record(&self) -> Record<'_> {
        Record {
            remote: self.remote,
            is_trusted: self.is_trusted,
            head: self.head,
            bytes: self.bytes,
            made_id: self.made_id,
            status: 0,
            body_bytes: 0,
            duration_us: 0,
            queue_us: 0,
            refusal: None,
        }
    }
}
