//! Places of which one connection may take so many. In: who wants one. Out: a place, given back when it is dropped, or nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Places. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    taken: Arc<Mutex<HashMap<u64, usize>>>,
}

/// One place.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    connection: u64,
}

impl Places {
    /// A place, unless `connection` has `most`.
    pub(crate) fn take(&self, connection: u64, most: usize) -> Option<Place> {
        let mut taken = self.lock();
        let count = taken.entry(connection).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { places: self.clone(), connection })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(count) = taken.get_mut(&self.connection) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.connection);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let places = Places::default();
        let held: Vec<Place> = (0..2).filter_map(|_| places.take(1, 2)).collect();
        assert!(held.len() == 2 && places.take(1, 2).is_none() && places.take(2, 2).is_some());
        drop(held);
        assert!(places.take(1, 2).is_some() && places.lock().is_empty());
    }
}
