//! Who is believed, and what is taken over from them.
#![allow(clippy::unwrap_used, reason = "tests")]

use prefork_core::forwarded::{Scheme, Trusted, client, scheme, script_name};
use prefork_core::{Head, Limits, Reject, head};

fn told(fields: &str) -> Result<Scheme, Reject> {
    let input = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let mut request = Head::new();
    head::parse(input.as_bytes(), &Limits::default(), &mut request).unwrap();
    scheme(&request, input.as_bytes())
}

#[test]
fn takes_the_scheme_that_a_proxy_tells() {
    assert_eq!(told(""), Ok(Scheme::Http));
    assert_eq!(told("X-Forwarded-Proto: https\r\n"), Ok(Scheme::Https));
    assert_eq!(told("X-Forwarded-Proto: http\r\n"), Ok(Scheme::Http));
    assert_eq!(told("X-Forwarded-Protocol: ssl\r\n"), Ok(Scheme::Https));
    assert_eq!(told("X-Forwarded-Ssl: on\r\nX-Forwarded-Proto: https\r\n"), Ok(Scheme::Https));
    let contradiction = "X-Forwarded-Ssl: off\r\nX-Forwarded-Proto: https\r\n";
    assert_eq!(told(contradiction), Err(Reject::ForwardedScheme));
}

#[test]
fn believes_only_the_listed_peers() {
    let trusted = Trusted::parse(["127.0.0.1", "::1", "10.1.0.0/16", "fd00::/8"]).unwrap();
    let is_trusted = |peer: &str| trusted.is_trusted(Some(peer.parse().unwrap()));
    for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.1.255.3", "fd12::1"] {
        assert!(is_trusted(peer), "{peer}");
    }
    for peer in ["127.0.0.2", "10.2.0.1", "::2", "fe80::1"] {
        assert!(!is_trusted(peer), "{peer}");
    }
    assert!(trusted.is_trusted(None), "a unix socket");
    let everyone = Trusted::parse(["*"]).unwrap();
    assert!(everyone.is_trusted(Some("192.0.2.1".parse().unwrap())));
    assert!(Trusted::parse(["0.0.0.0/0"]).unwrap().is_trusted(Some("192.0.2.1".parse().unwrap())));
    for bad in ["proxy", "10.0.0.0/33", "10.0.0/8", ""] {
        assert_eq!(Trusted::parse([bad]), Err(bad));
    }
}

#[test]
fn lists_nobody_where_everyone_is_trusted() {
    let peer = Some("10.1.2.3".parse().unwrap());
    assert!(Trusted::parse(["*", "10.1.0.0/16"]).unwrap().is_listed(peer));
    assert!(!Trusted::parse(["*"]).unwrap().is_listed(peer));
    assert!(Trusted::parse(["*"]).unwrap().is_listed(None), "a unix socket");
}

#[test]
fn a_script_name_is_a_path_without_a_slash_at_its_end() {
    let cases: [(&str, Option<&str>); 8] = [
        ("", None),
        ("SCRIPT_NAME: /shop\r\n", Some("/shop")),
        ("script_name: /shop//\r\n", Some("/shop")),
        ("SCRIPT_NAME: /client\r\nSCRIPT_NAME: /shop\r\n", Some("/shop")),
        ("SCRIPT_NAME: /\r\n", Some("")),
        ("SCRIPT_NAME:\r\n", None),
        ("SCRIPT_NAME: shop\r\n", None),
        ("Script-Name: /shop\r\n", None),
    ];
    for (fields, expected) in cases {
        let input = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut request = Head::new();
        head::parse(input.as_bytes(), &Limits::default(), &mut request).unwrap();
        let told = script_name(&request, input.as_bytes());
        assert_eq!(told, expected.map(str::as_bytes), "{fields}");
    }
}

fn client_of(fields: &str, trusted: &[&str]) -> Option<String> {
    let input = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let mut request = Head::new();
    head::parse(input.as_bytes(), &Limits::default(), &mut request).unwrap();
    let trusted = Trusted::parse(trusted.iter().copied()).unwrap();
    client(&request, input.as_bytes(), &trusted)
        .map(|text| String::from_utf8(text.to_vec()).unwrap())
}

#[test]
fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
    let networks = ["10.0.0.0/8", "fd00::/8"];
    let cases = [
        ("", None),
        ("X-Forwarded-For: 192.0.2.7\r\n", Some("192.0.2.7")),
        ("X-Forwarded-For: 203.0.113.9, 192.0.2.7, 10.1.1.1\r\n", Some("192.0.2.7")),
        (
            "X-Forwarded-For: 203.0.113.9,192.0.2.7\r\nX-Forwarded-For: 10.1.1.1\r\n",
            Some("192.0.2.7"),
        ),
        ("X-Forwarded-For: 10.0.0.2, 10.0.0.1\r\n", Some("10.0.0.2")),
        ("X-Forwarded-For: 192.0.2.7:4711\r\n", Some("192.0.2.7")),
        ("X-Forwarded-For: [2001:db8::1]:4711, fd00::1\r\n", Some("2001:db8::1")),
        ("X-Forwarded-For: 2001:db8::1\r\n", Some("2001:db8::1")),
        ("X-Forwarded-For: 192.0.2.7, unknown, 10.0.0.1\r\n", Some("10.0.0.1")),
        ("X-Forwarded-For: unknown\r\n", None),
        ("X-Forwarded-For: \"><script>\r\n", None),
        ("X-Forwarded-For:\r\n", None),
    ];
    for (fields, expected) in cases {
        assert_eq!(client_of(fields, &networks).as_deref(), expected, "{fields}");
    }
}

#[test]
fn where_everyone_is_trusted_only_the_peers_own_entry_counts() {
    let fields = "X-Forwarded-For: 203.0.113.9, 192.0.2.7\r\n";
    assert_eq!(client_of(fields, &["*"]).as_deref(), Some("192.0.2.7"));
}
