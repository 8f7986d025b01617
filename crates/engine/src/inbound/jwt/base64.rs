//! base64url as JOSE has it (RFC 7515 §2): no padding, no line breaks, and one way only to write the same octets.

/// The octets; `None` for anything that is not exactly such a text.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for four in text.chunks(4) {
        let mut bits = 0_u32;
        for byte in four {
            bits = bits << 6 | u32::from(value(*byte)?);
        }
        let [_, first, second, third] = (bits << (6 * (4 - four.len()))).to_be_bytes();
        // Bits that belong to no octet must be zero: else two tokens with one signature would differ.
        match four.len() {
            4 => octets.extend([first, second, third]),
            3 if third == 0 => octets.extend([first, second]),
            2 if second == 0 => octets.push(first),
            _ => return None,
        }
    }
    Some(octets)
}

fn value(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rfcs_example_and_what_is_no_base64url() {
        // RFC 7515, appendix C.
        assert_eq!(decode(b"A-z_4ME"), Some(vec![3, 236, 255, 224, 193]));
        assert_eq!(decode(b""), Some(vec![]));
        for wrong in [
            "A", "AA==", "A+z/4ME", "A-z_4MF", "A-z_4M", "AA\n", "AB", "AAB",
        ] {
            assert_eq!(decode(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn whatever_decodes_has_only_one_text(text in "[A-Za-z0-9_-]{0,12}", place in any::<prop::sample::Index>(), other in 0_u8..64) {
            let Some(octets) = decode(text.as_bytes()) else { return Ok(()) };
            let mut changed = text.clone().into_bytes();
            if changed.is_empty() { return Ok(()) }
            let place = place.index(changed.len());
            let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            changed[place] = alphabet[other as usize];
            if changed != text.as_bytes() {
                prop_assert_ne!(decode(&changed), Some(octets));
            }
        }
    }
}
