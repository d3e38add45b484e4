//! Exemplars in the stats table: of each bucket of the histograms, one request that fell into it, by its trace.
//!
//! They are kept only where the table has room for them, which the arbiter makes on request. Threads of a worker
//! write without a lock and without an order, and a worker may be killed between two cells. So the last cell is a
//! check of the others: whoever reads cells that do not belong together sees that, and takes them for none.

use super::{BOUNDS_MAX, HISTOGRAM_CELLS, SLOT_BYTES, Table, bucket, cell};

/// Cells of an exemplar: the two halves of the trace id, the value in microseconds, the time in microseconds since
/// 1970 (0 for none), the check.
pub const EXEMPLAR_CELLS: usize = 5;
/// Buckets of one histogram.
const BUCKETS: usize = BOUNDS_MAX + 1;
/// Histograms of a slot: `duration` by class, `queue`, `response`, as in the slot.
const HISTOGRAMS: usize = (cell::response - cell::duration) / HISTOGRAM_CELLS + 1;
/// Exemplars of a slot: one per bucket, histogram by histogram.
pub const EXEMPLARS: usize = HISTOGRAMS * BUCKETS;
/// Size of the exemplars of a slot.
pub const EXEMPLARS_BYTES: usize = EXEMPLARS * EXEMPLAR_CELLS * 8;
const _: () = assert!(EXEMPLARS_BYTES.is_multiple_of(8) && SLOT_BYTES.is_multiple_of(8));

/// The last cell of an exemplar, from the others.
///
/// Not secret: it only has to differ where one or more of the cells are another exemplar's. One other cell always
/// changes it, as each step can be undone; more of them keep it in one case of 2⁶⁴.
#[must_use]
pub fn check(cells: [u64; EXEMPLAR_CELLS - 1]) -> u64 {
    cells.iter().fold(0x9e37_79b9_7f4a_7c15, |mixed: u64, &cell| {
        let product = (mixed ^ cell).wrapping_mul(0xd6e8_feb8_6659_fd93);
        product ^ product >> 32
    })
}

/// A call that was answered, for the exemplars.
#[derive(Clone, Copy, Debug)]
pub struct Traced {
    /// The trace that it belongs to.
    pub trace_id: u128,
    /// The status sent.
    pub status: u16,
    /// How long its request waited.
    pub queue_us: u64,
    /// How long the call took.
    pub duration_us: u64,
    /// When it ended, since 1970.
    pub time_us: u64,
}

impl Table {
    /// Whether there is room for exemplars.
    #[must_use]
    pub fn keeps_exemplars(&self) -> bool {
        self.exemplars.is_some()
    }

    /// Keeps the trace of a call for each of the buckets that it was counted in.
    pub fn keep_exemplar(&self, call: &Traced) {
        let Some(start) = self.exemplars else { return };
        let class = usize::from(call.status.clamp(100, 599) / 100 - 1);
        self.put_exemplar(start, class, call.duration_us, call);
        self.put_exemplar(start, HISTOGRAMS - 2, call.queue_us, call);
        self.put_exemplar(start, HISTOGRAMS - 1, call.queue_us + call.duration_us, call);
    }

    #[allow(clippy::cast_possible_truncation)] // the halves of the id
    fn put_exemplar(&self, start: usize, histogram: usize, us: u64, call: &Traced) {
        let at = start + (histogram * BUCKETS + bucket(&self.bounds_us, us)) * EXEMPLAR_CELLS;
        let cells = [(call.trace_id >> 64) as u64, call.trace_id as u64, us, call.time_us];
        for (index, value) in cells.into_iter().chain([check(cells)]).enumerate() {
            self.at(at + index).store(value, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_two_exemplars_do_not_pass_for_one() {
        let one = [0x0af7_6519_16cd_43dd, 0x8448_eb21_1c80_319c, 900, 1_795_651_200_000_000];
        let other = [0xb9c7_c989_f97a_9b0e, 0x3ff1_9d2a_0000_0001, 901, 1_795_651_200_000_001];
        for stale in 1..15_usize {
            let torn = std::array::from_fn(|at| [one[at], other[at]][stale >> at & 1]);
            assert!(check(torn) != check(one) && check(torn) != check(other), "{stale:04b}");
        }
        assert_ne!(check(one), check(other));
    }

    #[test]
    fn each_bucket_of_each_histogram_has_one_exemplar() {
        assert_eq!((HISTOGRAMS, EXEMPLARS), (7, 7 * 17));
    }
}
