//! The cold start's curriculum: reading before looking, glances, drills. In: lessons and drills. Out: what each step is shown.
//!
//! The first steps train without pictures, and half of what they see are drills; afterwards many demonstrations end after the
//! first turn, and some tasks are shown without their picture, so that reading is not forgotten. `docs/learnability.md` says what
//! each of these is for and what happens without it.

use std::sync::Arc;

use hypereyes_domain::{IMAGE_SEARCH, Trajectory};
use hypereyes_pictures::{Processor, RgbImage};
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::score::Sample;
use hypereyes_trainer::sft::{Author, Deck, Example, Shown, Source};
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Peak learning rate of the curriculum: that of a fresh policy.
pub const LR: f64 = 2e-3;

/// How lessons are shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CurriculumConfig {
    /// First steps that train without pictures: they are cut from the prompts, and turns that search them are not
    /// trained. Reading and choosing are then learned from what searches found, before looking is. Default 430.
    pub blind_steps: usize,
    /// Share of look-up drills among the sequences of the blind steps. Default 0.5.
    pub blind_drills: f64,
    /// Share of look-up drills afterwards. Default 0.08.
    pub drills: f64,
    /// Share of picture tasks that are shown without their picture afterwards, so that reading is not forgotten. Default 0.15.
    pub blind_share: f64,
    /// Share of the picture tasks shown with their picture that end after the first turn: where the pictures are is
    /// learned from many mosaics, and a glance costs a quarter of a whole demonstration. Default 0.4.
    pub glances: f64,
}

impl Default for CurriculumConfig {
    fn default() -> Self {
        Self { blind_steps: 430, blind_drills: 0.5, drills: 0.08, blind_share: 0.15, glances: 0.4 }
    }
}

impl CurriculumConfig {
    /// Refuses what is no share, naming the key.
    ///
    /// # Errors
    /// A sentence for whoever wrote the settings.
    pub fn check(&self) -> Result<(), String> {
        let shares =
            [("blind_drills", self.blind_drills), ("drills", self.drills), ("blind_share", self.blind_share), ("glances", self.glances)];
        match shares.iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            Some((key, share)) => Err(format!("{key} is {share}: give a share within 0..=1")),
            None => Ok(()),
        }
    }
}

/// A demonstration, and which of its tokens look at a picture.
#[derive(Clone, Debug)]
pub struct Lesson {
    example: Example,
    /// Per trained token: whether the agent wrote it in a turn that searches a picture.
    looking: Vec<bool>,
}

impl Lesson {
    /// Takes a demonstration and its pictures, in order of appearance.
    pub fn new(trajectory: &Trajectory, pictures: Vec<Arc<RgbImage>>) -> Self {
        let (mut looking, mut turn, mut before) = (vec![], 0, false);
        for sampled in &trajectory.mask {
            // Turns are the runs of sampled tokens; turn i made round i, and the last one answered.
            turn += usize::from(before && !sampled);
            before = *sampled;
            let round = trajectory.summary.rounds.get(turn);
            let looks = round.and_then(|round| round.call.as_deref()).is_some_and(|call| call.tool == IMAGE_SEARCH);
            looking.push(*sampled && looks);
        }
        Self { example: Example::new(trajectory, pictures), looking }
    }

    /// The demonstration up to the end of its first turn.
    fn glance(&self, image_tokens: [u32; 3]) -> Self {
        let authors = &self.example.authors;
        let first = authors.iter().position(|author| *author == Author::Environment).unwrap_or(authors.len());
        let mut example = self.example.clone();
        example.tokens.truncate(example.start + first);
        example.authors.truncate(first);
        let [_, vision_start, _] = image_tokens;
        let seen = example.tokens.iter().filter(|token| **token == vision_start).count();
        example.pictures.truncate(seen);
        Self { example, looking: self.looking[..first].to_vec() }
    }

    /// Tokens, pictures cut away if blind, and the weight of each trained token.
    fn show(&self, processor: &Processor, observation_weight: f64, image_tokens: [u32; 3], blind: bool) -> Shown {
        let example = &self.example;
        let weight = |at: usize| if blind && self.looking[at] { 0.0 } else { example.authors[at].weight(observation_weight) };
        if !blind || example.pictures.is_empty() {
            return Shown { sample: example.sample(processor), weights: (0..example.authors.len()).map(weight).collect() };
        }
        let mut shown = Shown { sample: Sample::default(), weights: vec![] };
        for (at, token) in example.tokens.iter().enumerate().filter(|(_, token)| !image_tokens.contains(token)) {
            if at >= example.start {
                shown.sample.asked.push(shown.sample.tokens.len());
                shown.weights.push(weight(at - example.start));
            }
            shown.sample.tokens.push(*token);
        }
        shown
    }
}

/// Lessons and drills, mixed and cut by the step.
pub struct Curriculum {
    lessons: Vec<Lesson>,
    drills: Vec<Lesson>,
    processor: Processor,
    config: CurriculumConfig,
    observation_weight: f64,
    image_tokens: [u32; 3],
}

impl Curriculum {
    /// Lessons with their pictures, and [drills](crate::drill) without.
    pub fn new(
        lessons: Vec<Lesson>,
        drills: &[Trajectory],
        processor: Processor,
        config: CurriculumConfig,
        observation_weight: f64,
        model: &ModelConfig,
    ) -> Self {
        let drills = drills.iter().map(|drill| Lesson::new(drill, vec![])).collect();
        let image_tokens = [model.image_token_id, model.vision_start_token_id, model.vision_end_token_id];
        Self { lessons, drills, processor, config, observation_weight, image_tokens }
    }

    fn is_blind(&self, step: usize) -> bool {
        step < self.config.blind_steps
    }
}

impl Source for Curriculum {
    fn count(&self) -> usize {
        self.lessons.len()
    }

    fn next(&self, step: usize, deck: &mut Deck<'_>) -> Shown {
        let blind = self.is_blind(step);
        let share = if blind { self.config.blind_drills } else { self.config.drills };
        let lesson = loop {
            if !self.drills.is_empty() && deck.random.random_bool(share) {
                break &self.drills[deck.random.random_range(0..self.drills.len())];
            }
            match deck.draw() {
                Some(index) => break &self.lessons[index],
                None => deck.shuffle(),
            }
        };
        let hide = blind || deck.random.random_bool(self.config.blind_share);
        let glances = !hide && !lesson.example.pictures.is_empty() && deck.random.random_bool(self.config.glances);
        let glanced = glances.then(|| lesson.glance(self.image_tokens));
        glanced.as_ref().unwrap_or(lesson).show(&self.processor, self.observation_weight, self.image_tokens, hide)
    }

    fn note(&self, step: usize) -> &'static str {
        if self.is_blind(step) { "blind" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Call, Ending, PictureId, RolloutSummary, Round};

    use super::*;

    const IMAGE: [u32; 3] = [90, 91, 92];

    /// A prompt with a picture, a turn that looks, an observation with a second picture, an answer.
    fn lesson() -> Lesson {
        let area = hypereyes_domain::Area { x1: 0.0, y1: 0.0, x2: 1.0, y2: 1.0 };
        let call = Call::image_search("img_0", &[area]);
        let trajectory = Trajectory {
            prompt: vec![1, 91, 90, 90, 92, 2],
            response: vec![10, 11, 30, 91, 90, 92, 12],
            mask: vec![true, true, false, false, false, false, true],
            logprobs: vec![0.0; 7],
            versions: vec![Default::default(); 7],
            pictures: vec![PictureId::new("one"), PictureId::new("two")],
            summary: RolloutSummary {
                rounds: vec![Round { call: Some(Box::new(call)), ..Round::counted(1, 0) }],
                ending: Ending::Answered,
                answer: Some("yes".into()),
            },
            spoken: None,
        };
        let pictures = [1, 2].map(|side| Arc::new(RgbImage::new(32 * side, 32)));
        Lesson::new(&trajectory, pictures.to_vec())
    }

    #[test]
    fn a_glance_is_the_first_turn_with_the_pictures_it_has_seen() {
        let glance = lesson().glance(IMAGE);
        assert_eq!(glance.example.tokens, [1, 91, 90, 90, 92, 2, 10, 11]);
        assert_eq!(glance.example.sample(&Processor::default()).asked, [6, 7]);
        assert_eq!((glance.example.authors, glance.looking), (vec![Author::Agent; 2], vec![true; 2]));
        assert_eq!(glance.example.pictures.iter().map(|picture| picture.width()).collect::<Vec<_>>(), [32]);
    }

    #[test]
    fn blind_views_lose_the_picture_and_the_turns_that_looked() {
        let Shown { sample, weights } = lesson().show(&Processor::default(), 0.0, IMAGE, true);
        assert_eq!(sample.tokens, [1, 2, 10, 11, 30, 12]);
        assert_eq!((sample.asked, sample.pictures.len()), (vec![2, 3, 4, 5], 0));
        assert_eq!(weights, [0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn shares_that_are_none_are_named() {
        CurriculumConfig::default().check().expect("defaults");
        let error = CurriculumConfig { glances: 1.5, ..CurriculumConfig::default() }.check().expect_err("a share of 1.5");
        assert!(error.contains("glances is 1.5"), "{error}");
    }
}
