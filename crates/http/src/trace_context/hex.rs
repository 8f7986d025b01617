//! Numbers in hexadecimal digits, of fixed width.

/// Reads exactly `N` octets. Upper case is read only where `any_case`: W3C forbids it, B3's readers take it.
pub(super) fn read<const N: usize>(text: &[u8], any_case: bool) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut octets = [0; N];
    for (octet, digits) in octets.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = digits else { return None };
        *octet = digit(*high, any_case)? << 4 | digit(*low, any_case)?;
    }
    Some(octets)
}

fn digit(byte: u8, any_case: bool) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' if any_case => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Writes octets into room of twice their number; what does not fit is left out.
pub(super) fn write(octets: &[u8], room: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (octet, place) in octets.iter().zip(room.chunks_exact_mut(2)) {
        place.copy_from_slice(&[
            DIGITS[usize::from(octet >> 4)],
            DIGITS[usize::from(octet & 15)],
        ]);
    }
}
