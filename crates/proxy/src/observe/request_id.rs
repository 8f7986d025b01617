//! The id of a request that the proxy answers itself: the caller's, where it can be believed, else one of ours.

use tulle_http::Head;

/// The field of the answer (for gRPC: of its metadata).
pub const FIELD: &str = "tulle-request-id";
const FROM: &str = "x-request-id";
/// Longest id that is taken from a caller, in bytes.
const LONGEST: usize = 64;

/// An id: 1 to 64 letters, digits and `-_.:+/=@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    bytes: [u8; LONGEST],
    length: u8,
}

impl RequestId {
    /// The request's own `x-request-id` when `is_trusted` and it is a token of a sane length, else 16 random hex digits.
    pub fn of(head: &Head, is_trusted: bool) -> Self {
        let said = head.get(FROM).filter(|_| is_trusted);
        said.and_then(Self::read).unwrap_or_else(Self::random)
    }

    fn read(text: &[u8]) -> Option<Self> {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(byte);
        let mut bytes = [0; LONGEST];
        let place = bytes.get_mut(..text.len())?;
        if text.is_empty() || !text.iter().all(allowed) {
            return None;
        }
        place.copy_from_slice(text);
        Some(RequestId {
            bytes,
            length: u8::try_from(text.len()).ok()?,
        })
    }

    fn random() -> Self {
        let mut bytes = [0; LONGEST];
        let number = fastrand::u64(..);
        for (place, byte) in bytes.iter_mut().zip((0..16).rev()) {
            let digit = (number >> (4 * byte)) & 0xf;
            *place = b"0123456789abcdef"[digit as usize];
        }
        RequestId { bytes, length: 16 }
    }

    pub fn as_str(&self) -> &str {
        let text = self.bytes.get(..usize::from(self.length));
        text.and_then(|text| std::str::from_utf8(text).ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str, is_trusted: bool) -> String {
        let mut head = Head::new();
        head.push(FROM, value).unwrap();
        RequestId::of(&head, is_trusted).as_str().to_owned()
    }

    fn is_ours(id: &str) -> bool {
        id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    #[test]
    fn a_sane_id_of_a_trusted_caller_is_kept() {
        let longest = "x".repeat(LONGEST);
        for id in ["a", "7f6a-B.c_d:1+/=@", &longest] {
            assert_eq!(of(id, true), id);
            assert!(is_ours(&of(id, false)));
        }
    }

    #[test]
    fn anything_else_is_replaced() {
        let long = "x".repeat(LONGEST + 1);
        for id in ["", "a b", "a\"b", "<script>", "a;b", &long] {
            assert!(is_ours(&of(id, true)), "{id}");
        }
    }
}
