//! Visual tasks from named pictures, whose questions a model writes (docs/synthesis.md). In: entities with pictures and texts, a model, a
//! judge. Out: for every number a task with its mosaic, or why there is none. The model is asked for a question about one of several
//! entities on one picture; a question that it answers from the names alone, or from one constraint alone, is a shortcut and dropped.

pub mod known;
pub mod question;

use std::collections::BTreeMap;
use std::sync::Arc;

use hypereyes_domain::{EntityId, Metadata, Shown, Task, TaskId, TaskKind};
use hypereyes_judge::Verdicts;
use hypereyes_outside::files;
use hypereyes_pictures::{Limits, Picture};
use hypereyes_scoring::Verdict;
use metrics::counter;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::known::{Known, Refused};
use self::question::{Asks, Question, Shortcut};
use crate::author::{Author, Unanswered};
use crate::compose::compose;
use crate::config::SynthConfig;
use crate::metrics::{DROPPED, MADE};
use crate::seeds;
use crate::served::Bill;

/// Its name in the folder that is written.
pub const QUESTIONS: &str = "questions.jsonl";

/// What makes tasks.
pub struct Workshop {
    /// The entities.
    pub known: Vec<Known>,
    /// Who writes.
    pub author: Author,
    /// Who says whether a shortcut answers.
    pub judge: Arc<dyn Verdicts>,
    /// What is made.
    pub config: SynthConfig,
    /// Everything is drawn from it.
    pub seed: u64,
}

/// What came of one number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The number.
    pub index: usize,
    /// The task, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dropped: String,
    /// What it cost.
    pub bill: Bill,
}

/// What came of one number, and what is to be kept of it.
#[derive(Clone, Debug)]
pub struct Made {
    /// The line.
    pub line: Line,
    /// The mosaic of a task.
    pub picture: Option<Picture>,
    /// What the model wrote.
    pub written: Vec<Value>,
}

/// Why a number could not be made: nothing is known of it, and it is to be tried again.
#[derive(Clone, Debug)]
pub struct Outside {
    /// What happened.
    pub reason: String,
    /// What the model wrote until then.
    pub written: Vec<Value>,
    /// What that cost.
    pub bill: Bill,
}

/// A draw: who is on the picture, who is meant, what is asked for.
struct Draw<'a> {
    shown: Vec<&'a Known>,
    target: usize,
    asks: Asks,
    picture: Picture,
    areas: Vec<Shown>,
}

impl Workshop {
    /// Makes a task.
    ///
    /// # Errors
    /// [`Outside`] when the model or the judge did not answer.
    pub async fn make(&self, index: usize) -> Result<Made, Outside> {
        let mut made =
            Made { line: Line { index, task: None, dropped: String::new(), bill: Bill::default() }, picture: None, written: vec![] };
        let drawn = match self.draw(index) {
            Ok(drawn) => drawn,
            Err(reason) => return Ok(made.dropped(reason)),
        };
        let about = json!({"index": index, "things": drawn.shown.iter().map(|one| &one.name).collect::<Vec<_>>(), "target": drawn.shown[drawn.target].name});
        let (range, seed) = (self.config.entities.constraints, seeds::of_try(self.seed, "entities", 1, number(index)));
        let order = question::order(&drawn.shown, drawn.target, drawn.asks, range);
        let accept = |reply: Value| question::accept(reply, &drawn.shown, drawn.target, drawn.asks, range);
        let wrote = self.author.ask("question", &about, question::SYSTEM, &order, seed, accept).await;
        let wrote = wrote.map_err(|unanswered| made.unanswered(unanswered))?;
        made.written.extend(wrote.written);
        made.line.bill += wrote.bill;
        let question = match wrote.value {
            Ok(question) => question,
            Err(_) => return Ok(made.dropped("no_question")),
        };
        for shortcut in Shortcut::of(&question) {
            if let Some(reason) = self.is_answered(shortcut, &question, &drawn, &about, seed, &mut made).await? {
                return Ok(made.dropped(reason));
            }
        }
        let task = self.task(index, &question, &drawn);
        counter!(MADE, "split" => "train", "kind" => task.kind.to_string()).increment(1);
        made.line.task = Some(task);
        made.picture = Some(drawn.picture);
        Ok(made)
    }

    /// Why a question is dropped for a shortcut, if it is.
    async fn is_answered(
        &self,
        shortcut: Shortcut,
        question: &Question,
        drawn: &Draw<'_>,
        about: &Value,
        seed: u64,
        made: &mut Made,
    ) -> Result<Option<&'static str>, Outside> {
        let order = shortcut.order(question, &drawn.shown);
        let right = shortcut.answers(question, drawn.shown[drawn.target], drawn.asks);
        for number in 0..self.config.entities.shortcut_tries {
            let seed = seed.wrapping_add(1000 * (u64::from(number) + 1));
            let asked = self.author.ask(shortcut.label(), about, question::SYSTEM, &order, seed, question::answer).await;
            let wrote = asked.map_err(|unanswered| made.unanswered(unanswered))?;
            made.written.extend(wrote.written);
            made.line.bill += wrote.bill;
            // Who cannot be read has not been shown to need more than the shortcut.
            let Ok(answer) = wrote.value else { return Ok(Some("shortcut_unread")) };
            let verdict = self.judge.verdicts(&question.question, &[answer.as_str()], &right).await.first().copied().flatten();
            match verdict {
                Some(Verdict::Correct) => return Ok(Some(shortcut.label())),
                Some(_) => {}
                None => return Err(made.outside("the judge gave no verdict".into())),
            }
        }
        Ok(None)
    }

    fn draw(&self, index: usize) -> Result<Draw<'_>, &'static str> {
        let mut random = ChaCha8Rng::seed_from_u64(seeds::of_try(self.seed, "entities", 0, number(index)));
        let mut classes: BTreeMap<&str, Vec<&Known>> = BTreeMap::new();
        self.known.iter().for_each(|one| classes.entry(one.class.as_str()).or_default().push(one));
        let [fewest, most] = self.config.pictures;
        let large: Vec<Vec<&Known>> = classes.into_values().filter(|members| members.len() >= fewest).collect();
        let members = large.choose_weighted(&mut random, |members| members.len()).map_err(|_| "class_too_small")?;
        let count = random.random_range(fewest..=most.min(members.len()));
        let shown: Vec<&Known> = members.choose_multiple(&mut random, count).copied().collect();
        let target = random.random_range(0..count);
        let asks = if random.random_bool(self.config.entities.attributes) { Asks::Attribute } else { Asks::Entity };
        let limits = Limits::default();
        let picture = |one: &&Known| -> Option<_> {
            let bytes = files::read(&one.picture, limits.max_bytes as u64).ok()?;
            let picture = Picture::from_bytes(bytes.into(), &limits).ok()?;
            Some((*picture.image).clone())
        };
        let pictures = shown.iter().map(picture).collect::<Option<Vec<_>>>().ok_or("bad_picture")?;
        let [width, height] = self.config.canvas;
        let mosaic = compose(&pictures, self.config.level, (width, height), &mut random).ok_or("no_layout")?;
        let areas = shown.iter().zip(mosaic.areas).map(|(one, area)| Shown { entity: EntityId::new(&one.name), area }).collect();
        let picture = Picture::from_image(mosaic.image).map_err(|_| "no_layout")?;
        Ok(Draw { shown, target, asks, picture, areas })
    }

    fn task(&self, index: usize, question: &Question, drawn: &Draw<'_>) -> Task {
        let target = drawn.shown[drawn.target];
        let kind = match drawn.asks {
            Asks::Entity => TaskKind::VISUAL_SELECT,
            Asks::Attribute => TaskKind::VISUAL_HOP,
        };
        let more = json!({"constraints": question.constraints, "target": target.name, "writer": self.author.model()});
        let metadata = match more {
            Value::Object(metadata) => metadata,
            _ => Metadata::new(),
        };
        Task {
            id: TaskId::new(format!("entities-{index:06}")),
            kind,
            question: question.question.clone(),
            answers: question::answers(question, target, drawn.asks),
            pictures: vec![drawn.picture.id.clone()],
            layer: None,
            shown: drawn.areas.clone(),
            reference: None,
            metadata,
        }
    }
}

impl Made {
    /// Whatever was written and spent so far, and why it comes to nothing.
    fn outside(&mut self, reason: String) -> Outside {
        Outside { reason, written: std::mem::take(&mut self.written), bill: self.line.bill }
    }

    fn unanswered(&mut self, Unanswered { missed, written, bill }: Unanswered) -> Outside {
        self.written.extend(written);
        self.line.bill += bill;
        self.outside(missed.to_string())
    }

    fn dropped(mut self, reason: &'static str) -> Self {
        counter!(DROPPED, "reason" => reason).increment(1);
        self.line.dropped = reason.to_owned();
        self
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
