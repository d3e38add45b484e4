//! What a proxy in front tells about the client's connection, and whether to believe it.
//!
//! As in gunicorn, the app gets only the scheme: `REMOTE_ADDR` stays the address of the peer, and
//! `X-Forwarded-For` reaches the application as the field that it is (Werkzeug's `ProxyFix`,
//! Django's middleware read it). The access log shows the client's address, see [`client`].

use std::net::IpAddr;

use crate::head::Head;
use crate::name::NameId;
use crate::reject::Reject;

/// `wsgi.url_scheme`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

/// The fields that tell the scheme, and the value that means https (gunicorn's
/// `secure_scheme_headers`).
const SCHEME_FIELDS: [(NameId, &[u8]); 3] = [
    (NameId::X_FORWARDED_PROTO, b"https"),
    (NameId::X_FORWARDED_PROTOCOL, b"ssl"),
    (NameId::X_FORWARDED_SSL, b"on"),
];

/// Returns the scheme that a trusted proxy told; for others, do not ask: it is http.
///
/// # Errors
/// [`Reject::ForwardedScheme`] when the fields contradict each other: one of them is then the
/// client's own.
pub fn scheme(head: &Head, buf: &[u8]) -> Result<Scheme, Reject> {
    let mut told = None;
    for field in &head.fields {
        let Some((_, secure)) = SCHEME_FIELDS.iter().find(|(id, _)| *id == field.id) else {
            continue;
        };
        let is_secure = field.value.of(buf).eq_ignore_ascii_case(secure);
        let scheme = if is_secure { Scheme::Https } else { Scheme::Http };
        if told.is_some_and(|told| told != scheme) {
            return Err(Reject::ForwardedScheme);
        }
        told = Some(scheme);
    }
    Ok(told.unwrap_or_default())
}

/// The client's address as trusted proxies tell it, as text: the last entry of `X-Forwarded-For` that
/// is not the address of a trusted proxy, as each proxy adds the peer it saw at the end.
///
/// To be asked only for a trusted peer. Where every peer is trusted (`*`), proxies cannot be told from
/// clients: then the last entry alone is believed, which the peer itself has written. `None` without
/// an entry that is an address.
#[must_use]
pub fn client<'a>(head: &Head, buf: &'a [u8], trusted: &Trusted) -> Option<&'a [u8]> {
    head.value(buf, NameId::X_FORWARDED_FOR)?;
    let mut nearest = None;
    for field in head.fields.iter().rev().filter(|f| f.id == NameId::X_FORWARDED_FOR) {
        for entry in field.value.of(buf).rsplit(|&b| b == b',') {
            let Some((text, address)) = read_entry(entry.trim_ascii()) else { return nearest };
            nearest = Some(text);
            if trusted.everyone || !trusted.is_trusted(Some(address)) {
                return nearest;
            }
        }
    }
    nearest
}

/// Where a proxy has mounted the app, without a slash at its end: its field `SCRIPT_NAME`, which nginx sends by
/// `proxy_set_header` and gunicorn takes. `None` without one that is a path.
///
/// To be asked only for a peer that is [listed](Trusted::is_listed): a client that may say it chooses the
/// links and redirects that an app builds.
#[must_use]
pub fn script_name<'a>(head: &Head, buf: &'a [u8]) -> Option<&'a [u8]> {
    let told = head.script_name.of(buf);
    let end = told.iter().rposition(|&b| b != b'/').map_or(0, |last| last + 1);
    told.starts_with(b"/").then(|| &told[..end])
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1` or `[2001:db8::1]:4711`, without the port.
fn read_entry(entry: &[u8]) -> Option<(&[u8], IpAddr)> {
    let text = match entry {
        [b'[', rest @ ..] => &rest[..rest.iter().position(|&b| b == b']')?],
        _ => match entry.iter().position(|&b| b == b':') {
            Some(colon) if !entry[colon + 1..].contains(&b':') => &entry[..colon],
            _ => entry,
        },
    };
    Some((text, std::str::from_utf8(text).ok()?.parse().ok()?))
}

/// The peers whose `X-Forwarded-*` is believed: `forwarded_allow_ips`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    everyone: bool,
    networks: Vec<Network>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Trusted {
    /// Reads addresses, networks in CIDR notation, or `*` for everyone.
    ///
    /// # Errors
    /// The first entry that is none of these.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        let mut trusted = Self { everyone: false, networks: Vec::new() };
        for entry in entries {
            match entry.trim() {
                "*" => trusted.everyone = true,
                network => trusted.networks.push(Network::parse(network).ok_or(entry)?),
            }
        }
        Ok(trusted)
    }

    /// Whether the peer is believed. `None` is a peer on a unix socket: who may open that file is
    /// the file system's decision, as in gunicorn.
    #[must_use]
    pub fn is_trusted(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            None => true,
            Some(_) if self.everyone => true,
            Some(_) => self.is_listed(peer),
        }
    }

    /// Whether the peer is one of the addresses and networks, or on a unix socket: `*` lists nobody, as where
    /// everyone is trusted a client that comes past the proxy would be.
    #[must_use]
    pub fn is_listed(&self, peer: Option<IpAddr>) -> bool {
        peer.is_none_or(|peer| {
            let peer = peer.to_canonical();
            self.networks.iter().any(|network| network.contains(peer))
        })
    }
}

impl Network {
    fn parse(entry: &str) -> Option<Self> {
        let (address, prefix) = match entry.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (entry, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => width,
            Some(bits) => bits.parse().ok().filter(|&bits: &u8| bits <= width)?,
        };
        Some(Self { address, prefix_bits })
    }

    fn contains(self, peer: IpAddr) -> bool {
        match (self.address, peer) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let shift = 32 - u32::from(self.prefix_bits);
                let differing = ours.to_bits() ^ theirs.to_bits();
                differing.checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let shift = 128 - u32::from(self.prefix_bits);
                let differing = ours.to_bits() ^ theirs.to_bits();
                differing.checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}
