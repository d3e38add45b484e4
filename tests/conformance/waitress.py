"""The raw requests that waitress's own published tests hold, with our verdicts.

Named `waitress:FILE.TEST` after tests/test_FILE.py of Pylons/waitress; written anew from what
they send. Many of them use HTTP/8.4 or leave Host out in HTTP/1.1, where waitress does not look:
here they have HTTP/1.1 and Host where that is not what they are about, and the bare form is a
case of its own.
"""

from __future__ import annotations

from tests.conformance.case import Case, chunked, get, post, refused, served

S32 = b"This string has 32 characters.\r\n"
FOLD = "obs-fold is refused (RFC 9112 5.2 lets a server choose), waitress unfolds it"
CHUNKED_29 = b"1d\r\nThis string has 29 characters\r\n0\r\n\r\n"


def old(first: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    """A request without Host, as HTTP/1.0 allows."""
    return first + b"\r\n" + b"".join(line + b"\r\n" for line in fields) + b"\r\n" + body


PARSER = [
    refused("waitress:parser.received_get_no_headers", b"HTTP/1.0 GET /foobar\r\n\r\n", differs="waitress reads this as HTTP/0.9"),
    refused("waitress:parser.received_bad_host_header", b"HTTP/1.0 GET /foobar\r\n Host: foo\r\n\r\n"),
    refused("waitress:parser.received_duplicate_host_header", b"GET / HTTP/1.1\r\nHOST: test1.com\r\nHost: test2.com\r\n\r\n"),
    refused("waitress:parser.received_duplicate_content_length_header", get(b"GET / HTTP/1.1", b"Content-Length: 10", b"Content-Length: 20")),
    refused("waitress:parser.received_duplicate_content_type_header", get(b"GET / HTTP/1.1", b"Content-Type: text/plain", b"Content-Type: text/html")),
    refused("waitress:parser.received_bad_transfer_encoding", get(b"GET /foobar HTTP/1.1", b"Transfer-Encoding: foo", body=b"1d;\r\n"), 400, differs="RFC 9112 6.3: a last coding that is not chunked is 400; waitress says 501"),
    Case(rule="waitress:parser.received_nonsense_nothing", sent=b"\r\n\r\n", statuses=(400,), keeps=False, differs="more than one empty line is refused; waitress skips them"),
    refused("waitress:parser.received_no_doublecr", b"GET /foobar HTTP/8.4\r\n", 505, differs="the version is judged when its line is complete; waitress takes any"),
    refused("waitress:parser.received_cl_too_large", post(b"Content-Length: 10000"), 413, server="small"),
    served("waitress:parser.received_headers_not_too_large_multiple_chunks", get(b"GET /foobar HTTP/1.1", b"X-Foo: 1", b"X-Foo-Other: 3"), {"HTTP_X_FOO": "1", "HTTP_X_FOO_OTHER": "3"}),
    refused("waitress:parser.received_headers_too_large", get(b"GET /foobar HTTP/1.1", b"X-Foo: " + b"1" * 100), 431, server="small"),
    refused("waitress:parser.received_body_too_large", chunked(b"3e9\r\nThis string"), 413, server="small"),
    refused("waitress:parser.received_error_from_parser", chunked(b"garbage\r\n")),
    served("waitress:parser.received_chunked_completed_sets_content_length", chunked(CHUNKED_29), {"body": "This string has 29 characters"}),
    served("waitress:parser.parse_header_gardenpath", get(b"GET /foobar HTTP/1.1", b"foo: bar"), {"HTTP_FOO": "bar"}),
    Case(rule="waitress:parser.parse_header_no_cr_in_headerplus", sent=b"GET /foobar HTTP/8.4", statuses=(), keeps=False, ends=True),
    refused("waitress:parser.parse_header_bad_content_length", post(b"content-length: abc")),
    refused("waitress:parser.parse_header_bad_content_length_plus", post(b"content-length: +10")),
    refused("waitress:parser.parse_header_bad_content_length_minus", post(b"content-length: -10")),
    refused("waitress:parser.parse_header_multiple_content_length", post(b"content-length: 10", b"content-length: 20")),
    served("waitress:parser.parse_header_11_te_chunked", post(b"transfer-encoding: ChUnKed", body=CHUNKED_29)),
    refused("waitress:parser.parse_header_11_te_chunked_with_cl_close_connection", post(b"transfer-encoding: chunked", b"content-length: 10", body=CHUNKED_29), differs="refused at once (RFC 9112 6.3 allows both); waitress serves it and closes"),
    refused("waitress:parser.parse_header_transfer_encoding_invalid", post(b"transfer-encoding: gzip"), differs="RFC 9112 6.3: a last coding that is not chunked is 400; waitress says 501"),
    refused("waitress:parser.parse_header_transfer_encoding_invalid_multiple", post(b"transfer-encoding: gzip", b"transfer-encoding: chunked"), differs="more than one field is malformed here; waitress says 501"),
    refused("waitress:parser.parse_header_transfer_encoding_invalid_multiple_chunked", post(b"transfer-encoding: chunked", b"transfer-encoding: chunked"), differs="malformed is 400; waitress says 501"),
    refused("waitress:parser.parse_header_transfer_encoding_invalid_whitespace", post(b"Transfer-Encoding:\x85chunked"), differs="malformed is 400; waitress says 501"),
    refused("waitress:parser.parse_header_transfer_encoding_invalid_unicode", post(b"Transfer-Encoding: chun\xe2\x84\xaaed"), differs="malformed is 400; waitress says 501"),
    served("waitress:parser.parse_header_11_expect_continue", get(b"GET /foobar HTTP/1.1", b"expect: 100-continue")),
    served("waitress:parser.parse_header_connection_close", get(b"GET /foobar HTTP/1.1", b"Connection: close"), keeps=False),
    refused("waitress:parser.parse_header_lf_only", b"GET /foobar HTTP/8.4\nfoo: bar"),
    refused("waitress:parser.parse_header_cr_only", b"GET /foobar HTTP/8.4\rfoo: bar"),
    refused("waitress:parser.parse_header_extra_lf_in_header", get(b"GET /foobar HTTP/1.1", b"foo: \nbar")),
    refused("waitress:parser.parse_header_extra_lf_in_first_line", b"GET /foobar\n HTTP/8.4\r\n"),
    refused("waitress:parser.parse_header_invalid_whitespace", get(b"GET /foobar HTTP/1.1", b"foo : bar")),
    refused("waitress:parser.parse_header_invalid_whitespace_vtab", get(b"GET /foobar HTTP/1.1", b"foo:\x0bbar")),
    refused("waitress:parser.parse_header_invalid_no_colon", get(b"GET /foobar HTTP/1.1", b"foo: bar", b"notvalid")),
    refused("waitress:parser.parse_header_invalid_folding_spacing", get(b"GET /foobar HTTP/1.1", b"foo: bar", b"\t\x0bbaz")),
    refused("waitress:parser.parse_header_invalid_chars", get(b"GET /foobar HTTP/1.1", b"foo: bar", b"foo: \x0bbaz")),
    served("waitress:parser.parse_header_other_whitespace", get(b"GET /foobar HTTP/1.1", b"foo: \xa0something\x85"), {"HTTP_FOO": "\xa0something\x85"}),
    served("waitress:parser.parse_header_empty", get(b"GET /foobar HTTP/1.1", b"foo: bar", b"empty:"), {"HTTP_FOO": "bar", "HTTP_EMPTY": ""}),
    served("waitress:parser.parse_header_multiple_values", get(b"GET /foobar HTTP/1.1", b"foo: bar, whatever, more, please, yes"), {"HTTP_FOO": "bar, whatever, more, please, yes"}),
    refused("waitress:parser.parse_header_multiple_values_header_folded", get(b"GET /foobar HTTP/1.1", b"foo: bar, whatever,", b" more, please, yes"), differs=FOLD),
    refused("waitress:parser.parse_header_multiple_values_header_folded_multiple", get(b"GET /foobar HTTP/1.1", b"foo: bar, whatever,", b" more", b"foo: please, yes"), differs=FOLD),
    served("waitress:parser.parse_header_multiple_values_extra_space", get(b"GET /foobar HTTP/1.1", b"foo: abrowser/0.001 (C O M M E N T)"), {"HTTP_FOO": "abrowser/0.001 (C O M M E N T)"}),
    refused("waitress:parser.parse_header_invalid_backtrack_bad", get(b"GET /foobar HTTP/1.1", b"foo: bar", b"foo: " + b"x" * 35 + b"\x10")),
    served("waitress:parser.parse_header_short_values", get(b"GET /foobar HTTP/1.1", b"one: 1", b"two: 22"), {"HTTP_ONE": "1", "HTTP_TWO": "22"}),
]  # fmt: skip

TARGETS = [
    refused("waitress:parser.split_uri_unquoting_unneeded", get(b"GET http://localhost:8080/abc def HTTP/1.1")),
    served("waitress:parser.split_uri_unquoting_needed", get(b"GET http://localhost:8080/abc%20def HTTP/1.1"), {"PATH_INFO": "/abc def"}),
    served("waitress:parser.split_url_with_query", get(b"GET http://localhost:8080/abc?a=1&b=2 HTTP/1.1"), {"PATH_INFO": "/abc", "QUERY_STRING": "a=1&b=2"}),
    served("waitress:parser.split_url_with_query_empty", get(b"GET http://localhost:8080/abc? HTTP/1.1"), {"PATH_INFO": "/abc", "QUERY_STRING": ""}),
    refused("waitress:parser.split_url_with_fragment", get(b"GET http://localhost:8080/#foo HTTP/1.1"), differs="a target has no fragment (RFC 9112 3.2); waitress splits it off"),
    served("waitress:parser.split_url_https", get(b"GET https://localhost:8080/ HTTP/1.1"), {"PATH_INFO": "/", "HTTP_HOST": "localhost:8080"}),
    refused("waitress:parser.split_uri_unicode_error_raises_parsing_error", get(b"GET /\xd0 HTTP/1.1")),
    served("waitress:parser.split_uri_path", get(b"GET //testing/whatever HTTP/1.1"), {"PATH_INFO": "//testing/whatever", "QUERY_STRING": ""}),
    served("waitress:parser.split_uri_path_query", get(b"GET //testing/whatever?a=1&b=2 HTTP/1.1"), {"PATH_INFO": "//testing/whatever", "QUERY_STRING": "a=1&b=2"}),
    refused("waitress:parser.split_uri_path_query_fragment", get(b"GET //testing/whatever?a=1&b=2#fragment HTTP/1.1"), differs="a target has no fragment (RFC 9112 3.2); waitress splits it off"),
    refused("waitress:parser.get_header_lines_folded", get(b"GET / HTTP/1.1", b"slim: x", b" slam"), differs=FOLD),
    refused("waitress:parser.get_header_lines_tabbed", get(b"GET / HTTP/1.1", b"slam: x", b"\tslim"), differs=FOLD),
    refused("waitress:parser.get_header_lines_malformed", b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n"),
    served("waitress:parser.crack_first_line_matchok", old(b"GET / HTTP/1.0"), {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.0"}, keeps=False),
    served("waitress:parser.crack_first_line_lowercase_method", old(b"get /fast-echo HTTP/1.0"), {"REQUEST_METHOD": "get"}, keeps=False, differs="methods have a case and any token is one (RFC 9110 9.1); the app refuses what it does not know"),
    refused("waitress:parser.crack_first_line_nomatch", get(b"GET / bleh")),
    refused("waitress:parser.crack_first_line_nomatch_rtsp", get(b"GET /info?txtAirPlay&txtRAOP RTSP/1.0")),
    refused("waitress:parser.crack_first_line_missing_version", get(b"GET /"), differs="waitress reads this as HTTP/0.9"),
    refused("waitress:parser.crack_first_line_bad_method", get(b"GE\x00 /foobar HTTP/1.1")),
    refused("waitress:parser.crack_first_line_bad_version", get(b"GET /foobar HTTP/.1.")),
    served("waitress:parser.simple_get", get(b"GET /foobar HTTP/1.1", b"FirstName: mickey", b"lastname: Mouse", b"content-length: 6", body=b"Hello."), {"HTTP_FIRSTNAME": "mickey", "HTTP_LASTNAME": "Mouse", "CONTENT_LENGTH": "6", "body": "Hello."}),
    refused("waitress:parser.simple_get_version", get(b"GET /foobar HTTP/8.4"), 505, differs="waitress takes any version"),
    Case(rule="waitress:parser.complex_get", sent=get(b"GET /foo/a+%2B%2F%C3%A4%3D%26a%3Aint?d=b+%2B%2F%3D%26b%3Aint&c+%2B%2F%3D%26c%3Aint=6 HTTP/1.1", b"content-length: 10", body=b"Hello mickey."), statuses=(200,), keeps=False, ends=True, saw={"PATH_INFO": "/foo/a++/Ã¤=&a:int", "QUERY_STRING": "d=b+%2B%2F%3D%26b%3Aint&c+%2B%2F%3D%26c%3Aint=6", "body": "Hello mick"}),
    served("waitress:parser.proxy_get", get(b"GET https://example.com:8080/foobar HTTP/1.1", b"content-length: 6", body=b"Hello."), {"PATH_INFO": "/foobar", "HTTP_HOST": "example.com:8080", "body": "Hello."}),
    served("waitress:parser.duplicate_headers", get(b"GET /foobar HTTP/1.1", b"x-forwarded-for: 10.11.12.13", b"x-forwarded-for: unknown,127.0.0.1", b"X-Forwarded_for: 255.255.255.255"), {"HTTP_X_FORWARDED_FOR": "10.11.12.13,unknown,127.0.0.1"}, differs="repeats are joined by a comma alone, as in gunicorn; waitress adds a space"),
    served("waitress:parser.spoofed_headers_dropped", get(b"GET /foobar HTTP/1.1", b"x-auth_user: bob"), {"HTTP_X_AUTH_USER": None}),
    served("waitress:parser.unquote_highorder", get(b"GET /a%C5%9B HTTP/1.1"), {"PATH_INFO": "/aÅ\x9b"}),
]  # fmt: skip

RECEIVER = [
    Case(rule="waitress:receiver.fixed_remain_lte_datalen", sent=post(b"Content-Length: 1", body=b"aa"), statuses=(200,), keeps=False, ends=True, saw={"body": "a"}),
    Case(rule="waitress:receiver.fixed_remain_gt_datalen", sent=post(b"Content-Length: 10", body=b"aa"), statuses=(), keeps=False, ends=True),
    refused("waitress:receiver.control_line_too_long", chunked(b"a" * 1025)),
    refused("waitress:receiver.control_line_too_long_with_crlf", chunked(b"a" * 1025 + b"\r\n")),
    refused("waitress:receiver.control_line_finished_garbage_in_input", chunked(b"garbage\r\n")),
    served("waitress:receiver.control_line_with_extension", chunked(b"a;discard\r\n0123456789\r\n0;discard\r\n\r\n"), {"body": "0123456789"}),
    served("waitress:receiver.trailer_startswith_crlf", chunked(b"0\r\n\r\n"), {"body": ""}),
    refused("waitress:receiver.trailer_startswith_lf", chunked(b"0\r\n\n"), differs="a bare LF is refused at once; waitress waits for CRLF"),
    refused("waitress:receiver.trailer_too_long", chunked(b"0\r\nx: " + b"x" * 65536), 431, whole_only=True, differs="431 names what is too large; waitress says 400"),
    refused("waitress:receiver.trailer_finished", chunked(b"0\r\nabc\r\n\r\n"), differs="a trailer without colon is no field; waitress does not look"),
    served("waitress:receiver.chunk_is_properly_terminated", chunked(b"4\r\nWiki\r\n0\r\n\r\n"), {"body": "Wiki"}),
    refused("waitress:receiver.chunk_not_properly_terminated", chunked(b"4\r\nWikibadchunk\r\n")),
    served("waitress:receiver.multiple_chunks", chunked(b"4\r\nWiki\r\n5\r\npedia\r\nE\r\n in\r\n\r\nchunks.\r\n0\r\n\r\n"), {"body": "Wikipedia in\r\n\r\nchunks."}),
    *(
        refused(f"waitress:receiver.invalid_extensions[{extension!r}]", chunked(b"4;" + extension + b"\r\ntest\r\n0\r\n\r\n"))
        for extension in (b"\n", b"invalid=", b"\r")
    ),
    served("waitress:receiver.invalid_extensions[b'invalid = true']", chunked(b"4;invalid = true\r\ntest\r\n0\r\n\r\n"), {"body": "test"}, differs="bad white space is to be read (RFC 9112 7.1.1); waitress refuses it"),
    *(
        served(f"waitress:receiver.valid_extensions[{extension!r}]", chunked(b"4;" + extension + b"\r\ntest\r\n0\r\n\r\n"), {"body": "test"})
        for extension in (b"test", b"valid=true", b"valid=true;other=true")
    ),
    refused("waitress:receiver.chunk_size_hex_too_long", chunked(b"f" * 17 + b"\r\n")),
    *(
        refused(f"waitress:receiver.invalid_size[{size!r}]", chunked(size + b"\r\ntest\r\n0\r\n\r\n"))
        for size in (b"0x04", b"+0x04", b"x04", b"+04", b" 04", b" 0x04")
    ),
]  # fmt: skip

LENGTH_5 = b"Content-Length: 5"
KEEP = b"Connection: Keep-Alive"

FUNCTIONAL = [
    served("waitress:functional.date_and_server", old(b"GET / HTTP/1.0", b"Content-Length: 0"), keeps=False),
    refused("waitress:functional.bad_host_header", b"GET / HTTP/1.0\r\n Host: 0\r\n\r\n"),
    served("waitress:functional.send_with_body", old(b"GET / HTTP/1.0", LENGTH_5, body=b"hello"), {"CONTENT_LENGTH": "5", "body": "hello"}, keeps=False),
    served("waitress:functional.send_empty_body", old(b"GET / HTTP/1.0", b"Content-Length: 0"), {"CONTENT_LENGTH": "0", "body": ""}, keeps=False),
    served("waitress:functional.without_crlf", old(b"GET / HTTP/1.0", b"Connection: close", b"Content-Length: 18", body=b"Echo\r\nthis\r\nplease"), {"body": "Echo\r\nthis\r\nplease"}, keeps=False),
    served("waitress:functional.large_body", old(b"GET / HTTP/1.0", b"Content-Length: 1024", body=S32 * 32), {"body": (S32 * 32).decode()}, keeps=False),
    refused("waitress:functional.chunking_request_without_host", old(b"GET / HTTP/1.1", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), differs="HTTP/1.1 needs Host (RFC 9112 3.2); waitress does not look"),
    served("waitress:functional.chunking_request_without_content", get(b"GET / HTTP/1.1", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), {"body": ""}),
    served("waitress:functional.chunking_request_with_content", get(b"GET / HTTP/1.1", b"Transfer-Encoding: chunked", body=(b"20\r\n" + S32 + b"\r\n") * 12 + b"0\r\n\r\n"), {"body": (S32 * 12).decode()}),
    refused("waitress:functional.broken_chunked_encoding", chunked(b"20\r\n" + S32 + b"\r\ngarbage\r\n")),
    refused("waitress:functional.broken_chunked_encoding_invalid_hex", chunked(b"0x20\r\n" + S32 + b"\r\n")),
    refused("waitress:functional.broken_chunked_encoding_invalid_extension", chunked(b"20;invalid=\r\n" + S32 + b"\r\n")),
    refused("waitress:functional.broken_chunked_encoding_missing_chunk_end", chunked(b"20\r\n" + S32 + b"garbage")),
    served("waitress:functional.keepalive_http_10", old(b"GET / HTTP/1.0", b"Content-Length: 28", body=b"Default: Don't keep me alive"), keeps=False),
    served("waitress:functional.keepalive_http10_explicit", old(b"GET / HTTP/1.0", KEEP, b"Content-Length: 13", body=b"Keep me alive")),
    served("waitress:functional.keepalive_http_11", get(b"GET / HTTP/1.1", b"Content-Length: 22", body=b"Default: Keep me alive")),
    served("waitress:functional.keepalive_http11_explicit", get(b"GET / HTTP/1.1", b"Connection: keep-alive", b"Content-Length: 22", body=b"Default: Keep me alive")),
    served("waitress:functional.keepalive_http11_connclose", get(b"GET / HTTP/1.1", b"Connection: close", b"Content-Length: 19", body=b"Don't keep me alive"), keeps=False),
    served("waitress:functional.proxy_headers", old(b"GET / HTTP/1.0", b"Content-Length: 0", b"Host: www.google.com:8080", b"X-Forwarded-For: 192.168.1.1", b"X-Forwarded-Proto: https", b"X-Forwarded-Port: 5000"), {"HTTP_HOST": "www.google.com:8080", "wsgi.url_scheme": "https", "REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_PORT": "5000"}, keeps=False, differs="REMOTE_ADDR stays the peer's and fields are passed on, as in gunicorn; waitress can be set to replace and clear them"),
    Case(rule="waitress:functional.pipelining", sent=b"".join(old(b"GET / HTTP/1.0", b"Connection: " + (b"close" if n == 25 else b"keep-alive"), b"Content-Length: 14", body=b"Response #%02d\r\n" % n) for n in range(1, 26)), statuses=(200,) * 25, keeps=False, saw={"body": "Response #25\r\n"}),
    refused("waitress:functional.request_headers_too_large_http11", get(b"GET / HTTP/1.1", *[b"X-Random-Header: 100"] * 52), 431, server="small"),
    Case(rule="waitress:functional.request_body_too_large_with_wrong_cl_http10", sent=old(b"GET / HTTP/1.0", LENGTH_5, body=b"a" * 1050), statuses=(200,), keeps=False, server="small", whole_only=True),
    Case(rule="waitress:functional.request_body_too_large_with_wrong_cl_http10_keepalive", sent=old(b"GET / HTTP/1.0", LENGTH_5, KEEP, body=b"a" * 1050), statuses=(200, 414), keeps=False, server="small", differs="the rest is a request line that is too long: 414; waitress says 431"),
    Case(rule="waitress:functional.request_body_too_large_with_no_cl_http10", sent=old(b"GET / HTTP/1.0", body=b"a" * 1050), statuses=(200,), keeps=False, server="small", whole_only=True),
    Case(rule="waitress:functional.request_body_too_large_with_no_cl_http10_keepalive", sent=old(b"GET / HTTP/1.0", KEEP, body=b"a" * 1050), statuses=(200, 414), keeps=False, server="small", differs="414, as above"),
    Case(rule="waitress:functional.request_body_too_large_with_wrong_cl_http11", sent=get(b"GET / HTTP/1.1", LENGTH_5, body=b"a" * 1050), statuses=(200, 414), keeps=False, server="small", differs="414, as above"),
    Case(rule="waitress:functional.request_body_too_large_with_wrong_cl_http11_connclose", sent=get(b"GET / HTTP/1.1", LENGTH_5, b"Connection: close", body=b"a" * 1050), statuses=(200,), keeps=False, server="small", whole_only=True),
    Case(rule="waitress:functional.request_body_too_large_with_no_cl_http11", sent=get(b"GET / HTTP/1.1", body=b"a" * 1050), statuses=(200, 414), keeps=False, server="small", differs="414, as above"),
    Case(rule="waitress:functional.request_body_too_large_with_no_cl_http11_connclose", sent=get(b"GET / HTTP/1.1", b"Connection: close", body=b"a" * 1050), statuses=(200,), keeps=False, server="small", whole_only=True),
    refused("waitress:functional.request_body_too_large_chunked_encoding", chunked((b"20\r\n" + S32 + b"\r\n") * 32), 413, server="small"),
    refused("waitress:functional.request_body_too_large_chunked_encoding_as_sent", chunked((b"20;\r\n" + S32) * 32), 400, differs="`;` without a name is no extension, and CRLF behind data is missing: malformed before it is too large"),
]  # fmt: skip

CASES = [*PARSER, *TARGETS, *RECEIVER, *FUNCTIONAL]
