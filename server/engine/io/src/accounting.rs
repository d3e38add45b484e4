//! What a request leaves behind: counters of the stats table, and a line of the access log.
//!
//! Takes what it needs of a request as a [`Received`], so it does not know connections either.

use prefork_core::head::Span;
use prefork_core::{Head, Method, NameId};

use crate::access_log::Record;
use crate::shared::Shared;
use crate::stats::cell;

/// The request that is counted and logged.
pub struct Received<'a> {
    /// The client's address; empty for a unix socket.
    pub remote: &'a str,
    /// Its head, perhaps half read.
    pub head: Option<&'a Head>,
    /// The buffer that `head` was read from.
    pub bytes: &'a [u8],
    /// Bytes received of it, body included.
    pub size: u64,
    /// When it was complete enough to be called, monotonic.
    pub ready_us: u64,
}

/// What a call came to, for counters and log.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The status sent.
    pub status: u16,
    /// Bytes of the body sent.
    pub body_bytes: u64,
    /// When the call began and ended, monotonic.
    pub start_us: u64,
    /// See `start_us`.
    pub end_us: u64,
    /// A timeout has counted it already.
    pub is_counted: bool,
}

/// Counts and logs a request that the engine answers by itself.
pub fn note_refusal(shared: &Shared, request: &Received<'_>, status: u16, code: &'static str) {
    shared.table.add(cell::rejects, 1);
    shared.table.add(cell::bytes_in, request.size);
    shared.table.count_answer(request.method() as usize, status, 0);
    if shared.settings.is_access_logged {
        shared.log.append(&Record {
            status,
            refusal: Some(code),
            referer: None,
            user_agent: None,
            ..request.record()
        });
    }
}

/// Counts and logs an answered call.
pub fn note_answer(shared: &Shared, request: &Received<'_>, outcome: &Outcome) {
    let duration_us = outcome.end_us.saturating_sub(outcome.start_us);
    let queue_us = outcome.start_us.saturating_sub(request.ready_us);
    shared.table.add(cell::busy_us, duration_us);
    shared.table.observe(cell::queue, queue_us);
    shared.table.add(cell::bytes_in, request.size);
    if !outcome.is_counted {
        shared.table.count_answer(request.method() as usize, outcome.status, duration_us);
    }
    if shared.settings.is_access_logged {
        let Outcome { status, body_bytes, .. } = *outcome;
        shared.log.append(&Record {
            status,
            body_bytes,
            duration_us,
            queue_us,
            ..request.record()
        });
    }
}

impl Received<'_> {
    fn method(&self) -> Method {
        self.head.map_or(Method::Other, |head| head.method)
    }

    /// A line of the access log that has nothing of the answer so far.
    fn record(&self) -> Record<'_> {
        let known = |span: Span| {
            let is_read = !span.is_empty() && span.end as usize <= self.bytes.len();
            is_read.then(|| span.of(self.bytes))
        };
        let field = |id| self.head.and_then(|head| head.value(self.bytes, id));
        Record {
            remote: self.remote,
            method: self.head.and_then(|head| known(head.method_name)),
            target: self.head.and_then(|head| known(head.target)),
            minor: self.head.map_or(1, |head| head.minor),
            referer: field(NameId::REFERER),
            user_agent: field(NameId::USER_AGENT),
            status: 0,
            body_bytes: 0,
            duration_us: 0,
            queue_us: 0,
            refusal: None,
        }
    }
}
