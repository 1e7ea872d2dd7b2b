//! What happened in an episode, read back from its tokens: every round with its areas or queries and what they found.
//!
//! In: a trajectory, the chat that it was made with, its pictures. Out: an [`Episode`] that a terminal or a page can show.
//! It shows what the policy was told, because it reads the observations and not the world; and it never fails: what
//! cannot be read is shown as it is.

use hypereyes_chat::Chat;
use hypereyes_domain::{Area, Call, Ending, Trajectory};
use hypereyes_pictures::{RgbImage, crop};
use hypereyes_search::{Action, opened_thought, parse_turn};

/// An episode, told.
#[derive(Clone, Debug, PartialEq)]
pub struct Episode {
    /// Turns in order.
    pub turns: Vec<Turn>,
    /// The answer, if there was one.
    pub answer: Option<String>,
    /// How it ended.
    pub ending: Ending,
    /// Tokens in all.
    pub tokens: usize,
}

/// One turn of the policy and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// What the policy said to itself.
    pub reason: Option<String>,
    /// What it did.
    pub step: Step,
}

/// What a turn did.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Searched areas of a picture, all at once.
    Images {
        /// Label of the picture.
        on: String,
        /// What was searched.
        shots: Vec<Shot>,
    },
    /// Searched texts, all at once.
    Texts {
        /// What was asked.
        asked: Vec<Asked>,
    },
    /// Made a call that was answered with an error, or not at all.
    Refused {
        /// What the policy wanted.
        wanted: String,
        /// What it was told.
        told: String,
    },
    /// Answered.
    Answer {
        /// What.
        text: String,
    },
    /// Neither called nor answered.
    Nothing {
        /// What it said instead.
        text: String,
    },
}

/// One area of a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Shot {
    /// Number within the episode, from 0: its colour.
    pub number: usize,
    /// Where; `None` is the whole picture.
    pub area: Option<Area>,
    /// What was cut out; `None` when nothing was inside.
    pub crop: Option<RgbImage>,
    /// What was found.
    pub found: Found,
}

/// One query of a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The query.
    pub query: String,
    /// What was found.
    pub found: Found,
    /// Number of the area whose finding the query is about.
    pub about: Option<usize>,
}

/// Results of one search as the policy read them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Hits, best first.
    pub hits: Vec<Hit>,
    /// Said instead of hits (`no relevant information`, `crop failed`).
    pub note: Option<String>,
}

/// One hit.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// Relevance, 0..=1.
    pub relevance: f64,
    /// Its text.
    pub text: String,
}

impl Episode {
    /// Reads a trajectory back. `pictures` are the task's, in order.
    pub fn read(chat: &Chat, trajectory: &Trajectory, pictures: &[RgbImage]) -> Self {
        let prompt = &trajectory.prompt;
        let opening = chat.decode(&prompt[prompt.len().saturating_sub(64)..]);
        let mut reader = Reader::new(pictures, opened_thought(&opening));
        // Every turn that was observed executed a round, and a round keeps its areas as ratios, whatever the policy wrote.
        let mut calls = trajectory.course.rounds.iter().map(|round| round.call.as_deref());
        let mut turns = Vec::new();
        let mut spans = spans(trajectory).into_iter().peekable();
        while let Some((sampled, tokens)) = spans.next() {
            // A trajectory begins with a turn; a masked one has no turns that could be told apart.
            if !sampled {
                continue;
            }
            let observed = spans.next_if(|(sampled, _)| !sampled).map(|(_, tokens)| chat.decode(tokens));
            let call = observed.as_ref().and_then(|_| calls.next().flatten());
            turns.push(reader.turn(&chat.decode(tokens), observed.as_deref(), call));
        }
        Self { turns, answer: trajectory.course.answer.clone(), ending: trajectory.course.ending, tokens: trajectory.tokens() }
    }

    /// Every area that was searched on the first picture, in order.
    pub fn boxes(&self) -> impl Iterator<Item = &Shot> {
        let on_first = |turn: &Turn| matches!(&turn.step, Step::Images { on, .. } if on == "img_0");
        self.turns.iter().filter(move |turn| on_first(turn)).flat_map(|turn| match &turn.step {
            Step::Images { shots, .. } => shots.as_slice(),
            _ => &[],
        })
    }

    /// True for the episode that the project is about: one round of several areas, one of several queries, an answer.
    pub fn is_parallel(&self) -> bool {
        let steps: Vec<&Step> = self.turns.iter().map(|turn| &turn.step).collect();
        match steps[..] {
            [Step::Images { shots, .. }, Step::Texts { asked }, Step::Answer { .. }] => shots.len() > 1 && asked.len() > 1,
            _ => false,
        }
    }
}

/// Runs of sampled and observed tokens.
fn spans(trajectory: &Trajectory) -> Vec<(bool, &[u32])> {
    let mut spans = Vec::new();
    let mut start = 0;
    for run in trajectory.mask.chunk_by(|left, right| left == right) {
        let end = (start + run.len()).min(trajectory.response.len());
        spans.push((run[0], &trajectory.response[start..end]));
        start = end;
    }
    spans
}

/// Keeps the registry of pictures as the environment does.
struct Reader {
    /// What the prompt puts into the policy's mouth at the beginning of a turn.
    opening: String,
    registry: Vec<(String, RgbImage)>,
    counter: usize,
    shots: usize,
    /// What each shot so far was found to be.
    names: Vec<String>,
}

impl Reader {
    fn new(pictures: &[RgbImage], opening: &str) -> Self {
        let registry: Vec<_> = pictures.iter().enumerate().map(|(at, picture)| (format!("img_{at}"), picture.clone())).collect();
        Self { opening: opening.to_owned(), counter: registry.len(), registry, shots: 0, names: Vec::new() }
    }

    /// `call` is what was executed, where it was kept.
    fn turn(&mut self, text: &str, observed: Option<&str>, call: Option<&Call>) -> Turn {
        let turn = parse_turn(&[&self.opening, text].concat());
        let step = match (turn.action, observed) {
            (Action::Answer(text), _) => Step::Answer { text },
            (Action::None, _) => Step::Nothing { text: plain(text) },
            (Action::BadCall(refusal), None) => Step::Refused { wanted: plain(text), told: refusal.message },
            (Action::Call(_), None) => Step::Refused { wanted: plain(text), told: "not run: the limit of turns was reached".into() },
            // An error observation has no tags.
            (Action::BadCall(_) | Action::Call(_), Some(observed)) if !observed.contains("<tool_response>") => {
                Step::Refused { wanted: plain(text), told: error(observed).to_owned() }
            }
            (Action::BadCall(_), Some(observed)) => Step::Refused { wanted: plain(text), told: body(observed).trim().to_owned() },
            (Action::Call(parsed), Some(observed)) => self.executed(call.cloned().unwrap_or(parsed), body(observed), text),
        };
        Turn { reason: turn.reason, step }
    }

    fn executed(&mut self, call: Call, body: &str, text: &str) -> Step {
        let mut blocks = blocks(body);
        match call {
            Call::ImageSearch { image_id, areas } => {
                let Some(picture) = self.registry.iter().find(|(label, _)| *label == image_id).map(|(_, picture)| picture.clone()) else {
                    return Step::Refused { wanted: plain(text), told: body.trim().to_owned() };
                };
                let mut shots = Vec::new();
                if areas.is_empty() {
                    shots.push(self.shot(None, Some(picture), blocks.remove(&image_id)));
                } else {
                    for area in areas {
                        let label = format!("img_{}", self.counter);
                        self.counter += 1;
                        let cut = crop(&picture, &area);
                        if let Some(cut) = &cut {
                            self.registry.push((label.clone(), cut.clone()));
                        }
                        shots.push(self.shot(Some(area), cut, blocks.remove(&label)));
                    }
                }
                Step::Images { on: image_id, shots }
            }
            Call::TextSearch { queries } if queries.is_empty() => Step::Refused { wanted: plain(text), told: body.trim().to_owned() },
            Call::TextSearch { queries } => {
                let asked = |(at, query): (usize, String)| Asked {
                    found: blocks.remove(&(at + 1).to_string()).unwrap_or_default(),
                    about: self.names.iter().rposition(|name| !name.is_empty() && query.contains(name.as_str())),
                    query,
                };
                Step::Texts { asked: queries.into_iter().enumerate().map(asked).collect() }
            }
        }
    }

    fn shot(&mut self, area: Option<Area>, crop: Option<RgbImage>, found: Option<Found>) -> Shot {
        let found = found.unwrap_or_else(|| Found { hits: Vec::new(), note: crop.is_none().then(|| "crop failed".to_owned()) });
        self.names.push(found.hits.first().map(|hit| hit.text.clone()).unwrap_or_default());
        self.shots += 1;
        Shot { number: self.shots - 1, area, crop, found }
    }
}

/// What an error observation says.
fn error(observed: &str) -> &str {
    let said = observed.find("Error: ").map_or(observed, |at| &observed[at..]);
    said.split("<|im_end|>").next().unwrap_or(said).trim()
}

/// What is inside the tags of an observation; all of it when there are none.
fn body(observed: &str) -> &str {
    let inside = observed.split_once("<tool_response>").map_or(observed, |(_, rest)| rest);
    inside.split_once("</tool_response>").map_or(inside, |(inside, _)| inside)
}

/// The blocks of an observation by their heading: a picture's label or a query's number.
fn blocks(body: &str) -> std::collections::BTreeMap<String, Found> {
    let mut blocks: std::collections::BTreeMap<String, Found> = std::collections::BTreeMap::new();
    let mut current: Option<String> = None;
    for line in body.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(label) = line.strip_suffix(" crop failed").filter(|label| is_heading(label)) {
            blocks.entry(label.to_owned()).or_default().note = Some("crop failed".into());
        } else if is_heading(line) {
            blocks.entry(line.to_owned()).or_default();
            current = Some(line.to_owned());
        } else if let Some(found) = current.as_ref().and_then(|label| blocks.get_mut(label)) {
            match hit(line) {
                Some(hit) => found.hits.push(hit),
                // What follows the blocks is said of the call, not of what was found last.
                None if found.hits.is_empty() && found.note.is_none() => found.note = Some(line.to_owned()),
                None => {}
            }
        }
    }
    blocks
}

fn is_heading(line: &str) -> bool {
    let digits = line.strip_prefix("img_").unwrap_or(line);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// `1. 0.97 Mexico`.
fn hit(line: &str) -> Option<Hit> {
    let (number, rest) = line.split_once(". ")?;
    number.parse::<u32>().ok()?;
    let (relevance, text) = rest.split_once(' ').unwrap_or((rest, ""));
    Some(Hit { relevance: relevance.parse().ok()?, text: text.to_owned() })
}

/// A turn's text without its end token.
fn plain(text: &str) -> String {
    let text = text.trim_end();
    text.strip_suffix("<|im_end|>").unwrap_or(text).trim().to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use hypereyes_chat::{TinyWords, tiny};
    use hypereyes_domain::{Course, PolicyVersion};
    use hypereyes_search::{EmbeddedSearch, EnvConfig, World};

    use super::*;

    /// A chat made of the embedded world's words.
    pub(crate) fn chat(folder: &std::path::Path) -> Chat {
        let world = World::embedded().expect("the embedded pack is sound");
        let terms: Vec<String> = world.terms().into_iter().map(str::to_owned).collect();
        let relations: Vec<String> = world.relations().iter().map(|relation| relation.label.clone()).collect();
        tiny::write(folder, TinyWords { terms: &terms, relations: &relations }).expect("sound words");
        Chat::load(folder).expect("what was just written")
    }

    /// Two flags side by side.
    pub(crate) fn mosaic() -> RgbImage {
        let world = World::embedded().expect("the embedded pack is sound");
        let mut canvas = RgbImage::new(128, 48);
        for (at, entity) in ["mx", "pe"].into_iter().enumerate() {
            let flag = world.picture(&entity.into()).expect("has a picture");
            flag.enumerate_pixels()
                .filter(|(x, y, _)| *x < 64 && *y < 48)
                .for_each(|(x, y, pixel)| canvas.put_pixel(x + 64 * at as u32, y, *pixel));
        }
        canvas
    }

    /// Plays turns against the embedded world, as a rollout does.
    pub(crate) fn play(chat: &Chat, question: &str, turns: &[&str]) -> Trajectory {
        let search = Arc::new(EmbeddedSearch::new(Arc::new(World::embedded().expect("the embedded pack is sound"))));
        let config = EnvConfig { crop_pictures: false, image_hits: 1, text_hits: 1, ..EnvConfig::default() };
        let mut episode = hypereyes_search::Episode::new(config, search, 0, question, vec![mosaic().into()]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (mut response, mut mask, mut rounds) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ending, mut answer) = (Ending::NoAction, None);
        for turn in turns {
            let mut tokens = chat.encode(turn);
            tokens.push(chat.end_token());
            mask.resize(mask.len() + tokens.len(), true);
            response.extend(tokens);
            match runtime.block_on(episode.step(turn)) {
                hypereyes_search::Step::Done { ending: how, answer: what } => (ending, answer) = (how, what),
                hypereyes_search::Step::Observed { text, round, .. } => {
                    response.extend(chat.observation(&text, &[]));
                    mask.resize(response.len(), false);
                    rounds.push(round);
                }
            }
        }
        let count = response.len();
        let logprobs = vec![0.0; count];
        Trajectory {
            prompt: vec![1],
            response,
            mask,
            logprobs,
            versions: vec![PolicyVersion(0); count],
            pictures: vec![],
            course: Course { rounds, ending, answer },
        }
    }

    pub(crate) const PARALLEL: [&str; 3] = [
        r#"<reason>look</reason><tool_call>{"name": "image_search", "arguments": {"image_id": "img_0", "area": [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]]}}</tool_call>"#,
        r#"<tool_call>{"name": "text_search", "arguments": {"input": "currency Mexico | currency Peru"}}</tool_call>"#,
        "<answer>Peru</answer>",
    ];

    #[test]
    fn a_parallel_episode_is_read_back_with_areas_queries_and_findings() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let chat = chat(folder.path());
        let episode = Episode::read(&chat, &play(&chat, "Which one has currency sol?", &PARALLEL), &[mosaic()]);
        assert!(episode.is_parallel());
        assert_eq!(episode.turns[0].reason.as_deref(), Some("look"));
        let boxes: Vec<&Shot> = episode.boxes().collect();
        assert_eq!(boxes.iter().map(|shot| shot.number).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(boxes[0].found.hits[0].text, "Mexico");
        assert!(boxes[0].found.hits[0].relevance > 0.5 && boxes[0].crop.is_some());
        let Step::Texts { asked } = &episode.turns[1].step else { panic!("{:?}", episode.turns[1]) };
        assert_eq!(asked.iter().map(|one| one.about).collect::<Vec<_>>(), [Some(0), Some(1)]);
        assert!(asked[0].found.hits[0].text.contains("Mexico"), "{asked:?}");
        assert_eq!(episode.turns[2].step, Step::Answer { text: "Peru".into() });
    }

    #[test]
    fn what_went_wrong_is_shown_as_it_was() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let chat = chat(folder.path());
        let turns = [
            r#"<tool_call>{"name": "image_search", "arguments": {"image_id": "img_9"}}</tool_call>"#,
            r#"<tool_call>{"name": "image_search", "arguments": {"area": [[0.5, 0.0, 0.5, 1.0], [0.0, 0.0, 0.5, 1.0]]}}</tool_call>"#,
            r#"<tool_call>{"name": "fly", "arguments": {}}</tool_call>"#,
            "hm",
        ];
        let episode = Episode::read(&chat, &play(&chat, "Which?", &turns), &[mosaic()]);
        assert!(!episode.is_parallel());
        let told = |at: usize| match &episode.turns[at].step {
            Step::Refused { told, .. } => told.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(told(0), "unknown image id");
        let Step::Images { shots, .. } = &episode.turns[1].step else { panic!("{:?}", episode.turns[1]) };
        assert_eq!(shots[0].found.note.as_deref(), Some("crop failed"));
        assert_eq!((shots[1].found.hits[0].text.as_str(), &shots[1].found.note), ("Mexico", &None));
        assert!(told(2).contains("unknown tool"), "{}", told(2));
        assert!(matches!(&episode.turns[3].step, Step::Nothing { text } if text == "hm"));
    }

    #[test]
    fn a_box_that_was_refused_is_shown_with_what_was_said_and_thoughts_of_the_prompt_are_no_actions() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let chat = chat(folder.path());
        let pixels = r#"<tool_call>{"name": "image_search", "arguments": {"area": [[0, 0, 96, 64]]}}</tool_call>"#;
        let mut trajectory = play(&chat, "Which?", &[pixels, "maybe <answer>Peru</answer>"]);
        let told = |episode: &Episode| match &episode.turns[0].step {
            Step::Refused { told, .. } => told.clone(),
            other => panic!("{other:?}"),
        };
        let episode = Episode::read(&chat, &trajectory, &[mosaic()]);
        assert!(told(&episode).starts_with("Error: area[0] is [0,0,96,64], but edges are ratios"), "{}", told(&episode));
        assert_eq!(episode.turns[1].step, Step::Answer { text: "Peru".into() });
        trajectory.prompt = chat.prompt("", "Which?", &[]).expect("a prompt");
        trajectory.prompt.extend(chat.encode("<think>\n"));
        let thought = Episode::read(&chat, &trajectory, &[mosaic()]);
        assert!(matches!(&thought.turns[1].step, Step::Nothing { .. }), "{:?}", thought.turns[1]);
    }

    #[test]
    fn a_masked_trajectory_has_no_turns() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let chat = chat(folder.path());
        let mut trajectory = play(&chat, "Which?", &PARALLEL);
        trajectory.mask.fill(false);
        assert!(Episode::read(&chat, &trajectory, &[mosaic()]).turns.is_empty());
    }
}
