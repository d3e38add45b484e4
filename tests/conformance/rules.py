"""The rules of docs/design, one or more cases each: sections of RFC 9110, 9112, 3986, and PEP 3333."""

from __future__ import annotations

from tests.conformance.case import Case, chunked, get, post, refused, served

CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"

LINES = [
    served("9112 2.1 ordinary request", get()),
    refused("9112 2.2 bare LF behind the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    refused("9112 2.2 bare LF behind a field", b"GET / HTTP/1.1\r\nHost: a\n\r\n"),
    refused("9112 2.2 bare LF as the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    refused("9112 2.2 bare CR in a field", get(b"GET / HTTP/1.1", b"X: a\rb")),
    refused("9112 2.2 bare CR before CRLF", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
    served("9112 2.2 one empty line before a request", b"\r\n" + get()),
    refused("9112 2.2 many empty lines before a request", b"\r\n\r\n\r\n" + get()),
    refused("9112 2.2 space before the first field", b"GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n"),
    refused("9110 5.5 NUL in a value", get(b"GET / HTTP/1.1", b"X: a\0b")),
    refused("9110 5.5 BEL in a value", get(b"GET / HTTP/1.1", b"X: a\x07b")),
    refused("9110 5.5 DEL in a value", get(b"GET / HTTP/1.1", b"X: a\x7fb")),
    refused("9112 2 TLS instead of HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    refused("9113 3.4 HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
]

REQUEST_LINES = [
    refused("9112 3 no version", get(b"GET /")),
    refused("9112 3 HTTP/0.9", b"GET /\r\n"),
    refused("9112 3 two spaces before the target", get(b"GET  / HTTP/1.1")),
    refused("9112 3 two spaces before the version", get(b"GET /  HTTP/1.1")),
    refused("9112 3 space behind the version", get(b"GET / HTTP/1.1 ")),
    refused("9112 3 space before the method", get(b" GET / HTTP/1.1")),
    refused("9112 3 TAB instead of a space", get(b"GET\t/ HTTP/1.1")),
    refused("9112 3 space in the target", get(b"GET /a b HTTP/1.1")),
    refused("9112 3.2 TAB in the target", get(b"GET /a\tb HTTP/1.1")),
    refused("9112 3.1 method that is no token", get(b"GE(T / HTTP/1.1")),
    refused("9112 3.1 method with bytes above ASCII", get(b"G\xc9T / HTTP/1.1")),
    served("9110 9.1 method of one's own", get(b"BREW / HTTP/1.1"), {"REQUEST_METHOD": "BREW"}),
    served(
        "9110 9.1 methods have a case", get(b"get /fast-echo HTTP/1.1"), {"REQUEST_METHOD": "get"}
    ),
    refused("9112 3 method of 33 bytes", get(b"M" * 33 + b" / HTTP/1.1"), 501),
    refused("9110 9.3.6 CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
    refused("9112 2.3 version in lower case", get(b"GET / http/1.1")),
    refused("9112 2.3 version with two digits", get(b"GET / HTTP/1.10")),
    refused("9112 2.3 version without point", get(b"GET / HTTP/11")),
    refused("9112 2.3 other protocol", get(b"GET / HTTPS/1.1")),
    refused("9110 2.5 HTTP/2.0", get(b"GET / HTTP/2.0"), 505),
    refused("9110 2.5 HTTP/0.9 by name", get(b"GET / HTTP/0.9"), 505),
    served(
        "9110 2.5 HTTP/1.2 is answered as 1.1",
        get(b"GET / HTTP/1.2"),
        {"SERVER_PROTOCOL": "HTTP/1.1"},
    ),
    served(
        "9112 9.3 HTTP/1.0 closes",
        b"GET / HTTP/1.0\r\n\r\n",
        {"SERVER_PROTOCOL": "HTTP/1.0"},
        keeps=False,
    ),
]

TARGETS = [
    served(
        "PEP 3333 path and query",
        get(b"GET /a/b?c=d&e HTTP/1.1"),
        {"PATH_INFO": "/a/b", "QUERY_STRING": "c=d&e", "SCRIPT_NAME": ""},
    ),
    served(
        "PEP 3333 second ? belongs to the query",
        get(b"GET /a?b?c HTTP/1.1"),
        {"QUERY_STRING": "b?c"},
    ),
    served(
        "PEP 3333 query stays encoded", get(b"GET /?%41%20+ HTTP/1.1"), {"QUERY_STRING": "%41%20+"}
    ),
    served("3986 2.1 path is decoded", get(b"GET /%41%2f%c3%A9 HTTP/1.1"), {"PATH_INFO": "/A/Ã©"}),
    served("3986 2.1 + is no space in a path", get(b"GET /a+b HTTP/1.1"), {"PATH_INFO": "/a+b"}),
    served(
        "3986 2.1 what is no escape stays",
        get(b"GET /100%&%zz%4 HTTP/1.1"),
        {"PATH_INFO": "/100%&%zz%4"},
    ),
    served(
        "3986 6.2 dots and double slashes stay",
        get(b"GET //a/../b/. HTTP/1.1"),
        {"PATH_INFO": "//a/../b/."},
    ),
    refused("9112 3.2 raw bytes above ASCII in a path", get(b"GET /\xc3\xa9 HTTP/1.1")),
    refused("9112 3.2 raw bytes above ASCII in a query", get(b"GET /?\xe9 HTTP/1.1")),
    refused("3986 3.3 encoded NUL in a path", get(b"GET /a%00b HTTP/1.1")),
    refused("9112 3.2 fragment", get(b"GET /a#b HTTP/1.1")),
    refused("9112 3.2 no slash", get(b"GET a HTTP/1.1")),
    refused("9112 3.2.3 authority form", get(b"GET a:80 HTTP/1.1")),
    served("9112 3.2.4 OPTIONS *", get(b"OPTIONS * HTTP/1.1"), {"PATH_INFO": "*"}),
    refused("9112 3.2.4 * with another method", get(b"GET * HTTP/1.1")),
    served(
        "9112 3.2.2 absolute form beats Host",
        get(b"GET http://b:80/x?y HTTP/1.1"),
        {"HTTP_HOST": "b:80", "PATH_INFO": "/x", "QUERY_STRING": "y"},
    ),
    served(
        "9112 3.2.2 absolute form without path", get(b"GET http://b HTTP/1.1"), {"PATH_INFO": "/"}
    ),
    served(
        "9112 3.2.2 https in the target is not the connection's scheme",
        get(b"GET https://b/ HTTP/1.1"),
        {"wsgi.url_scheme": "http"},
    ),
    refused("9112 3.2.2 other scheme", get(b"GET ftp://b/ HTTP/1.1")),
    refused("9110 4.2.4 user information", get(b"GET http://u@b/ HTTP/1.1")),
    refused("9112 3.2.2 absolute form without host", get(b"GET http:///x HTTP/1.1")),
    served(
        "contract: SCRIPT_NAME",
        get(b"GET /shop/a HTTP/1.1"),
        {"SCRIPT_NAME": "/shop", "PATH_INFO": "/a"},
        server="below",
    ),
]

FIELDS = [
    served("PEP 3333 fields reach the app", get(b"GET / HTTP/1.1", b"X-Own-Field: v w"), {"HTTP_X_OWN_FIELD": "v w"}),
    served("9112 5.1 white space around a value", get(b"GET / HTTP/1.1", b"X: \t a b\t "), {"HTTP_X": "a b"}),
    served("9112 5 no white space", get(b"GET / HTTP/1.1", b"X:a"), {"HTTP_X": "a"}),
    served("9110 5.5 empty value", get(b"GET / HTTP/1.1", b"X:"), {"HTTP_X": ""}),
    served("9110 5.5 TAB within a value", get(b"GET / HTTP/1.1", b"X: a\tb"), {"HTTP_X": "a\tb"}),
    served("9110 5.5 obs-text is latin-1", get(b"GET / HTTP/1.1", b"X: \xe9\xff"), {"HTTP_X": "éÿ"}),
    served("9110 5.1 names have no case", get(b"GET / HTTP/1.1", b"uSER-aGENT: b"), {"HTTP_USER_AGENT": "b"}),
    served("9110 5.3 repeats are joined", get(b"GET / HTTP/1.1", b"Accept: a", b"X: 1", b"accept: b", b"x: 2"), {"HTTP_ACCEPT": "a,b", "HTTP_X": "1,2"}),
    served("6265 5.4 cookies are joined as cookies", get(b"GET / HTTP/1.1", b"Cookie: a=1", b"Cookie: b=2"), {"HTTP_COOKIE": "a=1; b=2"}),
    served("PEP 3333 content fields have names of their own", post(b"Content-Type: text/x", b"Content-Length: 2", body=b"ab"), {"CONTENT_TYPE": "text/x", "CONTENT_LENGTH": "2", "HTTP_CONTENT_TYPE": None, "HTTP_CONTENT_LENGTH": None, "body": "ab"}),
    served("contract: a name with _ is dropped", get(b"GET / HTTP/1.1", b"X_Forwarded_Proto: https", b"X-Real: 1"), {"HTTP_X_FORWARDED_PROTO": None, "HTTP_X_REAL": "1"}),
    served("contract: Content_Length is nothing", post(b"Content_Length: 5"), {"body": "", "HTTP_CONTENT_LENGTH": None}),
    served("contract: Transfer_Encoding is nothing", post(b"Transfer_Encoding: chunked"), {"body": "", "HTTP_TRANSFER_ENCODING": None}),
    refused("9112 5.1 space before the colon", get(b"GET / HTTP/1.1", b"X : a")),
    refused("9112 5.1 TAB before the colon", get(b"GET / HTTP/1.1", b"X\t: a")),
    refused("9112 5.1 space before the colon of Content-Length", post(b"Content-Length : 5", body=b"hello")),
    refused("9112 5.2 obs-fold", get(b"GET / HTTP/1.1", b"X: a", b" b")),
    refused("9112 5.2 obs-fold with TAB", get(b"GET / HTTP/1.1", b"X: a", b"\tb")),
    refused("9110 5.1 no colon", get(b"GET / HTTP/1.1", b"nonsense")),
    refused("9110 5.1 empty name", get(b"GET / HTTP/1.1", b": a")),
    refused("9110 5.1 space in a name", get(b"GET / HTTP/1.1", b"X Y: a")),
    refused("9110 5.1 delimiter in a name", get(b"GET / HTTP/1.1", b"X(Y): a")),
    refused("9110 5.1 bytes above ASCII in a name", get(b"GET / HTTP/1.1", b"X\xe9: a")),
    served("9110 7.8 Upgrade is ignored", get(b"GET / HTTP/1.1", b"Connection: Upgrade", b"Upgrade: h2c"), {"HTTP_UPGRADE": "h2c"}),
    refused("9110 8.3 two Content-Type", post(b"Content-Type: a/b", b"Content-Type: c/d")),
    refused("9110 10.1.1 unknown expectation", get(b"GET / HTTP/1.1", b"Expect: tea"), 417),
]  # fmt: skip

HOSTS = [
    refused("9112 3.2 no Host in 1.1", b"GET / HTTP/1.1\r\n\r\n"),
    served("9112 3.2 no Host in 1.0", b"GET / HTTP/1.0\r\n\r\n", {"HTTP_HOST": None}, keeps=False),
    refused("9112 3.2 two Host", get(b"GET / HTTP/1.1", b"Host: b")),
    refused("9112 3.2 two equal Host", get(b"GET / HTTP/1.1", b"Host: a")),
    refused("9112 3.2 two Host in 1.0", get(b"GET / HTTP/1.0", b"Host: b")),
    *(
        served(f"9110 7.2 Host {host.decode()}", b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host, {"HTTP_HOST": host.decode()})
        for host in (b"a.example", b"a:8000", b"a:", b"192.0.2.1", b"[::1]", b"[2001:db8::1]:80", b"a_b")
    ),
    *(
        refused(f"9110 7.2 Host {host.decode('latin-1')!r}", b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host)
        for host in (b"", b"a b", b"a/b", b"u@a", b"a:b", b":80", b"a:80:80", b"::1", b"[::1", b"[x]", b"\xe9", b"a?b", b"a#b", b"a\\b", b"<a>")
    ),
]  # fmt: skip

FRAMING = [
    served("9112 6.2 Content-Length", post(b"Content-Length: 5", body=b"hello"), {"body": "hello", "CONTENT_LENGTH": "5"}),
    served("9112 6.2 leading zeros", post(b"Content-Length: 005", body=b"hello"), {"body": "hello"}),
    served("9112 6.3 no length, no body", post(), {"body": "", "CONTENT_LENGTH": None}),
    served("9112 6.2 GET may have a body", get(b"GET / HTTP/1.1", b"Content-Length: 2", body=b"hi"), {"body": "hi"}),
    *(
        refused(f"9110 8.6 Content-Length {value!r}", post(b"Content-Length: " + value, body=b"hello"))
        for value in (b"", b"+5", b"-5", b"5.0", b"0x5", b"5 5", b"5,5", b"5, 5", b"5;", b"five", b"1_0", b"\xb2", b"18446744073709551616", b"9" * 40)
    ),
    refused("9112 6.3 two Content-Length", post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello!")),
    refused("9112 6.3 two equal Content-Length", post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello")),
    refused("9112 6.3 length and encoding", post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=CHUNKS)),
    refused("9112 6.3 encoding and length", post(b"Transfer-Encoding: chunked", b"Content-Length: 15", body=CHUNKS)),
    served("9112 6.1 chunked", chunked(CHUNKS), {"body": "hello"}),
    served("9110 5.5 chunked in any case", post(b"transfer-encoding:\tCHUNKED ", body=CHUNKS), {"body": "hello"}),
    refused("9112 6.1 chunked in 1.0", get(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked", body=CHUNKS)),
    refused("9112 6.1 two chunked", post(b"Transfer-Encoding: chunked, chunked", body=CHUNKS)),
    refused("9112 6.1 two chunked fields", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=CHUNKS)),
    refused("9112 6.3 chunked not last", post(b"Transfer-Encoding: chunked, gzip", body=CHUNKS)),
    refused("9112 6.3 identity", post(b"Transfer-Encoding: identity", body=CHUNKS)),
    refused("9112 6.3 empty encoding", post(b"Transfer-Encoding:", body=CHUNKS)),
    refused("9112 6.1 nearly chunked", post(b"Transfer-Encoding: xchunked", body=CHUNKS)),
    refused("9112 6.1 vertical tab before chunked", post(b"Transfer-Encoding: \x0bchunked", body=CHUNKS)),
    refused("9112 6.1 quoted chunked", post(b'Transfer-Encoding: "chunked"', body=CHUNKS)),
    refused("9112 6.1 chunked with parameter", post(b"Transfer-Encoding: chunked;q=1", body=CHUNKS)),
    refused("9112 6.1 gzip before chunked", post(b"Transfer-Encoding: gzip, chunked", body=CHUNKS), 501),
]  # fmt: skip

BODIES = [
    served("9112 7.1 no data", chunked(b"0\r\n\r\n"), {"body": ""}),
    served("9112 7.1 several chunks", chunked(b"1\r\na\r\n00A\r\n0123456789\r\n0\r\n\r\n"), {"body": "a0123456789"}),
    served("9112 7.1 CRLF in data", chunked(b"4\r\n\r\n\r\n\r\n0\r\n\r\n"), {"body": "\r\n\r\n"}),
    served("9112 7.1.1 extensions are ignored", chunked(b'1;a;b=c;d="e;\\"f"\r\nx\r\n0;z\r\n\r\n'), {"body": "x"}),
    served("9112 7.1.1 bad white space", chunked(b"1 ;\ta = b\r\nx\r\n0\r\n\r\n"), {"body": "x"}),
    served("9112 7.1.2 trailers are dropped", chunked(b"1\r\nx\r\n0\r\nX-Trailer: t\r\nContent-Type: evil/t\r\n\r\n"), {"body": "x", "HTTP_X_TRAILER": None, "CONTENT_TYPE": None}),
    *(
        refused(f"9112 7.1 {title}", chunked(body))
        for title, body in (
            ("empty chunk size", b"\r\nx\r\n0\r\n\r\n"),
            ("chunk size that is no number", b"x\r\n"),
            ("chunk size with 0x", b"0x1\r\nx\r\n0\r\n\r\n"),
            ("chunk size with sign", b"+1\r\nx\r\n0\r\n\r\n"),
            ("negative chunk size", b"-1\r\nx\r\n0\r\n\r\n"),
            ("chunk size with underscore", b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n"),
            ("space before a chunk size", b" 1\r\nx\r\n0\r\n\r\n"),
            ("space behind a chunk size", b"1 \r\nx\r\n0\r\n\r\n"),
            ("chunk size above 64 bits", b"10000000000000000\r\nx\r\n"),
            ("bare LF behind a chunk size", b"1\nx\r\n0\r\n\r\n"),
            ("bare CR behind a chunk size", b"1\rx\r\n0\r\n\r\n"),
            ("data longer than its chunk", b"1\r\nxy\r\n0\r\n\r\n"),
            ("bare LF behind data", b"1\r\nx\n0\r\n\r\n"),
            ("no CRLF behind data", b"1\r\nx0\r\n\r\n"),
            ("bare LF behind the last chunk", b"0\n\n"),
            ("extension without name", b"1;\r\nx\r\n0\r\n\r\n"),
            ("extension without value", b"1;a=\r\nx\r\n0\r\n\r\n"),
            ("extension with open quote", b'1;a="b\r\nx\r\n0\r\n\r\n'),
            ("extension with bare LF", b"1;a\nx\r\n0\r\n\r\n"),
            ("extension with NUL", b"1;a\0\r\nx\r\n0\r\n\r\n"),
            ("extension too long", b"1;" + b"a" * 300 + b"\r\nx\r\n0\r\n\r\n"),
            ("trailer without colon", b"0\r\nnonsense\r\n\r\n"),
            ("trailer with space before the colon", b"0\r\nX : y\r\n\r\n"),
            ("folded trailer", b"0\r\nX: y\r\n z\r\n\r\n"),
            ("trailer with bare LF", b"0\r\nX: y\n\r\n"),
        )
    ),
    refused("contract: trailers too large", chunked(b"0\r\n" + b"X: %s\r\n" % (b"y" * 900) * 10 + b"\r\n"), 431, whole_only=True),
]  # fmt: skip

LIMITS = [
    served("contract: longest request line", get(b"GET /" + b"x" * 50 + b" HTTP/1.1"), server="small"),
    refused("contract: request line too long", get(b"GET /" + b"x" * 51 + b" HTTP/1.1"), 414, server="small"),
    refused("contract: request line without end", b"GET /" + b"x" * 100, 414, server="small"),
    served("contract: longest field", get(b"GET / HTTP/1.1", b"X: " + b"y" * 77), server="small"),
    refused("contract: field too large", get(b"GET / HTTP/1.1", b"X: " + b"y" * 78), 431, server="small"),
    refused("contract: field without end", get(b"GET / HTTP/1.1")[:-2] + b"X: " + b"y" * 200, 431, server="small"),
    served("contract: most fields", get(b"GET / HTTP/1.1", *[b"X: y"] * 4), server="small"),
    refused("contract: too many fields", get(b"GET / HTTP/1.1", *[b"X: y"] * 5), 431, server="small"),
    refused("contract: dropped fields count", get(b"GET / HTTP/1.1", *[b"X_: y"] * 5), 431, server="small"),
    refused("contract: head too large", get(b"GET / HTTP/1.1", *[b"X%d: %s" % (i, b"y" * 8000) for i in range(9)]), 431, whole_only=True),
    served("contract: largest body", post(b"Content-Length: 1000", body=b"x" * 1000, path=b"/body"), server="small", whole_only=True),
    refused("9110 15.5.14 body too large", post(b"Content-Length: 1001", body=b"x" * 1001), 413, server="small", whole_only=True),
    refused("9110 15.5.14 body too large, not yet sent", post(b"Content-Length: 1001"), 413, server="small"),
    refused("9110 15.5.14 chunks too large together", chunked(b"1F4\r\n" + b"x" * 500 + b"\r\n1F5\r\n"), 413, server="small", whole_only=True),
    refused("9110 15.5.14 one chunk too large", chunked(b"fffffffffffffff0\r\nx"), 413, server="small"),
]  # fmt: skip

KEEPING = [
    served("9112 9.3 1.1 keeps", get()),
    served("9112 9.3 1.1 close", get(b"GET / HTTP/1.1", b"Connection: close"), keeps=False),
    served("9112 9.3 close in a list, in any case", get(b"GET / HTTP/1.1", b"Connection: x, Close"), keeps=False),
    served("9112 9.3 close beats keep-alive", get(b"GET / HTTP/1.1", b"Connection: close", b"Connection: keep-alive"), keeps=False),
    served("9112 9.3 1.0 closes", get(b"GET / HTTP/1.0"), keeps=False),
    served("9112 9.3 1.0 keep-alive", get(b"GET / HTTP/1.0", b"Connection: keep-alive")),
    Case(rule="9112 9.3.2 pipelined requests", sent=get(b"GET /1 HTTP/1.1") + post(b"Content-Length: 3", body=b"abc") + chunked(CHUNKS) + get(b"GET /4 HTTP/1.1"), statuses=(200,) * 4, keeps=True, saw={"PATH_INFO": "/4"}),
    Case(rule="9112 9.3.2 pipelined behind close is not read", sent=get(b"GET / HTTP/1.1", b"Connection: close") + get(b"GET /2 HTTP/1.1"), statuses=(200,), keeps=False, whole_only=True),
    Case(rule="9112 9.6 nothing is read behind a refused request", sent=post(b"Content-Length: x") + get(), statuses=(400,), keeps=False),
    Case(rule="9112 9.3.2 refused behind a good one", sent=get() + b"nonsense\r\n\r\n", statuses=(200, 400), keeps=False),
    served("9112 9.3 client ends its side behind the request", get(), keeps=False, ends=True),
    served("9112 9.3 client ends its side behind a body", post(b"Content-Length: 3", body=b"abc"), {"body": "abc"}, keeps=False, ends=True),
    Case(rule="9112 8 client ends in a head", sent=b"GET / HTTP/1.1\r\nHos", statuses=(), keeps=False, ends=True),
    Case(rule="9112 8 client ends in a body", sent=post(b"Content-Length: 10", body=b"abc"), statuses=(), keeps=False, ends=True),
    Case(rule="9112 8 client ends in a chunk", sent=chunked(b"5\r\nhel"), statuses=(), keeps=False, ends=True),
    Case(rule="9112 8 client ends without a word", sent=b"", statuses=(), keeps=False, ends=True, whole_only=True),
]  # fmt: skip

FORWARDED = [
    served("contract: scheme from a trusted peer", get(b"GET / HTTP/1.1", b"X-Forwarded-Proto: https"), {"wsgi.url_scheme": "https", "HTTP_X_FORWARDED_PROTO": "https"}),
    served("contract: X-Forwarded-Ssl", get(b"GET / HTTP/1.1", b"X-Forwarded-Ssl: on"), {"wsgi.url_scheme": "https"}),
    served("contract: scheme http is told", get(b"GET / HTTP/1.1", b"X-Forwarded-Proto: http"), {"wsgi.url_scheme": "http"}),
    served("contract: address stays the peer's", get(b"GET / HTTP/1.1", b"X-Forwarded-For: 192.0.2.7"), {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "192.0.2.7"}),
    refused("contract: contradicting schemes", get(b"GET / HTTP/1.1", b"X-Forwarded-Proto: https", b"X-Forwarded-Ssl: off")),
    served("contract: scheme from another peer is nothing", get(b"GET / HTTP/1.1", b"X-Forwarded-Proto: https"), {"wsgi.url_scheme": "http"}, server="untrusting"),
    served("contract: name with _ is no scheme", get(b"GET / HTTP/1.1", b"X_Forwarded-Proto: https"), {"wsgi.url_scheme": "http", "HTTP_X_FORWARDED_PROTO": None}),
    served("contract: SCRIPT_NAME of a listed proxy", get(b"GET /shop/cart?a HTTP/1.1", b"SCRIPT_NAME: /shop"), {"SCRIPT_NAME": "/shop", "PATH_INFO": "/cart", "HTTP_SCRIPT_NAME": "/shop"}),
    served("contract: SCRIPT_NAME without the slash at its end", get(b"GET /shop HTTP/1.1", b"Script_Name: /shop/"), {"SCRIPT_NAME": "/shop", "PATH_INFO": ""}),
    served("contract: SCRIPT_NAME beats the option", get(b"GET /other/cart HTTP/1.1", b"SCRIPT_NAME: /other"), {"SCRIPT_NAME": "/other", "PATH_INFO": "/cart"}, server="below"),
    served("contract: path outside of SCRIPT_NAME stays whole", get(b"GET /shopping HTTP/1.1", b"SCRIPT_NAME: /shop"), {"SCRIPT_NAME": "/shop", "PATH_INFO": "/shopping"}),
    served("contract: SCRIPT_NAME that is no path is nothing", get(b"GET /shop/cart HTTP/1.1", b"SCRIPT_NAME: http://evil"), {"SCRIPT_NAME": "", "PATH_INFO": "/shop/cart", "HTTP_SCRIPT_NAME": None}),
    served("contract: SCRIPT_NAME of another peer is nothing", get(b"GET /shop/cart HTTP/1.1", b"SCRIPT_NAME: /shop"), {"SCRIPT_NAME": "", "PATH_INFO": "/shop/cart", "HTTP_SCRIPT_NAME": None}, server="untrusting"),
    served("contract: SCRIPT_NAME is nothing where every peer is trusted", get(b"GET /shop/cart HTTP/1.1", b"SCRIPT_NAME: /shop"), {"SCRIPT_NAME": "", "PATH_INFO": "/shop/cart", "HTTP_SCRIPT_NAME": None}, server="everyone"),
    Case(rule="contract: each request has its own SCRIPT_NAME", sent=get(b"GET /shop/a HTTP/1.1", b"SCRIPT_NAME: /shop") + get(b"GET /shop/a HTTP/1.1"), statuses=(200, 200), keeps=True, saw={"SCRIPT_NAME": "", "PATH_INFO": "/shop/a"}),
    Case(rule="contract: each request has its own scheme", sent=get(b"GET / HTTP/1.1", b"X-Forwarded-Proto: https") + get(), statuses=(200, 200), keeps=True, saw={"wsgi.url_scheme": "http"}),
]  # fmt: skip

CASES = [
    *LINES,
    *REQUEST_LINES,
    *TARGETS,
    *FIELDS,
    *HOSTS,
    *FRAMING,
    *BODIES,
    *LIMITS,
    *KEEPING,
    *FORWARDED,
]
