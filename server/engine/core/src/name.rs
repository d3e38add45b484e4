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

known_names! {
    ACCEPT = "accept",
    ACCEPT_CHARSET = "accept-charset",
    ACCEPT_ENCODING = "accept-encoding",
    ACCEPT_LANGUAGE = "accept-language",
    ACCESS_CONTROL_REQUEST_HEADERS = "access-control-request-headers",
    ACCESS_CONTROL_REQUEST_METHOD = "access-control-request-method",
    AUTHORIZATION = "authorization",
    BAGGAGE = "baggage",
    CACHE_CONTROL = "cache-control",
    CDN_LOOP = "cdn-loop",
    CONNECTION = "connection",
    CONTENT_DISPOSITION = "content-disposition",
    CONTENT_ENCODING = "content-encoding",
    CONTENT_LANGUAGE = "content-language",
    CONTENT_LENGTH = "content-length",
    CONTENT_RANGE = "content-range",
    CONTENT_TYPE = "content-type",
    COOKIE = "cookie",
    DATE = "date",
    DNT = "dnt",
    EXPECT = "expect",
    FORWARDED = "forwarded",
    FROM = "from",
    HOST = "host",
    IDEMPOTENCY_KEY = "idempotency-key",
    IF_MATCH = "if-match",
    IF_MODIFIED_SINCE = "if-modified-since",
    IF_NONE_MATCH = "if-none-match",
    IF_RANGE = "if-range",
    IF_UNMODIFIED_SINCE = "if-unmodified-since",
    KEEP_ALIVE = "keep-alive",
    LAST_EVENT_ID = "last-event-id",
    MAX_FORWARDS = "max-forwards",
    ORIGIN = "origin",
    PRAGMA = "pragma",
    PREFER = "prefer",
    PRIORITY = "priority",
    PROXY_AUTHORIZATION = "proxy-authorization",
    PROXY_CONNECTION = "proxy-connection",
    RANGE = "range",
    REFERER = "referer",
    SAVE_DATA = "save-data",
    SEC_CH_UA = "sec-ch-ua",
    SEC_CH_UA_MOBILE = "sec-ch-ua-mobile",
    SEC_CH_UA_PLATFORM = "sec-ch-ua-platform",
    SEC_FETCH_DEST = "sec-fetch-dest",
    SEC_FETCH_MODE = "sec-fetch-mode",
    SEC_FETCH_SITE = "sec-fetch-site",
    SEC_FETCH_USER = "sec-fetch-user",
    SEC_GPC = "sec-gpc",
    SEC_WEBSOCKET_EXTENSIONS = "sec-websocket-extensions",
    SEC_WEBSOCKET_KEY = "sec-websocket-key",
    SEC_WEBSOCKET_PROTOCOL = "sec-websocket-protocol",
    SEC_WEBSOCKET_VERSION = "sec-websocket-version",
    TE = "te",
    TRACEPARENT = "traceparent",
    TRACESTATE = "tracestate",
    TRAILER = "trailer",
    TRANSFER_ENCODING = "transfer-encoding",
    TRUE_CLIENT_IP = "true-client-ip",
    UPGRADE = "upgrade",
    UPGRADE_INSECURE_REQUESTS = "upgrade-insecure-requests",
    USER_AGENT = "user-agent",
    VIA = "via",
    X_AMZN_TRACE_ID = "x-amzn-trace-id",
    X_API_KEY = "x-api-key",
    X_CORRELATION_ID = "x-correlation-id",
    X_CSRF_TOKEN = "x-csrf-token",
    X_CSRFTOKEN = "x-csrftoken",
    X_FORWARDED_FOR = "x-forwarded-for",
    X_FORWARDED_HOST = "x-forwarded-host",
    X_FORWARDED_PORT = "x-forwarded-port",
    X_FORWARDED_PREFIX = "x-forwarded-prefix",
    X_FORWARDED_PROTO = "x-forwarded-proto",
    X_FORWARDED_PROTOCOL = "x-forwarded-protocol",
    X_FORWARDED_SCHEME = "x-forwarded-scheme",
    X_FORWARDED_SERVER = "x-forwarded-server",
    X_FORWARDED_SSL = "x-forwarded-ssl",
    X_HTTP_METHOD_OVERRIDE = "x-http-method-override",
    X_ORIGINAL_FORWARDED_FOR = "x-original-forwarded-for",
    X_REAL_IP = "x-real-ip",
    X_REQUEST_ID = "x-request-id",
    X_REQUESTED_WITH = "x-requested-with",
    X_SCHEME = "x-scheme",
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

const _: () = assert!(KNOWN.len() <= 128, "a head notes the names it has seen in 128 bits");

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
        let slot = slot(KNOWN[id].as_bytes());
        assert!(table[slot] == 0, "two known names share a slot: change the factors in slot()");
        #[allow(clippy::cast_possible_truncation, reason = "KNOWN is shorter than 128")]
        {
            table[slot] = id as u8;
        }
        id += 1;
    }
    table
}

/// The table index of a name, from its length, its middle and its last two letters, whatever their case.
#[inline]
const fn slot(name: &[u8]) -> usize {
    let len = name.len();
    let key = u32::from_le_bytes([
        len.to_le_bytes()[0],
        name[len / 2] | 0x20,
        name[len - 2] | 0x20,
        name[len - 1] | 0x20,
    ]);
    (key.wrapping_mul(FACTOR) >> 22) as usize
}

/// Found by trying odd numbers until no two known names met.
const FACTOR: u32 = 0x7ce4_2c83;

impl NameId {
    /// Looks `name` up without regard to case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        Self::at_start(name, name.len())
    }

    /// Looks up the name that is the first `len` bytes of `bytes`; quicker when more follow it.
    #[inline]
    #[must_use]
    pub(crate) fn at_start(bytes: &[u8], len: usize) -> Self {
        if !(2..=WIDTH).contains(&len) {
            return Self::UNKNOWN;
        }
        let id = TABLE[slot(&bytes[..len])];
        let entry = &ENTRIES[usize::from(id)];
        let is_same = entry.len == len
            && entry.is_half(0, bytes)
            && (len <= HALF || entry.is_half(1, &bytes[HALF..]));
        if is_same { Self(id) } else { Self::UNKNOWN }
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
