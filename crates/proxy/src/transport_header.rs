//! The transport header: the first bytes inside mutual TLS on a proxy's inbound port, naming the port they are for.
//!
//! Wire form, as Linkerd's: the preface `transport.l5d.io/v1\r\n\r\n`, a 32-bit big-endian length, a protobuf message
//! `{int32 port = 1; string name = 2; SessionProtocol session_protocol = 3 {oneof {http1 = 1; http2 = 2}}}`.
//! The message is three fields, so it is read and written here by hand.

/// The ALPN protocol that announces a transport header.
pub const ALPN: &[u8] = b"transport.l5d.io/v1";
pub const PREFACE: &[u8] = b"transport.l5d.io/v1\r\n\r\n";
/// A header is a port and at most a DNS name.
pub const MAX_HEADER: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionProtocol {
    Http1,
    Http2,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportHeader {
    pub port: u16,
    /// Set when the connection is for a name behind a gateway.
    pub name: Option<String>,
    /// None: opaque bytes follow.
    pub protocol: Option<SessionProtocol>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    Preface,
    Length,
    Message,
    Port,
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Invalid::Preface => "the connection does not begin with a transport header",
            Invalid::Length => "the transport header is longer than allowed",
            Invalid::Message => "the transport header is not a valid message",
            Invalid::Port => "the transport header names no valid port",
        })
    }
}

impl TransportHeader {
    /// The name behind a gateway with its port; empty without a name.
    pub fn authority(&self) -> String {
        match &self.name {
            Some(name) => format!(
                "{}:{}",
                name.trim_end_matches('.').to_ascii_lowercase(),
                self.port
            ),
            None => String::new(),
        }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFACE);
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        out.push(0x08);
        put_varint(out, u64::from(self.port));
        if let Some(name) = &self.name {
            out.push(0x12);
            put_varint(out, name.len() as u64);
            out.extend_from_slice(name.as_bytes());
        }
        match self.protocol {
            Some(SessionProtocol::Http1) => out.extend_from_slice(&[0x1a, 2, 0x0a, 0]),
            Some(SessionProtocol::Http2) => out.extend_from_slice(&[0x1a, 2, 0x12, 0]),
            None => {}
        }
        let length = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// `Ok(None)`: more bytes are needed. Otherwise the header and how many bytes it took.
    pub fn decode(bytes: &[u8]) -> Result<Option<(TransportHeader, usize)>, Invalid> {
        let seen = bytes.len().min(PREFACE.len());
        if bytes[..seen] != PREFACE[..seen] {
            return Err(Invalid::Preface);
        }
        let Some(length) = bytes.get(PREFACE.len()..PREFACE.len() + 4) else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        if length > MAX_HEADER {
            return Err(Invalid::Length);
        }
        let start = PREFACE.len() + 4;
        match bytes.get(start..start + length) {
            None => Ok(None),
            Some(message) => Ok(Some((decode_message(message)?, start + length))),
        }
    }
}

fn decode_message(message: &[u8]) -> Result<TransportHeader, Invalid> {
    let mut fields = Fields { rest: message };
    let (mut port, mut name, mut protocol) = (0, None, None);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Varint(value)) => port = value,
            (2, Value::Bytes(value)) if !value.is_empty() => {
                name = Some(String::from_utf8(value.to_vec()).map_err(|_| Invalid::Message)?);
            }
            (3, Value::Bytes(value)) => {
                let mut inner = Fields { rest: value };
                while let Some((number, _)) = inner.next()? {
                    match number {
                        1 => protocol = Some(SessionProtocol::Http1),
                        2 => protocol = Some(SessionProtocol::Http2),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(TransportHeader {
            port,
            name,
            protocol,
        }),
        _ => Err(Invalid::Port),
    }
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The fields of a protobuf message; unknown ones are passed over.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Invalid> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Invalid::Message)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Invalid::Message),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Invalid> {
        if length > self.rest.len() {
            return Err(Invalid::Message);
        }
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Invalid> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Invalid::Message)
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(port: u16, name: Option<&str>, protocol: Option<SessionProtocol>) -> TransportHeader {
        TransportHeader {
            port,
            name: name.map(str::to_owned),
            protocol,
        }
    }

    #[test]
    fn the_wire_form_is_linkerds() {
        let mut out = Vec::new();
        header(4321, None, Some(SessionProtocol::Http2)).encode(&mut out);
        assert_eq!(
            out,
            b"transport.l5d.io/v1\r\n\r\n\x00\x00\x00\x07\x08\xe1\x21\x1a\x02\x12\x00"
        );
    }

    #[test]
    fn every_header_survives_the_wire_and_every_split_of_it_asks_for_more() {
        for header in [
            header(80, None, None),
            header(65535, Some("web.emojivoto.svc.cluster.local"), None),
            header(1, None, Some(SessionProtocol::Http1)),
            header(8080, Some("a"), Some(SessionProtocol::Http2)),
        ] {
            let mut out = Vec::new();
            header.encode(&mut out);
            let whole = out.len();
            out.extend_from_slice(b"first bytes of the stream");
            for split in 0..whole {
                assert_eq!(TransportHeader::decode(&out[..split]), Ok(None));
            }
            assert_eq!(TransportHeader::decode(&out), Ok(Some((header, whole))));
        }
    }

    #[test]
    fn bad_headers_are_refused() {
        let framed = |message: &[u8]| {
            let mut out = PREFACE.to_vec();
            out.extend_from_slice(&(message.len() as u32).to_be_bytes());
            out.extend_from_slice(message);
            TransportHeader::decode(&out)
        };
        assert_eq!(
            TransportHeader::decode(b"GET / HTTP/1.1"),
            Err(Invalid::Preface)
        );
        assert_eq!(framed(&[0; MAX_HEADER + 1]), Err(Invalid::Length));
        assert_eq!(framed(&[]), Err(Invalid::Port));
        assert_eq!(framed(&[0x08, 0x80, 0x80, 0x04]), Err(Invalid::Port));
        assert_eq!(framed(&[0x08]), Err(Invalid::Message));
        assert_eq!(framed(&[0x12, 0x7f, b'a']), Err(Invalid::Message));
        assert_eq!(framed(&[0x0b]), Err(Invalid::Message));
    }
}
