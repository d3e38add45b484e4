//! The shared stats table: the one declaration of its layout, and this worker's slot of it.
//!
//! The file is made by the arbiter, mapped by the arbiter, every worker and the agent. Cells are aligned
//! little-endian u64, so a reader never sees half a value. A slot's counters have one writing process; its threads
//! add atomically. Nothing here knows connections or Python.

pub mod exemplars;

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use exemplars::EXEMPLARS_BYTES;

/// First cell of the file: "prefork1" read as a little-endian number.
pub const MAGIC: u64 = u64::from_le_bytes(*b"prefork1");
/// Readers refuse any other.
pub const VERSION: u64 = 6;
/// Size of the header.
pub const HEADER_BYTES: usize = 4096;
/// Size of each slot; slot 0 holds what retired workers had counted.
pub const SLOT_BYTES: usize = 8192;

/// Rows of the request matrix.
pub const METHODS: [&str; 8] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];

/// Columns of the request matrix: usual statuses, then a class for the rest.
pub const CODES: [&str; 56] = [
    "200", "201", "202", "203", "204", "205", "206", "207", "300", "301", "302", "303", "304",
    "307", "308", "400", "401", "402", "403", "404", "405", "406", "408", "409", "410", "411",
    "412", "413", "414", "415", "416", "417", "418", "422", "423", "424", "425", "426", "428",
    "429", "431", "451", "500", "501", "502", "503", "504", "505", "507", "508", "511", "1xx",
    "2xx", "3xx", "4xx", "5xx",
];

/// Most bounds that histogram buckets may have.
pub const BOUNDS_MAX: usize = 16;

/// Where the header has the upper bounds of the histogram buckets, in microseconds, ascending. Those that are not used
/// are `u64::MAX`: the first of them is the bucket of what is above all others.
pub const BOUNDS_AT: usize = HEADER.len();

/// Cells of one histogram: its buckets, the overflow bucket, the sum in microseconds.
pub const HISTOGRAM_CELLS: usize = BOUNDS_MAX + 2;

/// Where the header has the digests of the contents that are served, as text that ends with a NUL.
pub const CONTENT_AT: usize = BOUNDS_AT + BOUNDS_MAX;
/// Cells for them.
pub const CONTENT_CELLS: usize = 384;
const _: () = assert!((CONTENT_AT + CONTENT_CELLS) * 8 <= HEADER_BYTES);

/// Calls of a worker whose request is in the table; further ones are not.
pub const LINES: usize = 16;
/// Cells for one of them.
pub const LINE_CELLS: usize = 16;

/// Cells of the header, in order from cell 0.
pub const HEADER: [&str; 30] = [
    "magic",
    "version",
    "boot_id",
    "slots",
    "heartbeat_us",
    "fold_seq",
    "arbiter_pid",
    "state",
    "generation",
    "workers_desired",
    "reloads_ok",
    "reloads_failed",
    "exits_crash",
    "exits_timeout",
    "exits_memory",
    "exits_max_requests",
    "exits_retired",
    "exits_killed",
    "listen_depth",
    "listen_limit",
    "listen_overflows",
    "listen_drops",
    "boot_us_last",
    "boot_us_sum",
    "boot_count",
    "crash_loop_backoff_us",
    "content_seq",
    "exemplars_at",
    "memory_limit",
    "memory_used",
];
const EXEMPLARS_AT_CELL: usize = 27;

macro_rules! slot_cells {
    ($($(#[$doc:meta])* $name:ident = $cells:expr;)*) => {
        slot_cells!(@consts 0usize; $($(#[$doc])* $name = $cells;)*);
        /// Names and first cells of a slot, in order.
        pub const SLOT: &[(&str, usize)] = &[$((stringify!($name), cell::$name)),*];
    };
    (@consts $start:expr; $($(#[$doc:meta])* $name:ident = $cells:expr;)*) => {
        /// Where each thing is in a slot, in cells.
        #[allow(non_upper_case_globals)] // a cell is called what the table calls it
        pub mod cell {
            use super::{CODES, HISTOGRAM_CELLS, LINE_CELLS, LINES, METHODS};
            slot_cells!(@one $start; $($(#[$doc])* $name = $cells;)*);
        }
    };
    (@one $start:expr; $(#[$doc:meta])* $name:ident = $cells:expr; $($rest:tt)*) => {
        $(#[$doc])*
        pub const $name: usize = $start;
        slot_cells!(@one $start + $cells; $($rest)*);
    };
    (@one $start:expr;) => {
        /// Cells in use.
        pub const END: usize = $start;
        const _: () = assert!(END * 8 <= super::SLOT_BYTES);
    };
}

slot_cells! {
    /// Written by the arbiter.
    pid = 1;
    /// Written by the arbiter.
    slot_generation = 1;
    /// Written by the arbiter: 0 free, 1 booting, 2 serving, 3 draining, 4 stuck.
    worker_state = 1;
    /// Written by the arbiter.
    started_us = 1;
    /// Written by the arbiter.
    rss_bytes = 1;
    /// Written by the arbiter.
    pss_bytes = 1;
    /// Gauge: calls running.
    in_flight = 1;
    /// Gauge: connections open.
    connections = 1;
    /// `CLOCK_MONOTONIC` of the longest running call; 0 for none.
    oldest_start_us = 1;
    /// Gauge: app threads that could take a request from another worker now.
    idle_threads = 1;
    /// Gauge: calls running that are over their time.
    overdue = 1;
    /// `CLOCK_MONOTONIC` of the watchdog thread's last look; 0 when it does not run.
    watchdog_us = 1;
    /// Gauge: app threads, or with greenlets the most calls at once.
    threads = 1;
    /// Gauge: requests that are complete and wait for an app thread of this worker.
    waiting = 1;
    /// Microseconds in calls.
    busy_us = 1;
    /// Calls that were over their time.
    timeouts = 1;
    /// Requests the engine refused by itself.
    rejects = 1;
    /// Bytes of heads and bodies received.
    bytes_in = 1;
    /// Bytes of heads and bodies sent.
    bytes_out = 1;
    /// Clients that left before their answer was sent.
    disconnects = 1;
    /// Connections taken from listeners.
    accepted = 1;
    /// Connections passed to another worker.
    handed_over = 1;
    /// Requests of the agent for the app's health. They are in none of the cells below.
    probes = 1;
    /// Matrix: methods x codes, row-major.
    requests = METHODS.len() * CODES.len();
    /// Histograms of the time from the start of a call to its end, one per class of status.
    duration = 5 * HISTOGRAM_CELLS;
    /// Histogram of the time from a complete request to the start of its call.
    queue = HISTOGRAM_CELLS;
    /// Histogram of the time from a complete request to the end of its call.
    response = HISTOGRAM_CELLS;
    /// Method and target of running calls, as text that ends with a NUL: what is known of them when a worker crashes.
    lines = LINES * LINE_CELLS;
}

/// Column of `status` in the request matrix.
#[must_use]
pub fn code_index(status: u16) -> usize {
    usize::from(CODE_INDEX[usize::from(status.clamp(100, 599) - 100)])
}

const CODE_INDEX: [u8; 500] = code_table();

#[allow(clippy::cast_possible_truncation)] // CODES has fewer than 256 entries
const fn code_table() -> [u8; 500] {
    let classes = CODES.len() - 5;
    let mut table = [0u8; 500];
    let mut status = 0;
    while status < 500 {
        table[status] = (classes + status / 100) as u8;
        status += 1;
    }
    let mut code = 0;
    while code < classes {
        let digits = CODES[code].as_bytes();
        let value = (digits[0] - b'0') as usize * 100
            + (digits[1] - b'0') as usize * 10
            + (digits[2] - b'0') as usize;
        table[value - 100] = code as u8;
        code += 1;
    }
    table
}

/// Bucket of a duration: the first bound it does not exceed, or the overflow bucket.
#[must_use]
fn bucket(bounds_us: &[u64; BOUNDS_MAX], us: u64) -> usize {
    bounds_us.iter().position(|&bound| us <= bound).unwrap_or(BOUNDS_MAX)
}

/// The mapped table, seen by the worker of one slot.
pub struct Table {
    cells: *mut AtomicU64,
    bytes: usize,
    slot: usize,
    slots: usize,
    /// A copy of the header's: nobody changes them while the server runs.
    bounds_us: [u64; BOUNDS_MAX],
    /// First cell of this worker's exemplars, where there is room for them.
    exemplars: Option<usize>,
}

// SAFETY: the mapping is shared memory made for concurrent use; every access goes through atomics.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Table {
    /// Maps the file `fd` for the worker of `slot` (1..n).
    ///
    /// # Errors
    /// `InvalidInput`: the file is no table of this version, or has no such slot; else fstat(2), mmap(2).
    pub fn map(fd: RawFd, slot: usize) -> io::Result<Self> {
        // SAFETY: all-zero is a valid stat, which fstat fills.
        let mut status: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: `status` lives through the call.
        if unsafe { libc::fstat(fd, &raw mut status) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let bytes = usize::try_from(status.st_size).unwrap_or(0);
        let slots = bytes.saturating_sub(HEADER_BYTES) / SLOT_BYTES;
        if slot == 0 || slot >= slots {
            return Err(no_such_slot(slot, bytes, slots.max(1) - 1));
        }
        // SAFETY: a fresh shared mapping of the whole file; the arbiter never shrinks the file.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let bounds_us = [u64::MAX; BOUNDS_MAX];
        let cells = start.cast();
        let mut table = Self { cells, bytes, slot, slots, bounds_us, exemplars: None };
        let (magic, version) = (table.load_at(0), table.load_at(1));
        if (magic, version) != (MAGIC, VERSION) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the stats table says magic {magic:#x}, version {version}; want {MAGIC:#x}, version {VERSION}"
                ),
            ));
        }
        table.find_slots()?;
        table.bounds_us = std::array::from_fn(|at| table.load_at(BOUNDS_AT + at));
        Ok(table)
    }

    /// Finds this worker's slot and exemplars in the file, and that they are inside it.
    fn find_slots(&mut self) -> io::Result<()> {
        let exemplars_at = usize::try_from(self.load_at(EXEMPLARS_AT_CELL)).unwrap_or(usize::MAX);
        let end = if exemplars_at == 0 { self.bytes } else { exemplars_at };
        self.slots = end.saturating_sub(HEADER_BYTES) / SLOT_BYTES;
        let room = self.bytes.saturating_sub(exemplars_at) / EXEMPLARS_BYTES;
        let has_room = exemplars_at == 0 || exemplars_at.is_multiple_of(8) && self.slots <= room;
        if self.slot >= self.slots || !has_room {
            return Err(no_such_slot(self.slot, self.bytes, self.slots.max(1) - 1));
        }
        let exemplars = (exemplars_at + self.slot * EXEMPLARS_BYTES) / 8;
        self.exemplars = (exemplars_at != 0).then_some(exemplars);
        Ok(())
    }

    fn load_at(&self, index: usize) -> u64 {
        self.at(index).load(Relaxed)
    }

    /// The random number of this run of the server.
    #[must_use]
    pub fn boot_id(&self) -> u64 {
        self.load_at(2)
    }

    fn at(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.bytes / 8, "cell outside the table");
        // SAFETY: the mapping starts at a page, lives as long as `self`, and `index` is inside it.
        unsafe { &*self.cells.add(index) }
    }

    fn of_slot(&self, slot: usize, cell: usize) -> &AtomicU64 {
        self.at((HEADER_BYTES + slot * SLOT_BYTES) / 8 + cell)
    }

    /// A cell of this worker.
    ///
    /// # Panics
    /// A cell outside the slot, which [`cell`] does not have.
    #[must_use]
    pub fn own(&self, cell: usize) -> &AtomicU64 {
        assert!(cell < SLOT_BYTES / 8, "cell outside the slot");
        // SAFETY: `slot` was checked against the size of the mapping, and `cell` is inside the slot.
        unsafe { &*self.cells.add((HEADER_BYTES + self.slot * SLOT_BYTES) / 8 + cell) }
    }

    /// Adds to a counter or gauge of this worker.
    pub fn add(&self, cell: usize, amount: u64) {
        self.own(cell).fetch_add(amount, Relaxed);
    }

    /// Takes from a gauge of this worker.
    pub fn sub(&self, cell: usize, amount: u64) {
        self.own(cell).fetch_sub(amount, Relaxed);
    }

    /// Sets a gauge of this worker.
    pub fn set(&self, cell: usize, value: u64) {
        self.own(cell).store(value, Relaxed);
    }

    /// Counts one answered request.
    pub fn count_answer(&self, method: usize, status: u16) {
        self.add(cell::requests + method * CODES.len() + code_index(status), 1);
    }

    /// Counts the times of one answered call: how long its request waited, and how long the call took.
    pub fn observe_call(&self, status: u16, queue_us: u64, duration_us: u64) {
        let class = usize::from(status.clamp(100, 599) / 100 - 1);
        self.observe(cell::duration + class * HISTOGRAM_CELLS, duration_us);
        self.observe(cell::queue, queue_us);
        self.observe(cell::response, queue_us + duration_us);
    }

    /// Counts one value of the histogram whose first cell is `start`.
    fn observe(&self, start: usize, us: u64) {
        self.add(start + bucket(&self.bounds_us, us), 1);
        self.add(start + BOUNDS_MAX + 1, us);
    }

    /// Says what the call of that number is about.
    pub fn set_line(&self, number: usize, line: &[u8]) {
        if number >= LINES {
            return;
        }
        let start = cell::lines + number * LINE_CELLS;
        let (words, rest) = line[..line.len().min(LINE_CELLS * 8 - 1)].as_chunks::<8>();
        for (at, word) in words.iter().enumerate() {
            self.set(start + at, u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.set(start + words.len(), u64::from_le_bytes(last));
    }

    /// That call is over.
    pub fn clear_line(&self, number: usize) {
        if number < LINES {
            self.set(cell::lines + number * LINE_CELLS, 0);
        }
    }

    /// Reserves an idle app thread of another serving worker; returns that worker's slot.
    #[must_use]
    pub fn reserve_idle(&self) -> Option<usize> {
        (1..self.slots).find(|&slot| {
            slot != self.slot
                && self.of_slot(slot, cell::worker_state).load(Relaxed) == 2
                && self
                    .of_slot(slot, cell::idle_threads)
                    .fetch_update(SeqCst, SeqCst, one_less)
                    .is_ok()
        })
    }

    /// Takes a reservation back that was not used.
    pub fn release_idle(&self, slot: usize) {
        self.of_slot(slot, cell::idle_threads).fetch_add(1, SeqCst);
    }
}

fn no_such_slot(slot: usize, bytes: usize, last: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("slot is {slot}, but the stats table of {bytes} bytes has slots 1 to {last}"),
    )
}

fn one_less(idle: u64) -> Option<u64> {
    idle.checked_sub(1)
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: the mapping of `map`, not used any more.
        unsafe { libc::munmap(self.cells.cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_own_column_or_that_of_its_class() {
        for (index, code) in CODES.iter().enumerate() {
            if let Ok(status) = code.parse() {
                assert_eq!(code_index(status), index, "{code}");
            }
        }
        assert_eq!(CODES[code_index(102)], "1xx");
        assert_eq!(CODES[code_index(299)], "2xx");
        assert_eq!(CODES[code_index(599)], "5xx");
        assert_eq!(CODES[code_index(700)], "5xx");
    }

    #[test]
    fn cells_do_not_overlap_and_fit_their_slot() {
        let mut starts: Vec<usize> = SLOT.iter().map(|&(_, start)| start).collect();
        starts.push(cell::END);
        assert!(starts.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(cell::END * 8 <= SLOT_BYTES && HEADER.len() * 8 <= HEADER_BYTES);
    }

    #[test]
    fn cells_of_the_header_are_where_the_engine_reads_them() {
        assert_eq!(HEADER[EXEMPLARS_AT_CELL], "exemplars_at");
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let mut bounds_us: [u64; BOUNDS_MAX] = std::array::from_fn(|at| 1_000 << at);
        let last = bounds_us[BOUNDS_MAX - 1];
        assert_eq!([0, 1_000, 1_001, last].map(|us| bucket(&bounds_us, us)), [0, 0, 1, 15]);
        assert_eq!([last + 1, u64::MAX].map(|us| bucket(&bounds_us, us)), [BOUNDS_MAX; 2]);
        bounds_us[3..].fill(u64::MAX);
        assert_eq!([4_000, 4_001, u64::MAX].map(|us| bucket(&bounds_us, us)), [2, 3, 3]);
    }
}
