//! What every part of the engine may read: settings, the stats table, the access log.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Relaxed, Release},
};
use std::sync::{Mutex, PoisonError};

use prefork_core::Method;
use prefork_core::date::http_date;
use prefork_core::error_page::write_error;

use crate::budget::Budget;
use crate::conn::Conn;
use crate::log::{AccessLog, Entry};
use crate::settings::Settings;
use crate::spool::Spool;
use crate::stats::{Table, cell};
use crate::sys;

/// Shared by all threads of one worker.
pub struct Context {
    /// Memory for bodies and answers on their way.
    pub memory: Budget,
    /// Where bodies go that memory should not hold; `None` when there is no such place: then they are streamed.
    pub body_spool: Option<Spool>,
    /// The same for answers.
    pub response_spool: Option<Spool>,
    is_pressed: AtomicBool,
    spool_failure: Mutex<Option<String>>,
    has_spool_failure: AtomicBool,
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
    /// # Errors
    /// None: a spool that cannot be used is left out.
    #[must_use]
    pub fn new(settings: Settings, table: Table, log: AccessLog) -> Self {
        let spool = || Spool::usable(&settings.spool_directory, settings.spool_bytes);
        Self {
            memory: Budget::new(settings.buffer_bytes),
            body_spool: spool(),
            response_spool: spool(),
            is_pressed: AtomicBool::new(false),
            spool_failure: Mutex::default(),
            has_spool_failure: AtomicBool::new(false),
            settings,
            table,
            log,
        }
    }

    /// Whether a peer's word about the scheme is taken; `None` is a unix socket.
    #[must_use]
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        self.settings.trusted.is_trusted(peer)
    }

    /// Somebody waits for room in memory or the spool.
    pub fn press(&self) {
        self.is_pressed.store(true, Relaxed);
    }

    /// Whether somebody has waited for room since this was last asked.
    pub fn take_pressure(&self) -> bool {
        self.is_pressed.load(Relaxed) && self.is_pressed.swap(false, Relaxed)
    }

    /// Remembers why something could not be kept in the spool, for [`Context::take_spool_failure`].
    pub fn note_spool_failure(&self, error: &io::Error) {
        *self.spool_failure.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(error.to_string());
        self.has_spool_failure.store(true, Release);
    }

    /// Why something could not be kept in the spool since this was last asked.
    pub fn take_spool_failure(&self) -> Option<String> {
        if !self.has_spool_failure.swap(false, AcqRel) {
            return None;
        }
        self.spool_failure.lock().unwrap_or_else(PoisonError::into_inner).take()
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
        http_date(sys::wall_us() / 1_000_000)
    }

    /// A whole answer of the server itself, with which the connection ends.
    #[must_use]
    pub fn plain_answer(&self, status: u16, sentence: &str, is_head: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        write_error(&mut out, status, sentence, is_head, &self.settings.server, &self.date());
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
