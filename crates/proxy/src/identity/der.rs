//! DER, as much as certificates need: a reader that never looks past its input, and a writer for one request.
//!
//! Lengths are definite and at most four bytes; every `read` returns a slice of the input, so hostile nesting costs
//! nothing that the input did not pay for.

/// Tags that certificates use.
pub mod tag {
    pub const BOOLEAN: u8 = 0x01;
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OCTET_STRING: u8 = 0x04;
    pub const OID: u8 = 0x06;
    pub const UTF8_STRING: u8 = 0x0c;
    pub const PRINTABLE_STRING: u8 = 0x13;
    pub const IA5_STRING: u8 = 0x16;
    pub const UTC_TIME: u8 = 0x17;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const SEQUENCE: u8 = 0x30;
    pub const SET: u8 = 0x31;
    /// `[n]`, constructed.
    pub const fn context(n: u8) -> u8 {
        0xa0 | n
    }
    /// `[n]`, primitive.
    pub const fn context_primitive(n: u8) -> u8 {
        0x80 | n
    }
}

/// The input is not the DER that was expected here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the certificate's {} cannot be read", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Reads one value after another.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads these bytes; `what` names them in errors.
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The tag of the next value.
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next value, whatever it is: its tag and content.
    ///
    /// # Errors
    /// It is cut short, or its length is not DER.
    pub fn any(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        let bad = Malformed(self.what);
        let (&tag, after) = self.rest.split_first().ok_or(bad)?;
        if tag & 0x1f == 0x1f {
            return Err(bad); // Several bytes of tag: nothing in a certificate has them.
        }
        let (&first, mut after) = after.split_first().ok_or(bad)?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 4 {
                return Err(bad);
            }
            let (digits, rest) = after.split_at_checked(count).ok_or(bad)?;
            after = rest;
            let length = digits
                .iter()
                .fold(0usize, |length, digit| length << 8 | usize::from(*digit));
            if length < 0x80 || digits.first() == Some(&0) {
                return Err(bad); // Not the shortest form.
            }
            length
        };
        let (content, rest) = after.split_at_checked(length).ok_or(bad)?;
        self.rest = rest;
        Ok((tag, content))
    }

    /// The content of the next value, which must have this tag.
    ///
    /// # Errors
    /// It has another, or is malformed.
    pub fn read(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        match self.any()? {
            (found, content) if found == tag => Ok(content),
            _ => Err(Malformed(self.what)),
        }
    }

    /// The next value as it stands, which must have this tag.
    ///
    /// # Errors
    /// It has another, or is malformed.
    pub fn whole(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        let before = self.rest;
        self.read(tag)?;
        before
            .get(..before.len() - self.rest.len())
            .ok_or(Malformed(self.what))
    }

    /// The content of the next value if it has this tag.
    ///
    /// # Errors
    /// It is malformed.
    pub fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Malformed> {
        if self.peek() == Some(tag) {
            self.read(tag).map(Some)
        } else {
            Ok(None)
        }
    }

    /// A reader of the content of the next value, which must have this tag.
    ///
    /// # Errors
    /// It has another, or is malformed.
    pub fn enter(&mut self, tag: u8) -> Result<Reader<'a>, Malformed> {
        self.read(tag)
            .map(|content| Reader::new(content, self.what))
    }
}

/// One value: tag, length, the parts as content.
pub fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 6);
    out.push(tag);
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        out.push(0x80 | (bytes.len() - zeros) as u8);
        out.extend_from_slice(&bytes[zeros..]);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_in_other_than_the_shortest_form_are_refused() {
        for bytes in [
            &[0x04, 0x81, 0x01, 0x00][..],
            &[0x04, 0x80],
            &[0x04, 0x85, 0, 0, 0, 0, 1, 0],
            &[0x04, 0x82, 0x00, 0x80],
        ] {
            assert!(Reader::new(bytes, "test").any().is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_value_cut_short_is_refused() {
        let whole = value(tag::OCTET_STRING, &[&[7; 300]]);
        for end in 0..whole.len() {
            assert!(Reader::new(&whole[..end], "test").any().is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(content in proptest::collection::vec(any::<u8>(), 0..70_000), tag in 0u8..31) {
            let written = value(tag, &[&content]);
            let mut reader = Reader::new(&written, "test");
            prop_assert_eq!(reader.any(), Ok((tag, content.as_slice())));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn any_input_is_read_without_panic_and_forwards(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Reader::new(&bytes, "test");
            let mut before = bytes.len() + 1;
            while !reader.is_empty() {
                prop_assert!(reader.rest.len() < before);
                before = reader.rest.len();
                if reader.any().is_err() {
                    break;
                }
            }
        }
    }
}
