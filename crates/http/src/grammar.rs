//! Which octets may stand where (RFC 9110 §5, RFC 9112 §3, RFC 3986): pure predicates over byte slices.
//! Everything that enters a [`Head`](crate::Head) passes through here once, so what leaves it needs no second look.

const TOKEN: u8 = 1;
const HOST: u8 = 2;

const CLASS: [u8; 256] = class_table();

const fn class_table() -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        let alnum = b.is_ascii_alphanumeric();
        if alnum
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            table[i] |= TOKEN;
        }
        // reg-name without `,` (the mark of two merged Hosts), `;`, `=` and quotes, which no host name needs.
        if alnum
            || matches!(
                b,
                b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'*' | b'+'
            )
        {
            table[i] |= HOST;
        }
        i += 1;
    }
    table
}

fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().all(|&b| CLASS[usize::from(b)] & class != 0)
}

/// `token`: a field name or method, of any case.
#[must_use]
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// A field value: HTAB, SP, VCHAR and obs-text; no CR, LF, NUL, other control or DEL; no white space at its ends.
#[must_use]
pub fn is_field_value(bytes: &[u8]) -> bool {
    // Without an early exit the compiler turns this into vector code: values are short and nearly always right.
    let bad = bytes.iter().fold(false, |bad, &b| {
        bad | ((b < 0x20) & (b != b'\t')) | (b == 0x7f)
    });
    let space = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    !bad && !space(bytes.first()) && !space(bytes.last())
}

/// A method as we take it: an upper-case token. Methods are case-sensitive, and the origin that folds `get` to `GET`
/// would see another request than our policy did.
#[must_use]
pub fn is_method(bytes: &[u8]) -> bool {
    is_token(bytes)
        && bytes.len() <= crate::Limits::MAX_METHOD
        && !bytes.iter().any(u8::is_ascii_lowercase)
}

/// Origin form: begins with `/`, without fragment.
#[must_use]
pub fn is_origin_form(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'/') && is_target(bytes)
}

/// Every octet may stand in a request target, whatever its form: any visible ASCII octet but `#`, since a fragment never
/// goes on the wire, and UTF-8 that nobody has percent-encoded: RFC 3986 has no place for it, but clients send it and
/// servers take it. The bytes that policy sees are exactly the bytes that we forward, so nothing else is refused here.
#[must_use]
pub fn is_target(bytes: &[u8]) -> bool {
    let (bad, beyond) = bytes.iter().fold((false, 0), |(bad, beyond), &b| {
        let bad = bad | (b <= 0x20) | (b == 0x7f) | (b == b'#');
        (bad, beyond | b)
    });
    let encoded = beyond < 0x80 || std::str::from_utf8(bytes).is_ok();
    !bad && encoded && !bytes.is_empty()
}

/// Makes ASCII letters lower-case, eight octets at a time: every field name of every message passes through here.
pub(crate) fn lower_case(name: &mut [u8]) {
    let word = |eight: &mut [u8]| {
        let Ok(octets) = <[u8; 8]>::try_from(&*eight) else {
            return;
        };
        let word = u64::from_ne_bytes(octets);
        let each = |octet: u8| u64::from_ne_bytes([octet; 8]);
        // In each octet: the high bit tells "at least A" and "beyond Z" apart; what is not ASCII is left alone.
        let ascii = word & each(0x7f);
        let from_a = ascii + each(0x80 - b'A');
        let beyond_z = ascii + each(0x7f - b'Z');
        let upper = from_a & !beyond_z & !word & each(0x80);
        eight.copy_from_slice(&(word | (upper >> 2)).to_ne_bytes());
    };
    let len = name.len();
    if len < 8 {
        return name.make_ascii_lowercase();
    }
    name.chunks_exact_mut(8).for_each(word);
    // The rest, with octets done before: doing them twice changes nothing.
    word(&mut name[len - 8..]);
}

/// `host[:port]`: a name, an IPv4 address or a bracketed IPv6 address (with zone); no userinfo, path or list.
#[must_use]
pub fn is_authority(bytes: &[u8]) -> bool {
    // A name or IPv4 address, the usual thing, in one pass.
    let host = bytes
        .iter()
        .take_while(|&&b| CLASS[usize::from(b)] & HOST != 0)
        .count();
    match bytes.get(host) {
        None => host > 0,
        Some(b':') => host > 0 && is_port(&bytes[host + 1..]),
        Some(b'[') if host == 0 => match split_port(bytes) {
            ([b'[', inner @ .., b']'], port) => is_ip_literal(inner) && port.is_none_or(is_port),
            _ => false,
        },
        Some(_) => false,
    }
}

/// `host:port` with a port: what CONNECT names.
#[must_use]
pub fn is_authority_with_port(bytes: &[u8]) -> bool {
    is_authority(bytes) && split_port(bytes).1.is_some_and(|port| !port.is_empty())
}

/// Splits `host[:port]`; the brackets of an IPv6 address stay with the host.
#[must_use]
pub fn split_port(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    let from = authority.iter().rposition(|&b| b == b']').unwrap_or(0);
    match authority[from..].iter().position(|&b| b == b':') {
        Some(at) => (&authority[..from + at], Some(&authority[from + at + 1..])),
        None => (authority, None),
    }
}

fn is_port(port: &[u8]) -> bool {
    // An empty port ("host:") is legal (RFC 3986 §3.2.3).
    port.len() <= 5
        && port.iter().all(u8::is_ascii_digit)
        && port.iter().fold(0u32, |n, b| n * 10 + u32::from(b - b'0')) <= 65_535
}

fn is_ip_literal(inner: &[u8]) -> bool {
    let (address, zone) = match inner.iter().position(|&b| b == b'%') {
        Some(at) => (&inner[..at], Some(&inner[at + 1..])),
        None => (inner, None),
    };
    let address_ok =
        std::str::from_utf8(address).is_ok_and(|a| a.parse::<std::net::Ipv6Addr>().is_ok());
    address_ok && zone.is_none_or(|zone| !zone.is_empty() && all(zone, HOST))
}

/// The elements of a comma-separated list, trimmed, empty ones left out (RFC 9110 §5.6.1).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&b| b == b',')
        .map(trim)
        .filter(|element| !element.is_empty())
}

/// Without SP and HTAB at both ends.
#[must_use]
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// A Content-Length: decimal digits and nothing else, no leading zero (read as octal by some), at most 2^63-1.
#[must_use]
pub fn content_length(value: &[u8]) -> Option<u64> {
    let plain = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
    if !plain || (value.len() > 1 && value[0] == b'0') {
        return None;
    }
    // 19 digits never overflow u64; above i64::MAX there is no such body, only somebody's integer overflow.
    let n = value.iter().fold(0u64, |n, b| n * 10 + u64::from(b - b'0'));
    (n <= i64::MAX as u64).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for good in [
            "voting",
            "voting:80",
            "voting.default.svc.cluster.local:8080",
            "127.0.0.1:1",
            "[::1]",
            "[fe80::1%25eth0]:80",
            "a_b",
            "a:",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a,b", "u@h", "h/p", "h?q", "h#f", "a b", "h:99999", "h:8x", "h:80:80",
            "[::1", "::1", "[a]", "[::1]x", "h\\p", "h:-1",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
        assert!(!is_authority_with_port(b"test"));
        assert!(!is_authority_with_port(b"test:"));
        assert!(is_authority_with_port(b"test:443"));
    }

    #[test]
    fn content_lengths_are_plain_decimal() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(
            content_length(b"9223372036854775807"),
            Some(i64::MAX as u64)
        );
        for bad in [
            "",
            "+1",
            "-1",
            "0x1",
            "0o1",
            "01",
            "00",
            "1_0",
            "1 0",
            "1,1",
            "9223372036854775808",
            "99999999999999999999",
            "\x0b1",
            "1a",
        ] {
            assert_eq!(content_length(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn every_octet_is_lower_cased_as_the_standard_library_does() {
        for len in [0, 1, 7, 8, 9, 15, 16, 17, 256] {
            for start in 0..=255u8 {
                let mut ours: Vec<u8> = (0..len).map(|i| start.wrapping_add(i as u8)).collect();
                let theirs = ours.to_ascii_lowercase();
                lower_case(&mut ours);
                assert_eq!(ours, theirs);
            }
        }
    }

    #[test]
    fn lists_skip_empty_elements() {
        assert_eq!(list(b" a ,, b\t,").collect::<Vec<_>>(), [b"a", b"b"]);
    }

    #[test]
    fn values_have_no_control_octets_and_no_outer_space() {
        assert!(is_field_value(b""));
        assert!(is_field_value(b"a\tb \xff"));
        for bad in [&b"a\r"[..], b"a\nb", b"\0", b"\x7f", b"\x0b", b" a", b"a\t"] {
            assert!(!is_field_value(bad), "{bad:?}");
        }
    }
}
