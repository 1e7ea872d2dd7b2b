//! "Did you mean ...?"
//!
//! In: a word that nobody knows and the words that are known. Out: the one that was most likely meant, if any is near.

/// The candidate nearest to `word` by edits, if at most a third of the longer word (and at least 1 edit) away.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    let near = |candidate: &&str| {
        let longer = word.chars().count().max(candidate.chars().count());
        let distance = edits(&word, &plain(candidate));
        (distance <= (longer / 3).max(1)).then_some(distance)
    };
    let near = candidates.into_iter().filter_map(|candidate| near(&candidate).map(|distance| (distance, candidate)));
    near.min().map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replaced.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(table[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    table[a.len()][b.len()]
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
        assert_eq!([edits("", "abc"), edits("abc", "abc"), edits("abc", "acb"), edits("kitten", "sitting")], [3, 0, 1, 3]);
    }
}
