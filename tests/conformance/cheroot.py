"""The raw requests that cheroot's own published tests hold, with our verdicts.

Named `cheroot:FILE.TEST` after cheroot/test/test_FILE.py of cherrypy/cheroot; written anew from
what they send. What needs more than one round (timeouts, 100-continue) is in test_connections.py.
"""

from __future__ import annotations

from tests.conformance.case import Case, chunked, get, post, refused, served

POV = b"GET /pov HTTP/1.1"
LONG_QUERY = b"&".join(
    [
        b"intervenant-entreprise-evenement_classaction=evenement-mailremerciements",
        b"_path=intervenant-entreprise-evenement",
        b"intervenant-entreprise-evenement_action-id=19404",
        b"intervenant-entreprise-evenement_id=19404",
        b"intervenant-entreprise_id=28092",
    ]
)

CORE = [
    refused("cheroot:core.http_connect_request", get(b"CONNECT /anything HTTP/1.1"), 501, differs="501: no resource here has the method (RFC 9110 9.3.6); cheroot says 405"),
    served("cheroot:core.normal_request", get(b"GET /hello HTTP/1.1"), {"PATH_INFO": "/hello"}),
    served("cheroot:core.query_string_request", get(b"GET /query_string?test=True HTTP/1.1"), {"QUERY_STRING": "test=True"}),
    served("cheroot:core.parse_acceptable_uri", get(b"GET /%D0%AE%D1%85?%D1%97=%D0%B9%D0%BE HTTP/1.1"), {"PATH_INFO": "/Юх".encode().decode("latin-1"), "QUERY_STRING": "%D1%97=%D0%B9%D0%BE"}),
    served("cheroot:core.parse_uri_unsafe_uri", get(b"GET /%A0%D0blah%20key%200%20900%204%20data HTTP/1.1"), {"PATH_INFO": "/\xa0Ðblah key 0 900 4 data"}),
    refused("cheroot:core.parse_uri_invalid_uri", get("GET /йопта! HTTP/1.1".encode())),
    refused("cheroot:core.parse_no_leading_slash_invalid[hello]", get(b"GET hello HTTP/1.1")),
    refused("cheroot:core.parse_no_leading_slash_invalid[quoted]", get(b"GET %D0%BF%D1%80 HTTP/1.1")),
    served("cheroot:core.parse_uri_absolute_uri", get(b"GET http://google.com/ HTTP/1.1"), {"HTTP_HOST": "google.com", "PATH_INFO": "/"}, differs="a server must accept the absolute form (RFC 9112 3.2.2); cheroot refuses it"),
    served("cheroot:core.parse_uri_asterisk_uri", get(b"OPTIONS * HTTP/1.1"), {"REQUEST_METHOD": "OPTIONS"}),
    refused("cheroot:core.parse_uri_fragment_uri", get(b"GET /hello?test=something#fake HTTP/1.1")),
    served("cheroot:core.no_content_length", post(), {"body": ""}),
    served("cheroot:core.content_length_required", post(path=b"/body_required"), {"CONTENT_LENGTH": None}),
    refused("cheroot:core.malformed_request_line[missing proto]", b"GET /\r\n\r\n"),
    refused("cheroot:core.malformed_request_line[invalid proto]", b"GET / HTTPS/1.1\r\n\r\n"),
    refused("cheroot:core.malformed_request_line[invalid version]", b"GET / HTTP/1\r\n\r\n"),
    refused("cheroot:core.malformed_request_line[invalid ver]", b"GET / HTTP/2.15\r\n\r\n", 400, differs="a version is digit.digit (RFC 9112 2.3), so this is malformed; cheroot says 505"),
    served("cheroot:core.malformed_http_method", get(b"GeT /fast-echo HTTP/1.1", b"Content-Type: text/plain"), {"REQUEST_METHOD": "GeT"}, differs="any token is a method (RFC 9110 9.1); cheroot wants upper case"),
    refused("cheroot:core.malformed_header", get(b"GET / HTTP/1.1", b"Content-Type: text/plain", b"Re, 1.2.3.4#015#012")),
    served("cheroot:core.request_line_split_issue_1220", get(b"GET /hello?" + LONG_QUERY + b" HTTP/1.1"), {"QUERY_STRING": LONG_QUERY.decode()}),
    refused("cheroot:core.garbage_in", b"gjkgjklsgjklsgjkljklsg\r\n\r\n"),
]  # fmt: skip

CONN = [
    Case(rule="cheroot:conn.HTTP11_persistent_connections", sent=get(POV) + get(b"GET /page1 HTTP/1.1") + get(b"GET /page2 HTTP/1.1", b"Connection: close"), statuses=(200, 200, 200), keeps=False, saw={"PATH_INFO": "/page2"}),
    served("cheroot:conn.keepalive[1.0]", get(b"GET /page2 HTTP/1.0"), keeps=False),
    served("cheroot:conn.keepalive[1.0 asked for]", get(b"GET /page3 HTTP/1.0", b"Connection: Keep-Alive")),
    Case(rule="cheroot:conn.keepalive[1.0 asked for, then not]", sent=get(b"GET /page3 HTTP/1.0", b"Connection: Keep-Alive") + get(b"GET /page3 HTTP/1.0"), statuses=(200, 200), keeps=False),
    Case(rule="cheroot:conn.broken_connection_during_tcp_fin", sent=b"GET /hello HTTP/1.1Host: a", statuses=(), keeps=False, ends=True),
    Case(rule="cheroot:conn.HTTP11_pipelining", sent=get(b"GET /hello HTTP/1.1") + b"".join(get(b"GET /hello?%d HTTP/1.1" % n) for n in range(5)), statuses=(200,) * 6, keeps=True, saw={"QUERY_STRING": "4"}),
    refused("cheroot:conn.Chunked_Encoding", post(b"Transfer-Encoding: chunked", b"Trailer: Content-Type", b"Content-Length: 3", body=b"8;key=value\r\nxx\r\nxxxx\r\n5\r\nyyyyy\r\n0\r\nContent-Type: application/json\r\n\r\n"), differs="length and encoding together are refused (RFC 9112 6.3); cheroot ignores the length"),
    served("cheroot:conn.Chunked_Encoding[without length]", post(b"Transfer-Encoding: chunked", b"Trailer: Content-Type", body=b"8;key=value\r\nxx\r\nxxxx\r\n5\r\nyyyyy\r\n0\r\nContent-Type: application/json\r\n\r\n"), {"body": "xx\r\nxxxxyyyyy", "CONTENT_TYPE": None}),
    served("cheroot:conn.Chunked_Encoding[3e3]", chunked(b"\r\n".join((b"3e3", b"x" * 995, b"0", b"", b"")), path=b"/body"), server="small", differs="the limit counts the data alone; cheroot counts sizes and trailers too and says 413"),
    refused("cheroot:conn.Content_Length_in", post(b"Content-Type: text/plain", b"Content-Length: 9999"), 413, server="small"),
    refused("cheroot:conn.Content_Length_not_int", post(b"Content-Type: text/plain", b"Content-Length: not-an-integer")),
    refused("cheroot:conn.No_CRLF[LF LF]", b"GET /hello HTTP/1.1\n\n"),
    refused("cheroot:conn.No_CRLF[CRLF LF]", b"GET /hello HTTP/1.1\r\n\n"),
]  # fmt: skip

CASES = [*CORE, *CONN]
