//! A page of metrics as gzip (RFC 1952), written piece by piece.
//!
//! Metrics are the same few lines with other numbers, so a short search over the last 32 KiB and the fixed codes of
//! DEFLATE (RFC 1951 §3.2.6) make them about ten times smaller; a general library would cost the binary more than it
//! gains here. Holds about 100 KiB, and only while a compressed page is being written.

/// How far back a match may lie.
const WINDOW: usize = 32 << 10;
/// Shorter repetitions are not looked for.
const MIN_MATCH: usize = 4;
const MAX_MATCH: usize = 258;
const HASH_BITS: u32 = 13;
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// The lengths at which the codes 257 to 284 begin, and their extra bits; 285 is 258 itself.
const LENGTHS: [(u16, u8); 28] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
];

/// The distances at which the codes begin, and their extra bits.
const DISTANCES: [(u16, u8); 30] = [
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 1),
    (7, 1),
    (9, 2),
    (13, 2),
    (17, 3),
    (25, 3),
    (33, 4),
    (49, 4),
    (65, 5),
    (97, 5),
    (129, 6),
    (193, 6),
    (257, 7),
    (385, 7),
    (513, 8),
    (769, 8),
    (1025, 9),
    (1537, 9),
    (2049, 10),
    (3073, 10),
    (4097, 11),
    (6145, 11),
    (8193, 12),
    (12_289, 12),
    (16_385, 13),
    (24_577, 13),
];

/// Compresses one page.
#[derive(Debug)]
pub struct Gzip {
    /// The window, and what is being compressed behind it.
    text: Vec<u8>,
    /// How many bytes have gone from the front of `text`.
    gone: usize,
    /// Where four bytes of this hash were seen last, counted from the page's start; one more, so that 0 is never.
    seen: Vec<u32>,
    bits: Bits,
    crc: u32,
    length: u32,
    begun: bool,
}

#[derive(Debug, Default)]
struct Bits {
    held: u64,
    count: u32,
}

impl Bits {
    /// Appends the low `count` bits, the lowest first.
    fn put(&mut self, value: u32, count: u32, out: &mut Vec<u8>) {
        self.held |= u64::from(value) << self.count;
        self.count += count;
        while self.count >= 8 {
            out.push((self.held & 0xff) as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    /// Appends a Huffman code, whose highest bit goes first.
    fn code(&mut self, code: u32, count: u32, out: &mut Vec<u8>) {
        self.put(code.reverse_bits() >> (32 - count), count, out);
    }

    /// A literal or length, in the fixed code.
    fn symbol(&mut self, symbol: u32, out: &mut Vec<u8>) {
        match symbol {
            0..=143 => self.code(0x30 + symbol, 8, out),
            144..=255 => self.code(0x190 + symbol - 144, 9, out),
            256..=279 => self.code(symbol - 256, 7, out),
            _ => self.code(0xc0 + symbol - 280, 8, out),
        }
    }
}

impl Default for Gzip {
    fn default() -> Self {
        Gzip {
            text: Vec::new(),
            gone: 0,
            seen: vec![0; 1 << HASH_BITS],
            bits: Bits::default(),
            crc: 0,
            length: 0,
            begun: false,
        }
    }
}

impl Gzip {
    /// Appends the next piece of the page, compressed.
    pub fn piece(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        self.begin(out);
        self.crc = crc32(self.crc, piece);
        self.length = self
            .length
            .wrapping_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        let start = self.text.len();
        self.text.extend_from_slice(piece);
        // A block of its own, in the fixed codes, and not the last.
        self.bits.put(0b010, 3, out);
        self.block(start, out);
        self.bits.symbol(256, out);
        let over = self.text.len().saturating_sub(WINDOW);
        self.text.drain(..over);
        self.gone += over;
    }

    /// Ends the page.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        // An empty last block, and bits up to a whole byte.
        self.bits.put(0b011, 3, out);
        self.bits.symbol(256, out);
        self.bits.put(0, (8 - self.bits.count % 8) % 8, out);
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(&HEADER);
        }
    }

    fn block(&mut self, start: usize, out: &mut Vec<u8>) {
        let mut at = start;
        while at < self.text.len() {
            let length = match self.look_back(at) {
                Some((distance, length)) => {
                    self.repeat(distance, length, out);
                    length
                }
                None => {
                    self.bits.symbol(u32::from(self.text[at]), out);
                    1
                }
            };
            // The inside of a long match is remembered sparsely: its lines come again as wholes.
            for place in (at..at + length).step_by(if length > 32 { 8 } else { 1 }) {
                self.remember(place);
            }
            at += length;
        }
    }

    fn hash(&self, at: usize) -> Option<usize> {
        let four: [u8; 4] = self.text.get(at..at + MIN_MATCH)?.try_into().ok()?;
        let mixed = u32::from_le_bytes(four).wrapping_mul(0x9e37_79b1);
        Some((mixed >> (32 - HASH_BITS)) as usize)
    }

    fn remember(&mut self, at: usize) {
        if let Some(hash) = self.hash(at) {
            self.seen[hash] = u32::try_from(self.gone + at + 1).unwrap_or(0);
        }
    }

    /// How far back the same bytes stood last, and how many of them.
    fn look_back(&self, at: usize) -> Option<(usize, usize)> {
        let seen = self.seen[self.hash(at)?] as usize;
        let before = seen.checked_sub(self.gone + 1)?;
        let distance = at.checked_sub(before)?;
        if distance == 0 || distance > WINDOW {
            return None;
        }
        let ahead = self.text[at..].iter().take(MAX_MATCH);
        let same = ahead.zip(&self.text[before..]).take_while(|(a, b)| a == b);
        let length = same.count();
        (length >= MIN_MATCH).then_some((distance, length))
    }

    fn repeat(&mut self, distance: usize, length: usize, out: &mut Vec<u8>) {
        if length == MAX_MATCH {
            self.bits.symbol(285, out);
        } else {
            let (code, extra, bits) = step(&LENGTHS, length);
            self.bits.symbol(257 + code, out);
            self.bits.put(extra, bits, out);
        }
        let (code, extra, bits) = step(&DISTANCES, distance);
        self.bits.code(code, 5, out);
        self.bits.put(extra, bits, out);
    }
}

/// The code of a value, what it is above the code's begin, and in how many bits that is said.
fn step(table: &[(u16, u8)], value: usize) -> (u32, u32, u32) {
    let code = table.partition_point(|(begin, _)| usize::from(*begin) <= value) - 1;
    let (begin, bits) = table[code];
    (
        code as u32,
        (value - usize::from(begin)) as u32,
        u32::from(bits),
    )
}

/// Goes on with the checksum of RFC 1952 §8, half a byte at a time: a table of 64 bytes.
fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0u32; 16];
        let mut at = 0;
        while at < 16 {
            let mut value = at as u32;
            let mut bit = 0;
            while bit < 4 {
                value = if value & 1 == 1 {
                    (value >> 1) ^ 0xedb8_8320
                } else {
                    value >> 1
                };
                bit += 1;
            }
            table[at] = value;
            at += 1;
        }
        table
    };
    !bytes.iter().fold(!crc, |crc, byte| {
        let crc = crc ^ u32::from(*byte);
        let crc = (crc >> 4) ^ TABLE[(crc & 15) as usize];
        (crc >> 4) ^ TABLE[(crc & 15) as usize]
    })
}

#[cfg(test)]
#[path = "../../tests/control/gunzip.rs"]
mod gunzip;

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut gzip, mut out) = (Gzip::default(), Vec::new());
        for piece in pieces {
            gzip.piece(piece, &mut out);
        }
        gzip.end(&mut out);
        out
    }

    #[test]
    fn what_was_compressed_comes_back() {
        let lines: String = (0..4_000)
            .map(|n| {
                format!(
                    "request_total{{direction=\"outbound\",authority=\"web-{}\"}} {}\n",
                    n % 97,
                    n * n
                )
            })
            .collect();
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
            .take(100_000)
            .collect();
        let far = [noise.as_slice(), b"again: ", &noise[..60_000]].concat();
        for text in [
            &b""[..],
            b"a",
            b"aaaa",
            &[7; 70_000],
            lines.as_bytes(),
            &noise,
            &far,
        ] {
            for size in [1_000, 16 << 10, 100_000] {
                let pieces: Vec<&[u8]> = text.chunks(size).collect();
                assert!(
                    gunzip::expanded(&compressed(&pieces)) == text,
                    "{} in {size}",
                    text.len()
                );
            }
        }
    }

    #[test]
    fn metrics_become_an_eighth() {
        let mut page = String::new();
        for pod in 0..40 {
            for le in 0..27 {
                page.push_str(&format!(
                    "response_latency_ms_bucket{{direction=\"outbound\",target_addr=\"10.42.0.{pod}:8080\",le=\"{le}\"}} {}\n",
                    pod * le * 31
                ));
            }
        }
        let pieces: Vec<&[u8]> = page.as_bytes().chunks(16 << 10).collect();
        let size = compressed(&pieces).len();
        assert!(size * 8 < page.len(), "{size} of {}", page.len());
    }

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc32(0, b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(crc32(0, b"12345"), b"6789"), 0xcbf4_3926);
    }
}
