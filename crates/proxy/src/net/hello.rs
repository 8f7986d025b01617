//! The server name in a TLS ClientHello, read without a TLS library and without consuming anything.
//!
//! A hello that offers X25519MLKEM768 is longer than 1.2 KiB and often arrives in two segments, and it may be cut
//! into several records, so every answer can be "more bytes".

/// A ClientHello longer than this is not waited for.
pub const MAX_HELLO: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    Incomplete,
    /// Not a ClientHello, or a broken one.
    NotTls,
    /// A whole ClientHello with the server name it asks for, in lower case.
    Complete {
        server_name: Option<String>,
    },
}

pub fn sniff(bytes: &[u8]) -> Hello {
    match parse(bytes) {
        Ok(server_name) => Hello::Complete { server_name },
        Err(Stop::NotTls) => Hello::NotTls,
        Err(Stop::Incomplete) if bytes.len() > MAX_HELLO => Hello::NotTls,
        Err(Stop::Incomplete) => Hello::Incomplete,
    }
}

enum Stop {
    Incomplete,
    NotTls,
}

fn parse(bytes: &[u8]) -> Result<Option<String>, Stop> {
    let message = handshake(bytes)?;
    let mut hello = Reader { rest: &message };
    hello.take(2 + 32)?; // legacy version, random
    hello.vector8()?; // legacy session id
    hello.vector16()?; // cipher suites
    hello.vector8()?; // legacy compression methods
    if hello.rest.is_empty() {
        return Ok(None);
    }
    let mut extensions = Reader {
        rest: hello.vector16()?,
    };
    while !extensions.rest.is_empty() {
        let kind = extensions.u16()?;
        let body = extensions.vector16()?;
        if kind == 0 {
            return server_name(body);
        }
    }
    Ok(None)
}

fn server_name(body: &[u8]) -> Result<Option<String>, Stop> {
    let mut list = Reader {
        rest: Reader { rest: body }.vector16()?,
    };
    while !list.rest.is_empty() {
        let kind = list.take(1)?[0];
        let name = list.vector16()?;
        if kind == 0 {
            return match std::str::from_utf8(name) {
                Ok(name) if name.is_ascii() => Ok(Some(name.to_ascii_lowercase())),
                _ => Err(Stop::NotTls),
            };
        }
    }
    Ok(None)
}

/// The body of the first handshake message, joined from as many records as it takes.
fn handshake(mut bytes: &[u8]) -> Result<Vec<u8>, Stop> {
    let mut joined: Vec<u8> = Vec::new();
    loop {
        match bytes.first() {
            None => return Err(Stop::Incomplete),
            Some(0x16) => {}
            Some(_) => return Err(Stop::NotTls),
        }
        if bytes.get(1).is_some_and(|major| *major != 3) {
            return Err(Stop::NotTls);
        }
        let Some(header) = bytes.get(..5) else {
            return Err(Stop::Incomplete);
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > 16 * 1024 {
            return Err(Stop::NotTls);
        }
        let body = &bytes[5..];
        joined.extend_from_slice(&body[..body.len().min(length)]);
        if joined.first().is_some_and(|kind| *kind != 1) {
            return Err(Stop::NotTls);
        }
        if let Some(header) = joined.get(..4) {
            let wanted =
                usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
            if wanted > MAX_HELLO {
                return Err(Stop::NotTls);
            }
            if joined.len() >= 4 + wanted {
                joined.truncate(4 + wanted);
                joined.drain(..4);
                return Ok(joined);
            }
        }
        if body.len() < length {
            return Err(Stop::Incomplete);
        }
        bytes = &body[length..];
    }
}

/// Reads inside a complete message: running out is an error of the message.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        if length > self.rest.len() {
            return Err(Stop::NotTls);
        }
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, Stop> {
        self.take(2)
            .map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Result<&'a [u8], Stop> {
        let length = usize::from(self.take(1)?[0]);
        self.take(length)
    }

    fn vector16(&mut self) -> Result<&'a [u8], Stop> {
        let length = usize::from(self.u16()?);
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// A real hello, as rustls writes it, with the post-quantum key share in it.
    fn hello(name: &'static str) -> Vec<u8> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768];
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut client =
            rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut out = Vec::new();
        client.write_tls(&mut out).unwrap();
        out
    }

    #[test]
    fn the_name_is_found_at_no_split_too_early_and_the_hello_is_long() {
        let bytes = hello("Web.emojivoto.svc.cluster.local");
        assert!(
            bytes.len() > 1200,
            "the test wants a hello with a post-quantum share"
        );
        for split in 0..bytes.len() {
            assert_eq!(sniff(&bytes[..split]), Hello::Incomplete, "at {split}");
        }
        let name = Some("web.emojivoto.svc.cluster.local".to_owned());
        assert_eq!(sniff(&bytes), Hello::Complete { server_name: name });
    }

    #[test]
    fn a_hello_cut_into_records_is_joined() {
        let bytes = hello("a.example");
        let mut cut = Vec::new();
        for piece in bytes[5..].chunks(100) {
            cut.extend_from_slice(&[0x16, 3, 1]);
            cut.extend_from_slice(&(piece.len() as u16).to_be_bytes());
            cut.extend_from_slice(piece);
        }
        assert_eq!(
            sniff(&cut),
            Hello::Complete {
                server_name: Some("a.example".into())
            }
        );
    }

    #[test]
    fn an_address_has_no_server_name_and_other_bytes_are_not_tls() {
        assert_eq!(
            sniff(&hello("127.0.0.1")),
            Hello::Complete { server_name: None }
        );
        assert_eq!(sniff(b"GET / HTTP/1.1\r\n"), Hello::NotTls);
        assert_eq!(sniff(&[0x16, 3, 1, 0, 5, 2, 0, 0, 1, 0]), Hello::NotTls);
        assert_eq!(sniff(&[0x16, 3, 1, 0xff, 0xff]), Hello::NotTls);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let bytes = hello("a.example");
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut broken = bytes.clone();
                broken[at] = value;
                sniff(&broken);
            }
        }
    }
}
