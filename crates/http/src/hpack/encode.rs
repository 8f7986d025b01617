//! Fields to header blocks.
//!
//! What is repeated goes into the table, what is not stays out of it (`known::Policy`): an entry that is never
//! referred to costs both sides an insertion and pushes one out that would be. Names without a policy of their own,
//! such as those that tracing systems add, are indexed once for the name's sake, then only with values that come twice.

use super::known::{self, FIRST_DYNAMIC, Known, Policy, STATIC};
use super::table::{Name, Table};
use super::{DEFAULT_TABLE_SIZE, FIELD_OVERHEAD, MAX_TABLE_SIZE, huffman, integer};

/// Chains of the look-up by hash. A table of 4,096 octets has at most 128 entries, usually about 50.
const CHAINS: usize = 64;
/// Values remembered as seen once.
const SEEN: usize = 32;

/// Literal with incremental indexing, without, and never to be indexed: flags and bits of the prefix (§6.2).
const INDEXING: (u8, u32) = (0x40, 6);
const PLAIN: (u8, u32) = (0x00, 4);
const NEVER: (u8, u32) = (0x10, 4);

/// Where an entry hangs in the two look-ups: by name, and by name and value. Entries are known by the number of their
/// insertion, which wraps; a number that has left the table ends its chain.
#[derive(Clone, Copy, Debug)]
struct Links {
    name_hash: u32,
    field_hash: u32,
    next_by_name: u32,
    next_by_field: u32,
}

/// Encodes the header blocks of one direction of a connection, in the order in which they are sent.
#[derive(Debug)]
pub struct Encoder {
    table: Table<Links>,
    /// We use no more than this whatever the peer allows.
    own_max: usize,
    /// Sizes to announce when the next block begins: the smallest since the last one, and the last.
    announce: Option<(usize, usize)>,
    /// The number of the next insertion. The first is 1, for 0 is what an empty chain begins with.
    inserted: u32,
    by_name: [u32; CHAINS],
    by_field: [u32; CHAINS],
    seen: [u32; SEEN],
}

impl Encoder {
    /// An encoder that uses a dynamic table of at most `max_table` octets. Until the peer's SETTINGS say otherwise it may
    /// have [`DEFAULT_TABLE_SIZE`].
    /// # Panics
    /// Above [`MAX_TABLE_SIZE`].
    #[must_use]
    pub fn new(max_table: usize) -> Self {
        assert!(max_table <= MAX_TABLE_SIZE, "a table of {max_table} octets");
        let mut encoder = Self {
            table: Table::new(DEFAULT_TABLE_SIZE),
            own_max: max_table,
            announce: None,
            inserted: 1,
            by_name: [0; CHAINS],
            by_field: [0; CHAINS],
            seen: [0; SEEN],
        };
        encoder.set_max_table(DEFAULT_TABLE_SIZE);
        encoder
    }

    /// The peer set SETTINGS_HEADER_TABLE_SIZE; the next block announces what we make of it.
    pub fn set_max_table(&mut self, size: usize) {
        let size = size.min(self.own_max);
        self.announce = match self.announce {
            Some((smallest, _)) => Some((smallest.min(size), size)),
            None if size == self.table.max() => None,
            None => Some((size, size)),
        };
    }

    /// Begins a header block: to be called before its first field, with the buffer that the fields go to.
    #[inline]
    pub fn begin_block(&mut self, out: &mut Vec<u8>) {
        if let Some((smallest, last)) = self.announce.take() {
            self.resize(smallest, last, out);
        }
    }

    #[cold]
    fn resize(&mut self, smallest: usize, last: usize, out: &mut Vec<u8>) {
        // The peer's table went through the smallest size; it must see that ours did too (§4.2).
        if smallest < last && smallest < self.table.max() {
            self.table.resize(smallest);
            integer::encode(smallest, 5, 0x20, out);
        }
        if last != self.table.max() {
            self.table.resize(last);
            integer::encode(last, 5, 0x20, out);
        }
    }

    /// Appends a field; the name in lower case.
    pub fn encode_field(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let name_hash = known::hash(name, 0);
        let known = known::find(name, name_hash);
        let first = usize::from(known.index);
        let same_name = &STATIC[first..first + usize::from(known.values)];
        if let Some(later) = same_name
            .iter()
            .position(|(_, known)| known.as_bytes() == value)
        {
            return integer::encode(first + later, 7, 0x80, out);
        }
        let kind = match known.policy {
            Policy::Index | Policy::IndexRepeated => {
                return self.encode_indexable(name, value, name_hash, known, out);
            }
            Policy::Literal => PLAIN,
            Policy::Secret => NEVER,
        };
        literal(kind, first, name, value, out);
    }

    /// Appends a field that no hop may put into a table (§6.2.3), as [`Field::sensitive`](super::Field::sensitive) says.
    pub fn encode_sensitive(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let known = known::find(name, known::hash(name, 0));
        literal(NEVER, known.index.into(), name, value, out);
    }

    fn encode_indexable(
        &mut self,
        name: &[u8],
        value: &[u8],
        name_hash: u32,
        known: Known,
        out: &mut Vec<u8>,
    ) {
        let field_hash = known::hash(value, name_hash);
        if let Some(newer) = self.find_field(name, value, field_hash) {
            return integer::encode(FIRST_DYNAMIC + newer, 7, 0x80, out);
        }
        let same = match known.index {
            0 => self.find_name(name, name_hash),
            _ => None,
        };
        let index = match (known.index, same) {
            (0, None) => 0,
            (0, Some(newer)) => FIRST_DYNAMIC + newer,
            (index, _) => usize::from(index),
        };
        // A quarter: no single field may push out what all others share.
        let size = name.len() + value.len() + FIELD_OVERHEAD;
        if size > self.table.max() / 4
            || (index != 0 && known.policy == Policy::IndexRepeated && !self.seen(field_hash))
        {
            return literal(PLAIN, index, name, value, out);
        }
        literal(INDEXING, index, name, value, out);
        let (by_name, by_field) = (chain(name_hash), chain(field_hash));
        let links = Links {
            name_hash,
            field_hash,
            next_by_name: self.by_name[by_name],
            next_by_field: self.by_field[by_field],
        };
        let name = same.map_or(Name::Octets(name), Name::SameAs);
        if self.table.insert(name, value, links) {
            self.by_name[by_name] = self.inserted;
            self.by_field[by_field] = self.inserted;
            self.inserted = self.inserted.wrapping_add(1);
        }
    }

    #[inline]
    fn find_field(&self, name: &[u8], value: &[u8], hash: u32) -> Option<usize> {
        let mut newer = self.newer_than(self.by_field[chain(hash)]);
        loop {
            let links = self.table.note(newer)?;
            if links.field_hash == hash && self.table.get(newer) == Some((name, value)) {
                return Some(newer);
            }
            newer = self.older(newer, links.next_by_field)?;
        }
    }

    fn find_name(&self, name: &[u8], hash: u32) -> Option<usize> {
        let mut newer = self.newer_than(self.by_name[chain(hash)]);
        loop {
            let links = self.table.note(newer)?;
            if links.name_hash == hash && self.table.get(newer)?.0 == name {
                return Some(newer);
            }
            newer = self.older(newer, links.next_by_name)?;
        }
    }

    /// How many entries are younger than the one with that number: past the end of the table once it is gone.
    #[inline]
    fn newer_than(&self, number: u32) -> usize {
        self.inserted.wrapping_sub(number).wrapping_sub(1) as usize
    }

    /// The next of a chain, unless its number is so old that it means a younger entry now.
    #[inline]
    fn older(&self, newer: usize, next: u32) -> Option<usize> {
        let next = self.newer_than(next);
        (next > newer).then_some(next)
    }

    /// True when this field came before, not too many others ago; remembers it.
    fn seen(&mut self, hash: u32) -> bool {
        let slot = &mut self.seen[hash as usize % SEEN];
        std::mem::replace(slot, hash) == hash
    }
}

/// The chain of a hash: its high bits, the low ones choose the slot of `seen`.
#[inline]
fn chain(hash: u32) -> usize {
    (hash >> (u32::BITS - CHAINS.ilog2())) as usize
}

/// A literal field, its name by `index` unless that is 0.
fn literal((flags, bits): (u8, u32), index: usize, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    integer::encode(index, bits, flags, out);
    if index == 0 {
        string(name, out);
    }
    string(value, out);
}

/// A string, Huffman coded when that is shorter.
fn string(octets: &[u8], out: &mut Vec<u8>) {
    let coded = huffman::encoded_len(octets);
    if coded < octets.len() {
        integer::encode(coded, 7, 0x80, out);
        huffman::encode(octets, out);
    } else {
        integer::encode(octets.len(), 7, 0, out);
        out.extend_from_slice(octets);
    }
}
