//! What all threads of a worker share: settings, the stats table, the access log, memory and spools.
//!
//! Knows no connection.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{AcqRel, Relaxed, Release},
};
use std::sync::{Mutex, PoisonError};

use prefork_core::date::http_date;
use prefork_core::error_page::write_error;
use prefork_core::identity::{MADE_ID_BYTES, RequestIds};

use crate::access_log::AccessLog;
use crate::budget::Budget;
use crate::settings::Settings;
use crate::spool::Spool;
use crate::stats::{Table, cell};
use crate::sys;

/// Shared by all threads of one worker.
pub struct Shared {
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
    /// Where answers are logged, if they are.
    pub log: Option<AccessLog>,
    /// Whether a call is more than its counts: it is logged, or its trace is kept. One question for both, so
    /// that a request pays nothing where both are off.
    pub notes_calls: bool,
    /// For the ids of requests that come without one.
    request_ids: RequestIds,
    request_count: AtomicU64,
}

impl Shared {
    /// # Errors
    /// None: a spool that cannot be used is left out.
    #[must_use]
    pub fn new(settings: Settings, table: Table, log: Option<AccessLog>) -> Self {
        let spool = || Spool::usable(&settings.spool_directory, settings.spool_bytes);
        Self {
            memory: Budget::new(settings.buffer_bytes),
            body_spool: spool(),
            response_spool: spool(),
            is_pressed: AtomicBool::new(false),
            spool_failure: Mutex::default(),
            has_spool_failure: AtomicBool::new(false),
            settings,
            notes_calls: log.is_some() || table.keeps_exemplars(),
            table,
            log,
            request_ids: RequestIds::new(sys::random_number()),
            request_count: AtomicU64::new(0),
        }
    }

    /// Whether each request needs an id, as lines of the log say it.
    #[must_use]
    pub fn names_requests(&self) -> bool {
        self.settings.access_format.as_ref().is_some_and(|format| format.names_request_id())
    }

    /// An id for a request that came without one.
    #[must_use]
    pub fn make_request_id(&self) -> [u8; MADE_ID_BYTES] {
        self.request_ids.make(self.request_count.fetch_add(1, Relaxed))
    }

    /// Whether a peer's word about the scheme is taken; `None` is a unix socket.
    #[must_use]
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        self.settings.trusted.is_trusted(peer)
    }

    /// Whether a peer is known as a proxy; `None` is a unix socket.
    #[must_use]
    pub fn lists(&self, peer: Option<IpAddr>) -> bool {
        self.settings.trusted.is_listed(peer)
    }

    /// Somebody waits for room in memory or the spool.
    pub fn press(&self) {
        self.is_pressed.store(true, Relaxed);
    }

    /// Whether somebody has waited for room since this was last asked.
    pub fn take_pressure(&self) -> bool {
        self.is_pressed.load(Relaxed) && self.is_pressed.swap(false, Relaxed)
    }

    /// Remembers why something could not be kept in the spool, for [`Shared::take_spool_failure`].
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
}
