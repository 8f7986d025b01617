//! Consistent hashing: each endpoint has points on a ring, and a key belongs to the first point after its own.
//!
//! An ordinary endpoint has 64 points, others in proportion to their weight. An endpoint's points depend on its key
//! alone, so that one that comes or goes moves no key but those it takes or leaves, and all proxies agree. With 64
//! points the largest share is about a third above the mean; the bound on the load (see [`super::Balancer::pick`]) is what
//! keeps a popular key from drowning one endpoint.
//!
//! Cost: a tree of 16 bytes per point (10,000 endpoints: about 14 MB; only where hashing is configured). An endpoint
//! that comes or goes costs its points, a key a search and the steps to the first endpoint that has room.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;

use super::members::EndpointId;
use crate::destination::ORDINARY_WEIGHT;

const POINTS: u64 = 64;
/// Points of one endpoint on the ring of consistent hashing, whatever it weighs.
const MAX_POINTS: u64 = 1024;

#[derive(Clone, Debug, Default)]
pub(super) struct Ring {
    points: BTreeSet<(u64, EndpointId)>,
}

impl Ring {
    /// Changes an endpoint's weight; it had none before it came and has none after it went.
    pub(super) fn weigh(&mut self, id: EndpointId, key: &impl Hash, before: u32, after: u32) {
        let mut hasher = Fnv::default();
        key.hash(&mut hasher);
        let own = hasher.finish();
        let point = |number: u64| (mix(own ^ mix(number)), id);
        let (before, after) = (points(before), points(after));
        for number in before..after {
            self.points.insert(point(number));
        }
        for number in after..before {
            self.points.remove(&point(number));
        }
    }

    /// The endpoints from a key's place on, once around; an endpoint comes as often as it has points.
    pub(super) fn from(&self, key: u64) -> impl Iterator<Item = EndpointId> {
        let start = (key, EndpointId::FIRST);
        self.points
            .range(start..)
            .chain(self.points.range(..start))
            .map(|(_, id)| *id)
    }
}

fn points(weight: u32) -> u64 {
    match u64::from(weight) {
        0 => 0,
        weight => (weight * POINTS / u64::from(ORDINARY_WEIGHT)).clamp(1, MAX_POINTS),
    }
}

/// The key of what is hashed: the value of a header or cookie, the octets of an address. The same in every proxy of
/// one version.
///
/// ```
/// use tulle_engine::balance::hash_key;
///
/// assert_eq!(hash_key(b"alice"), hash_key(b"alice"));
/// assert_ne!(hash_key(b"alice"), hash_key(b"bob"));
/// ```
#[must_use]
pub fn hash_key(bytes: &[u8]) -> NonZeroU64 {
    let mut hasher = Fnv::default();
    hasher.write(bytes);
    // Not zero, so that a key which may be absent needs no more room.
    NonZeroU64::MIN | hasher.finish()
}

/// FNV-1a. Not keyed, since proxies must agree: who chooses keys that fall together meets the bound on the load.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        mix(self.0)
    }
}

/// Spreads the bits (the finalizer of SplitMix64).
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
