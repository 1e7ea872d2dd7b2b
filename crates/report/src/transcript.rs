//! What happened in an episode, from its record: every round with its areas or queries and what they found.
//!
//! In: a trajectory, the chat that it was made with, its pictures. Out: an [`Episode`] that a terminal or a page can show.
//! It shows what the policy was told, because rounds record what was shown; and it never fails: what cannot be read is shown as it is.

use hypereyes_chat::Chat;
use hypereyes_domain::{Area, Call, Ending, Found as Recorded, Round, Trajectory};
use hypereyes_environment::tools::ImageArguments;
use hypereyes_environment::{Action, Tools, opened_thought, parse_turn};
use hypereyes_pictures::{RgbImage, crop};

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
    /// Asked for texts by another tool, such as queries of a text search, all at once.
    Texts {
        /// The tool.
        tool: String,
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

/// One query, page or other text of a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The text.
    pub query: String,
    /// What was found.
    pub found: Found,
    /// Number of the area whose finding it is about.
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
    /// Relevance, 0..=1, where there is one.
    pub relevance: Option<f64>,
    /// Its text.
    pub text: String,
}

impl Episode {
    /// Reads a trajectory back. `pictures` are the task's, in order; a policy that spoke text needs no `chat`, and without one tokens are
    /// no turns.
    pub fn read(chat: Option<&Chat>, trajectory: &Trajectory, pictures: &[RgbImage]) -> Self {
        let turns = match (&trajectory.spoken, chat) {
            (Some(spoken), _) => of_text(&spoken.turns, trajectory, pictures),
            (None, Some(chat)) => of_tokens(chat, trajectory, pictures),
            (None, None) => vec![],
        };
        Self { turns, answer: trajectory.summary.answer.clone(), ending: trajectory.summary.ending, tokens: trajectory.tokens() }
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
            [Step::Images { shots, .. }, Step::Texts { asked, .. }, Step::Answer { .. }] => shots.len() > 1 && asked.len() > 1,
            _ => false,
        }
    }
}

fn of_tokens(chat: &Chat, trajectory: &Trajectory, pictures: &[RgbImage]) -> Vec<Turn> {
    let prompt = &trajectory.prompt;
    let opening = chat.decode(&prompt[prompt.len().saturating_sub(64)..]);
    let mut reader = Reader::new(pictures, opened_thought(&opening));
    // Every turn that was observed executed a round.
    let mut rounds = trajectory.summary.rounds.iter();
    let mut turns = Vec::new();
    let mut spans = spans(trajectory).into_iter().peekable();
    while let Some((sampled, tokens)) = spans.next() {
        // A trajectory begins with a turn; a masked one has no turns that could be told apart.
        if !sampled {
            continue;
        }
        let round = spans.next_if(|(sampled, _)| !sampled).and_then(|_| rounds.next());
        turns.push(reader.turn(&chat.decode(tokens), round));
    }
    turns
}

/// Every turn but the last executed a round, and the last one did if there is one more.
fn of_text(said: &[String], trajectory: &Trajectory, pictures: &[RgbImage]) -> Vec<Turn> {
    let mut reader = Reader::new(pictures, "");
    let mut rounds = trajectory.summary.rounds.iter();
    said.iter().map(|text| reader.turn(text, rounds.next())).collect()
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

    /// `round` is what was executed.
    fn turn(&mut self, text: &str, round: Option<&Round>) -> Turn {
        let turn = parse_turn(&[&self.opening, text].concat(), &Tools::all());
        let refused = |told: String| Step::Refused { wanted: plain(text), told };
        let step = match (turn.action, round) {
            (Action::Answer(text), _) => Step::Answer { text },
            (Action::None, _) => Step::Nothing { text: plain(text) },
            (Action::BadCall(refusal), None) => refused(refusal.message),
            (Action::Call(_), None) => refused("not run: the limit of turns was reached".into()),
            (_, Some(round)) => match round.call.as_deref() {
                Some(call) => self.executed(call, &round.found).unwrap_or_else(refused),
                None => refused(of_call(&round.found).unwrap_or(UNRECORDED).to_owned()),
            },
        };
        Turn { reason: turn.reason, step }
    }

    /// What an executed call did, or why it could do nothing.
    fn executed(&mut self, call: &Call, found: &[Recorded]) -> Result<Step, String> {
        if let Some(said) = of_call(found) {
            return Err(said.to_owned());
        }
        if let Some(ImageArguments { image_id, area: areas }) = ImageArguments::of(call) {
            let picture = self.registry.iter().find(|(label, _)| *label == image_id).map(|(_, picture)| picture.clone());
            let mut shots = Vec::new();
            if areas.is_empty() {
                shots.push(self.shot(None, picture.clone(), found.first()));
            }
            for (at, area) in areas.into_iter().enumerate() {
                let label = found.get(at).map_or_else(|| format!("img_{}", self.counter), |found| found.label.clone());
                self.counter += 1;
                let cut = picture.as_ref().and_then(|picture| crop(picture, &area));
                if let Some(cut) = &cut {
                    self.registry.push((label, cut.clone()));
                }
                shots.push(self.shot(Some(area), cut, found.get(at)));
            }
            return Ok(Step::Images { on: image_id, shots });
        }
        let texts = texts(call);
        let asked = |at: usize| {
            let found = found.get(at);
            let query = texts.get(at).cloned().or(found.map(|found| found.label.clone())).unwrap_or_default();
            let about = self.names.iter().rposition(|name| !name.is_empty() && query.contains(name.as_str()));
            Asked { found: shown(found, ": "), about, query }
        };
        let asked: Vec<Asked> = (0..texts.len().max(found.len())).map(asked).collect();
        if asked.is_empty() { Err("nothing was searched".into()) } else { Ok(Step::Texts { tool: call.tool.clone(), asked }) }
    }

    fn shot(&mut self, area: Option<Area>, crop: Option<RgbImage>, found: Option<&Recorded>) -> Shot {
        let found = shown(found, " ");
        self.names.push(found.hits.first().map(|hit| hit.text.clone()).unwrap_or_default());
        self.shots += 1;
        Shot { number: self.shots - 1, area, crop, found }
    }
}

/// Said of what an older record does not hold.
const UNRECORDED: &str = "not recorded";

/// What was said of a call as a whole.
fn of_call(found: &[Recorded]) -> Option<&str> {
    match found {
        [one] if one.label.is_empty() => one.note.as_deref(),
        _ => None,
    }
}

/// The list of texts that a call has among its arguments, whatever the tool calls it.
fn texts(call: &Call) -> Vec<String> {
    let lists = call.arguments.as_object().into_iter().flat_map(|arguments| arguments.values());
    lists.filter_map(|value| serde_json::from_value(value.clone()).ok()).find(|texts: &Vec<String>| !texts.is_empty()).unwrap_or_default()
}

/// What was found, with title and content joined as the observation joins them.
fn shown(found: Option<&Recorded>, between: &str) -> Found {
    let Some(found) = found else { return Found { hits: Vec::new(), note: Some(UNRECORDED.into()) } };
    let text = |title: &str, content: &str| match (title, content) {
        ("", text) | (text, "") => text.to_owned(),
        (title, content) => [title, between, content].concat(),
    };
    let hits = found.hits.iter().map(|hit| Hit { relevance: hit.score, text: text(&hit.title, &hit.content) }).collect();
    Found { hits, note: found.note.clone() }
}

/// A turn's text without its end token.
fn plain(text: &str) -> String {
    let text = text.trim_end();
    text.strip_suffix("<|im_end|>").unwrap_or(text).trim().to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use hypereyes_domain::{PolicyVersion, RolloutSummary, Spoken};
    use hypereyes_environment::EnvConfig;
    use hypereyes_miniature::tokenizer::{self, TinyWords};
    use hypereyes_search::EmbeddedSearch;
    use hypereyes_world::World;

    use super::*;

    /// A chat made of the embedded world's words.
    pub(crate) fn chat(folder: &std::path::Path) -> Chat {
        let world = World::embedded().expect("the embedded pack is sound");
        let terms: Vec<String> = world.terms().into_iter().map(str::to_owned).collect();
        let relations: Vec<String> = world.relations().iter().map(|relation| relation.label.clone()).collect();
        tokenizer::write(folder, TinyWords { terms: &terms, relations: &relations, phrases: &[] }).expect("sound words");
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
        let mut episode = hypereyes_environment::Episode::new(config, search, 0, question, vec![mosaic().into()]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (mut response, mut mask, mut rounds) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ending, mut answer) = (Ending::NoAction, None);
        for turn in turns {
            let mut tokens = chat.encode(turn);
            tokens.push(chat.end_token());
            mask.resize(mask.len() + tokens.len(), true);
            response.extend(tokens);
            match runtime.block_on(episode.step(turn)) {
                hypereyes_environment::Step::Done { ending: how, answer: what } => (ending, answer) = (how, what),
                hypereyes_environment::Step::Observed { text, round, .. } => {
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
            summary: RolloutSummary { rounds, ending, answer },
            spoken: None,
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
        let episode = Episode::read(Some(&chat), &play(&chat, "Which one has currency sol?", &PARALLEL), &[mosaic()]);
        assert!(episode.is_parallel());
        assert_eq!(episode.turns[0].reason.as_deref(), Some("look"));
        let boxes: Vec<&Shot> = episode.boxes().collect();
        assert_eq!(boxes.iter().map(|shot| shot.number).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(boxes[0].found.hits[0].text, "Mexico");
        assert!(boxes[0].found.hits[0].relevance > Some(0.5) && boxes[0].crop.is_some());
        let Step::Texts { asked, .. } = &episode.turns[1].step else { panic!("{:?}", episode.turns[1]) };
        assert_eq!(asked.iter().map(|one| one.about).collect::<Vec<_>>(), [Some(0), Some(1)]);
        assert!(asked[0].found.hits[0].text.contains("Mexico"), "{asked:?}");
        assert_eq!(episode.turns[2].step, Step::Answer { text: "Peru".into() });
    }

    #[test]
    fn a_policy_that_spoke_text_is_read_without_a_tokenizer() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let chat = chat(folder.path());
        let of_tokens = play(&chat, "Which one has currency sol?", &PARALLEL);
        let turns = PARALLEL.map(str::to_owned).to_vec();
        let spoken = Some(Box::new(Spoken { turns, tokens: 77, ..Spoken::default() }));
        let of_text = Trajectory { spoken, ..Trajectory::from(of_tokens.summary.clone()) };
        let (by_text, by_tokens) = (Episode::read(None, &of_text, &[mosaic()]), Episode::read(Some(&chat), &of_tokens, &[mosaic()]));
        assert!(by_text.is_parallel() && by_text.tokens == 77);
        assert_eq!(by_text.turns, by_tokens.turns);
        assert!(Episode::read(None, &of_tokens, &[mosaic()]).turns.is_empty());
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
        let episode = Episode::read(Some(&chat), &play(&chat, "Which?", &turns), &[mosaic()]);
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
        let episode = Episode::read(Some(&chat), &trajectory, &[mosaic()]);
        assert!(told(&episode).starts_with("Error: area[0] is [0,0,96,64], but edges are ratios"), "{}", told(&episode));
        assert_eq!(episode.turns[1].step, Step::Answer { text: "Peru".into() });
        trajectory.prompt = chat.prompt("", "Which?", &[]).expect("a prompt");
        trajectory.prompt.extend(chat.encode("<think>\n"));
        let thought = Episode::read(Some(&chat), &trajectory, &[mosaic()]);
        assert!(matches!(&thought.turns[1].step, Step::Nothing { .. }), "{:?}", thought.turns[1]);
    }

    #[test]
    fn a_masked_trajectory_has_no_turns() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let chat = chat(folder.path());
        let mut trajectory = play(&chat, "Which?", &PARALLEL);
        trajectory.mask.fill(false);
        assert!(Episode::read(Some(&chat), &trajectory, &[mosaic()]).turns.is_empty());
    }
}
