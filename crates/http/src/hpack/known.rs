//! The static table (RFC 7541 appendix A), found by name through a hash table computed when this compiles, and what the
//! encoder thinks of each name.

/// Name and value by index; 0 is not an index.
const ENTRIES: [(&str, &str); 62] = [
    ("", ""),
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];
pub(super) static STATIC: [(&str, &str); 62] = ENTRIES;
/// Indices below this one are of the static table.
pub(super) const FIRST_DYNAMIC: usize = ENTRIES.len();

/// What the encoder does with a value that no table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// Into the table at once.
    Index,
    /// Into the table when it comes a second time.
    IndexRepeated,
    /// Never into the table: the next one will differ.
    Literal,
    /// Never into any table of any hop: a value that is guessed octet by octet through the size of what an attacker
    /// makes us compress beside it (§7.1.3).
    Secret,
}

/// One path in a mesh is a method called for ever or an identifier never seen again.
const REPEATED: [&str; 3] = [":path", "location", "referer"];
const CHANGING: [&str; 11] = [
    "age",
    "content-length",
    "content-range",
    "date",
    "etag",
    "expires",
    "if-modified-since",
    "if-none-match",
    "last-modified",
    "range",
    "retry-after",
];
const SECRET: [&str; 4] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
];
/// Secrets whose names the static table lacks.
const MORE_SECRETS: [&str; 6] = [
    "x-amz-security-token",
    "x-api-key",
    "x-auth-token",
    "x-csrf-token",
    "x-goog-api-key",
    "x-xsrf-token",
];

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Its first index in the static table, 0 when it has none.
    pub(super) index: u8,
    /// How many indices from there have values of their own.
    pub(super) values: u8,
    pub(super) policy: Policy,
}

const UNKNOWN: Known = Known {
    index: 0,
    values: 0,
    policy: Policy::IndexRepeated,
};

/// Slots of the hash table: sparse, so that most names that are not in it meet an empty slot at once.
const SLOTS: usize = 256;

static NAMES: [Option<(&str, Known)>; SLOTS] = {
    let mut slots: [Option<(&str, Known)>; SLOTS] = [None; SLOTS];
    let mut index = 1;
    while index < ENTRIES.len() {
        let name = ENTRIES[index].0;
        let known = Known {
            index: index as u8,
            values: values(index),
            policy: policy(name),
        };
        index += if known.values > 1 {
            known.values as usize
        } else {
            1
        };
        slots = put(slots, name, known);
    }
    let mut i = 0;
    while i < MORE_SECRETS.len() {
        let known = Known {
            index: 0,
            values: 0,
            policy: Policy::Secret,
        };
        slots = put(slots, MORE_SECRETS[i], known);
        i += 1;
    }
    slots
};

/// What is known of a name with that hash.
#[inline]
pub(super) fn find(name: &[u8], hash: u32) -> Known {
    let mut slot = hash as usize % SLOTS;
    while let Some((known, what)) = &NAMES[slot] {
        if known.as_bytes() == name {
            return *what;
        }
        slot = (slot + 1) % SLOTS;
    }
    UNKNOWN
}

/// A hash of `octets` after what `seed` has seen. Not against attackers: whoever makes names collide makes a look-up
/// compare all entries of one table, which are at most 128.
#[inline]
pub(super) const fn hash(mut octets: &[u8], seed: u32) -> u32 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = seed as u64 ^ (octets.len() as u64) << 32;
    while let Some((word, rest)) = octets.split_first_chunk::<8>() {
        state = (state.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(SPREAD);
        octets = rest;
    }
    if let Some((word, rest)) = octets.split_first_chunk::<4>() {
        state = (state.rotate_left(23) ^ u32::from_le_bytes(*word) as u64).wrapping_mul(SPREAD);
        octets = rest;
    }
    let mut tail = 0;
    while let Some((&octet, rest)) = octets.split_first() {
        tail = tail << 8 | octet as u64;
        octets = rest;
    }
    state = (state.rotate_left(23) ^ tail).wrapping_mul(SPREAD);
    (state >> 32) as u32
}

const fn put(
    mut slots: [Option<(&'static str, Known)>; SLOTS],
    name: &'static str,
    known: Known,
) -> [Option<(&'static str, Known)>; SLOTS] {
    let mut slot = hash(name.as_bytes(), 0) as usize % SLOTS;
    while slots[slot].is_some() {
        slot = (slot + 1) % SLOTS;
    }
    slots[slot] = Some((name, known));
    slots
}

/// How many indices from `index` on have its name and a value.
const fn values(index: usize) -> u8 {
    let (name, mut next) = (ENTRIES[index].0, index);
    while next < ENTRIES.len() && equal(ENTRIES[next].0, name) && !ENTRIES[next].1.is_empty() {
        next += 1;
    }
    (next - index) as u8
}

const fn policy(name: &str) -> Policy {
    match () {
        () if holds(&REPEATED, name) => Policy::IndexRepeated,
        () if holds(&CHANGING, name) => Policy::Literal,
        () if holds(&SECRET, name) => Policy::Secret,
        () => Policy::Index,
    }
}

const fn holds(names: &[&str], name: &str) -> bool {
    let mut i = 0;
    while i < names.len() {
        if equal(names[i], name) {
            return true;
        }
        i += 1;
    }
    false
}

const fn equal(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_static_table_is_found_at_its_first_index() {
        for (name, _) in &STATIC[1..] {
            let first = STATIC.iter().position(|(other, _)| other == name).unwrap();
            let known = find(name.as_bytes(), hash(name.as_bytes(), 0));
            assert_eq!(usize::from(known.index), first, "{name}");
            let values = STATIC
                .iter()
                .filter(|(other, value)| other == name && !value.is_empty())
                .count();
            assert_eq!(usize::from(known.values), values, "{name}");
        }
        assert_eq!(find(b"x-other", hash(b"x-other", 0)), UNKNOWN);
        assert_eq!(find(b"", hash(b"", 0)), UNKNOWN);
    }

    #[test]
    fn each_list_names_fields_that_exist() {
        for (names, policy) in [
            (&REPEATED[..], Policy::IndexRepeated),
            (&CHANGING, Policy::Literal),
            (&SECRET, Policy::Secret),
        ] {
            for name in names {
                let known = find(name.as_bytes(), hash(name.as_bytes(), 0));
                assert!(known.index > 0 && known.policy == policy, "{name}");
            }
        }
        for name in MORE_SECRETS {
            let known = find(name.as_bytes(), hash(name.as_bytes(), 0));
            assert_eq!((known.index, known.policy), (0, Policy::Secret), "{name}");
        }
    }
}
