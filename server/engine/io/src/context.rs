//! What every part of the engine may read: settings, the stats table, the access log.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use prefork_core::{Method, reply};

use crate::conn::Conn;
use crate::log::{AccessLog, Entry};
use crate::settings::Settings;
use crate::stats::{Table, cell};
use crate::sys;

/// Bytes that may be set aside for bodies above `SMALL_BODY_BYTES`, in one worker.
const BODIES_BYTES: usize = 64 * 1024 * 1024;

/// Memory that can be set aside, in bytes.
pub struct Budget(Arc<AtomicUsize>);

/// Memory set aside; given back when dropped.
pub struct Reserved {
    budget: Arc<AtomicUsize>,
    bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(BODIES_BYTES)))
    }
}

impl Budget {
    /// Sets `bytes` aside; `None` when there are not so many.
    #[must_use]
    pub fn take(&self, bytes: usize) -> Option<Reserved> {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).ok()?;
        Some(Reserved { budget: self.0.clone(), bytes })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.fetch_add(self.bytes, Relaxed);
    }
}

/// Shared by all threads of one worker.
pub struct Context {
    /// Memory for bodies that are received before their calls.
    pub bodies: Budget,
    /// Fixed settings.
    pub settings: Settings,
    /// Where everything is counted.
    pub table: Table,
    /// Where answers are logged.
    pub log: AccessLog,
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

impl Context {
    /// Whether a peer's word about the scheme is taken; `None` is a unix socket.
    #[must_use]
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        self.settings.trusted.is_trusted(peer)
    }

    /// A client left before its answer was sent.
    pub fn count_disconnect(&self) {
        self.table.add(cell::disconnects, 1);
    }

    /// Bytes went out.
    pub fn count_sent(&self, bytes: u64) {
        if bytes > 0 {
            self.table.add(cell::bytes_out, bytes);
        }
    }

    /// The `Date` of now.
    #[must_use]
    pub fn date(&self) -> [u8; 29] {
        reply::http_date(sys::wall_us() / 1_000_000)
    }

    /// A whole answer of the server itself, with which the connection ends.
    #[must_use]
    pub fn plain_answer(&self, status: u16, sentence: &str, is_head: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        reply::write_error(
            &mut out,
            status,
            sentence,
            is_head,
            &self.settings.server,
            &self.date(),
        );
        out
    }

    /// Counts and logs a request that the engine answers by itself.
    pub fn note_refusal(&self, conn: &Conn, status: u16, code: &'static str) {
        self.table.add(cell::rejects, 1);
        self.table.add(cell::bytes_in, conn.received);
        let method = conn.head().map_or(Method::Other, |head| head.method);
        self.table.count_answer(method as usize, status, 0);
        if self.settings.is_access_logged {
            self.log.append(&Entry {
                conn,
                status,
                body_bytes: 0,
                duration_us: 0,
                queue_us: 0,
                refusal: Some(code),
            });
        }
    }

    /// Counts and logs an answered call.
    pub fn note_answer(&self, conn: &Conn, outcome: &Outcome) {
        let duration_us = outcome.end_us.saturating_sub(outcome.start_us);
        let queue_us = outcome.start_us.saturating_sub(conn.ready_us);
        self.table.add(cell::busy_us, duration_us);
        self.table.observe(cell::queue, queue_us);
        self.table.add(cell::bytes_in, conn.received);
        if !outcome.is_counted {
            self.table.count_answer(
                conn.request().head.method as usize,
                outcome.status,
                duration_us,
            );
        }
        if self.settings.is_access_logged {
            let Outcome { status, body_bytes, .. } = *outcome;
            self.log.append(&Entry {
                conn,
                status,
                body_bytes,
                duration_us,
                queue_us,
                refusal: None,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_gives_what_it_has_and_gets_it_back() {
        let budget = Budget::default();
        let most = budget.take(BODIES_BYTES - 10);
        assert!(most.is_some());
        assert!(budget.take(11).is_none());
        let rest = budget.take(10);
        assert!(rest.is_some());
        drop(most);
        assert!(budget.take(BODIES_BYTES - 10).is_some());
    }
}
