//! The step machine of one episode (docs/spec.md#crops, #calls, #episodes). In: the text of an assistant turn; out: the end, or an
//! observation with the pictures that it returns. What a call does, its tool knows. Knows no token.

use std::borrow::Cow;
use std::sync::Arc;

use hypereyes_domain::{Ending, Found, Round};
use hypereyes_pictures::RgbImage;

use crate::call::{Note, Refusal};
use crate::config::EnvConfig;
use crate::metrics::{CAPPED, DROPPED, ENDINGS, REFUSED, ROUNDS};
use crate::observation;
use crate::parse::{Action, closed_answer, parse_turn};
use crate::scene::Scene;
use crate::search::Search;
use crate::tools::Tools;

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

/// One episode: a question, its pictures and all crops made so far.
pub struct Episode {
    scene: Scene,
    tools: Tools,
    question: String,
    /// What the prompt puts into the policy's mouth at the beginning of every turn.
    opening: String,
    turns: u32,
    rounds: u32,
}

impl Episode {
    /// Registers `pictures` as `img_0`, `img_1`, ...; `layer` is the seed that searches answer from. The tools are those that `config`
    /// names; names that [`EnvConfig::check`] refuses are passed over.
    pub fn new(config: EnvConfig, search: Arc<dyn Search>, layer: u64, question: &str, pictures: Vec<Arc<RgbImage>>) -> Self {
        let (tools, question) = (Tools::of(&config.tools), question.replace("<image>", ""));
        Self { scene: Scene::new(config, search, layer, pictures), tools, question, opening: String::new(), turns: 0, rounds: 0 }
    }

    /// Every turn goes on after `opening`, such as a thought that the chat template begins.
    pub fn opened(self, opening: &str) -> Self {
        Self { opening: opening.to_owned(), ..self }
    }

    /// The policy sees a picture of a size (width, height) as one of `size`: its boxes in pixels are of that one. Default: as it is.
    pub fn seen_as(mut self, size: impl Fn((u32, u32)) -> (u32, u32) + Send + Sync + 'static) -> Self {
        self.scene.seen_as = Arc::new(size);
        self
    }

    /// Other tools than those that the settings name, such as some of one's own.
    pub fn with_tools(self, tools: Tools) -> Self {
        Self { tools, ..self }
    }

    /// Takes one assistant turn: an answer ends the episode, so does a turn without a readable call or one beyond the
    /// limits; otherwise the call is executed, all its searches at once. Searches that fail say so in the observation.
    pub async fn step(&mut self, assistant_text: &str) -> Step {
        self.turns += 1;
        let turn = parse_turn(&self.after_opening(assistant_text), &self.tools);
        let call = match turn.action {
            Action::Answer(answer) => return done(Ending::Answered, Some(answer)),
            Action::None => return done(Ending::NoAction, None),
            Action::Call(call) => Ok(call),
            Action::BadCall(refusal) => Err(refusal),
        };
        let config = self.scene.config();
        if self.turns >= config.max_turns || self.rounds >= config.max_rounds {
            return done(Ending::TurnLimit, None);
        }
        self.rounds += 1;
        let prepared = call.and_then(|call| {
            let tool = self.tools.get(&call.tool)?;
            Ok((tool.ground(call, &self.scene)?, tool))
        });
        let (call, tool) = match prepared {
            Ok(prepared) => prepared,
            Err(Refusal { reason, message }) => {
                metrics::counter!(ROUNDS, "kind" => "error").increment(1);
                metrics::counter!(REFUSED, "reason" => reason).increment(1);
                let text = observation::error(&message);
                let round = Round { found: vec![Found::said(text.as_str())].into(), ..Round::counted(0, 0) };
                return Step::Observed { text, pictures: Vec::new(), round };
            }
        };
        let ran = tool.run(&call, &mut self.scene).await;
        metrics::counter!(ROUNDS, "kind" => ran.kind).increment(1);
        let mut body = tool.render(&ran, self.scene.config());
        for note in &turn.notes {
            count_note(note);
            body.push_str(&format!("{}\n", note.text));
        }
        let found = ran.found(self.scene.config().max_hit_chars).into();
        let round = Round { call: Some(Box::new(call)), found, ..Round::counted(ran.searches(), ran.failed_searches()) };
        let text = observation::wrap(&body, &self.question, self.hint());
        let pictures = if self.scene.config().crop_pictures { ran.pictures } else { Vec::new() };
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

    /// Labels of the registered pictures in order.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = &str> {
        self.scene.labels()
    }

    /// A registered picture.
    pub fn picture(&self, label: &str) -> Option<&Arc<RgbImage>> {
        self.scene.picture(label)
    }

    /// The number that the next crop's label will have.
    pub fn next_number(&self) -> u32 {
        self.scene.next_number()
    }

    /// Turns taken, calls executed.
    pub fn counts(&self) -> (u32, u32) {
        (self.turns, self.rounds)
    }

    fn hint(&self) -> Option<&str> {
        let config = self.scene.config();
        let hint = match config.max_rounds.saturating_sub(self.rounds) {
            1 => &config.hint_one_left,
            0 => &config.hint_none_left,
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
    if note.over_limit {
        metrics::counter!(CAPPED, "what" => note.reason).increment(count);
    } else {
        metrics::counter!(DROPPED, "reason" => note.reason).increment(count);
    }
}
