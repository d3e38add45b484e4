//! By what a request is found again: its id, its trace, the user it names.

use crate::head::Head;
use crate::name::NameId;

/// Longest request id that is taken from a client.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Length of an id made by [`RequestIds`].
pub const MADE_ID_BYTES: usize = 32;

/// `X-Request-ID`, when there is one and it is well formed: 1 to 128 letters, digits and `-._~+/=:@`.
///
/// Anything else could not stand in a log line or a header as it is, and is replaced as if it were missing.
#[must_use]
pub fn request_id<'a>(head: &Head, buf: &'a [u8]) -> Option<&'a [u8]> {
    let id = head.only_value(buf, NameId::X_REQUEST_ID)?;
    let is_well_formed = (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
        && id.iter().all(|&b| b.is_ascii_alphanumeric() || b"-._~+/=:@".contains(&b));
    is_well_formed.then_some(id)
}

/// Makes ids for requests that come without one, in lower-case hexadecimal digits.
pub struct RequestIds {
    process: u64,
    digits: [u8; MADE_ID_BYTES / 2],
}

impl RequestIds {
    /// `process` is a random number of the process: the first half of its ids.
    #[must_use]
    pub fn new(process: u64) -> Self {
        Self { process, digits: hex_digits(process) }
    }

    /// The id of the request of that number; the second half of it is a permutation of the number (`SplitMix64`'s), so no
    /// two requests of a process have the same.
    #[must_use]
    pub fn make(&self, number: u64) -> [u8; MADE_ID_BYTES] {
        let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.process);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let mut id = [0; MADE_ID_BYTES];
        id[..16].copy_from_slice(&self.digits);
        id[16..].copy_from_slice(&hex_digits(mixed));
        id
    }
}

/// All sixteen digits at once: each half byte gets a byte of its own, then becomes its digit.
fn hex_digits(number: u64) -> [u8; 16] {
    let spread = |half: u32| {
        let mut nibbles = u64::from(half);
        nibbles = (nibbles | nibbles << 16) & 0x0000_ffff_0000_ffff;
        nibbles = (nibbles | nibbles << 8) & 0x00ff_00ff_00ff_00ff;
        nibbles = (nibbles | nibbles << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        // 1 in each byte of 10 or more.
        let letters = (nibbles + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
        nibbles + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)
    };
    let [high, low] = [(number >> 32) as u32, (number & 0xffff_ffff) as u32].map(spread);
    let mut digits = [0; 16];
    digits[..8].copy_from_slice(&high.to_be_bytes());
    digits[8..].copy_from_slice(&low.to_be_bytes());
    digits
}

/// The trace id of `traceparent`: 32 lower-case hexadecimal digits, not all zero (W3C Trace Context §3.2).
#[must_use]
pub fn trace_id<'a>(head: &Head, buf: &'a [u8]) -> Option<&'a [u8]> {
    let value = head.only_value(buf, NameId::TRACEPARENT)?;
    let is_hex =
        |part: &[u8]| part.iter().all(|&b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let (version, id) = (value.get(..2)?, value.get(3..35)?);
    let is_well_formed = is_hex(version)
        && version != b"ff"
        && [2, 35, 52].iter().all(|&at| value.get(at) == Some(&b'-'))
        && is_hex(id)
        && value.get(36..52).is_some_and(is_hex)
        && id.iter().any(|&b| b != b'0');
    // Later versions may go on behind the flags, after a hyphen.
    let has_flags = value.len() >= 55 && is_hex(&value[53..55]);
    let ends_well = value.len() == 55 || version != b"00" && value.get(55) == Some(&b'-');
    (is_well_formed && has_flags && ends_well).then_some(id)
}

/// The trace id of `traceparent` where its sender has sampled the trace (the flags' last bit): where not, no
/// backend has anything under that id.
#[must_use]
pub fn sampled_trace_id(head: &Head, buf: &[u8]) -> Option<u128> {
    let id = trace_id(head, buf)?;
    let flags = head.only_value(buf, NameId::TRACEPARENT)?.get(54)?;
    let (high, low) = id.split_at(16);
    (hex_digit(*flags) & 1 == 1)
        .then(|| u128::from(hex_number(high)) << 64 | u128::from(hex_number(low)))
}

/// The number that lower-case hexadecimal digits are, sixteen at most.
fn hex_number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |number, &digit| number << 4 | hex_digit(digit))
}

/// The value of one of them: letters are 0x61 and more, and their last four bits count from 1.
fn hex_digit(digit: u8) -> u64 {
    u64::from((digit & 0xf) + 9 * (digit >> 6))
}

/// The number by which the agent shows that a request is a probe of the server's own: 16 hexadecimal digits of
/// `X-Prefork-Probe`. It is believed when it is the stats table's `boot_id`, which no client knows.
#[must_use]
pub fn probe_number(head: &Head, buf: &[u8]) -> Option<u64> {
    let value = head.only_value(buf, NameId::X_PREFORK_PROBE)?;
    let digits = std::str::from_utf8(value).ok().filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// The user of HTTP Basic authentication (RFC 7617), as sent; `None` for none.
#[must_use]
pub fn basic_user(head: &Head, buf: &[u8]) -> Option<Vec<u8>> {
    let value = head.only_value(buf, NameId::AUTHORIZATION)?;
    let (scheme, coded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut user = Vec::new();
    for group in coded.trim_ascii().chunks(4) {
        let mut bits = 0u32;
        let digits = group.iter().take_while(|&&b| b != b'=');
        let count = digits.clone().count();
        for &digit in digits {
            bits = bits << 6 | u32::from(base64_value(digit)?);
        }
        bits <<= 6 * (4 - count);
        let bytes = &bits.to_be_bytes()[1..][..count.saturating_sub(1)];
        if let Some(colon) = bytes.iter().position(|&b| b == b':') {
            user.extend_from_slice(&bytes[..colon]);
            return (!user.is_empty()).then_some(user);
        }
        user.extend_from_slice(bytes);
    }
    None
}

fn base64_value(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::head::hex;
    use crate::{Limits, Parsed, head};

    fn parsed(fields: &str) -> (Head, Vec<u8>) {
        let bytes = format!("GET / HTTP/1.1\r\nHost: t\r\n{fields}\r\n").into_bytes();
        let mut found = Head::new();
        assert!(matches!(head::parse(&bytes, &Limits::default(), &mut found), Ok(Parsed::Done(_))));
        (found, bytes)
    }

    fn id_of(value: &str) -> Option<String> {
        let (head, bytes) = parsed(&format!("X-Request-ID: {value}\r\n"));
        request_id(&head, &bytes).map(|id| String::from_utf8(id.to_vec()).unwrap())
    }

    #[test]
    fn an_id_is_taken_only_when_it_can_stand_anywhere() {
        assert_eq!(id_of("4f1c-A.b_~+/=:@9").as_deref(), Some("4f1c-A.b_~+/=:@9"));
        assert_eq!(id_of(&"x".repeat(128)).map(|id| id.len()), Some(128));
        for bad in ["", "a b", "a\"b", "a\\b", "a,b", "\u{e9}", &"x".repeat(129)] {
            assert_eq!(id_of(bad), None, "{bad}");
        }
        let (head, bytes) = parsed("X-Request-ID: a\r\nX-Request-ID: b\r\n");
        assert_eq!(request_id(&head, &bytes), None);
    }

    #[test]
    fn made_ids_are_well_formed_and_differ() {
        let made = RequestIds::new(7);
        let ids: Vec<_> = (0..1000).map(|number| made.make(number)).collect();
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), 1000);
        assert!(ids.iter().flatten().all(|&b| hex(b).is_some()));
        assert_eq!(&ids[0][..16], b"0000000000000007");
        assert_eq!(&hex_digits(0x0123_4567_89ab_cdef), b"0123456789abcdef");
    }

    #[test]
    fn a_trace_id_is_taken_from_a_whole_traceparent() {
        let trace = |value: &str| {
            let (head, bytes) = parsed(&format!("traceparent: {value}\r\n"));
            trace_id(&head, &bytes).map(<[u8]>::to_vec)
        };
        let (id, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let expected = Some(id.as_bytes().to_vec());
        assert_eq!(trace(&format!("00-{id}-{parent}-01")), expected);
        assert_eq!(trace(&format!("01-{id}-{parent}-01-more")), expected);
        for bad in [
            format!("00-{id}-{parent}-01-more"),
            format!("ff-{id}-{parent}-01"),
            format!("00-{}-{parent}-01", id.to_uppercase()),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{id}-{parent}-0"),
            format!("00-{id}-{parent}"),
            format!("00{id}{parent}01"),
            String::new(),
        ] {
            assert_eq!(trace(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_trace_that_is_not_sampled_is_in_no_backend() {
        let sampled = |flags: &str| {
            let id = "0bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
            let (head, bytes) = parsed(&format!("traceparent: 00-{id}-{flags}\r\n"));
            sampled_trace_id(&head, &bytes)
        };
        let id = 0x0bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
        assert_eq!(["01", "03", "ff"].map(sampled), [Some(id); 3]);
        assert_eq!(["00", "02", "fe", "0", "0x"].map(sampled), [None; 5]);
    }

    #[test]
    fn a_probe_says_a_number_of_sixteen_digits() {
        let number = |value: &str| {
            let (head, bytes) = parsed(&format!("X-Prefork-Probe: {value}\r\n"));
            probe_number(&head, &bytes)
        };
        assert_eq!(number("00000000000000ff"), Some(255));
        for bad in ["ff", "", "00000000000000fg", "00000000000000ff0"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_user_is_what_comes_before_the_first_colon() {
        let user = |value: &str| {
            let (head, bytes) = parsed(&format!("Authorization: {value}\r\n"));
            basic_user(&head, &bytes).map(|user| String::from_utf8(user).unwrap())
        };
        assert_eq!(user("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==").as_deref(), Some("Aladdin"));
        assert_eq!(user("basic YTpi").as_deref(), Some("a"));
        for none in ["Basic OnNlY3JldA==", "Basic YWJj", "Basic !!!!", "Bearer YTpi", "Basic"] {
            assert_eq!(user(none), None, "{none}");
        }
    }
}
