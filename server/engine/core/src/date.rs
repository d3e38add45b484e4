//! Seconds since the epoch as the date of HTTP (RFC 9110 §5.6.7).

/// Seconds since the epoch → `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
#[must_use]
pub fn http_date(unix_s: u64) -> [u8; 29] {
    const DAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed";
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, day) = civil(days);
    let mut out = *b"Day, 00 Mon 0000 00:00:00 GMT";
    let weekday = (days % 7) as usize * 3;
    let month = ((month + 11) % 12) as usize * 3;
    out[..3].copy_from_slice(&DAYS[weekday..weekday + 3]);
    out[8..11].copy_from_slice(&MONTHS[month..month + 3]);
    for (at, number) in [
        (5, day),
        (12, year / 100 % 100),
        (14, year % 100),
        (17, second / 3600),
        (20, second / 60 % 60),
        (23, second % 60),
    ] {
        out[at] = b"0123456789"[(number / 10) as usize];
        out[at + 1] = b"0123456789"[(number % 10) as usize];
    }
    out
}

/// Days since the epoch → (year, month 1–12, day 1–31) of the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years are counted from March, so that the leap day is the last one of a year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}
