//! Parses one head so often as its argument says: for counting instructions with callgrind.
//!
//! ```sh
//! cargo build --release --example parse_cost
//! for n in 1000 2000; do valgrind --tool=callgrind --callgrind-out-file=/dev/null \
//!     target/release/examples/parse_cost browser $n; done   # the difference is 1,000 heads
//! ```

use prefork_core::{Head, Limits, Parsed, head};

const BARE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost:8000\r\n\r\n";

const BROWSER: &[u8] = b"GET /shop/items/4711?colour=blue&size=xl HTTP/1.1\r\n\
Host: shop.example.com\r\n\
Connection: keep-alive\r\n\
Cache-Control: max-age=0\r\n\
sec-ch-ua: \"Chromium\";v=\"128\", \"Not;A=Brand\";v=\"24\", \"Google Chrome\";v=\"128\"\r\n\
sec-ch-ua-mobile: ?0\r\n\
sec-ch-ua-platform: \"Linux\"\r\n\
Upgrade-Insecure-Requests: 1\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Sec-Fetch-Site: same-origin\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-User: ?1\r\n\
Sec-Fetch-Dest: document\r\n\
Referer: https://shop.example.com/shop/items\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
Cookie: sessionid=0123456789abcdef0123456789abcdef; csrftoken=abcdefghijklmnopqrstuvwxyz012345\r\n\r\n";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let input = match arguments.next().as_deref() {
        Some("bare") => BARE,
        Some("browser") => BROWSER,
        _ => panic!("usage: parse_cost bare|browser TIMES"),
    };
    let times: u32 = arguments.next().and_then(|times| times.parse().ok()).unwrap_or(1000);
    let limits = Limits::default();
    let mut request = Head::new();
    for _ in 0..times {
        let parsed = head::parse(std::hint::black_box(input), &limits, &mut request);
        assert_eq!(parsed, Ok(Parsed::Done(input.len())));
    }
}
