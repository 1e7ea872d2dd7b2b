//! The TRACE reference of a task: the cheapest success seen so far (docs/spec.md#reference).

use serde::{Deserialize, Serialize};

/// (rounds, searches) of a success that searched. Ordered lexicographically, so `min` is the join of the
/// semilattice: merging in any order, any number of times, gives one result and never a looser one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Tool rounds, at least 1.
    pub rounds: u32,
    /// Searches over all rounds, at least 1. Fewer than rounds where a round was an error observation.
    pub searches: u32,
}

impl Reference {
    /// Whether a success can have cost this. Who searched nothing has shown nothing, and as a reference it would be tighter than
    /// anything an honest searcher reaches, for ever.
    pub fn is_possible(&self) -> bool {
        self.rounds > 0 && self.searches > 0
    }

    /// Refuses what no success can have cost.
    ///
    /// # Errors
    /// The field, and a sentence of which it is the subject.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        match (self.rounds, self.searches) {
            (0, _) => Err(("rounds", "is 0, but a reference has at least one round")),
            (_, 0) => Err(("searches", "is 0, but who searched nothing has shown nothing: a reference has at least one search")),
            _ => Ok(()),
        }
    }

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

    #[test]
    fn nobody_succeeds_without_a_round_or_a_search() {
        let of = |rounds, searches| Reference { rounds, searches };
        assert!(of(1, 1).is_possible() && of(3, 2).is_possible(), "one of three rounds may be an error observation");
        for (impossible, field) in [(of(1, 0), "searches"), (of(0, 3), "rounds"), (of(0, 0), "rounds")] {
            assert!(!impossible.is_possible());
            assert_eq!(impossible.check().expect_err("impossible").0, field);
        }
        assert_eq!(of(1, 1).check(), Ok(()));
    }
}
