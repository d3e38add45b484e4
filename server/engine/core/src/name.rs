//! Which field names the server knows by number, and what may be a name at all.
//!
//! A known name is found by one hash and one comparison, so that whoever needs something per name
//! (an environ key) can keep it in an array indexed by [`NameId`].

/// Number of a known field name; [`NameId::UNKNOWN`] stands for all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NameId(u8);

/// Names are compared in halves of this many bytes.
const HALF: usize = 16;

/// Longest known name, as stored.
const WIDTH: usize = 2 * HALF;

/// Entries of the look-up table; sparse, so that every known name has a place of its own.
const SLOTS: usize = 1 << 10;

macro_rules! known_names {
    ($($constant:ident = $name:literal,)*) => {
        /// The known names in lower case, indexed by [`NameId::index`]; the first is no name.
        pub const KNOWN: &[&str] = &["", $($name),*];

        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        #[derive(Clone, Copy)]
        enum Order { UNKNOWN, $($constant),* }

        impl NameId {
            /// Any name that is not in [`KNOWN`].
            pub const UNKNOWN: Self = Self(Order::UNKNOWN as u8);
            $(#[doc = concat!("`", $name, "`")] pub const $constant: Self = Self(Order::$constant as u8);)*
        }
    };
}

// The names the server heeds come first, up to Transfer-Encoding: see `NameId::is_ordinary`.
known_names! {
    CONNECTION = "connection",
    CONTENT_LENGTH = "content-length",
    CONTENT_TYPE = "content-type",
    EXPECT = "expect",
    HOST = "host",
    TRANSFER_ENCODING = "transfer-encoding",
    ACCEPT = "accept",
    ACCEPT_ENCODING = "accept-encoding",
    ACCEPT_LANGUAGE = "accept-language",
    ACCESS_CONTROL_REQUEST_HEADERS = "access-control-request-headers",
    ACCESS_CONTROL_REQUEST_METHOD = "access-control-request-method",
    AUTHORIZATION = "authorization",
    CACHE_CONTROL = "cache-control",
    CONTENT_ENCODING = "content-encoding",
    COOKIE = "cookie",
    DATE = "date",
    DNT = "dnt",
    FORWARDED = "forwarded",
    IF_MATCH = "if-match",
    IF_MODIFIED_SINCE = "if-modified-since",
    IF_NONE_MATCH = "if-none-match",
    IF_RANGE = "if-range",
    IF_UNMODIFIED_SINCE = "if-unmodified-since",
    KEEP_ALIVE = "keep-alive",
    ORIGIN = "origin",
    PRAGMA = "pragma",
    PRIORITY = "priority",
    PROXY_AUTHORIZATION = "proxy-authorization",
    PROXY_CONNECTION = "proxy-connection",
    RANGE = "range",
    REFERER = "referer",
    SEC_CH_UA = "sec-ch-ua",
    SEC_CH_UA_MOBILE = "sec-ch-ua-mobile",
    SEC_CH_UA_PLATFORM = "sec-ch-ua-platform",
    SEC_FETCH_DEST = "sec-fetch-dest",
    SEC_FETCH_MODE = "sec-fetch-mode",
    SEC_FETCH_SITE = "sec-fetch-site",
    SEC_FETCH_USER = "sec-fetch-user",
    SEC_GPC = "sec-gpc",
    TE = "te",
    TRACEPARENT = "traceparent",
    TRACESTATE = "tracestate",
    UPGRADE = "upgrade",
    UPGRADE_INSECURE_REQUESTS = "upgrade-insecure-requests",
    USER_AGENT = "user-agent",
    VIA = "via",
    X_AMZN_TRACE_ID = "x-amzn-trace-id",
    X_API_KEY = "x-api-key",
    X_CSRF_TOKEN = "x-csrf-token",
    X_CSRFTOKEN = "x-csrftoken",
    X_FORWARDED_FOR = "x-forwarded-for",
    X_FORWARDED_HOST = "x-forwarded-host",
    X_FORWARDED_PORT = "x-forwarded-port",
    X_FORWARDED_PROTO = "x-forwarded-proto",
    X_FORWARDED_PROTOCOL = "x-forwarded-protocol",
    X_FORWARDED_SERVER = "x-forwarded-server",
    X_FORWARDED_SSL = "x-forwarded-ssl",
    X_PREFORK_PROBE = "x-prefork-probe",
    X_REAL_IP = "x-real-ip",
    X_REQUEST_ID = "x-request-id",
    X_REQUESTED_WITH = "x-requested-with",
}

/// A known name made comparable without regard to case: `(byte | fold) == lower`.
///
/// `fold` is 0x20 for letters only: folding all bytes would take a CR (0x0d) for a hyphen (0x2d).
/// Behind the name all bits of both are set, so that whatever follows it in a buffer compares equal.
#[derive(Clone, Copy)]
struct Entry {
    len: usize,
    lower: [u128; 2],
    fold: [u128; 2],
}

const _: () = assert!(KNOWN.len() <= 64, "a head notes the names it has seen in 64 bits");

static ENTRIES: [Entry; KNOWN.len()] = entries();
static TABLE: [u8; SLOTS] = table();

const fn entries() -> [Entry; KNOWN.len()] {
    let mut entries = [Entry { len: 0, lower: [0; 2], fold: [0; 2] }; KNOWN.len()];
    let mut id = 1;
    while id < KNOWN.len() {
        entries[id] = Entry::new(KNOWN[id].as_bytes());
        id += 1;
    }
    entries
}

/// Places each known name; fails to compile when two of them meet.
const fn table() -> [u8; SLOTS] {
    let mut table = [0; SLOTS];
    let mut id = 1;
    while id < KNOWN.len() {
        let slot = slot(tail_of(KNOWN[id].as_bytes()), KNOWN[id].len());
        assert!(table[slot] == 0, "two known names share a slot: change the factors in slot()");
        #[allow(clippy::cast_possible_truncation, reason = "KNOWN is shorter than 128")]
        {
            table[slot] = id as u8;
        }
        id += 1;
    }
    table
}

/// The last eight bytes of a name, zeros before a shorter one.
const fn tail_of(name: &[u8]) -> [u8; 8] {
    let mut tail = [0; 8];
    let mut i = 0;
    while i < 8 && i < name.len() {
        tail[7 - i] = name[name.len() - 1 - i];
        i += 1;
    }
    tail
}

/// The table index of a name: from its last eight bytes, whatever their case, and its length.
///
/// `tail` is the eight bytes that end with the name; what comes before a shorter name is shifted out.
#[inline]
const fn slot(tail: [u8; 8], len: usize) -> usize {
    const FOLD: u64 = u64::from_le_bytes([0x20; 8]);
    let before = 8 * 8_usize.saturating_sub(len);
    let key = (u64::from_le_bytes(tail) | FOLD) >> before;
    (key.wrapping_add(len as u64).wrapping_mul(FACTOR) >> 54) as usize
}

/// Found by trying odd numbers until no two known names met.
const FACTOR: u64 = 0x781f_9c58_d664_5fa9;

impl NameId {
    /// Looks `name` up without regard to case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let mut padded = [0; 8 + WIDTH];
        let end = 8 + name.len();
        match padded.get_mut(8..end) {
            Some(place) => place.copy_from_slice(name),
            None => return Self::UNKNOWN,
        }
        Self::within(&padded, 8, end)
    }

    /// Looks up the name at `start..end` of a buffer; quickest with bytes on both sides of it.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "once per field line")]
    pub(crate) fn within(bytes: &[u8], start: usize, end: usize) -> Self {
        let len = end - start;
        let Some(tail) = bytes[..end].last_chunk() else { return Self::of(&bytes[start..end]) };
        if !(2..=WIDTH).contains(&len) {
            return Self::UNKNOWN;
        }
        let id = TABLE[slot(*tail, len)];
        let entry = &ENTRIES[usize::from(id)];
        let is_same = entry.len == len
            && entry.is_half(0, &bytes[start..])
            && (len <= HALF || entry.is_half(1, &bytes[start + HALF..]));
        if is_same { Self(id) } else { Self::UNKNOWN }
    }

    /// Whether this is a known name that means nothing to the server itself.
    #[inline]
    pub(crate) const fn is_ordinary(self) -> bool {
        self.0 > Self::TRANSFER_ENCODING.0
    }

    /// Index into an array of `KNOWN.len()` things; 0 for unknown names.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The name in lower case; empty for unknown names.
    #[must_use]
    pub fn name(self) -> &'static str {
        KNOWN[self.index()]
    }
}

impl Entry {
    const fn new(name: &[u8]) -> Self {
        let mut lower = [[0xff; HALF]; 2];
        let mut fold = [[0xff; HALF]; 2];
        let mut i = 0;
        while i < name.len() {
            lower[i / HALF][i % HALF] = name[i];
            fold[i / HALF][i % HALF] = if name[i].is_ascii_lowercase() { 0x20 } else { 0 };
            i += 1;
        }
        Self {
            len: name.len(),
            lower: [u128::from_le_bytes(lower[0]), u128::from_le_bytes(lower[1])],
            fold: [u128::from_le_bytes(fold[0]), u128::from_le_bytes(fold[1])],
        }
    }

    #[inline]
    fn is_half(&self, half: usize, bytes: &[u8]) -> bool {
        let window = bytes.first_chunk().copied().unwrap_or_else(|| padded(bytes));
        u128::from_le_bytes(window) | self.fold[half] == self.lower[half]
    }
}

#[cold]
fn padded(bytes: &[u8]) -> [u8; HALF] {
    let mut window = [0; HALF];
    window[..bytes.len()].copy_from_slice(bytes);
    window
}

/// Where a byte may stand: 0 nowhere, else a mix of these.
const TOKEN: u8 = 1;
const UNDERSCORE: u8 = 2;
const REG_NAME: u8 = 4;

static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut class = [0; 256];
    let mut byte = 0_u8;
    loop {
        if byte.is_ascii_alphanumeric() {
            class[byte as usize] = TOKEN | REG_NAME;
        }
        if byte == u8::MAX {
            break;
        }
        byte += 1;
    }
    mark(&mut class, b"!#$%&'*+-.^_`|~", TOKEN);
    mark(&mut class, b"_", UNDERSCORE);
    mark(&mut class, b"-._~!$&'()*+,;=%", REG_NAME);
    class
}

const fn mark(class: &mut [u8; 256], bytes: &[u8], bit: u8) {
    let mut i = 0;
    while i < bytes.len() {
        class[bytes[i] as usize] |= bit;
        i += 1;
    }
}

/// Whether `byte` may be in a token (RFC 9110 §5.6.2).
#[inline]
#[must_use]
pub fn is_token_byte(byte: u8) -> bool {
    CLASS[byte as usize] & TOKEN != 0
}

/// Whether `name` is a token: at least one byte, each a token byte.
#[inline]
#[must_use]
pub fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&b| is_token_byte(b))
}

/// Whether a token has an underscore: WSGI could not tell `X_Foo` from `X-Foo`.
#[inline]
#[must_use]
pub fn has_underscore(name: &[u8]) -> bool {
    name.iter().any(|&b| CLASS[b as usize] & UNDERSCORE != 0)
}

/// Whether `byte` may be in a registered name (RFC 3986 §3.2.2), the `%` of its escapes included.
#[inline]
pub(crate) fn is_reg_name_byte(byte: u8) -> bool {
    CLASS[byte as usize] & REG_NAME != 0
}
