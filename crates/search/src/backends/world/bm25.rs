//! The text index of the world: BM25 (tantivy, in memory) over a document per fact and a profile per entity.
//! In: a layer, then free text; out: documents with a relevance of 0..=1. Knows no observation.
//!
//! Words of a document are indexed by the part they play: the name it is about (whole and word by word), the relation's
//! label, the value, the profile's values. That way "Guinea currency" finds Guinea's currency rather than Equatorial
//! Guinea's or that of a country whose capital happens to be called so, "Lima Africa" is not taken for South Africa, and
//! two values together find the profile that has both.

use std::sync::Arc;

use hypereyes_environment::Hit;
use hypereyes_world::document::profile_values;
use hypereyes_world::{Document, Layer};
use tantivy::query::{BooleanQuery, BoostQuery, DisjunctionMaxQuery, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, Schema, SchemaBuilder, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{Index, Searcher, TantivyDocument, TantivyError, Term, collector::TopDocs};

use super::TextIndex;
use crate::words::{self, analysed, plain_words};

/// Memory of building an index; one pack stays far below.
const BUILD_BYTES: usize = 32 << 20;

/// Most words of a name that is found as a whole.
const MAX_NAME_WORDS: usize = 8;

/// Weight of a whole name, per word of it. It must outweigh the same words as a value of a profile.
const NAME: f32 = 1.2;
/// Weight of a word by the part it plays. Part of a name says little (Africa in South Africa); profiles must outweigh
/// single facts, because both values of a query are in one profile.
const SUBJECT: f32 = 0.5;
const LABEL: f32 = 0.6;
const VALUE: f32 = 0.7;
/// A word of a whole name in the query, found in a value: below `SUBJECT`, so that Andorra's capital, Andorra la Vella, is
/// not Andorra's continent.
const VALUE_IN_NAME: f32 = 0.3;
const PROFILE: f32 = 1.5;

/// The index of one layer. A hit's title is the relation's label or `profile`, its content a sentence, its score BM25 over the best
/// that any document could reach for the query.
pub struct Bm25 {
    layer: Arc<Layer>,
    searcher: Searcher,
    fields: Fields,
    analyzer: TextAnalyzer,
}

#[derive(Clone, Copy)]
struct Fields {
    name: Field,
    subject: Field,
    label: Field,
    value: Field,
    profile: Field,
}

impl TextIndex for Bm25 {
    fn search(&self, query: &str, limit: usize) -> Result<Vec<Hit>, String> {
        self.best(query, limit).map_err(|error| error.to_string())
    }
}

impl Bm25 {
    /// Indexes a layer: some ten milliseconds for two hundred entities.
    pub fn new(layer: Arc<Layer>) -> Result<Self, TantivyError> {
        let (schema, fields) = schema();
        let mut analyzer = words::analyzer();
        let index = Index::create_in_ram(schema);
        index.tokenizers().register("words", analyzer.clone());
        let mut writer = tantivy::indexer::SingleSegmentIndexWriter::<TantivyDocument>::new(index, BUILD_BYTES)?;
        for entity in 0..layer.entities().len() {
            for slot in 0..slots(&layer) {
                writer.add_document(document(&layer, entity, slot, fields, &mut analyzer))?;
            }
        }
        let index = writer.finalize()?;
        let reader = index.reader_builder().reload_policy(tantivy::ReloadPolicy::Manual).try_into()?;
        Ok(Self { layer, searcher: reader.searcher(), fields, analyzer })
    }

    /// The `limit` best documents, best first; ties in the order of the pack. No usable word gives none.
    fn best(&self, query: &str, limit: usize) -> Result<Vec<Hit>, TantivyError> {
        let words = words::of_query(query, &self.analyzer);
        if words.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        let names = self.whole_names(&words)?;
        let mut distinct: Vec<&str> = Vec::new();
        for word in &words {
            if !distinct.contains(&word.as_str()) {
                distinct.push(word);
            }
        }
        let in_name = |word: &str| names.iter().any(|(name, _)| name.split(' ').any(|part| part == word));
        let of_words = distinct.iter().map(|word| self.word_query(word, if in_name(word) { VALUE_IN_NAME } else { VALUE }));
        let of_names = names.iter().map(|(name, weight)| weighted(self.fields.name, name, *weight));
        let clauses = of_words.chain(of_names).map(|query| (Occur::Should, query)).collect();
        let best = self.best_attainable(&distinct, &names)?;
        let top = self.searcher.search(&BooleanQuery::new(clauses), &TopDocs::with_limit(limit))?;
        let slots = slots(&self.layer);
        Ok(top
            .into_iter()
            .map(|(score, address)| {
                let Document { title, content } = text(&self.layer, address.doc_id as usize / slots, address.doc_id as usize % slots);
                let relevance = if best > 0.0 { f64::from(score / best).clamp(0.0, 1.0) } else { 0.0 };
                Hit { title, content, score: Some(relevance), ..Hit::default() }
            })
            .collect())
    }

    /// A word counts in the one part of a document where it weighs most: in "Mexico City is Mexico's capital" the second
    /// Mexico adds nothing.
    fn word_query(&self, word: &str, value: f32) -> Box<dyn Query> {
        let fields = self.fields;
        Box::new(DisjunctionMaxQuery::new(vec![
            weighted(fields.subject, word, SUBJECT),
            weighted(fields.label, word, LABEL),
            weighted(fields.value, word, value),
            weighted(fields.profile, word, PROFILE),
        ]))
    }

    /// Names that stand in the query as a whole, with their weights.
    fn whole_names(&self, words: &[String]) -> Result<Vec<(String, f32)>, TantivyError> {
        let mut names: Vec<(String, f32)> = Vec::new();
        for start in 0..words.len() {
            for end in start + 1..=words.len().min(start + MAX_NAME_WORDS) {
                let name = words[start..end].join(" ");
                let known = self.searcher.doc_freq(&Term::from_field_text(self.fields.name, &name))? > 0;
                if known && names.iter().all(|(other, _)| *other != name) {
                    names.push((name, NAME * (end - start) as f32));
                }
            }
        }
        Ok(names)
    }

    /// What a document would score that had every word of the query in the part where it weighs most; words that no
    /// document has do not count, for nothing could be better by them.
    fn best_attainable(&self, words: &[&str], names: &[(String, f32)]) -> Result<f32, TantivyError> {
        let fields = self.fields;
        let (mut fact, mut profile) = (0.0_f32, 0.0_f32);
        for (name, weight) in names {
            fact = fact.max(self.weight(fields.name, name)? * weight);
        }
        for word in words {
            let subject = self.weight(fields.subject, word)? * SUBJECT;
            fact += subject.max(self.weight(fields.label, word)? * LABEL).max(self.weight(fields.value, word)? * VALUE);
            profile += self.weight(fields.profile, word)? * PROFILE;
        }
        Ok(fact.max(profile))
    }

    /// BM25 of one occurrence of a word in a text of one word (k1 = 1.2, b = 0.75, as tantivy has them).
    fn weight(&self, field: Field, word: &str) -> Result<f32, TantivyError> {
        let documents = self.searcher.num_docs() as f32;
        let having = self.searcher.doc_freq(&Term::from_field_text(field, word))? as f32;
        if having == 0.0 {
            return Ok(0.0);
        }
        let mut tokens = 0;
        for segment in self.searcher.segment_readers() {
            tokens += segment.inverted_index(field)?.total_num_tokens();
        }
        let mean_length = tokens as f32 / documents;
        let rarity = (1.0 + (documents - having + 0.5) / (having + 0.5)).ln();
        Ok(rarity * 2.2 / (1.0 + 1.2 * (0.25 + 0.75 / mean_length)))
    }
}

fn weighted(field: Field, word: &str, weight: f32) -> Box<dyn Query> {
    let term = TermQuery::new(Term::from_field_text(field, word), IndexRecordOption::WithFreqs);
    Box::new(BoostQuery::new(Box::new(term), weight))
}

fn schema() -> (Schema, Fields) {
    // Only labels are weighed by length: values and names are short, and "9.8 million" is not worth less than "euro".
    let options = |tokenizer: &str, lengths: bool| {
        let indexing = TextFieldIndexing::default();
        let indexing = indexing.set_tokenizer(tokenizer).set_fieldnorms(lengths).set_index_option(IndexRecordOption::WithFreqs);
        TextOptions::default().set_indexing_options(indexing)
    };
    let mut builder = SchemaBuilder::default();
    let fields = Fields {
        name: builder.add_text_field("name", options("raw", false)),
        subject: builder.add_text_field("subject", options("words", false)),
        label: builder.add_text_field("label", options("words", true)),
        value: builder.add_text_field("value", options("words", false)),
        profile: builder.add_text_field("profile", options("words", false)),
    };
    (builder.build(), fields)
}

/// Documents per entity: its profile and one per relation. Document numbers follow from it.
fn slots(layer: &Layer) -> usize {
    layer.relations().len() + 1
}

fn document(layer: &Layer, entity: usize, slot: usize, fields: Fields, analyzer: &mut TextAnalyzer) -> TantivyDocument {
    let mut document = TantivyDocument::default();
    match slot.checked_sub(1) {
        // Found by its values alone: with its name, a capital called like its country would win every query for a fact.
        None => document.add_text(fields.profile, plain_words(&profile_values(layer, entity))),
        Some(relation) => {
            let name = analysed(layer.name_at(entity), analyzer).join(" ");
            document.add_text(fields.name, &name);
            document.add_text(fields.subject, &name);
            document.add_text(fields.label, plain_words(&layer.relations()[relation].label));
            document.add_text(fields.value, plain_words(layer.fact_at(entity, relation)));
        }
    }
    document
}

/// A document by the number that it has among those of its entity.
fn text(layer: &Layer, entity: usize, slot: usize) -> Document {
    match slot.checked_sub(1) {
        None => Document::of_profile(layer, entity),
        Some(relation) => Document::of_fact(layer, entity, relation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypereyes_world::World;
    use rayon::prelude::*;
    use std::collections::HashMap;

    const LAYERS: [u64; 4] = [0, 1, 2, 77];

    fn world() -> World {
        World::embedded().expect("the embedded pack is sound")
    }

    fn first(index: &Bm25, query: &str) -> (String, f64) {
        let found = index.search(query, 3).expect("searches");
        found.first().map(|hit| (hit.content.clone(), hit.score.expect("has one"))).unwrap_or_default()
    }

    #[test]
    fn name_and_label_find_that_fact_first() {
        let world = world();
        LAYERS.par_iter().for_each(|&seed| {
            let layer = world.layer(seed);
            let index = Bm25::new(layer.clone()).expect("indexes");
            for entity in 0..world.entities().len() {
                for (number, relation) in world.relations().iter().enumerate() {
                    let query = format!("{} {}", layer.name_at(entity), relation.label);
                    let (content, relevance) = first(&index, &query);
                    assert_eq!(content, text(&layer, entity, number + 1).content, "layer {seed}: {query}");
                    assert!((0.4..=1.0).contains(&relevance), "{query}: {relevance}");
                }
            }
        });
    }

    #[test]
    fn two_values_find_the_one_profile_that_has_both() {
        let world = world();
        let askable: Vec<usize> = (0..world.relations().len()).filter(|number| world.relations()[*number].askable).collect();
        let (asked, wrong): (usize, Vec<String>) = LAYERS
            .par_iter()
            .map(|&seed| {
                let layer = world.layer(seed);
                let index = Bm25::new(layer.clone()).expect("indexes");
                let (mut asked, mut wrong) = (0, Vec::new());
                for (place, &one) in askable.iter().enumerate() {
                    for &other in &askable[place + 1..] {
                        let mut holders: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
                        for entity in 0..world.entities().len() {
                            holders.entry((layer.fact_at(entity, one), layer.fact_at(entity, other))).or_default().push(entity);
                        }
                        for ((a, b), entities) in holders.iter().filter(|(_, entities)| entities.len() == 1) {
                            asked += 1;
                            let (content, _) = first(&index, &format!("{a} {b}"));
                            if content != text(&layer, entities[0], 0).content {
                                wrong.push(format!("{a} {b}: {content}"));
                            }
                        }
                    }
                }
                (asked, wrong)
            })
            .reduce(|| (0, Vec::new()), |a, b| (a.0 + b.0, [a.1, b.1].concat()));
        assert!(asked > 1000 && wrong.len() * 1000 <= asked, "{} of {asked} unique pairs are wrong: {wrong:#?}", wrong.len());
    }

    #[test]
    fn documents_read_value_first() {
        let world = world();
        let layer = world.layer(0);
        let index = Bm25::new(layer).expect("indexes");
        let found = index.search("currency of Mexico?", 3).expect("searches");
        assert_eq!((found[0].title.as_str(), found[0].content.as_str()), ("currency", "peso is Mexico's currency"));
        let found = index.search("euro Dublin", 1).expect("searches");
        assert_eq!(found[0].title, "profile");
        assert!(found[0].content.ends_with(" are Ireland's facts") && !found[0].content.contains("capital"), "{}", found[0].content);
    }

    #[test]
    fn any_text_is_a_query_and_never_a_grammar() {
        let world = world();
        let index = Bm25::new(world.layer(0)).expect("indexes");
        for query in ["", "  ", "\"", "a AND (", "title:x^3 OR *", "+-&&||!(){}[]^~*?:\\/", "xyzzy", "\u{0}\u{301}", "'s's's", "4.,2"] {
            let _ = index.search(query, 3).expect("searches");
        }
        assert_eq!(index.search("title:x -Mexico AND (currency)", 1).expect("searches")[0].content, "peso is Mexico's currency");
        let long: String = (0..100_000).map(|number| format!("w{number} ")).collect();
        assert!(index.search(&long, 3).expect("searches").is_empty());
    }

    #[test]
    fn the_same_query_gives_the_same_list() {
        let world = world();
        let lists: Vec<_> =
            (0..2).map(|_| Bm25::new(world.layer(5)).expect("indexes").search("Africa franc", 10).expect("searches")).collect();
        assert_eq!(lists[0], lists[1]);
        assert!(lists[0].len() == 10 && lists[0].windows(2).all(|pair| pair[0].score >= pair[1].score));
    }
}
