//! The PROXY protocol, versions 1 and 2: the client's address, told by a load balancer in front (HAProxy's
//! `proxy-protocol.txt`). Pure: bytes in, header out.
//!
//! Read only where a port's policy asks for it, and there without exception: who could leave it out, or send it where
//! it is not expected, could choose his own address. The parser takes what the specification has a sender write and
//! nothing beside it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1: &[u8; 6] = b"PROXY ";
/// The longest line of version 1, CRLF included.
const MAX_V1: usize = 107;
/// Addresses and TLVs of version 2 together.
pub const MAX_V2: usize = 4096;

/// The connection did not begin with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `None`: the sender speaks for itself (a health check), or knows no address: the socket's holds.
    pub source: Option<SocketAddr>,
    /// So many bytes were the header; what follows is the client's.
    pub length: usize,
}

/// `Ok(None)`: these bytes are the beginning of a header; more are needed.
///
/// # Errors
/// They are not, whatever follows.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Invalid> {
    if begins(bytes, SIGNATURE) {
        version2(bytes)
    } else if begins(bytes, V1) {
        version1(bytes)
    } else {
        Err(Invalid)
    }
}

/// Do the bytes begin with all of `with`, or are they a beginning of it?
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let seen = bytes.len().min(with.len());
    bytes[..seen] == with[..seen]
}

fn version1(bytes: &[u8]) -> Result<Option<Header>, Invalid> {
    let within = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() >= MAX_V1 {
            Err(Invalid)
        } else {
            Ok(None)
        };
    };
    let line = within[..end].strip_suffix(b"\r").ok_or(Invalid)?;
    let line = std::str::from_utf8(line).map_err(|_| Invalid)?;
    let mut words = line.split(' ').skip(1);
    let length = end + 1;
    let source = match words.next().ok_or(Invalid)? {
        // What a sender adds to it is to be ignored.
        "UNKNOWN" => None,
        "TCP4" => Some(pair::<Ipv4Addr>(&mut words)?),
        "TCP6" => Some(pair::<Ipv6Addr>(&mut words)?),
        _ => return Err(Invalid),
    };
    Ok(Some(Header { source, length }))
}

/// Source and destination addresses, then their ports; nothing more.
fn pair<'w, A>(words: &mut impl Iterator<Item = &'w str>) -> Result<SocketAddr, Invalid>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let mut address = || {
        words
            .next()
            .and_then(|word| word.parse::<A>().ok())
            .ok_or(Invalid)
    };
    let (source, _destination) = (address()?, address()?);
    let mut port = || words.next().and_then(decimal).ok_or(Invalid);
    let (source_port, _destination_port) = (port()?, port()?);
    match words.next() {
        None => Ok(SocketAddr::new(source.into(), source_port)),
        Some(_) => Err(Invalid),
    }
}

/// Digits only, without a sign or a leading zero.
fn decimal(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit())
        && (word.len() == 1 || !word.starts_with('0'));
    plain.then(|| word.parse().ok()).flatten()
}

fn version2(bytes: &[u8]) -> Result<Option<Header>, Invalid> {
    let Some(&[what, family, high, low]) = bytes.get(12..16) else {
        return match bytes.get(12) {
            Some(what) if !matches!(what, 0x20 | 0x21) => Err(Invalid),
            _ => Ok(None),
        };
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !matches!(what, 0x20 | 0x21) || length > MAX_V2 {
        return Err(Invalid);
    }
    let Some(body) = bytes.get(16..16 + length) else {
        return Ok(None);
    };
    let length = 16 + length;
    // LOCAL: whatever the rest says is to be ignored.
    if what == 0x20 {
        return Ok(Some(Header {
            source: None,
            length,
        }));
    }
    let (source, rest) = match family {
        0x00 => (None, body),
        0x11 => {
            let (fixed, rest) = split::<12>(body)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *fixed;
            let ip = IpAddr::from([a, b, c, d]);
            (Some((ip, [high, low])), rest)
        }
        0x21 => {
            let (fixed, rest) = split::<36>(body)?;
            let (ip, _) = split::<16>(fixed)?;
            (Some((IpAddr::from(*ip), [fixed[32], fixed[33]])), rest)
        }
        // A UNIX socket: nobody whose address could be weighed.
        0x31 => (None, split::<216>(body)?.1),
        // Datagrams, and what the specification does not know.
        _ => return Err(Invalid),
    };
    tlvs(rest)?;
    let source = source.map(|(ip, port)| SocketAddr::new(ip, u16::from_be_bytes(port)));
    Ok(Some(Header { source, length }))
}

fn split<const N: usize>(body: &[u8]) -> Result<(&[u8; N], &[u8]), Invalid> {
    body.split_first_chunk::<N>().ok_or(Invalid)
}

/// Checks that the extensions fill their place; what they say is of no use here.
fn tlvs(mut rest: &[u8]) -> Result<(), Invalid> {
    while !rest.is_empty() {
        let (&[_, high, low], body) = split::<3>(rest)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        rest = body.get(length..).ok_or(Invalid)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(what: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([what, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn v4_body() -> Vec<u8> {
        vec![203, 0, 113, 9, 10, 0, 0, 1, 0xdd, 0xd5, 0, 80]
    }

    /// Every header below, and what it says.
    fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let mut v6 = Vec::new();
        v6.extend("2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        v6.extend([0; 16]);
        v6.extend([0, 99, 0, 80]);
        let mut with_tlvs = v4_body();
        with_tlvs.extend([0x04, 0, 3, 1, 2, 3, 0x05, 0, 0]);
        vec![
            (
                b"PROXY TCP4 203.0.113.9 10.0.0.1 56789 80\r\n".to_vec(),
                Some("203.0.113.9:56789"),
            ),
            (
                b"PROXY TCP6 2001:db8::7 ::1 99 80\r\n".to_vec(),
                Some("[2001:db8::7]:99"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (
                b"PROXY UNKNOWN ffff:f...f:ffff 65535 65535\r\n".to_vec(),
                None,
            ),
            (v2(0x21, 0x11, &v4_body()), Some("203.0.113.9:56789")),
            (v2(0x21, 0x11, &with_tlvs), Some("203.0.113.9:56789")),
            (v2(0x21, 0x21, &v6), Some("[2001:db8::7]:99")),
            (v2(0x21, 0x31, &[7; 216]), None),
            (v2(0x21, 0x00, &[]), None),
            (v2(0x20, 0x11, &[9]), None),
        ]
    }

    #[test]
    fn every_header_is_read_whole_and_every_split_of_it_asks_for_more() {
        for (header, source) in good() {
            let mut bytes = header.clone();
            bytes.extend(b"GET / HTTP/1.1\r\n");
            let expected = Header {
                source: source.map(|source| source.parse().unwrap()),
                length: header.len(),
            };
            assert_eq!(parse(&bytes), Ok(Some(expected)), "{header:?}");
            for split in 0..header.len() {
                assert_eq!(parse(&bytes[..split]), Ok(None), "{header:?} at {split}");
            }
        }
    }

    #[test]
    fn whatever_is_not_a_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(MAX_V1));
        let short_address = v2(0x21, 0x11, &[1; 11]);
        let mut overrun = v4_body();
        overrun.extend([4, 0, 9, 1]);
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
            b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY \r\n",
            b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x11",
            long.as_bytes(),
            &v2(0x31, 0x11, &v4_body()),
            &v2(0x22, 0x11, &v4_body()),
            &v2(0x21, 0x12, &v4_body()),
            &v2(0x21, 0x41, &v4_body()),
            &short_address,
            &v2(0x21, 0x11, &overrun),
            &v2(0x21, 0x00, &[0; MAX_V2 + 1]),
        ] {
            assert_eq!(
                parse(bytes),
                Err(Invalid),
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_more_bytes_never_change_an_answer(
            which in 0usize..10,
            flips in proptest::collection::vec((0usize..250, any::<u8>()), 0..4),
            more in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut bytes = good().swap_remove(which).0;
            for (at, byte) in flips {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            let answer = parse(&bytes);
            if let Ok(Some(header)) = answer {
                prop_assert!(header.length <= bytes.len());
            }
            bytes.extend(more);
            if answer != Ok(None) {
                prop_assert_eq!(parse(&bytes), answer);
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_header(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let begins_like_one = begins(&bytes, SIGNATURE) || begins(&bytes, V1);
            prop_assert!(begins_like_one || parse(&bytes) == Err(Invalid));
        }
    }
}
