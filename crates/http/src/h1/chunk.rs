//! The chunked transfer coding (RFC 9112 §7.1), reading side: sizes, extensions, the CRLF after the data.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

use crate::error::Error;
use crate::limits::Limits;

/// Where in a chunked body the next octet belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A chunk size line; `scanned` octets of it hold no LF.
    Size { scanned: usize },
    /// Chunk data; so many octets to come.
    Data(u64),
    /// The CRLF after chunk data.
    End,
}

/// What a step produced.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    NeedMore,
    Data(Bytes),
    /// The zero chunk's line was read: the trailer section begins.
    Last,
}

/// Reads chunks. Holds no data itself; extension octets are counted over the whole message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    at: At,
    extension_octets: usize,
}

/// 16 hexadecimal digits are 64 bits.
const MAX_DIGITS: usize = 16;

impl Chunks {
    pub(super) fn new() -> Self {
        Self {
            at: At::Size { scanned: 0 },
            extension_octets: 0,
        }
    }

    pub(super) fn step(&mut self, input: &mut BytesMut, limits: &Limits) -> Result<Step, Error> {
        loop {
            match self.at {
                At::Size { scanned } => match self.size_line(input, scanned, limits)? {
                    None => return Ok(Step::NeedMore),
                    Some(0) => return Ok(Step::Last),
                    Some(size) => self.at = At::Data(size),
                },
                At::Data(left) => {
                    if input.is_empty() {
                        return Ok(Step::NeedMore);
                    }
                    let (data, left) = take(input, left);
                    self.at = if left == 0 { At::End } else { At::Data(left) };
                    return Ok(Step::Data(data));
                }
                At::End => match input.as_ref() {
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        self.at = At::Size { scanned: 0 };
                    }
                    [] | [b'\r'] => return Ok(Step::NeedMore),
                    _ => return Err(Error::ChunkEnd),
                },
            }
        }
    }

    fn size_line(
        &mut self,
        input: &mut BytesMut,
        scanned: usize,
        limits: &Limits,
    ) -> Result<Option<u64>, Error> {
        let longest = MAX_DIGITS + limits.chunk_extension_bytes + 1;
        let Some(lf) = memchr(b'\n', &input[scanned..]).map(|at| at + scanned) else {
            // Refuse now what cannot become right: silence would be a held connection.
            check_start(input)?;
            if input.len() > longest {
                return Err(Error::ChunkExtension);
            }
            self.at = At::Size {
                scanned: input.len(),
            };
            return Ok(None);
        };
        check_start(&input[..lf])?;
        let Some(line) = input[..lf].strip_suffix(b"\r") else {
            return Err(Error::BareLf);
        };
        let (size, extension) = match memchr(b';', line) {
            Some(at) => (&line[..at], &line[at..]),
            None => (line, &b""[..]),
        };
        let size = parse_size(size)?;
        self.extension_octets += extension.len();
        let control = extension
            .iter()
            .any(|&b| (b < 0x20 && b != b'\t') || b == 0x7f);
        if control
            || extension.len() > limits.chunk_extension_bytes
            || self.extension_octets > limits.chunk_extensions_total
        {
            return Err(Error::ChunkExtension);
        }
        input.advance(lf + 1);
        Ok(Some(size))
    }
}

/// The first octets of a size line: hexadecimal digits, then `;` or CR.
fn check_start(line: &[u8]) -> Result<(), Error> {
    let digits = line
        .iter()
        .take(MAX_DIGITS + 1)
        .take_while(|b| b.is_ascii_hexdigit())
        .count();
    match line.get(digits) {
        _ if digits > MAX_DIGITS => Err(Error::ChunkTooLarge),
        Some(b';' | b'\r') if digits > 0 => Ok(()),
        None => Ok(()),
        Some(_) => Err(Error::ChunkSize),
    }
}

fn parse_size(digits: &[u8]) -> Result<u64, Error> {
    if digits.is_empty() {
        return Err(Error::ChunkSize);
    }
    digits.iter().try_fold(0u64, |size, &b| {
        let digit = char::from(b).to_digit(16).ok_or(Error::ChunkSize)?;
        // i64::MAX bounds the size: no chunk is that long, only somebody's integer overflow.
        let size = size.checked_mul(16).ok_or(Error::ChunkTooLarge)? | u64::from(digit);
        if size > i64::MAX as u64 {
            Err(Error::ChunkTooLarge)
        } else {
            Ok(size)
        }
    })
}

/// Splits off what is there of `left` octets, without a copy; returns it and how many are still missing.
pub(super) fn take(input: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    (input.split_to(here).freeze(), left - here as u64)
}
