//! Which protocol a client speaks, decided from its first bytes. Pure: bytes in, verdict out.
//!
//! The verdict may be "more bytes": the caller reads on until its deadline, then takes the connection as opaque, with
//! every byte read so far still in front of the stream. A request line that is wrong in its details (two spaces, a bad
//! target, another version, something behind the version) still counts as HTTP, so that the HTTP codec refuses it; it
//! must not slip past HTTP policy as raw TCP to a server that is less strict. Nor does the verdict depend on where reads
//! end: once given, it is that of all that follows.

/// The start of every HTTP/2 connection with prior knowledge.
pub const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// So many bytes of the preface decide; the codec checks the rest.
const H2_DECIDES: usize = 14;
/// Octets of a first line; the end of a longer one is not waited for.
const MAX_LINE: usize = 16 * 1024;
/// The longest method that is worth waiting for.
const MAX_METHOD: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    /// The client starts a TLS handshake of its own.
    Tls,
    Opaque,
}

/// `None`: these bytes are the beginning of more than one protocol; read more.
pub fn detect(bytes: &[u8]) -> Option<Protocol> {
    let first = *bytes.first()?;
    if first == 0x16 {
        return match bytes.get(1) {
            None => None,
            Some(3) => Some(Protocol::Tls),
            Some(_) => Some(Protocol::Opaque),
        };
    }
    let seen = bytes.len().min(H2_DECIDES);
    if bytes[..seen] == H2_PREFACE[..seen] {
        return (seen == H2_DECIDES).then_some(Protocol::Http2);
    }
    detect_request_line(bytes)
}

fn detect_request_line(bytes: &[u8]) -> Option<Protocol> {
    // Clients may send an empty line between requests, and some send one first (RFC 9112 §2.2).
    let start = bytes
        .iter()
        .take(4)
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    let line = &bytes[start..];
    let Some(method) = line.iter().position(|byte| !is_token(*byte)) else {
        return if line.len() > MAX_METHOD {
            Some(Protocol::Opaque)
        } else {
            None
        };
    };
    if method == 0 || method > MAX_METHOD || !is_blank(line[method]) {
        return Some(Protocol::Opaque);
    }
    let within = &line[..line.len().min(MAX_LINE)];
    let end = within.iter().position(|byte| *byte == b'\n');
    match end {
        _ if names_http(&within[..end.unwrap_or(within.len())]) => Some(Protocol::Http1),
        Some(_) => Some(Protocol::Opaque),
        // Method, space and no end: too long for a request, and for the HTTP codec to say so.
        None if line.len() >= MAX_LINE => Some(Protocol::Http1),
        None => None,
    }
}

/// Is there a version of HTTP behind a blank? Nothing that comes later takes that back.
fn names_http(line: &[u8]) -> bool {
    line.windows(b" HTTP/1".len()).any(|part| {
        is_blank(part[0]) && part[1..].starts_with(b"HTTP/") && part[6].is_ascii_digit()
    })
}

/// What lenient servers take for the space of a request line (RFC 9112 §3).
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a server says before its client has said anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// HTTP after all: an answer to nobody (408), or the SETTINGS that begin HTTP/2.
    Http,
    Other,
}

/// `None`: it may still be either; read more.
pub fn greeting(bytes: &[u8]) -> Option<Greeting> {
    const STATUS: &[u8] = b"HTTP/1.";
    let seen = bytes.len().min(STATUS.len());
    if bytes[..seen] == STATUS[..seen] {
        return (seen == STATUS.len()).then_some(Greeting::Http);
    }
    // A frame's header: 24 bits of length, type 4, no flags, stream 0.
    let settings = |at: usize, byte: u8| match at {
        0 => byte == 0,
        1 | 2 => true,
        3 => byte == 4,
        _ => byte == 0,
    };
    let seen = bytes.len().min(9);
    if (0..seen).all(|at| settings(at, bytes[at])) {
        return (seen == 9).then_some(Greeting::Http);
    }
    Some(Greeting::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_is_known_from_its_first_bytes() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], Protocol::Http1),
            (b"\r\nGET / HTTP/1.0\r\n", Protocol::Http1),
            (b"GET / HTTP/1.1", Protocol::Http1),
            (b"GET  / HTTP/1.1\r\n", Protocol::Http1),
            (b"GET / HTTP/1.1 \r\n", Protocol::Http1),
            (b"GET\t/\tHTTP/1.1\r\n", Protocol::Http1),
            (b"GET / HTTP/2.0\r\n", Protocol::Http1),
            (b"GET /\0 HTTP/1.1\r\n", Protocol::Http1),
            (b"CONNECT a:80 HTTP/1.1\r\n", Protocol::Http1),
            (H2_PREFACE, Protocol::Http2),
            (b"\x16\x03\x01\x02\x00", Protocol::Tls),
            (b"\x16\x02", Protocol::Opaque),
            (b"EHLO example.org\r\n", Protocol::Opaque),
            (b"PING\r\n", Protocol::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Protocol::Opaque),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Protocol::Opaque),
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Protocol::Opaque),
            (b"GET /\r\n", Protocol::Opaque),
        ] {
            assert_eq!(
                detect(bytes),
                Some(expected),
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn greetings_of_other_protocols_are_not_those_of_http_servers() {
        for bytes in [
            &b"220 mail.example.org ESMTP\r\n"[..],
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\x4a\x00\x00\x00\x0a8.0.36\x00",
            b"\x00\x00\x12\x00\x00",
            b"* OK IMAP4rev1\r\n",
            b"H",
        ] {
            let expected = (bytes != b"H").then_some(Greeting::Other);
            assert_eq!(greeting(bytes), expected);
        }
        for (whole, decides) in [
            (&b"HTTP/1.1 408 Request Timeout\r\n"[..], 7),
            (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03", 9),
        ] {
            for split in 0..decides {
                assert_eq!(greeting(&whole[..split]), None, "at {split}");
            }
            assert_eq!(greeting(whole), Some(Greeting::Http));
        }
    }

    #[test]
    fn every_split_of_a_prefix_asks_for_more_and_never_decides_wrongly() {
        for (whole, expected) in [
            (&b"POST /a?b=c HTTP/1"[..], Protocol::Http1),
            (&H2_PREFACE[..14], Protocol::Http2),
        ] {
            for split in 0..whole.len() {
                assert_eq!(
                    detect(&whole[..split]),
                    None,
                    "{:?}",
                    String::from_utf8_lossy(&whole[..split])
                );
            }
            assert_eq!(detect(whole), Some(expected));
        }
    }

    #[test]
    fn a_line_without_end_is_http_if_it_begins_so() {
        assert_eq!(detect(&[b'A'; 64]), Some(Protocol::Opaque));
        let mut line = b"GET /".to_vec();
        line.resize(MAX_LINE + 8, b'a');
        assert_eq!(detect(&line), Some(Protocol::Http1));
        line[100] = 0;
        assert_eq!(detect(&line), Some(Protocol::Http1));
        line[101] = b'\n';
        assert_eq!(detect(&line), Some(Protocol::Opaque));
    }
}
