//! The newest of what was found out, by key. In: keys and values. Out: values, until newer ones push them out.

use std::hash::Hash;

use lru::LruCache;

/// A bounded memory; the oldest entry leaves first.
#[derive(Debug)]
pub struct Remembered<K: Eq + Hash, V> {
    capacity: usize,
    /// Bounded here: what has a capacity of its own takes memory for all of it at once.
    values: LruCache<K, V>,
}

impl<K: Eq + Hash, V> Remembered<K, V> {
    /// Room for `capacity` entries; with 0 nothing is remembered.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, values: LruCache::unbounded() }
    }

    /// What is remembered of `key`. Asking makes nothing newer.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.values.peek(key)
    }

    /// Remembers a value in the place of any other; says whether something older had to leave.
    pub fn insert(&mut self, key: K, value: V) -> bool {
        if let Some(known) = self.values.peek_mut(&key) {
            *known = value;
            return false;
        }
        if self.capacity == 0 {
            return false;
        }
        self.values.put(key, value);
        self.values.len() > self.capacity && self.values.pop_lru().is_some()
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leaves_and_a_new_value_takes_the_place_of_the_old() {
        let mut memory = Remembered::new(2);
        assert!(!memory.insert("a", 1));
        assert!(!memory.insert("b", 2));
        assert!(!memory.insert("a", 3));
        assert!(memory.insert("c", 4));
        assert_eq!((memory.get(&"a"), memory.get(&"b"), memory.get(&"c"), memory.len()), (None, Some(&2), Some(&4), 2));
        let mut none = Remembered::new(0);
        assert!(!none.insert("a", 1));
        assert!(none.is_empty());
    }
}
