//! The TRACE reference of a task: the cheapest success seen so far (spec section 2.4).

use serde::{Deserialize, Serialize};

/// (rounds, searches) of a success that used a tool. Ordered lexicographically, so `min` is the join of the
/// semilattice: merging in any order, any number of times, gives one result and never a looser one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Tool rounds, at least 1.
    pub rounds: u32,
    /// Searches over all rounds.
    pub searches: u32,
}

impl Reference {
    /// The tighter of what is known and what was just seen.
    pub fn tighten(known: Option<Reference>, seen: Reference) -> Reference {
        known.map_or(seen, |known| known.min(seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_rounds_win_then_fewer_searches() {
        let known = Reference { rounds: 3, searches: 3 };
        let wide = Reference { rounds: 2, searches: 9 };
        assert_eq!(Reference::tighten(Some(known), wide), wide);
        assert_eq!(Reference::tighten(Some(wide), known), wide);
        assert_eq!(Reference::tighten(None, known), known);
    }
}
