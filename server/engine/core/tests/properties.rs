//! What holds for any input: the verdict depends on the bytes alone, and agrees with a slow parser
//! written from the grammar.
//!
//! Inputs are made by a deterministic generator: whole requests put together from good and bad
//! parts, then damaged here and there. `PREFORK_FUZZ_INPUTS` sets how many (default 20,000).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod agreement;
mod reference;

/// A xorshift generator: the same inputs on every run and machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from[self.below(from.len())]
    }

    /// Changes, removes, doubles or inserts a byte.
    fn damage(&mut self, input: &mut Vec<u8>) {
        const BYTES: &[u8] = b"\r\n\t\0 :;,%?#/*=\"\\_-09afxAZ\x7f\x80\xff[]";
        let at = self.below(input.len() + 1);
        let byte = BYTES[self.below(BYTES.len())];
        match self.below(4) {
            0 if at < input.len() => input[at] = byte,
            1 if at < input.len() => drop(input.remove(at)),
            2 if at < input.len() => input.insert(at, input[at]),
            _ => input.insert(at, byte),
        }
    }
}

fn inputs() -> usize {
    std::env::var("PREFORK_FUZZ_INPUTS").map_or(20_000, |count| count.parse().unwrap())
}

/// Mostly good parts: a request of bad parts alone is refused for the first of them.
fn random_head(random: &mut Random) -> Vec<u8> {
    const METHODS: &[&[u8]] = &[b"GET", b"POST", b"HEAD", b"OPTIONS", b"g-t"];
    const BAD_METHODS: &[&[u8]] =
        &[b"CONNECT", b"G\xe9T", b"", b"(", b"M23456789012345678901234567890123"];
    const TARGETS: &[&[u8]] = &[
        b"/",
        b"/a/b%20c?d=e&f",
        b"/abcdefghijklmnopqrstuvwxyz?012345",
        b"http://h:80/p?q",
        b"https://[::1]?q",
        b"HTTP://h",
        b"/\xc3\xa9?\xc3\xa9",
        b"/%zz%",
        b"/?%00",
    ];
    const BAD_TARGETS: &[&[u8]] =
        &[b"*", b"x", b"/%00", b"/a#b", b"/?#", b"/ ", b"http://u@h/", b"ftp://h/", b""];
    const VERSIONS: &[&[u8]] = &[b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.7"];
    const BAD_VERSIONS: &[&[u8]] =
        &[b"HTTP/2.0", b"http/1.1", b" HTTP/1.1", b"HTTP/1.1 ", b"HTTP/11"];
    const FIELDS: &[&[u8]] = &[
        b"Host: example.org",
        b"host:a",
        b"HOST: [::1]:8000 ",
        b"Content-Length: 5",
        b"content-length:\t007 ",
        b"Transfer-Encoding: chunked",
        b"transfer-encoding:CHUNKED",
        b"Connection: close",
        b"Connection: keep-alive, x",
        b"Expect: 100-continue",
        b"X_Under: score",
        b"Content_Length: 9",
        b"Cookie: a=b; c=d",
        b"Cookie: e",
        b"Accept-Encoding: gzip, deflate, br",
        b"Accept:*/*",
        b"Content-Type: text/plain",
        b"X-Long-Name-That-Nobody-Knows-At-All: v",
        b"X:",
        b"X: \xff\x80\tx",
        b"connection: Close",
    ];
    const BAD_FIELDS: &[&[u8]] = &[
        b"Content-Length: 5, 5",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, chunked",
        b"Expect: 1",
        b"T : v",
        b" folded",
        b"nocolon",
        b": x",
        b"Host:",
        b"Host: a b",
        b"X: a\0",
        b"Content-Length: x",
        b"X-Long: 0123456789012345678901234567890123456789012345",
    ];
    let mut either = |good: &[&'static [u8]], bad: &[&'static [u8]]| {
        let pool = if random.below(40) == 0 { bad } else { good };
        random.pick(pool).to_vec()
    };
    let mut input = either(&[b"", b"", b"", b"\r\n"], &[b"\n", b"\r\n\r\n", b" "]);
    input.extend(either(METHODS, BAD_METHODS));
    input.push(b' ');
    input.extend(either(TARGETS, BAD_TARGETS));
    input.push(b' ');
    input.extend(either(VERSIONS, BAD_VERSIONS));
    input.extend(either(&[b"\r\n"], &[b"\n", b"\r", b"\r\r\n"]));
    input.extend(either(&[b"Host: a\r\n", b"Host: a\r\n", b"HOST: b.example:80\r\n"], &[b""]));
    for _ in 0..either(&[b"", b"1", b"22", b"333"], &[b"666666"]).len() {
        input.extend(either(FIELDS, BAD_FIELDS));
        input.extend(either(&[b"\r\n"], &[b"\n", b"\r"]));
    }
    input.extend(either(
        &[b"\r\n", b"\r\n5\r\nhello\r\n0\r\n\r\n", b"\r\nGET / HTTP/1.1\r\n"],
        &[b""],
    ));
    for _ in 0..either(&[b"", b"1"], &[b"333"]).len() {
        random.damage(&mut input);
    }
    input
}

fn random_chunks(random: &mut Random) -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..random.below(4) {
        input.extend_from_slice(random.pick(&[
            b"5\r\nhello\r\n",
            b"00A\r\n0123456789\r\n",
            b"1;a=b\r\nx\r\n",
            b"2 ; a=\"q\\\"\" ; b\r\nxy\r\n",
            b"ffffffffffffffff\r\n",
            b"0x1\r\nx\r\n",
        ]));
    }
    input.extend_from_slice(random.pick(&[
        b"0\r\n\r\n",
        b"0\r\n\r\n",
        b"0;x\r\nA: b\r\n\r\n",
        b"000\r\nA: b\r\nC:d\r\n\r\n",
        b"",
    ]));
    for _ in 0..random.below(3) {
        random.damage(&mut input);
    }
    input
}

/// See `agreement::Script`.
fn random_response(random: &mut Random) -> Vec<u8> {
    let mut input = vec![u8::try_from(random.below(16)).unwrap()];
    input.extend_from_slice(random.pick(&[
        b"200 OK",
        b"200",
        b"204 No Content",
        b"304 x",
        b"404 ",
        b"99 x",
    ]));
    for _ in 0..random.below(6) {
        input.push(0xFF);
        input.extend_from_slice(random.pick(&[
            b"Content-Length=5",
            b"content-length=0",
            b"X-A=b",
            b"Date=now",
            b"Server=",
            b"Transfer-Encoding=chunked",
            b"hello",
            b"0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"",
        ]));
    }
    for _ in 0..random.below(3) {
        random.damage(&mut input);
    }
    input
}

#[test]
fn a_head_has_one_verdict_however_it_is_cut_and_the_slow_parser_agrees() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut done, mut refused) = (0, 0);
    for _ in 0..inputs() {
        match agreement::check_head(&random_head(&mut random)) {
            Ok(Some(_)) => done += 1,
            Ok(None) => {}
            Err(_) => refused += 1,
        }
    }
    // A generator that makes only one kind of input would prove nothing.
    assert!(done > inputs() / 50 && refused > inputs() / 10, "{done} accepted, {refused} refused");
}

#[test]
fn a_chunked_body_has_one_verdict_however_it_is_cut_and_the_slow_decoder_agrees() {
    let mut random = Random(0x0123_4567_89ab_cdef);
    let (mut done, mut refused) = (0, 0);
    for _ in 0..inputs() {
        match agreement::check_chunked(&random_chunks(&mut random)) {
            Ok((.., true)) => done += 1,
            Ok(_) => {}
            Err(_) => refused += 1,
        }
    }
    assert!(done > inputs() / 20 && refused > inputs() / 20, "{done} accepted, {refused} refused");
}

#[test]
fn whatever_an_app_answers_the_client_reads_one_response() {
    let mut random = Random(0xfeed_5eed_0bad_f00d);
    let (mut sent, mut refused) = (0, 0);
    for _ in 0..inputs() {
        if agreement::check_response(&random_response(&mut random)) {
            sent += 1;
        } else {
            refused += 1;
        }
    }
    assert!(sent > inputs() / 10 && refused > inputs() / 10, "{sent} sent, {refused} refused");
}
