//! A slow parser and decoder that follow the grammar one rule at a time: what the fast ones are
//! compared with. Shares no code with them.

use prefork_core::{Framing, Head, Limits, Reject};

/// All that may be read of a head, as text.
pub fn describe(head: &Head, buf: &[u8], end: usize) -> String {
    let fields: Vec<_> =
        head.fields.iter().map(|field| (field.name.of(buf), field.value.of(buf))).collect();
    facts(
        end,
        head.method_name.of(buf),
        head.path(buf),
        head.query.of(buf),
        (head.minor, head.framing, head.keep_alive, head.expects_continue),
        head.host.of(buf),
        &fields,
    )
}

fn facts(
    end: usize,
    method: &[u8],
    path: &[u8],
    query: &[u8],
    message: (u8, Framing, bool, bool),
    host: &[u8],
    fields: &[(&[u8], &[u8])],
) -> String {
    let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let fields: Vec<_> =
        fields.iter().map(|(name, value)| format!("{}={}", show(name), show(value))).collect();
    format!(
        "{end} {} {} ? {} {message:?} {} {fields:?}",
        show(method),
        show(path),
        show(query),
        show(host)
    )
}

/// As `head::parse`, with the description of what was read.
pub fn parse(input: &[u8], limits: &Limits) -> Result<Option<String>, Reject> {
    let mut lines = Vec::new();
    let mut at = 0;
    let mut request = None;
    let mut skipped = 0;
    loop {
        let Some(line) = next_line(input, at, request.is_none(), limits)? else {
            return Ok(None);
        };
        at += line.len() + 2;
        match (&request, line) {
            (None, b"") if skipped == 1 => return Err(Reject::LeadingLines),
            (None, b"") => skipped += 1,
            (None, line) => request = Some(request_line(line)?),
            (Some(_), b"") => break,
            (Some(_), line) => {
                if lines.len() == limits.request_fields {
                    return Err(Reject::TooManyFields);
                }
                lines.push(field(line, &lines)?);
            }
        }
    }
    let (method, target, minor) = request.expect("the loop ends behind a request line");
    let (authority, path, query) = target;
    let value = |name: &str| {
        let mut lines = lines.iter();
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| *value)
    };
    let framing = framing(value("content-length"), value("transfer-encoding"), minor)?;
    let options: Vec<_> = lines
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"))
        .flat_map(|(_, value)| value.split(|&b| b == b','))
        .map(|option| option.trim_ascii().to_ascii_lowercase())
        .collect();
    let has = |option: &[u8]| options.iter().any(|o| o == option);
    let keep_alive = if has(b"close") { false } else { minor == 1 || has(b"keep-alive") };
    let has_body = !matches!(framing, Framing::None | Framing::Length(0));
    let expects = value("expect").is_some() && minor == 1 && has_body;
    let host = value("host");
    if minor == 1 && host.is_none() {
        return Err(Reject::HostMissing);
    }
    let host = authority.or(host).unwrap_or(b"");
    let seen: Vec<(&[u8], &[u8])> = lines
        .iter()
        .filter(|(name, _)| !name.contains(&b'_'))
        .map(|&(name, value)| (name, if name.eq_ignore_ascii_case(b"host") { host } else { value }))
        .collect();
    let message = (minor, framing, keep_alive, expects);
    Ok(Some(facts(at, method, path, query, message, host, &seen)))
}

/// The line that begins at `at`, without CRLF; bytes are judged one after the other.
fn next_line<'a>(
    input: &'a [u8],
    at: usize,
    is_first: bool,
    limits: &Limits,
) -> Result<Option<&'a [u8]>, Reject> {
    let longest = if is_first { limits.request_line } else { limits.request_field_size };
    let mut i = at;
    loop {
        if i - at > longest && at + longest <= limits.head_bytes - 2 {
            return Err(if is_first { Reject::RequestLineTooLong } else { Reject::FieldTooLarge });
        }
        if i > limits.head_bytes - 2 {
            return Err(Reject::HeadTooLarge);
        }
        match (input.get(i), input.get(i + 1)) {
            (None, _) | (Some(b'\r'), None) => return Ok(None),
            (Some(b'\r'), Some(b'\n')) => return Ok(Some(&input[at..i])),
            (Some(b'\r'), Some(_)) => return Err(Reject::BareCr),
            (Some(b'\n'), _) => return Err(Reject::BareLf),
            (Some(0..=8 | 10..=31 | 127), _) => return Err(Reject::ControlCharacter),
            _ => i += 1,
        }
    }
}

fn is_tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char::from(b))
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| b < 128 && is_tchar(b))
}

type Target<'a> = (Option<&'a [u8]>, &'a [u8], &'a [u8]);

fn request_line(line: &[u8]) -> Result<(&[u8], Target<'_>, u8), Reject> {
    let space = line.iter().position(|&b| b == b' ').ok_or(Reject::RequestLine)?;
    let (method, rest) = (&line[..space], &line[space + 1..]);
    if !is_token(method) {
        return Err(Reject::Method);
    }
    if method == b"CONNECT" || method.len() > 32 {
        return Err(Reject::MethodNotImplemented);
    }
    if rest.len() < 9 || rest[rest.len() - 9] != b' ' {
        return Err(Reject::RequestLine);
    }
    let (target, version) = rest.split_at(rest.len() - 9);
    let version = std::str::from_utf8(&version[1..]).map_err(|_| Reject::Version)?;
    let numbers = version.strip_prefix("HTTP/").ok_or(Reject::Version)?.as_bytes();
    let minor = match numbers {
        [b'1', b'.', b'0'] => 0,
        [b'1', b'.', b'1'..=b'9'] => 1,
        [b'0'..=b'9', b'.', b'0'..=b'9'] => return Err(Reject::VersionNotSupported),
        _ => return Err(Reject::Version),
    };
    Ok((method, self::target(target, method)?, minor))
}

fn target<'a>(target: &'a [u8], method: &[u8]) -> Result<Target<'a>, Reject> {
    if target == b"*" && method == b"OPTIONS" {
        return Ok((None, target, b""));
    }
    let lower = target.to_ascii_lowercase();
    let scheme =
        [&b"http://"[..], b"https://"].into_iter().find(|scheme| lower.starts_with(scheme));
    let (authority, rest) = match scheme {
        _ if target.starts_with(b"/") => (None, target),
        None => return Err(Reject::Target),
        Some(scheme) => {
            let rest = &target[scheme.len()..];
            let end = rest.iter().position(|&b| b == b'/' || b == b'?').unwrap_or(rest.len());
            if !is_host(&rest[..end]) {
                return Err(Reject::Host);
            }
            (Some(&rest[..end]), &rest[end..])
        }
    };
    let (path, query) = match rest.iter().position(|&b| b == b'?') {
        Some(mark) => (&rest[..mark], &rest[mark + 1..]),
        None => (rest, &b""[..]),
    };
    // Both are refused; which of the two is named depends on what comes first.
    let nul = path.windows(3).position(|w| w == b"%00");
    let bad = rest.iter().position(|&b| b <= b' ' || b == b'#' || b > 0x7f);
    match (nul, bad) {
        (Some(nul), Some(bad)) if nul < bad => Err(Reject::PathNul),
        (Some(_), None) => Err(Reject::PathNul),
        (_, Some(_)) => Err(Reject::Target),
        (None, None) => Ok((authority, if path.is_empty() { b"/" } else { path }, query)),
    }
}

fn is_host(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else {
        return false;
    };
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    let is_name = |name: &str| {
        let marks = "-._~!$&'()*+,;=%";
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || marks.contains(c))
    };
    if let Some((address, port)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        let is_port_part = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return address.parse::<std::net::Ipv6Addr>().is_ok() && is_port_part;
    }
    match text.split_once(':') {
        Some((name, port)) => is_name(name) && is_port(port),
        None => is_name(text),
    }
}

fn field<'a>(line: &'a [u8], before: &[(&[u8], &[u8])]) -> Result<(&'a [u8], &'a [u8]), Reject> {
    let colon = line.iter().position(|&b| b == b':');
    let name = &line[..colon.unwrap_or(line.len())];
    if colon.is_none() || !is_token(name) {
        let is_space = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
        return Err(match () {
            () if is_space(name.first()) => Reject::ObsFold,
            () if is_space(name.last()) => Reject::SpaceBeforeColon,
            () => Reject::FieldName,
        });
    }
    let value = line[name.len() + 1..].trim_ascii();
    let is_repeat = before.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    match (name.to_ascii_lowercase().as_slice(), is_repeat) {
        (b"host", true) => Err(Reject::HostRepeated),
        (b"host", false) if !is_host(value) => Err(Reject::Host),
        (b"content-length", true) => Err(Reject::ContentLengthRepeated),
        (b"content-length", false) if length(value).is_none() => Err(Reject::ContentLength),
        (b"content-type", true) => Err(Reject::ContentTypeRepeated),
        (b"transfer-encoding", true) => Err(Reject::TransferEncoding),
        (b"expect", _) if !value.eq_ignore_ascii_case(b"100-continue") => Err(Reject::Expectation),
        _ => Ok((name, value)),
    }
}

fn length(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()
}

fn framing(length: Option<&[u8]>, encoding: Option<&[u8]>, minor: u8) -> Result<Framing, Reject> {
    let Some(encoding) = encoding else {
        return Ok(length.and_then(self::length).map_or(Framing::None, Framing::Length));
    };
    if length.is_some() {
        return Err(Reject::LengthAndEncoding);
    }
    if minor == 0 {
        return Err(Reject::TransferEncodingVersion);
    }
    let lower = encoding.to_ascii_lowercase();
    let codings: Vec<_> = lower.split(|&b| b == b',').map(<[u8]>::trim_ascii).collect();
    let chunked = codings.iter().filter(|coding| **coding == b"chunked").count();
    let is_sound = codings.iter().all(|coding| is_token(coding));
    match codings.last() {
        Some(&b"chunked") if codings.len() == 1 => Ok(Framing::Chunked),
        Some(&b"chunked") if chunked == 1 && is_sound => {
            Err(Reject::TransferEncodingNotImplemented)
        }
        _ => Err(Reject::TransferEncoding),
    }
}

/// The data of a complete chunked body and where it ends; `None` if it is malformed, too large or
/// not complete.
pub fn decode(input: &[u8], limit_bytes: u64) -> Option<(Vec<u8>, usize)> {
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let line = crlf_line(input, at)?;
        at += line.len() + 2;
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let size = u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
        is_extensions(&line[digits..]).then_some(())?;
        if size == 0 {
            break;
        }
        if size > limit_bytes - data.len() as u64 {
            return None;
        }
        let end = at + usize::try_from(size).ok()?;
        data.extend_from_slice(input.get(at..end)?);
        (input.get(end..end + 2)? == b"\r\n").then_some(())?;
        at = end + 2;
    }
    loop {
        let line = crlf_line(input, at)?;
        at += line.len() + 2;
        if line.is_empty() {
            return Some((data, at));
        }
        let colon = line.iter().position(|&b| b == b':')?;
        is_token(&line[..colon]).then_some(())?;
    }
}

/// Up to the first CR or LF, which must be CRLF; no other control character but TAB.
fn crlf_line(input: &[u8], at: usize) -> Option<&[u8]> {
    let rest = input.get(at..)?;
    let end = rest.iter().position(|&b| (b < b' ' && b != b'\t') || b == 127)?;
    rest[end..].starts_with(b"\r\n").then(|| &rest[..end])
}

/// `*( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] )`
fn is_extensions(mut text: &[u8]) -> bool {
    fn space(text: &[u8]) -> &[u8] {
        let len = text.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        &text[len..]
    }
    fn token(text: &[u8]) -> Option<&[u8]> {
        let len = text.iter().take_while(|&&b| b < 128 && is_tchar(b)).count();
        (len > 0).then(|| &text[len..])
    }
    fn quoted(text: &[u8]) -> Option<&[u8]> {
        let mut at = 1;
        loop {
            match text.get(at)? {
                b'"' => return Some(&text[at + 1..]),
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
    }
    while !text.is_empty() {
        let Some(rest) = space(text).strip_prefix(b";").and_then(|rest| token(space(rest))) else {
            return false;
        };
        text = match space(rest).strip_prefix(b"=").map(space) {
            None => rest,
            Some(value) => {
                match if value.starts_with(b"\"") { quoted(value) } else { token(value) } {
                    Some(rest) => rest,
                    None => return false,
                }
            }
        };
    }
    true
}

/// What a client reads of the bytes of one response.
pub struct ReadResponse {
    /// Where the head ends.
    pub head_end: usize,
    /// The body's data.
    pub body: Vec<u8>,
    /// The body's end is known without the connection's.
    pub is_self_delimiting: bool,
    /// All that was promised is there.
    pub is_complete: bool,
}

/// Reads one response (RFC 9112 §6.3), all of `bytes`; panics where a client could read anything else from it.
pub fn read_response(bytes: &[u8], is_head: bool) -> ReadResponse {
    let head_end =
        bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("no end of head") + 4;
    let mut lines = Vec::new();
    let mut rest = &bytes[..head_end - 4];
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    let status_line = lines.remove(0);
    assert!(status_line.starts_with(b"HTTP/1.1 ") && status_line[12] == b' ', "status line");
    let code: u16 = std::str::from_utf8(&status_line[9..12]).unwrap().parse().unwrap();
    let (mut length, mut is_chunked) = (None, false);
    assert!(!status_line.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')));
    for line in lines {
        let colon = line.iter().position(|&byte| byte == b':').expect("no colon in a field");
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        assert!(!name.is_empty() && name.iter().all(|&b| b.is_ascii_graphic()), "name of a field");
        assert!(!value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')), "value of a field");
        if name.eq_ignore_ascii_case(b"content-length") {
            assert_eq!(length, None, "two lengths");
            length = Some(std::str::from_utf8(value).unwrap().parse::<usize>().unwrap());
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            assert!(!is_chunked && value == b"chunked", "transfer coding");
            is_chunked = true;
        }
    }
    assert!(!is_chunked || length.is_none(), "both length and chunks");
    let body = &bytes[head_end..];
    if is_head || matches!(code, 204 | 304) {
        assert!(body.is_empty(), "a body where none may be");
        return ReadResponse {
            head_end,
            body: Vec::new(),
            is_self_delimiting: true,
            is_complete: true,
        };
    }
    if is_chunked {
        let (data, end) = decode(body, u64::MAX).expect("chunks");
        assert_eq!(end, body.len(), "bytes after the last chunk");
        return ReadResponse { head_end, body: data, is_self_delimiting: true, is_complete: true };
    }
    if let Some(length) = length {
        assert!(body.len() <= length, "more than was promised");
    }
    ReadResponse {
        head_end,
        body: body.to_vec(),
        is_self_delimiting: length.is_some(),
        is_complete: length.is_none_or(|length| length == body.len()),
    }
}
