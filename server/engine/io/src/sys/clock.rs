//! The two clocks.

/// Microseconds of `CLOCK_MONOTONIC`: the same clock in every process of the machine.
#[must_use]
pub fn monotonic_us() -> u64 {
    clock_us(libc::CLOCK_MONOTONIC)
}

/// Microseconds since 1970 UTC.
#[must_use]
pub fn wall_us() -> u64 {
    clock_us(libc::CLOCK_REALTIME)
}

#[allow(clippy::cast_sign_loss)] // both clocks are positive on Linux
fn clock_us(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec for the duration of the call; the clocks named above always exist.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}
