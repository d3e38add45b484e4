//! The grammar of `host[:port]`, as Host and the target's authority have it (RFC 9110 §7.2).

use crate::name::is_reg_name_byte;

/// `uri-host [":" port]` (RFC 9110 §7.2), not empty: http and https URIs always have a host.
pub(super) fn is_host(value: &[u8]) -> bool {
    let name_len = value.iter().position(|&b| !is_reg_name_byte(b)).unwrap_or(value.len());
    match &value[name_len..] {
        [] => name_len > 0,
        [b':', port @ ..] => name_len > 0 && is_port(port),
        [b'[', literal @ ..] => name_len == 0 && is_ip_literal(literal),
        _ => false,
    }
}

/// `*DIGIT`; more than five are no port.
fn is_port(port: &[u8]) -> bool {
    port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

/// `IPv6address "]" [ ":" port ]`. No address of a future version has ever been defined.
fn is_ip_literal(literal: &[u8]) -> bool {
    let Some(end) = literal.iter().position(|&b| b == b']') else {
        return false;
    };
    let is_address = std::str::from_utf8(&literal[..end])
        .is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    is_address
        && match &literal[end + 1..] {
            [] => true,
            [b':', port @ ..] => is_port(port),
            _ => false,
        }
}
