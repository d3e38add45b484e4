//! Request heads → verdicts, as a table; each row names the rule it stands for.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use prefork_core::{Framing, Head, Limits, Method, NameId, Parsed, Reject, head};

fn parse(input: &[u8]) -> (Result<Parsed, Reject>, Head) {
    let mut parsed = Head::new();
    let verdict = head::parse(input, &Limits::default(), &mut parsed);
    (verdict, parsed)
}

fn accept(input: &[u8]) -> Head {
    let (verdict, parsed) = parse(input);
    assert_eq!(verdict, Ok(Parsed::Done(input.len())), "{}", input.escape_ascii());
    parsed
}

fn refusal(input: &[u8]) -> Reject {
    parse(input).0.expect_err(&input.escape_ascii().to_string())
}

/// A GET with this field line beside Host.
fn with_field(line: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n").into_bytes()
}

fn with_first_line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: a\r\n\r\n").into_bytes()
}

#[test]
fn reads_an_ordinary_request() {
    let input =
        b"GET /a/b%20c?x=1&y=2 HTTP/1.1\r\nHost: shop.example:8000\r\nX-Thing:  a b \t\r\n\r\n";
    let head = accept(input);
    assert_eq!(head.method, Method::Get);
    assert_eq!(head.method_name.of(input), b"GET");
    assert_eq!(head.target.of(input), b"/a/b%20c?x=1&y=2");
    assert_eq!(head.path(input), b"/a/b%20c");
    assert!(head.is_path_encoded);
    assert_eq!(head.query.of(input), b"x=1&y=2");
    assert_eq!(head.minor, 1);
    assert_eq!(head.framing, Framing::None);
    assert!(head.keep_alive);
    assert_eq!(head.host.of(input), b"shop.example:8000");
    assert_eq!(head.value(input, NameId::HOST), Some(&b"shop.example:8000"[..]));
    assert_eq!(head.fields[1].name.of(input), b"X-Thing");
    assert_eq!(head.fields[1].value.of(input), b"a b");
    assert_eq!(head.fields[1].id, NameId::UNKNOWN);
}

#[test]
fn leaves_what_follows_the_head() {
    let input = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET";
    let (verdict, head) = parse(input);
    assert_eq!(verdict, Ok(Parsed::Done(input.len() - 6)));
    assert_eq!(head.framing, Framing::Length(3));
}

#[test]
fn forgets_the_request_before() {
    let mut head = Head::new();
    let limits = Limits::default();
    let first =
        b"POST /x?y HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n";
    head::parse(first, &limits, &mut head).unwrap();
    let second = b"GET / HTTP/1.1\r\nHost: b\r\n\r\n";
    head::parse(second, &limits, &mut head).unwrap();
    assert_eq!((head.framing, head.fields.len(), head.minor), (Framing::None, 1, 1));
    assert!(head.query.is_empty());
}

#[test]
fn has_begun_with_the_first_byte_until_it_is_done() {
    let (limits, mut head) = (Limits::default(), Head::new());
    let input = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(!head.is_begun());
    for end in 1..input.len() {
        assert_eq!(head::parse(&input[..end], &limits, &mut head), Ok(Parsed::Partial));
        assert!(head.is_begun(), "{end} bytes");
    }
    head::parse(input, &limits, &mut head).unwrap();
    assert!(!head.is_begun());
    head::parse(b"", &limits, &mut head).unwrap();
    assert!(!head.is_begun());
}

#[test]
fn refuses_malformed_lines() {
    let cases: &[(&[u8], Reject)] = &[
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", Reject::BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", Reject::BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", Reject::BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", Reject::BareCr),
        (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Reject::BareCr),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", Reject::ControlCharacter),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n", Reject::ControlCharacter),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Reject::ControlCharacter),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Reject::LeadingLines),
        (b"GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n", Reject::ObsFold),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", Reject::ObsFold),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb: c\r\n\r\n", Reject::ObsFold),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", Reject::SpaceBeforeColon),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\t: a\r\n\r\n", Reject::SpaceBeforeColon),
        (b"GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", Reject::FieldName),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n", Reject::FieldName),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX(y): a\r\n\r\n", Reject::FieldName),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX y: a\r\n\r\n", Reject::FieldName),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\xe9: a\r\n\r\n", Reject::FieldName),
    ];
    for (input, reject) in cases {
        assert_eq!(refusal(input), *reject, "{}", input.escape_ascii());
    }
}

#[test]
fn lets_one_empty_line_pass_before_the_request() {
    accept(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn judges_request_lines() {
    let refused = [
        ("GET", Reject::RequestLine),
        ("GET /", Reject::RequestLine),
        ("GET /HTTP/1.1", Reject::RequestLine),
        ("GET HTTP/1.1", Reject::RequestLine),
        ("GET  / HTTP/1.1", Reject::Target),
        ("GET /  HTTP/1.1", Reject::Target),
        ("GET / HTTP/1.1 ", Reject::RequestLine),
        (" GET / HTTP/1.1", Reject::Method),
        ("GET\t/ HTTP/1.1", Reject::Method),
        ("GET /\tHTTP/1.1", Reject::RequestLine),
        ("GET /a b HTTP/1.1", Reject::Target),
        ("GET /a\tb HTTP/1.1", Reject::Target),
        ("GET /a?b c HTTP/1.1", Reject::Target),
        ("GET /a#b HTTP/1.1", Reject::Target),
        ("GET /a?b#c HTTP/1.1", Reject::Target),
        ("GET a HTTP/1.1", Reject::Target),
        ("GET * HTTP/1.1", Reject::Target),
        ("OPTIONS *a HTTP/1.1", Reject::Target),
        ("GET ftp://a/ HTTP/1.1", Reject::Target),
        ("GET http:///x HTTP/1.1", Reject::Host),
        ("GET http://u@a/ HTTP/1.1", Reject::Host),
        ("GET http://a#b HTTP/1.1", Reject::Host),
        ("GET /%00 HTTP/1.1", Reject::PathNul),
        ("GET /a%00b?c HTTP/1.1", Reject::PathNul),
        ("G(T / HTTP/1.1", Reject::Method),
        ("CONNECT a:443 HTTP/1.1", Reject::MethodNotImplemented),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1", Reject::MethodNotImplemented),
        ("GET / http/1.1", Reject::Version),
        ("GET / HTTP/1,1", Reject::Version),
        ("GET / HTTP/1.x", Reject::Version),
        ("GET / HTTP/11.1", Reject::RequestLine),
        ("GET / HTTP/2.0", Reject::VersionNotSupported),
        ("GET / HTTP/0.9", Reject::VersionNotSupported),
        ("PRI * HTTP/2.0", Reject::VersionNotSupported),
    ];
    for (line, reject) in refused {
        assert_eq!(refusal(&with_first_line(line)), reject, "{line}");
    }
}

#[test]
fn takes_targets_apart() {
    let cases = [
        ("GET / HTTP/1.1", "/", "", "a"),
        ("GET /? HTTP/1.1", "/", "", "a"),
        ("GET /?? HTTP/1.1", "/", "?", "a"),
        ("GET //a//b HTTP/1.1", "//a//b", "", "a"),
        ("GET /a?b?c=/%00 HTTP/1.1", "/a", "b?c=/%00", "a"),
        ("GET http://b.example HTTP/1.1", "/", "", "b.example"),
        ("GET HTTP://b:80/x?y HTTP/1.1", "/x", "y", "b:80"),
        ("GET https://[::1]:80?y HTTP/1.1", "/", "y", "[::1]:80"),
        ("OPTIONS * HTTP/1.1", "*", "", "a"),
        ("get /|^{}\"<> HTTP/1.1", "/|^{}\"<>", "", "a"),
    ];
    for (line, path, query, host) in cases {
        let input = with_first_line(line);
        let head = accept(&input);
        assert_eq!(
            head.path(&input).escape_ascii().to_string(),
            path.as_bytes().escape_ascii().to_string(),
            "{line}"
        );
        assert_eq!(head.query.of(&input), query.as_bytes(), "{line}");
        assert_eq!(head.host.of(&input), host.as_bytes(), "{line}");
        assert_eq!(head.value(&input, NameId::HOST), Some(host.as_bytes()), "{line}");
    }
}

#[test]
fn answers_later_minor_versions_as_1_1() {
    assert_eq!(accept(&with_first_line("GET / HTTP/1.2")).minor, 1);
}

#[test]
fn wants_exactly_one_valid_host() {
    assert_eq!(refusal(b"GET / HTTP/1.1\r\n\r\n"), Reject::HostMissing);
    accept(b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(refusal(&with_field("Host: a")), Reject::HostRepeated);
    assert_eq!(refusal(b"GET / HTTP/1.0\r\nHost: a\r\nhOST: a\r\n\r\n"), Reject::HostRepeated);
    for host in ["a", "a.b:80", "a:", "1.2.3.4", "[::1]", "[::1]:80", "a_b-c~%20!"] {
        accept(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    }
    for host in [
        "", "a b", "a/b", "a@b", "a:b", ":80", "a:123456", "a:80:80", "[::1", "[::g]", "[::1]a",
        "a[::1]", "::1", "é", "a?b", "a#b", "a\tb",
    ] {
        let input = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(refusal(input.as_bytes()), Reject::Host, "{host}");
    }
}

#[test]
fn frames_bodies_in_one_way_only() {
    let accepted = [
        ("X: y", Framing::None),
        ("Content-Length: 0", Framing::Length(0)),
        ("Content-Length: 007", Framing::Length(7)),
        ("content-LENGTH:\t18446744073709551615 ", Framing::Length(u64::MAX)),
        ("Transfer-Encoding: chunked", Framing::Chunked),
        ("transfer-encoding:Chunked", Framing::Chunked),
    ];
    for (line, framing) in accepted {
        assert_eq!(accept(&with_field(line)).framing, framing, "{line}");
    }
    let refused = [
        ("Content-Length:", Reject::ContentLength),
        ("Content-Length: +1", Reject::ContentLength),
        ("Content-Length: -1", Reject::ContentLength),
        ("Content-Length: 1 1", Reject::ContentLength),
        ("Content-Length: 1, 1", Reject::ContentLength),
        ("Content-Length: 0x1", Reject::ContentLength),
        ("Content-Length: 1_0", Reject::ContentLength),
        ("Content-Length: 18446744073709551616", Reject::ContentLength),
        ("Content-Length: 99999999999999999999999", Reject::ContentLength),
        ("Content-Length: \u{661}", Reject::ContentLength),
        ("Content-Length: 1\r\nContent-Length: 1", Reject::ContentLengthRepeated),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked", Reject::LengthAndEncoding),
        ("Transfer-Encoding: gzip\r\nContent-Length: 1", Reject::LengthAndEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Reject::TransferEncoding),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", Reject::TransferEncoding),
        ("Transfer-Encoding:", Reject::TransferEncoding),
        ("Transfer-Encoding: identity", Reject::TransferEncoding),
        ("Transfer-Encoding: xchunked", Reject::TransferEncoding),
        ("Transfer-Encoding: chunked, gzip", Reject::TransferEncoding),
        ("Transfer-Encoding: chunked, chunked", Reject::TransferEncoding),
        ("Transfer-Encoding: chunked,", Reject::TransferEncoding),
        ("Transfer-Encoding: ,chunked", Reject::TransferEncoding),
        ("Transfer-Encoding: \"chunked\"", Reject::TransferEncoding),
        ("Transfer-Encoding: chunked;q=1", Reject::TransferEncoding),
        ("Transfer-Encoding: gzip, chunked", Reject::TransferEncodingNotImplemented),
        ("Content-Type: a/b\r\nContent-Type: a/b", Reject::ContentTypeRepeated),
    ];
    for (line, reject) in refused {
        assert_eq!(refusal(&with_field(line)), reject, "{line}");
    }
    let in_1_0 = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(refusal(in_1_0), Reject::TransferEncodingVersion);
}

#[test]
fn knows_when_to_keep_the_connection() {
    let cases = [
        ("HTTP/1.1", "X: y", true),
        ("HTTP/1.1", "Connection: close", false),
        ("HTTP/1.1", "Connection: Upgrade,  CLOSE", false),
        ("HTTP/1.1", "Connection: close\r\nConnection: keep-alive", false),
        ("HTTP/1.1", "Connection: closed", true),
        ("HTTP/1.0", "X: y", false),
        ("HTTP/1.0", "Connection: Keep-Alive", true),
        ("HTTP/1.0", "Connection: keep-alive, close", false),
    ];
    for (version, line, keep_alive) in cases {
        let input = format!("GET / {version}\r\nHost: a\r\n{line}\r\n\r\n");
        assert_eq!(accept(input.as_bytes()).keep_alive, keep_alive, "{version} {line}");
    }
}

#[test]
fn expects_continue_only_where_a_body_waits() {
    let with = |first: &str, more: &str| {
        accept(format!("{first}\r\nHost: a\r\nExpect: 100-Continue\r\n{more}\r\n\r\n").as_bytes())
            .expects_continue
    };
    assert!(with("POST / HTTP/1.1", "Content-Length: 1"));
    assert!(with("POST / HTTP/1.1", "Transfer-Encoding: chunked"));
    assert!(!with("POST / HTTP/1.1", "Content-Length: 0"));
    assert!(!with("POST / HTTP/1.1", "X: y"));
    assert!(!with("POST / HTTP/1.0", "Content-Length: 1"));
    assert_eq!(refusal(&with_field("Expect: more")), Reject::Expectation);
}

#[test]
fn drops_names_with_underscores() {
    let input = with_field("X_Forwarded_For: evil\r\nContent_Length: 5\r\nX-Real: yes");
    let head = accept(&input);
    let names: Vec<_> = head.fields.iter().map(|field| field.name.of(&input)).collect();
    assert_eq!(names, [&b"Host"[..], b"X-Real"]);
    assert_eq!(head.framing, Framing::None);
}

#[test]
fn tells_repeats_of_known_names() {
    let head = accept(&with_field("Cookie: a\r\nX-Own: a\r\ncookie: b\r\nX-Own: b"));
    let repeats: Vec<_> = head.fields.iter().map(|field| field.is_repeat).collect();
    assert_eq!(repeats, [false, false, false, true, false]);
}

#[test]
fn holds_to_its_limits() {
    let limits = Limits {
        request_line: 20,
        request_fields: 3,
        request_field_size: 12,
        head_bytes: 60,
        request_body: 0,
    };
    let verdict = |input: &str| head::parse(input.as_bytes(), &limits, &mut Head::new());
    let done = |input: &str| Ok(Parsed::Done(input.len()));
    let head = "GET /45678 HTTP/1.1\r\nHost: 789012\r\n";
    assert_eq!(verdict("GET /456789 HTTP/1.1\r\n"), Ok(Parsed::Partial));
    assert_eq!(verdict("GET /4567890 HTTP/1.1"), Err(Reject::RequestLineTooLong));
    assert_eq!(verdict("GET /4567890123456789"), Err(Reject::RequestLineTooLong));
    let whole = format!("{head}\r\n");
    assert_eq!(verdict(&whole), done(&whole));
    assert_eq!(verdict(&format!("{head}X: 4567890123")), Err(Reject::FieldTooLarge));
    assert_eq!(verdict(&format!("{head}A_: 1\r\nB: 2\r\nC: 3\r\n")), Err(Reject::TooManyFields));
    let longest = format!("{head}A: 4567890\r\nB: 4567\r\n\r\n");
    assert_eq!((longest.len(), verdict(&longest)), (58, done(&longest)));
    let longer = format!("{head}A: 4567890\r\nB: 4567890\r\n\r\n");
    assert_eq!(verdict(&longer), Err(Reject::HeadTooLarge));
}

#[test]
fn decodes_paths() {
    let cases: [(&[u8], &[u8]); 6] = [
        (b"/a%20b", b"/a b"),
        (b"/%41%6a%4A", b"/AjJ"),
        (b"/%2F%2e%2E", b"//.."),
        (b"/%e2%82%ac", "/\u{20ac}".as_bytes()),
        (b"/100%", b"/100%"),
        (b"/%g1%1", b"/%g1%1"),
    ];
    let mut out = Vec::new();
    for (path, decoded) in cases {
        head::decode_path(path, &mut out);
        assert_eq!(out, decoded);
    }
}

#[test]
fn every_known_name_is_found_in_any_case_and_nothing_near_it() {
    for name in &prefork_core::name::KNOWN[1..] {
        assert_eq!(NameId::of(name.as_bytes()).name(), *name);
        assert_eq!(NameId::of(name.to_uppercase().as_bytes()).name(), *name);
        for at in 0..name.len() {
            for flip in [0x01, 0x20, 0x40, 0x80] {
                let mut near = name.as_bytes().to_vec();
                near[at] ^= flip;
                if near.eq_ignore_ascii_case(name.as_bytes()) {
                    continue;
                }
                assert_ne!(NameId::of(&near).name(), *name, "{}", near.escape_ascii());
            }
        }
    }
}
