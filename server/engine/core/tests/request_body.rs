//! Body bytes → data, trailers dropped, or a refusal.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use prefork_core::{BodyDecoder, Framing, Limits, Reject};

/// Decodes `input`; returns the data, the bytes consumed and whether the body ended.
fn decode(
    framing: Framing,
    limits: &Limits,
    input: &[u8],
) -> Result<(Vec<u8>, usize, bool), Reject> {
    let mut body = BodyDecoder::new(framing, limits)?;
    let mut data = Vec::new();
    let consumed = body.decode_into(input, &mut data)?;
    Ok((data, consumed, body.is_done()))
}

fn chunked(input: &[u8]) -> Result<(Vec<u8>, usize, bool), Reject> {
    decode(Framing::Chunked, &Limits::default(), input)
}

#[test]
fn takes_exactly_the_announced_length() {
    let limits = Limits::default();
    let done = decode(Framing::Length(3), &limits, b"abcGET");
    assert_eq!(done, Ok((b"abc".to_vec(), 3, true)));
    let short = decode(Framing::Length(3), &limits, b"ab");
    assert_eq!(short, Ok((b"ab".to_vec(), 2, false)));
    assert_eq!(decode(Framing::None, &limits, b"GET"), Ok((vec![], 0, true)));
    assert_eq!(decode(Framing::Length(0), &limits, b"GET"), Ok((vec![], 0, true)));
}

#[test]
fn refuses_bodies_above_the_limit() {
    let limits = Limits { request_body: 4, ..Limits::default() };
    assert!(BodyDecoder::new(Framing::Length(4), &limits).is_ok());
    assert_eq!(BodyDecoder::new(Framing::Length(5), &limits).err(), Some(Reject::BodyTooLarge));
    let chunks = |input| decode(Framing::Chunked, &limits, input);
    assert_eq!(chunks(b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"), Ok((b"abcd".to_vec(), 19, true)));
    assert_eq!(chunks(b"3\r\nabc\r\n2\r\n"), Err(Reject::BodyTooLarge));
    assert_eq!(chunks(b"ffffffffffffffff\r\n"), Err(Reject::BodyTooLarge));
}

#[test]
fn joins_chunks() {
    let cases: [(&[u8], &[u8]); 12] = [
        (b"0\r\n\r\n", b""),
        (b"000\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n00A\r\n, world...\r\n0\r\n\r\n", b"hello, world..."),
        (b"1;a\r\nx\r\n0;b=c\r\n\r\n", b"x"),
        (b"1;a=\"b;c\\\"d\"\r\nx\r\n0\r\n\r\n", b"x"),
        (b"1 ; a = b ; c\r\nx\r\n0\r\n\r\n", b"x"),
        (b"1;a=b;c\r\nx\r\n0\r\n\r\n", b"x"),
        (b"1\r\nx\r\n0\r\nA: b\r\n\r\n", b"x"),
        (b"1\r\nx\r\n0\r\nA: b\r\nc:\t\r\n\r\n", b"x"),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        (b"0000000000000000000000001\r\nx\r\n0\r\n\r\n", b"x"),
    ];
    for (input, data) in cases {
        let end = input.len();
        assert_eq!(chunked(input), Ok((data.to_vec(), end, true)), "{}", input.escape_ascii());
        let pipelined = [input, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(chunked(&pipelined), Ok((data.to_vec(), end, true)));
    }
}

#[test]
fn refuses_malformed_chunks() {
    let cases: [(&[u8], Reject); 32] = [
        (b"\r\n", Reject::ChunkSize),
        (b" 1\r\n", Reject::ChunkSize),
        (b"g\r\n", Reject::ChunkSize),
        (b"-1\r\n", Reject::ChunkSize),
        (b"+1\r\n", Reject::ChunkSize),
        (b"0x1\r\n", Reject::ChunkSize),
        (b"1_0\r\n", Reject::ChunkSize),
        (b";a\r\n", Reject::ChunkSize),
        (b"10000000000000000\r\n", Reject::ChunkSize),
        (b"1\nx", Reject::BareLf),
        (b"1\rx", Reject::BareCr),
        (b"1;a\nx", Reject::BareLf),
        (b"1;\r\n", Reject::ChunkExtension),
        (b"1 \r\n", Reject::ChunkExtension),
        (b"1 2\r\n", Reject::ChunkExtension),
        (b"1;a=\r\n", Reject::ChunkExtension),
        (b"1;a \r\n", Reject::ChunkExtension),
        (b"1;=b\r\n", Reject::ChunkExtension),
        (b"1;a=\"b\r\n", Reject::ChunkExtension),
        (b"1;a=\"b\"c\r\n", Reject::ChunkExtension),
        (b"1;a\0\r\n", Reject::ChunkExtension),
        (b"1;a;;b\r\n", Reject::ChunkExtension),
        (b"1\r\nxy", Reject::ChunkEnd),
        (b"1\r\nx\n", Reject::ChunkEnd),
        (b"1\r\nx\r0", Reject::ChunkEnd),
        (b"0\r\nA\r\n", Reject::Trailer),
        (b"0\r\n: b\r\n", Reject::Trailer),
        (b"0\r\nA : b\r\n", Reject::Trailer),
        (b"0\r\nA: b\r\n c\r\n", Reject::Trailer),
        (b"0\r\nA: \0\r\n", Reject::Trailer),
        (b"0\r\nA: b\n", Reject::BareLf),
        (b"0\r\n\rx", Reject::BareCr),
    ];
    for (input, reject) in cases {
        assert_eq!(chunked(input), Err(reject), "{}", input.escape_ascii());
    }
}

#[test]
fn bounds_what_nobody_reads() {
    let line = format!("1;{}\r\nx\r\n", "a".repeat(300));
    assert_eq!(chunked(line.as_bytes()), Err(Reject::ChunkLineTooLong));
    let many = format!("1;{}\r\nx\r\n", "a".repeat(200)).repeat(30);
    assert_eq!(chunked(many.as_bytes()), Err(Reject::ChunkLineTooLong));
    let plain = "1\r\nx\r\n".repeat(10_000) + "0\r\n\r\n";
    assert_eq!(chunked(plain.as_bytes()).map(|(data, ..)| data.len()), Ok(10_000));
    let long = format!("0\r\nA: {}", "b".repeat(9000));
    assert_eq!(chunked(long.as_bytes()), Err(Reject::TrailersTooLarge));
    let lines = format!("0\r\n{}", "A: b\r\n".repeat(40));
    assert_eq!(chunked(lines.as_bytes()), Err(Reject::TrailersTooLarge));
}

#[test]
fn tells_how_much_must_still_come() {
    let mut body = BodyDecoder::new(Framing::Length(10), &Limits::default()).unwrap();
    assert_eq!(body.expected(), 10);
    body.decode(b"abc").unwrap();
    assert_eq!((body.expected(), body.is_done()), (7, false));
    body.decode(b"defghij").unwrap();
    assert_eq!((body.expected(), body.is_done()), (0, true));
}
