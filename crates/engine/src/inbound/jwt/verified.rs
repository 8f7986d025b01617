//! Tokens that were verified lately, so that a client pays for a signature once and not per request.
//!
//! Two generations: a look-up that hits the older one moves the entry to the younger; when that is full, the older is
//! forgotten. At most `2 * GENERATION` entries, no timer, no list, and what is used stays.

use std::collections::HashMap;

/// Verified tokens per generation; two generations are kept per requirement and worker.
pub const GENERATION: usize = 512;

/// What is remembered of a token, by the SHA-256 of its text: a hash that nobody can aim at.
#[derive(Clone, Debug)]
pub struct Verified<V> {
    young: HashMap<[u8; 32], V>,
    old: HashMap<[u8; 32], V>,
}

impl<V> Default for Verified<V> {
    fn default() -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }
}

impl<V: Clone> Verified<V> {
    /// What is known of the token.
    pub fn get(&mut self, token: &[u8; 32]) -> Option<V> {
        if let Some(known) = self.young.get(token) {
            return Some(known.clone());
        }
        let known = self.old.remove(token)?;
        self.insert(*token, known.clone());
        Some(known)
    }

    /// Remembers a token.
    pub fn insert(&mut self, token: [u8; 32], value: V) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, value);
    }

    /// Forgets a token.
    pub fn remove(&mut self, token: &[u8; 32]) {
        self.young.remove(token);
        self.old.remove(token);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many tokens are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> [u8; 32] {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        key
    }

    #[test]
    fn what_is_used_stays_and_the_rest_is_bounded() {
        let mut verified = Verified::default();
        for number in 0..10 * GENERATION {
            verified.insert(key(number), number);
            assert_eq!(verified.get(&key(0)), Some(0), "used all the time");
            assert!(verified.len() <= 2 * GENERATION);
        }
        assert_eq!(verified.get(&key(1)), None);
        verified.remove(&key(0));
        assert_eq!(verified.get(&key(0)), None);
        verified.clear();
        assert!(verified.is_empty());
    }
}
