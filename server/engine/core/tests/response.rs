//! Responses → bytes, and what they promise.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use prefork_core::Reject;
use prefork_core::date::http_date;
use prefork_core::error_page::write_reject;
use prefork_core::response::{
    BodyEncoder, HeadWriter, InvalidResponse, OwnFields, RequestInfo, ResponseHead,
};

const HTTP_1_1: RequestInfo = RequestInfo { minor: 1, is_head: false, keep_alive: true };
const HTTP_1_0: RequestInfo = RequestInfo { minor: 0, is_head: false, keep_alive: true };
const HEAD: RequestInfo = RequestInfo { minor: 1, is_head: true, keep_alive: true };

fn reply(
    answering: RequestInfo,
    status: &str,
    fields: &[(&str, &str)],
    whole: Option<u64>,
) -> (String, BodyEncoder) {
    let mut out = Vec::new();
    let mut reply = ResponseHead::start(&mut out, answering, status.as_bytes()).unwrap();
    for (name, value) in fields {
        reply.field(&mut out, name.as_bytes(), value.as_bytes()).unwrap();
    }
    let outgoing = reply.finish(&mut out, &OwnFields::new(b"prefork", b"DATE"), whole);
    (String::from_utf8(out).unwrap(), outgoing)
}

#[test]
fn frames_a_whole_body_by_its_length() {
    let (head, mut body) = reply(HTTP_1_1, "200 OK", &[("Content-Type", "text/plain")], Some(5));
    assert_eq!(
        head,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: prefork\r\nDate: DATE\r\nContent-Length: 5\r\n\r\n"
    );
    let mut out = Vec::new();
    body.write(&mut out, b"hello");
    assert!(body.is_complete());
    assert!(body.finish(&mut out));
    assert_eq!(out, b"hello");
}

type Fields<'a> = &'a [(&'a str, &'a str)];

/// The whole head by a writer that has written others before; `None` when it is refused.
fn written(
    writer: &mut HeadWriter,
    answering: RequestInfo,
    status: &str,
    fields: Fields<'_>,
) -> Option<(String, BodyEncoder)> {
    let mut out = Vec::new();
    let pairs = fields.iter().map(|(name, value)| Some((name.as_bytes(), value.as_bytes())));
    let head = writer.write(&mut out, answering, status.as_bytes(), pairs)?;
    let body = head.finish(&mut out, &OwnFields::new(b"prefork", b"DATE"), None);
    Some((String::from_utf8(out).unwrap(), body))
}

#[test]
fn a_head_is_the_same_whatever_heads_came_before() {
    let long = "x".repeat(5000);
    let heads: &[(&str, Fields<'_>)] = &[
        ("200 OK", &[("Content-Type", "text/plain"), ("Content-Length", "14")]),
        ("200 OK", &[("Content-Type", "text/plain"), ("Content-Length", "15")]),
        ("200 OK", &[("Content-Length", "14"), ("Content-Type", "text/plain")]),
        ("200 OK", &[("Content-Type", "text/plain")]),
        ("200 OK", &[("Content-Typ", "etext/plain")]),
        ("200 OKContent-Type", &[("", "text/plain")]),
        ("200 OK", &[]),
        ("404 Not Found", &[("Content-Type", "text/plain"), ("Date", "now"), ("X-A", "1")]),
        ("404 Not Found", &[("Content-Type", "text/plain"), ("Server", "mine"), ("X-A", "1")]),
        ("404 Not Found", &[("Content-Type", "text/plain"), ("X-A", "1\r\n")]),
        ("404 Not Found", &[("Content-Type", "text/plain"), ("Connection", "close")]),
        ("404 Not Found", &[("Content-Length", "1"), ("Content-Length", "2")]),
        ("200 OK", &[("X-Long", &long), ("X-A", "1")]),
        ("200 OK", &[("X-A", "1"), ("X-Long", &long), ("X-B", "2")]),
        ("99 Bad", &[]),
    ];
    for first in heads {
        for second in heads {
            let mut writer = HeadWriter::default();
            for (answering, (status, fields)) in
                [(HTTP_1_1, first), (HTTP_1_0, second), (HEAD, second), (HTTP_1_1, first)]
            {
                let fresh = written(&mut HeadWriter::default(), answering, status, fields);
                assert_eq!(written(&mut writer, answering, status, fields), fresh);
            }
        }
    }
    let whole: Vec<_> = heads
        .iter()
        .map(|(status, fields)| {
            written(&mut HeadWriter::default(), HTTP_1_1, status, fields).is_some()
        })
        .collect();
    let expected: Vec<_> = (0..heads.len()).map(|at| ![5, 9, 10, 11, 14].contains(&at)).collect();
    assert_eq!(whole, expected);
}

#[test]
fn a_head_is_what_its_lines_are_one_by_one() {
    let fields: Fields<'_> = &[("Content-Type", "text/plain"), ("X-A", "1")];
    let mut writer = HeadWriter::default();
    for _ in 0..2 {
        let (head, _) = written(&mut writer, HTTP_1_1, "200 OK", fields).unwrap();
        assert_eq!(head, reply(HTTP_1_1, "200 OK", fields, None).0);
    }
    let missing = [Some((&b"X-A"[..], &b"1"[..])), None];
    let mut out = Vec::new();
    assert!(writer.write(&mut out, HTTP_1_1, b"200 OK", missing.into_iter()).is_none());
}

#[test]
fn takes_a_status_without_reason() {
    let (head, _) = reply(HTTP_1_1, "404", &[], Some(0));
    assert!(head.starts_with("HTTP/1.1 404 \r\n"));
}

#[test]
fn leaves_date_and_server_of_the_application() {
    let (head, _) = reply(HTTP_1_1, "200 OK", &[("date", "then"), ("SERVER", "own")], Some(0));
    assert_eq!(head, "HTTP/1.1 200 OK\r\ndate: then\r\nSERVER: own\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn chunks_a_body_of_unknown_length() {
    let (head, mut body) = reply(HTTP_1_1, "200 OK", &[], None);
    assert!(head.contains("Transfer-Encoding: chunked\r\n"));
    let mut out = Vec::new();
    body.write(&mut out, b"hello");
    body.write(&mut out, b"");
    body.write(&mut out, &[b'x'; 26]);
    assert!(body.finish(&mut out));
    assert_eq!(out, [&b"5\r\nhello\r\n1a\r\n"[..], &[b'x'; 26], b"\r\n0\r\n\r\n"].concat());
}

#[test]
fn ends_a_body_of_unknown_length_by_closing_in_1_0() {
    let (head, mut body) = reply(HTTP_1_0, "200 OK", &[], None);
    assert!(head.contains("Connection: close\r\n"));
    let mut out = Vec::new();
    body.write(&mut out, b"hello");
    assert!(!body.finish(&mut out));
    assert_eq!(out, b"hello");
    let (head, mut body) = reply(HTTP_1_0, "200 OK", &[], Some(0));
    assert!(head.contains("Connection: keep-alive\r\n"));
    assert!(body.finish(&mut out));
}

#[test]
fn sends_no_body_where_none_may_be() {
    for (answering, status, kept) in [
        (HEAD, "200 OK", true),
        (HTTP_1_1, "304 Not Modified", true),
        (HTTP_1_1, "204 No Content", false),
    ] {
        let (head, mut body) = reply(answering, status, &[("Content-Length", "5")], Some(9));
        assert_eq!(head.contains("Content-Length: 5\r\n"), kept, "{head}");
        assert!(!head.contains("Transfer-Encoding"));
        let mut out = Vec::new();
        body.write(&mut out, b"hello");
        assert!(body.finish(&mut out));
        assert!(out.is_empty());
        assert_eq!((body.excess(), body.missing()), (0, 0));
    }
}

#[test]
fn holds_the_body_to_its_content_length() {
    let mut out = Vec::new();
    let (_, mut body) = reply(HTTP_1_1, "200 OK", &[("Content-Length", "4")], None);
    body.write(&mut out, b"abc");
    body.write(&mut out, b"def");
    assert_eq!((&out[..], body.excess()), (&b"abcd"[..], 2));
    assert!(body.finish(&mut out), "cut, the response is whole");

    let (_, mut body) = reply(HTTP_1_1, "200 OK", &[("Content-Length", "4")], Some(3));
    body.write(&mut out, b"abc");
    assert_eq!(body.missing(), 1);
    assert!(!body.finish(&mut out), "the client waits for one byte more");
}

#[test]
fn refuses_what_the_application_may_not_send() {
    let statuses = [
        ("", InvalidResponse::Status),
        ("20", InvalidResponse::Status),
        ("2000", InvalidResponse::Status),
        ("200\tOK", InvalidResponse::Status),
        ("200OK", InvalidResponse::Status),
        ("2x0 OK", InvalidResponse::Status),
        ("200 OK\r\nX: y", InvalidResponse::Status),
        ("\u{661}00 OK", InvalidResponse::Status),
        ("100 Continue", InvalidResponse::StatusNotFinal),
        ("000 Zero", InvalidResponse::StatusNotFinal),
    ];
    for (status, bad) in statuses {
        assert_eq!(
            ResponseHead::start(&mut Vec::new(), HTTP_1_1, status.as_bytes()).err(),
            Some(bad)
        );
    }
    let fields = [
        ("", "a", InvalidResponse::FieldName),
        ("X Y", "a", InvalidResponse::FieldName),
        ("X:", "a", InvalidResponse::FieldName),
        ("X\r\nY", "a", InvalidResponse::FieldName),
        ("X", "a\r\nY: b", InvalidResponse::FieldValue),
        ("X", "a\nb", InvalidResponse::FieldValue),
        ("X", "a\0", InvalidResponse::FieldValue),
        ("Connection", "close", InvalidResponse::HopByHop),
        ("Trailers", "x", InvalidResponse::HopByHop),
        ("TRANSFER-ENCODING", "chunked", InvalidResponse::HopByHop),
        ("Upgrade", "h2c", InvalidResponse::HopByHop),
        ("Content-Length", "-1", InvalidResponse::ContentLength),
        ("Content-Length", "+1", InvalidResponse::ContentLength),
        ("Content-Length", "1, 1", InvalidResponse::ContentLength),
        ("Content-Length", "", InvalidResponse::ContentLength),
        ("Content-Length", "18446744073709551616", InvalidResponse::ContentLength),
    ];
    for (name, value, bad) in fields {
        let mut out = Vec::new();
        let mut reply = ResponseHead::start(&mut out, HTTP_1_1, b"200 OK").unwrap();
        let length = out.len();
        assert_eq!(
            reply.field(&mut out, name.as_bytes(), value.as_bytes()),
            Err(bad),
            "{name}: {value}"
        );
        assert_eq!(out.len(), length);
    }
    let mut out = Vec::new();
    let mut reply = ResponseHead::start(&mut out, HTTP_1_1, b"200 OK").unwrap();
    reply.field(&mut out, b"Content-Length", b"1").unwrap();
    assert_eq!(reply.field(&mut out, b"content-length", b"1"), Ok(()));
    assert_eq!(reply.field(&mut out, b"content-length", b"2"), Err(InvalidResponse::ContentLength));
}

#[test]
fn tells_a_refused_client_why() {
    let mut out = Vec::new();
    write_reject(&mut out, Reject::HostMissing, false, b"prefork", b"DATE");
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 400 Bad Request\r\nServer: prefork\r\nDate: DATE\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: 16\r\nConnection: close\r\n\r\nHost is missing\n"
    );
}

#[test]
fn writes_dates() {
    let cases = [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (951_827_696, "Tue, 29 Feb 2000 12:34:56 GMT"),
        (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 GMT"),
        (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
    ];
    for (unix_s, date) in cases {
        assert_eq!(std::str::from_utf8(&http_date(unix_s)).unwrap(), date);
    }
}
