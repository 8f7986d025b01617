//! Header blocks to fields.

use std::ops::Range;

use super::known::{FIRST_DYNAMIC, STATIC};
use super::table::{Name, Table};
use super::{Error, FIELD_OVERHEAD, Field, Limits, MAX_TABLE_SIZE, huffman, integer};

/// Octets of the buffer for Huffman coded strings that are kept between blocks.
const KEPT_SCRATCH: usize = 8 * 1024;

/// Decodes the header blocks of one direction of a connection, in the order in which they came.
#[derive(Debug)]
pub struct Decoder {
    table: Table<()>,
    /// Our SETTINGS_HEADER_TABLE_SIZE: the peer may choose any size up to it.
    setting: usize,
    /// The setting was lowered below the size in use: the next block must begin with a new size.
    size_due: bool,
    scratch: Vec<u8>,
}

/// A string of a block: as it lies there, or unfolded into the scratch buffer.
enum Text<'a> {
    Plain(&'a [u8]),
    Unfolded(Range<usize>),
}

/// The name of a field.
enum Named<'a> {
    Static(&'static [u8]),
    Entry(usize),
    Text(Text<'a>),
}

/// What a block may still hand out.
struct Budget {
    list_size: usize,
    fields: usize,
    exceeded: Option<Error>,
}

impl Decoder {
    /// A decoder that lets the peer use a dynamic table of `max_table` octets: our SETTINGS_HEADER_TABLE_SIZE. The peer
    /// begins with [`DEFAULT_TABLE_SIZE`](super::DEFAULT_TABLE_SIZE) until it says otherwise; a setting below that takes
    /// effect when it is acknowledged ([`Decoder::set_max_table`]).
    /// # Panics
    /// Above [`MAX_TABLE_SIZE`].
    #[must_use]
    pub fn new(max_table: usize) -> Self {
        assert!(max_table <= MAX_TABLE_SIZE, "a table of {max_table} octets");
        let setting = max_table.max(super::DEFAULT_TABLE_SIZE);
        Self {
            table: Table::new(super::DEFAULT_TABLE_SIZE),
            setting,
            size_due: false,
            scratch: Vec::new(),
        }
    }

    /// The peer acknowledged a new SETTINGS_HEADER_TABLE_SIZE of ours.
    /// # Panics
    /// Above [`MAX_TABLE_SIZE`].
    pub fn set_max_table(&mut self, size: usize) {
        assert!(size <= MAX_TABLE_SIZE, "a table of {size} octets");
        self.setting = size;
        self.size_due = self.table.max() > size;
    }

    /// Decodes one whole header block (HEADERS or PUSH_PROMISE with its CONTINUATIONs) and hands its fields to `sink`.
    /// # Errors
    /// Where [`Error::is_connection_error`], decoding stopped and this decoder must not be used again. Otherwise the
    /// block exceeded `limits`: `sink` got the fields before that, the rest was decoded only for the table's sake.
    pub fn decode(
        &mut self,
        block: &[u8],
        limits: &Limits,
        mut sink: impl FnMut(Field<'_>),
    ) -> Result<(), Error> {
        let mut budget = Budget::new(limits);
        let mut input = self.sizes(block)?;
        while let Some(&first) = input.first() {
            input = match first {
                0x80.. => {
                    let (index, rest) = integer::decode(input, 7)?;
                    let (name, value) = self.indexed(index)?;
                    budget.hand_out(name, value, false, &mut sink);
                    rest
                }
                0x40.. => self.literal(input, 6, true, &mut budget, &mut sink)?,
                0x20.. => return Err(Error::SizeUpdateLate),
                _ => self.literal(input, 4, false, &mut budget, &mut sink)?,
            };
        }
        if self.scratch.capacity() > KEPT_SCRATCH {
            self.scratch = Vec::new();
        }
        budget.exceeded.map_or(Ok(()), Err)
    }

    /// Table sizes: only where a block begins.
    fn sizes<'b>(&mut self, mut input: &'b [u8]) -> Result<&'b [u8], Error> {
        while let Some(0x20..=0x3f) = input.first() {
            let (size, rest) = integer::decode(input, 5)?;
            if size > self.setting {
                return Err(Error::SizeUpdateTooLarge);
            }
            self.table.resize(size);
            self.size_due = false;
            input = rest;
        }
        if self.size_due {
            return Err(Error::SizeUpdateMissing);
        }
        Ok(input)
    }

    #[inline]
    fn indexed(&self, index: usize) -> Result<(&[u8], &[u8]), Error> {
        if index >= FIRST_DYNAMIC {
            return self.table.get(index - FIRST_DYNAMIC).ok_or(Error::Index);
        }
        match &STATIC[index] {
            ("", _) => Err(Error::Index),
            (name, value) => Ok((name.as_bytes(), value.as_bytes())),
        }
    }

    /// A literal field, name by index or in full; into the table if `index`.
    fn literal<'b>(
        &mut self,
        input: &'b [u8],
        bits: u32,
        index: bool,
        budget: &mut Budget,
        sink: &mut impl FnMut(Field<'_>),
    ) -> Result<&'b [u8], Error> {
        let sensitive = !index && input[0] & 0x10 != 0;
        let (by, rest) = integer::decode(input, bits)?;
        self.scratch.clear();
        let (name, rest) = if by == 0 {
            let (text, rest) = self.string(rest)?;
            (Named::Text(text), rest)
        } else if by < FIRST_DYNAMIC {
            (Named::Static(STATIC[by].0.as_bytes()), rest)
        } else if by - FIRST_DYNAMIC < self.table.len() {
            (Named::Entry(by - FIRST_DYNAMIC), rest)
        } else {
            return Err(Error::Index);
        };
        let (value, rest) = self.string(rest)?;
        let value = value.octets(&self.scratch);
        let octets = match &name {
            Named::Static(octets) => octets,
            Named::Text(text) => text.octets(&self.scratch),
            Named::Entry(newer) => self.table.get(*newer).ok_or(Error::Index)?.0,
        };
        budget.hand_out(octets, value, sensitive, sink);
        if index {
            let name = match &name {
                Named::Static(octets) => Name::Octets(octets),
                Named::Text(text) => Name::Octets(text.octets(&self.scratch)),
                Named::Entry(newer) => Name::SameAs(*newer),
            };
            self.table.insert(name, value, ());
        }
        Ok(rest)
    }

    /// A string literal (§5.2).
    fn string<'b>(&mut self, input: &'b [u8]) -> Result<(Text<'b>, &'b [u8]), Error> {
        let coded = input.first().is_some_and(|first| first & 0x80 != 0);
        let (length, rest) = integer::decode(input, 7)?;
        let (octets, rest) = rest.split_at_checked(length).ok_or(Error::Truncated)?;
        if !coded {
            return Ok((Text::Plain(octets), rest));
        }
        let start = self.scratch.len();
        huffman::decode(octets, &mut self.scratch)?;
        Ok((Text::Unfolded(start..self.scratch.len()), rest))
    }
}

impl Text<'_> {
    fn octets<'s>(&'s self, scratch: &'s [u8]) -> &'s [u8] {
        match self {
            Self::Plain(octets) => octets,
            Self::Unfolded(range) => &scratch[range.clone()],
        }
    }
}

impl Budget {
    fn new(limits: &Limits) -> Self {
        Self {
            list_size: limits.list_size,
            fields: limits.fields,
            exceeded: None,
        }
    }

    #[inline]
    fn hand_out(
        &mut self,
        name: &[u8],
        value: &[u8],
        sensitive: bool,
        sink: &mut impl FnMut(Field<'_>),
    ) {
        if self.exceeded.is_some() {
            return;
        }
        let size = name.len() + value.len() + FIELD_OVERHEAD;
        match (self.list_size.checked_sub(size), self.fields.checked_sub(1)) {
            (Some(list_size), Some(fields)) => {
                (self.list_size, self.fields) = (list_size, fields);
                sink(Field {
                    name,
                    value,
                    sensitive,
                });
            }
            (None, _) => self.exceeded = Some(Error::ListTooLarge),
            (_, None) => self.exceeded = Some(Error::TooManyFields),
        }
    }
}
