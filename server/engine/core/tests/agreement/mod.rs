//! What holds for any input of the parser, the decoder and the response writer; for the property tests and the fuzzer.
//!
//! Each function panics, with the input, where it does not hold.
#![allow(dead_code, reason = "each of its users needs a part")]

use prefork_core::response::{BodyEncoder, OwnFields, RequestInfo, ResponseHead};
use prefork_core::{BodyDecoder, Framing, Head, Limits, Parsed, Reject, head, request_body};

use crate::reference;

/// Small, so that inputs meet them.
pub const LIMITS: Limits = Limits {
    request_line: 60,
    request_fields: 6,
    request_field_size: 50,
    head_bytes: 250,
    request_body: 40,
};

/// The verdict and all that may be read of the head, comparable.
fn verdict(buf: &[u8], head: &mut Head) -> Result<Option<String>, Reject> {
    Ok(match head::parse(buf, &LIMITS, head)? {
        Parsed::Partial => None,
        Parsed::Done(end) => Some(reference::describe(head, buf, end)),
    })
}

/// A head has one verdict, however it is cut, and the slow parser agrees. Returns it.
pub fn check_head(input: &[u8]) -> Result<Option<String>, Reject> {
    let shown = input.escape_ascii();
    let whole = verdict(input, &mut Head::new());
    assert_eq!(whole, reference::parse(input, &LIMITS), "{shown}");
    let mut grown = Head::new();
    // Each prefix is judged twice: by a head that grew with it, and by a fresh one.
    let mut settled = None;
    for end in 0..=input.len() {
        let fresh = verdict(&input[..end], &mut Head::new());
        if settled.is_none() {
            let step = verdict(&input[..end], &mut grown);
            assert_eq!(step, fresh, "{shown} up to {end}");
            if step != Ok(None) {
                settled = Some(step);
            }
        } else {
            assert_eq!(Some(&fresh), settled.as_ref(), "{shown} up to {end}");
        }
    }
    assert_eq!(settled.unwrap_or(Ok(None)), whole, "{shown}");
    whole
}

/// Data, bytes consumed, whether the body is complete.
pub type Decoded = Result<(Vec<u8>, usize, bool), Reject>;

fn decode(pieces: &[&[u8]]) -> Decoded {
    let mut decoder = BodyDecoder::new(Framing::Chunked, &LIMITS)?;
    let (mut data, mut consumed) = (Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() && !decoder.is_done() {
            let request_body::Step { consumed: len, data: span } = decoder.decode(rest)?;
            assert!(len > 0 || decoder.is_done(), "no progress");
            data.extend_from_slice(&rest[span]);
            rest = &rest[len..];
            consumed += len;
        }
    }
    Ok((data, consumed, decoder.is_done()))
}

/// A chunked body has one verdict, however it is cut, and the slow decoder agrees. Returns it.
pub fn check_chunked(input: &[u8]) -> Decoded {
    let shown = input.escape_ascii();
    let whole = decode(&[input]);
    for cut in 0..=input.len() {
        let (first, second) = input.split_at(cut);
        assert_eq!(decode(&[first, second]), whole, "{shown} cut at {cut}");
    }
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(decode(&bytes), whole, "{shown}");
    match (&whole, reference::decode(input, LIMITS.request_body)) {
        (Ok((data, end, true)), Some(expected)) => {
            assert_eq!((data, *end), (&expected.0, expected.1), "{shown}");
        }
        (Ok((.., true)), None) => panic!("only the fast decoder accepts {shown}"),
        (_, Some(_)) => panic!("only the slow decoder accepts {shown}: {whole:?}"),
        (_, None) => {}
    }
    whole
}

/// What an app may do, read from bytes: the first decides about the request, lines are status, fields and blocks.
struct Script<'a> {
    answering: RequestInfo,
    whole_body: bool,
    status: &'a [u8],
    fields: Vec<(&'a [u8], &'a [u8])>,
    blocks: Vec<&'a [u8]>,
}

impl<'a> Script<'a> {
    /// A line is `name=value` for a field, and a block of the body otherwise. Lines end in 0xFF, so that CR, LF and
    /// NUL can stand anywhere in them.
    fn read(input: &'a [u8]) -> Option<Self> {
        let (&flags, rest) = input.split_first()?;
        let mut lines = rest.split(|&byte| byte == 0xFF);
        let status = lines.next()?;
        let (mut fields, mut blocks) = (Vec::new(), Vec::new());
        for line in lines {
            match line.iter().position(|&byte| byte == b'=') {
                Some(at) => fields.push((&line[..at], &line[at + 1..])),
                None => blocks.push(line),
            }
        }
        let answering =
            RequestInfo { minor: flags & 1, is_head: flags & 2 != 0, keep_alive: flags & 4 != 0 };
        Some(Self { answering, whole_body: flags & 8 != 0, status, fields, blocks })
    }
}

/// Whatever an app answers, the client reads one response, and exactly the body that was admitted. Returns false when
/// the answer was refused.
pub fn check_response(input: &[u8]) -> bool {
    let Some(script) = Script::read(input) else { return false };
    let mut out = Vec::new();
    let Ok(mut reply) = ResponseHead::start(&mut out, script.answering, script.status) else {
        return false;
    };
    for (name, value) in &script.fields {
        if reply.field(&mut out, name, value).is_err() {
            return false;
        }
    }
    let total = script.blocks.iter().map(|block| block.len() as u64).sum();
    let mut outgoing =
        reply.finish(&mut out, &OwnFields::new(b"s", b"d"), script.whole_body.then_some(total));
    let head_end = out.len();
    let mut admitted = Vec::new();
    for block in &script.blocks {
        add_block(&mut outgoing, &mut out, block, &mut admitted);
    }
    let keeps = outgoing.finish(&mut out);
    let read = reference::read_response(&out, script.answering.is_head);
    let shown = out.escape_ascii();
    assert_eq!(read.head_end, head_end, "{shown}");
    assert_eq!(read.body, admitted, "{shown}");
    assert!(!keeps || read.is_self_delimiting, "kept, but the end is not known: {shown}");
    assert_eq!(read.is_complete, outgoing.missing() == 0, "{shown}");
    true
}

fn add_block(outgoing: &mut BodyEncoder, out: &mut Vec<u8>, block: &[u8], admitted: &mut Vec<u8>) {
    let mut counted = outgoing.clone();
    admitted.extend_from_slice(&block[..counted.admit(block.len())]);
    outgoing.write(out, block);
}
