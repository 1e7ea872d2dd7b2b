//! "Did you mean ...?"
//!
//! In: a word that nobody knows and the words that are known. Out: the one that was most likely meant, if any is near.

use strsim::osa_distance;

/// The candidate nearest to `word` by insertions, deletions, replacements and swaps of neighbours, if at most a third of the longer word
/// (and at least 1 edit) away.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    let near = |candidate: &&str| {
        let longer = word.chars().count().max(candidate.chars().count());
        let distance = osa_distance(&word, &plain(candidate));
        (distance <= (longer / 3).max(1)).then_some(distance)
    };
    let near = candidates.into_iter().filter_map(|candidate| near(&candidate).map(|distance| (distance, candidate)));
    near.min().map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_are_understood() {
        let known = ["learning_rate", "group_size", "max_staleness", "lr"];
        assert_eq!(nearest("learnin_rate", known), Some("learning_rate"));
        assert_eq!(nearest("gruop-size", known), Some("group_size"));
        assert_eq!(nearest("Lr", known), Some("lr"));
        assert_eq!(nearest("checkpoint", known), None);
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(
            [osa_distance("", "abc"), osa_distance("abc", "abc"), osa_distance("abc", "acb"), osa_distance("kitten", "sitting")],
            [3, 0, 1, 3]
        );
    }
}
