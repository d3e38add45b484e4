//! Every refusal of a request: its stable code, its status and what to tell the client.
//!
//! A refused request always ends the connection: after bytes that are not what they should be,
//! where the next request begins is a guess, and guessing is how requests are smuggled.

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reject {
    /// A line ends in LF alone.
    BareLf,
    /// A CR that no LF follows.
    BareCr,
    /// A control character where none may be.
    ControlCharacter,
    /// The request line is not `method SP target SP version`.
    RequestLine,
    /// The request line is longer than allowed.
    RequestLineTooLong,
    /// More than the tolerated empty lines before the request line.
    LeadingLines,
    /// The method is not a token.
    Method,
    /// The method is a token that nothing implements: too long, or CONNECT.
    MethodNotImplemented,
    /// The target has none of the four forms, or the wrong one for its method.
    Target,
    /// The path holds an encoded NUL.
    PathNul,
    /// The version is not `HTTP/digit.digit`.
    Version,
    /// The version is well formed, but not 1.x.
    VersionNotSupported,
    /// A line continues the one before it (obs-fold).
    ObsFold,
    /// White space between a field name and its colon.
    SpaceBeforeColon,
    /// A field line without a colon, or a name that is no token.
    FieldName,
    /// One field line is longer than allowed.
    FieldTooLarge,
    /// More field lines than allowed.
    TooManyFields,
    /// The head as a whole is longer than allowed.
    HeadTooLarge,
    /// An HTTP/1.1 request without Host.
    HostMissing,
    /// More than one Host.
    HostRepeated,
    /// A Host, or an authority in the target, that is not `host[:port]`.
    Host,
    /// Content-Length is not one run of digits.
    ContentLength,
    /// More than one Content-Length, be they equal.
    ContentLengthRepeated,
    /// Both Content-Length and Transfer-Encoding.
    LengthAndEncoding,
    /// Transfer-Encoding that does not end in exactly one `chunked`, or more than one such field.
    TransferEncoding,
    /// A transfer coding other than `chunked`.
    TransferEncodingNotImplemented,
    /// Transfer-Encoding in an HTTP/1.0 request.
    TransferEncodingVersion,
    /// More than one Content-Type.
    ContentTypeRepeated,
    /// An expectation other than `100-continue`.
    Expectation,
    /// The schemes told by a trusted proxy contradict each other.
    ForwardedScheme,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// A chunk size that is not 1*HEXDIG, or more than 64 bits.
    ChunkSize,
    /// A chunk extension that does not follow the grammar.
    ChunkExtension,
    /// A chunk-size line, or all extensions together, longer than allowed.
    ChunkLineTooLong,
    /// Chunk data that CRLF does not follow.
    ChunkEnd,
    /// A trailer line that is no field line.
    Trailer,
    /// The trailers are longer or more than allowed.
    TrailersTooLarge,
}

impl Reject {
    /// Stable code for logs and metrics, the status to answer, and a sentence for the client.
    const fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::BareLf => ("bare_lf", 400, "a line ends in LF without CR"),
            Self::BareCr => ("bare_cr", 400, "a CR is not followed by LF"),
            Self::ControlCharacter => {
                ("control_character", 400, "the head has a control character")
            }
            Self::RequestLine => {
                ("request_line", 400, "the request line is not: method target version")
            }
            Self::RequestLineTooLong => {
                ("request_line_too_long", 414, "the request line is too long")
            }
            Self::LeadingLines => ("leading_lines", 400, "empty lines come before the request"),
            Self::Method => ("method", 400, "the method is not a token"),
            Self::MethodNotImplemented => {
                ("method_not_implemented", 501, "the method is not implemented")
            }
            Self::Target => ("target", 400, "the request target is malformed"),
            Self::PathNul => ("path_nul", 400, "the path has an encoded NUL"),
            Self::Version => ("version", 400, "the version is malformed"),
            Self::VersionNotSupported => {
                ("version_not_supported", 505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
            }
            Self::ObsFold => ("obs_fold", 400, "a field is folded over several lines"),
            Self::SpaceBeforeColon => {
                ("space_before_colon", 400, "white space before the colon of a field")
            }
            Self::FieldName => ("field_name", 400, "a field name is malformed"),
            Self::FieldTooLarge => ("field_too_large", 431, "a field is too large"),
            Self::TooManyFields => ("too_many_fields", 431, "there are too many fields"),
            Self::HeadTooLarge => ("head_too_large", 431, "the head is too large"),
            Self::HostMissing => ("host_missing", 400, "Host is missing"),
            Self::HostRepeated => ("host_repeated", 400, "Host is given more than once"),
            Self::Host => ("host", 400, "Host is malformed"),
            Self::ContentLength => {
                ("content_length", 400, "Content-Length is not a number of bytes")
            }
            Self::ContentLengthRepeated => {
                ("content_length_repeated", 400, "Content-Length is given more than once")
            }
            Self::LengthAndEncoding => {
                ("length_and_encoding", 400, "both Content-Length and Transfer-Encoding are given")
            }
            Self::TransferEncoding => {
                ("transfer_encoding", 400, "Transfer-Encoding does not end in one chunked")
            }
            Self::TransferEncodingNotImplemented => (
                "transfer_encoding_not_implemented",
                501,
                "no transfer coding but chunked is implemented",
            ),
            Self::TransferEncodingVersion => {
                ("transfer_encoding_version", 400, "HTTP/1.0 has no Transfer-Encoding")
            }
            Self::ContentTypeRepeated => {
                ("content_type_repeated", 400, "Content-Type is given more than once")
            }
            Self::Expectation => ("expectation", 417, "the expectation is not 100-continue"),
            Self::ForwardedScheme => {
                ("forwarded_scheme", 400, "the forwarded schemes contradict each other")
            }
            Self::BodyTooLarge => ("body_too_large", 413, "the body is too large"),
            Self::ChunkSize => ("chunk_size", 400, "a chunk size is malformed"),
            Self::ChunkExtension => ("chunk_extension", 400, "a chunk extension is malformed"),
            Self::ChunkLineTooLong => {
                ("chunk_line_too_long", 400, "the chunk extensions are too long")
            }
            Self::ChunkEnd => ("chunk_end", 400, "chunk data is not followed by CRLF"),
            Self::Trailer => ("trailer", 400, "a trailer is malformed"),
            Self::TrailersTooLarge => ("trailers_too_large", 431, "the trailers are too large"),
        }
    }

    /// Stable code for logs and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.row().0
    }

    /// The status to answer with.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// A sentence for the client; constant, so that nothing a client sent is sent back.
    #[must_use]
    pub const fn message(self) -> &'static str {
        self.row().2
    }
}

impl std::fmt::Display for Reject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Reject {}
