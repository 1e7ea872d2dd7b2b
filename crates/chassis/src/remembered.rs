//! The newest of what was found out, by key. In: keys and values. Out: values, until newer ones push them out.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// A bounded memory; the oldest entry leaves first.
#[derive(Debug)]
pub struct Remembered<K, V> {
    capacity: usize,
    values: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K: Clone + Eq + Hash, V> Remembered<K, V> {
    /// Room for `capacity` entries; with 0 nothing is remembered.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, values: HashMap::new(), order: VecDeque::new() }
    }

    /// What is remembered of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key)
    }

    /// Remembers a value in the place of any other; says whether something older had to leave.
    pub fn insert(&mut self, key: K, value: V) -> bool {
        if self.capacity == 0 {
            return false;
        }
        if self.values.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() <= self.capacity {
            return false;
        }
        self.order.pop_front().is_some_and(|oldest| self.values.remove(&oldest).is_some())
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
