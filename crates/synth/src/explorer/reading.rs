//! What an explorer takes from an observation. In: its text. Out: names of pictures, facts of entities.
//!
//! It reads as a policy must: the first result under each label for pictures, every result for facts. Lines that it does
//! not understand it passes over.

/// A fact as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    /// Whose.
    pub(crate) name: String,
    /// The relation's label; `None` from a profile, which lists values only.
    pub(crate) label: Option<String>,
    /// The value.
    pub(crate) value: String,
}

/// The best name under each label of an image search.
pub(crate) fn read_names(observation: &str) -> Vec<String> {
    results(observation).filter(|(rank, _)| *rank == 1).map(|(_, text)| text.trim_end_matches(':').trim().to_owned()).collect()
}

/// All facts of a text search.
pub(crate) fn read_facts(observation: &str) -> Vec<Fact> {
    results(observation).flat_map(|(_, text)| facts(text)).collect()
}

/// Lines such as `2. 0.97 text` within the tool's response: rank and text.
fn results(observation: &str) -> impl Iterator<Item = (u32, &str)> {
    let (_, inside) = observation.split_once("<tool_response>").unwrap_or_default();
    let inside = inside.split("</tool_response>").next().unwrap_or_default();
    inside.lines().filter_map(|line| {
        let (rank, rest) = line.split_once(". ")?;
        let (relevance, text) = rest.split_once(' ')?;
        relevance.parse::<f64>().ok()?;
        Some((rank.parse().ok()?, text))
    })
}

/// `currency: peso is Mexico's currency` or `profile: Europe, euro are Mexico's facts`.
fn facts(text: &str) -> Vec<Fact> {
    let Some((title, sentence)) = text.split_once(": ") else { return Vec::new() };
    if let Some((values, owner)) = sentence.split_once(" are ").filter(|_| title == "profile") {
        let Some(name) = owner.strip_suffix("'s facts") else { return Vec::new() };
        return values.split(", ").map(|value| Fact { name: name.into(), label: None, value: value.into() }).collect();
    }
    let name = sentence.split_once(" is ").and_then(|(value, owner)| Some((value, owner.strip_suffix(title)?.strip_suffix("'s ")?)));
    name.map(|(value, name)| Fact { name: name.into(), label: Some(title.into()), value: value.into() }).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_first_results() {
        let text =
            "<tool_response>img_1\n1. 0.97 Mexico\n2. 0.40 Peru\nimg_2\n1. 0.88 Saint Lucia\n</tool_response>Which one?\n1. 0.99 not this";
        assert_eq!(read_names(text), ["Mexico", "Saint Lucia"]);
        assert!(read_names("no results").is_empty());
    }

    #[test]
    fn facts_and_profiles_are_read() {
        let text = "<tool_response>1\n1. 0.97 currency: peso is Mexico's currency\n2. 0.31 profile: Asia, yen are Saint John's's facts\n3. 0.2 x</tool_response>";
        let fact =
            |name: &str, label: Option<&str>, value: &str| Fact { name: name.into(), label: label.map(Into::into), value: value.into() };
        assert_eq!(
            read_facts(text),
            [fact("Mexico", Some("currency"), "peso"), fact("Saint John's", None, "Asia"), fact("Saint John's", None, "yen")]
        );
    }
}
