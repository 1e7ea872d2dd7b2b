//! The documents of a layer: what searches of its texts find, and reading them again. In: an entity and a relation, by number. Out: a
//! title and a sentence; or the facts that such a sentence tells. Knows no index.
//!
//! Writing and reading stand side by side because they must agree: scripted policies read what they find as a trained one must.

use crate::Layer;

/// Title of an entity's profile, which lists its values without saying of what.
const PROFILE: &str = "profile";

/// One document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The relation's label, or `profile`.
    pub title: String,
    /// A sentence.
    pub content: String,
}

/// What a document tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Whose.
    pub name: String,
    /// The relation's label; `None` from a profile.
    pub label: Option<String>,
    /// The value.
    pub value: String,
}

impl Document {
    /// `currency`: `peso is Mexico's currency`.
    ///
    /// # Panics
    /// There is no such entity or relation.
    pub fn of_fact(layer: &Layer, entity: usize, relation: usize) -> Self {
        let (name, label) = (layer.name_at(entity), &layer.relations()[relation].label);
        Self { title: label.clone(), content: format!("{} is {name}'s {label}", layer.fact_at(entity, relation)) }
    }

    /// `profile`: `Europe, euro are Ireland's facts`.
    ///
    /// # Panics
    /// There is no such entity.
    pub fn of_profile(layer: &Layer, entity: usize) -> Self {
        let name = layer.name_at(entity);
        Self { title: PROFILE.to_owned(), content: format!("{} are {name}'s facts", profile_values(layer, entity)) }
    }

    /// The facts that a document of this title and content tells; none where it is not one of these.
    pub fn facts(title: &str, content: &str) -> Vec<Fact> {
        if let Some((values, owner)) = content.split_once(" are ").filter(|_| title == PROFILE) {
            let Some(name) = owner.strip_suffix("'s facts") else { return Vec::new() };
            return values.split(", ").map(|value| Fact { name: name.into(), label: None, value: value.into() }).collect();
        }
        let name = content.split_once(" is ").and_then(|(value, owner)| Some((value, owner.strip_suffix(title)?.strip_suffix("'s ")?)));
        name.map(|(value, name)| Fact { name: name.into(), label: Some(title.into()), value: value.into() }).into_iter().collect()
    }
}

/// Values of the askable relations, in the order of the world.
///
/// # Panics
/// There is no such entity.
pub fn profile_values(layer: &Layer, entity: usize) -> String {
    let askable = layer.relations().iter().enumerate().filter(|(_, relation)| relation.askable);
    askable.map(|(number, _)| layer.fact_at(entity, number)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::World;

    #[test]
    fn every_document_of_the_embedded_world_is_read_as_it_was_written() {
        let world = World::embedded().expect("the embedded pack is sound");
        let layer = world.layer(5);
        for entity in 0..layer.entities().len() {
            let name = layer.name_at(entity);
            for (number, relation) in layer.relations().iter().enumerate() {
                let Document { title, content } = Document::of_fact(&layer, entity, number);
                let value = layer.fact_at(entity, number).to_owned();
                assert_eq!(Document::facts(&title, &content), [Fact { name: name.into(), label: Some(relation.label.clone()), value }]);
            }
            let Document { title, content } = Document::of_profile(&layer, entity);
            assert!(Document::facts(&title, &content).iter().all(|fact| fact.name == name && fact.label.is_none()), "{content}");
        }
    }

    #[test]
    fn facts_and_profiles_are_read() {
        let fact =
            |name: &str, label: Option<&str>, value: &str| Fact { name: name.into(), label: label.map(Into::into), value: value.into() };
        assert_eq!(Document::facts("currency", "peso is Mexico's currency"), [fact("Mexico", Some("currency"), "peso")]);
        let both = [fact("Saint John's", None, "Asia"), fact("Saint John's", None, "yen")];
        assert_eq!(Document::facts("profile", "Asia, yen are Saint John's's facts"), both);
        assert!(Document::facts("", "x").is_empty());
    }
}
