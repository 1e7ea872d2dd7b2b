//! The step machine of one episode (docs/spec.md#crops, #calls, #episodes). In: the text of an assistant turn; out: the end, or an
//! observation with the crops it returns. It keeps the registry of pictures. Knows no token.

use std::borrow::Cow;
use std::sync::Arc;

use futures::future::join_all;
use hypereyes_domain::{Area, Call, Ending, Round};
use hypereyes_pictures::{RgbImage, crop};
use serde::{Deserialize, Serialize};

use crate::backend::Search;
use crate::boxes::BoxUnits;
use crate::metrics::{CAPPED, CROPS_FAILED, DROPPED, ENDINGS, REFUSED, ROUNDS};
use crate::observation::{self, Outcome, Tool};
use crate::parse::{Action, Note, Refusal, closed_answer, parse_turn};

/// Limits and wording of an episode.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct EnvConfig {
    /// Assistant turns; a call in the last one is not run. Default 9 (docs/spec.md#episodes).
    pub max_turns: u32,
    /// Executed calls. Default 8, one less than the turns, so that the last turn is for the answer.
    pub max_rounds: u32,
    /// Return crops as pictures. Default true, as the reference does; without, the names found must do.
    pub crop_pictures: bool,
    /// Hits shown per picture searched. Default 3 (docs/spec.md#search-services).
    pub image_hits: usize,
    /// Hits shown per query. Default 3 (docs/spec.md#search-services).
    pub text_hits: usize,
    /// Text hits below this relevance are not shown. Default 0: embedded relevances are not a service's, which has 0.6.
    pub text_min_relevance: f64,
    /// Begin image observations with the labels found and failed. Default false: the blocks below say the same.
    pub header: bool,
    /// Said when one call is left; empty says nothing.
    pub hint_one_left: String,
    /// Said when none is left; empty says nothing.
    pub hint_none_left: String,
    /// Characters of a hit's title, content and detail each. Default 8000: the reference has no limit, a context has.
    pub max_hit_chars: usize,
    /// In what the policy writes boxes: `ratio`, `thousandths` or `pixels`. Default `ratio`, the published grammar. The prompt says it
    /// where it is another; a box in other units is answered by an error that names these.
    pub box_units: BoxUnits,
}

impl EnvConfig {
    /// Refuses settings under which nothing that is searched would be shown, or no episode fits, naming the key.
    ///
    /// # Errors
    /// A sentence for whoever wrote the settings.
    pub fn check(&self) -> Result<(), String> {
        let counts = [
            ("max_turns", u64::from(self.max_turns), "no episode fits in"),
            ("max_rounds", u64::from(self.max_rounds), "no episode fits in"),
            ("image_hits", self.image_hits as u64, "what an image search finds is never shown"),
            ("text_hits", self.text_hits as u64, "what a text search finds is never shown"),
            ("max_hit_chars", self.max_hit_chars as u64, "what a search finds is never shown"),
        ];
        if let Some((key, _, why)) = counts.iter().find(|(_, count, _)| *count == 0) {
            return Err(format!("{key} is 0: {why}; give at least 1"));
        }
        // A relevance is at most 1.
        let least = self.text_min_relevance;
        if !(least.is_finite() && least <= 1.0) {
            return Err(format!("text_min_relevance is {least}: what a text search finds is never shown; give a number up to 1"));
        }
        Ok(())
    }
}

impl Default for EnvConfig {
    fn default() -> Self {
        Self {
            max_turns: 9,
            max_rounds: 8,
            crop_pictures: true,
            image_hits: 3,
            text_hits: 3,
            text_min_relevance: 0.0,
            header: false,
            hint_one_left: "one call left".into(),
            hint_none_left: "no calls left, answer now".into(),
            max_hit_chars: 8000,
            box_units: BoxUnits::default(),
        }
    }
}

/// What became of a turn.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The episode is over.
    Done {
        /// How.
        ending: Ending,
        /// The answer, if there is one.
        answer: Option<String>,
    },
    /// A call was executed; the next turn follows.
    Observed {
        /// The observation without placeholders for pictures; those come before it.
        text: String,
        /// Crops in the order of their labels; empty without `crop_pictures`.
        pictures: Vec<Arc<RgbImage>>,
        /// What was executed.
        round: Round,
    },
}

/// The size (width, height) in which the policy sees a picture of a size.
type SeenAs = Arc<dyn Fn((u32, u32)) -> (u32, u32) + Send + Sync>;

/// One episode: a question, its pictures and all crops made so far.
pub struct Episode {
    config: EnvConfig,
    search: Arc<dyn Search>,
    layer: u64,
    question: String,
    /// What the prompt puts into the policy's mouth at the beginning of every turn.
    opening: String,
    seen_as: SeenAs,
    /// Label and picture, in order of registration.
    registry: Vec<(String, Arc<RgbImage>)>,
    /// The number of the next label. Failed crops use one up, too.
    counter: u32,
    turns: u32,
    rounds: u32,
}

/// A call, executed.
struct Executed {
    kind: &'static str,
    body: String,
    pictures: Vec<Arc<RgbImage>>,
    searches: usize,
    failed: usize,
}

impl Executed {
    /// Nothing was searched; the body says why.
    fn nothing(kind: &'static str, body: &str) -> Self {
        Self { kind, body: body.to_owned(), pictures: Vec::new(), searches: 0, failed: 0 }
    }
}

impl Episode {
    /// Registers `pictures` as `img_0`, `img_1`, ...; `layer` is the seed that searches answer from.
    pub fn new(config: EnvConfig, search: Arc<dyn Search>, layer: u64, question: &str, pictures: Vec<Arc<RgbImage>>) -> Self {
        let question = question.replace("<image>", "");
        let (opening, seen_as): (String, SeenAs) = (String::new(), Arc::new(|size| size));
        let (registry, counter, turns, rounds) = (Vec::new(), 0, 0, 0);
        let mut episode = Self { config, search, layer, question, opening, seen_as, registry, counter, turns, rounds };
        for picture in pictures {
            let label = episode.next_label();
            episode.registry.push((label, picture));
        }
        episode
    }

    /// Every turn goes on after `opening`, such as a thought that the chat template begins.
    pub fn opened(self, opening: &str) -> Self {
        Self { opening: opening.to_owned(), ..self }
    }

    /// The policy sees a picture of a size (width, height) as one of `size`: its boxes in pixels are of that one. Default: as it is.
    pub fn seen_as(self, size: impl Fn((u32, u32)) -> (u32, u32) + Send + Sync + 'static) -> Self {
        Self { seen_as: Arc::new(size), ..self }
    }

    /// Takes one assistant turn: an answer ends the episode, so does a turn without a readable call or one beyond the
    /// limits; otherwise the call is executed, all its searches at once. Searches that fail say so in the observation.
    pub async fn step(&mut self, assistant_text: &str) -> Step {
        self.turns += 1;
        let turn = parse_turn(&self.after_opening(assistant_text));
        let call = match turn.action {
            Action::Answer(answer) => return done(Ending::Answered, Some(answer)),
            Action::None => return done(Ending::NoAction, None),
            Action::Call(call) => Ok(call),
            Action::BadCall(refusal) => Err(refusal),
        };
        if self.turns >= self.config.max_turns || self.rounds >= self.config.max_rounds {
            return done(Ending::TurnLimit, None);
        }
        self.rounds += 1;
        let call = match call.and_then(|call| self.placed(call)) {
            Ok(call) => call,
            Err(Refusal { reason, message }) => {
                metrics::counter!(ROUNDS, "kind" => "error").increment(1);
                metrics::counter!(REFUSED, "reason" => reason).increment(1);
                let round = Round { call: None, searches: 0, failed_searches: 0 };
                return Step::Observed { text: observation::error(&message), pictures: Vec::new(), round };
            }
        };
        let mut executed = match &call {
            Call::ImageSearch { image_id, areas } => self.image_search(image_id, areas).await,
            Call::TextSearch { queries } => self.text_search(queries).await,
        };
        metrics::counter!(ROUNDS, "kind" => executed.kind).increment(1);
        for note in &turn.notes {
            count_note(note);
            executed.body.push_str(&format!("{}\n", note.text));
        }
        let count = |number: usize| u32::try_from(number).expect("a call has at most 64 searches");
        let round = Round { call: Some(Box::new(call)), searches: count(executed.searches), failed_searches: count(executed.failed) };
        let text = observation::wrap(&executed.body, &self.question, self.hint());
        let pictures = if self.config.crop_pictures { executed.pictures } else { Vec::new() };
        Step::Observed { text, pictures, round }
    }

    /// The answer of a turn that was cut off: one that was closed before stands, a call does not, as the rest of the turn is unknown.
    pub fn cut(&self, assistant_text: &str) -> Option<String> {
        closed_answer(&self.after_opening(assistant_text))
    }

    fn after_opening<'a>(&self, assistant_text: &'a str) -> Cow<'a, str> {
        match self.opening.as_str() {
            "" => assistant_text.into(),
            opening => [opening, assistant_text].concat().into(),
        }
    }

    /// A call with its areas as ratios, or what is wrong with one of them.
    fn placed(&self, call: Call) -> Result<Call, Refusal> {
        let Call::ImageSearch { image_id, mut areas } = call else { return Ok(call) };
        if let Some(picture) = self.picture(&image_id) {
            let size = (self.seen_as)(picture.dimensions());
            for (at, area) in areas.iter_mut().enumerate() {
                let read = self.config.box_units.read(*area, size);
                *area = read.map_err(|said| Refusal { reason: "area", message: format!("area[{at}] {said}") })?;
            }
        }
        Ok(Call::ImageSearch { image_id, areas })
    }

    /// Labels of the registered pictures in order.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = &str> {
        self.registry.iter().map(|(label, _)| label.as_str())
    }

    /// A registered picture.
    pub fn picture(&self, label: &str) -> Option<&Arc<RgbImage>> {
        self.registry.iter().find(|(known, _)| known == label).map(|(_, picture)| picture)
    }

    /// The number that the next crop's label will have.
    pub fn next_number(&self) -> u32 {
        self.counter
    }

    /// Turns taken, calls executed.
    pub fn counts(&self) -> (u32, u32) {
        (self.turns, self.rounds)
    }

    async fn image_search(&mut self, image_id: &str, areas: &[Area]) -> Executed {
        let Some(picture) = self.picture(image_id).cloned() else {
            return Executed::nothing("unknown_id", observation::UNKNOWN_ID);
        };
        if areas.is_empty() {
            let searched = self.search_pictures(vec![(image_id.to_owned(), picture)]).await;
            let body = observation::image_body(&searched, &[], false, self.config.max_hit_chars);
            return Executed {
                kind: "image",
                body,
                pictures: Vec::new(),
                searches: 1,
                failed: failures(searched.iter().map(|one| &one.1)),
            };
        }
        let (mut crops, mut failed, mut of_failed) = (Vec::new(), Vec::new(), Vec::new());
        for area in areas {
            // The label is taken before cropping: a crop that fails uses it up.
            let label = self.next_label();
            match crop(&picture, area) {
                Some(cut) => crops.push((label, Arc::new(cut))),
                None => {
                    failed.push(label);
                    of_failed.push(*area);
                }
            }
        }
        metrics::counter!(CROPS_FAILED).increment(failed.len() as u64);
        let reasons = observation::crop_reasons(&of_failed);
        if crops.is_empty() {
            return Executed::nothing("all_crops_failed", &[observation::ALL_CROPS_FAILED, &reasons].concat());
        }
        self.registry.extend(crops.iter().cloned());
        let pictures = crops.iter().map(|(_, cut)| cut.clone()).collect();
        let searched = self.search_pictures(crops).await;
        let mut body = observation::image_body(&searched, &failed, self.config.header, self.config.max_hit_chars);
        body.push_str(&reasons);
        Executed { kind: "image", body, pictures, searches: searched.len(), failed: failures(searched.iter().map(|one| &one.1)) }
    }

    async fn search_pictures(&self, pictures: Vec<(String, Arc<RgbImage>)>) -> Vec<(String, Outcome)> {
        join_all(pictures.into_iter().map(async |(label, picture)| {
            let mut outcome = self.search.image(self.layer, picture).await;
            if let Ok(hits) = &mut outcome {
                hits.sort_by(|a, b| Tool::Image.relevance(b).total_cmp(&Tool::Image.relevance(a)));
                hits.truncate(self.config.image_hits);
            }
            (label, outcome)
        }))
        .await
    }

    async fn text_search(&self, queries: &[String]) -> Executed {
        if queries.is_empty() {
            return Executed::nothing("no_query", observation::NO_QUERY);
        }
        let outcomes: Vec<Outcome> = join_all(queries.iter().map(async |query| {
            let mut outcome = self.search.text(self.layer, query).await;
            if let Ok(hits) = &mut outcome {
                hits.retain(|hit| Tool::Text.relevance(hit) >= self.config.text_min_relevance);
                hits.truncate(self.config.text_hits);
            }
            outcome
        }))
        .await;
        let body = observation::text_body(&outcomes, self.config.max_hit_chars);
        Executed { kind: "text", body, pictures: Vec::new(), searches: outcomes.len(), failed: failures(outcomes.iter()) }
    }

    fn next_label(&mut self) -> String {
        let label = format!("img_{}", self.counter);
        self.counter += 1;
        label
    }

    fn hint(&self) -> Option<&str> {
        let hint = match self.config.max_rounds.saturating_sub(self.rounds) {
            1 => &self.config.hint_one_left,
            0 => &self.config.hint_none_left,
            _ => return None,
        };
        Some(hint.as_str()).filter(|hint| !hint.is_empty())
    }
}

fn done(ending: Ending, answer: Option<String>) -> Step {
    metrics::counter!(ENDINGS, "ending" => ending.label()).increment(1);
    Step::Done { ending, answer }
}

fn count_note(note: &Note) {
    let count = note.count as u64;
    match note.reason {
        "areas" | "queries" => metrics::counter!(CAPPED, "what" => note.reason).increment(count),
        reason => metrics::counter!(DROPPED, "reason" => reason).increment(count),
    }
}

fn failures<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> usize {
    outcomes.filter(|outcome| outcome.is_err()).count()
}
