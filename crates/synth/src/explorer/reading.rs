//! What an explorer takes from a round. In: what was found, as it was shown. Out: names of pictures, facts of entities.
//!
//! It reads as a policy must: the first result under each label for pictures, every result for facts. Documents that it does
//! not understand it passes over.

use hypereyes_domain::Found;
use hypereyes_world::Document;
use hypereyes_world::document::Fact;

/// The best name under each label of an image search.
pub(crate) fn read_names(found: &[Found]) -> Vec<String> {
    found.iter().filter_map(|one| one.hits.first()).map(|hit| hit.title.clone()).collect()
}

/// All facts of a text search.
pub(crate) fn read_facts(found: &[Found]) -> Vec<Fact> {
    found.iter().flat_map(|one| &one.hits).flat_map(|hit| Document::facts(&hit.title, &hit.content)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use hypereyes_domain::FoundHit;

    use super::*;

    /// What a search found under a label: titles and contents.
    pub(crate) fn found(label: &str, hits: &[(&str, &str)]) -> Found {
        let hit = |&(title, content): &(&str, &str)| FoundHit {
            title: title.into(),
            content: content.into(),
            score: Some(0.9),
            ..FoundHit::default()
        };
        Found { label: label.into(), hits: hits.iter().map(hit).collect(), note: None }
    }

    #[test]
    fn names_are_the_first_results() {
        let round = [found("img_1", &[("Mexico", ""), ("Peru", "")]), found("img_2", &[("Saint Lucia", "")])];
        assert_eq!(read_names(&round), ["Mexico", "Saint Lucia"]);
        assert!(read_names(&[Found::said("no results")]).is_empty());
    }

    #[test]
    fn facts_and_profiles_are_read() {
        let hits = [("currency", "peso is Mexico's currency"), ("profile", "Asia, yen are Saint John's's facts"), ("", "x")];
        let fact =
            |name: &str, label: Option<&str>, value: &str| Fact { name: name.into(), label: label.map(Into::into), value: value.into() };
        assert_eq!(
            read_facts(&[found("1", &hits)]),
            [fact("Mexico", Some("currency"), "peso"), fact("Saint John's", None, "Asia"), fact("Saint John's", None, "yen")]
        );
    }
}
