//! Whether a policy can read a world at all. A tokenizer that does not know a world's words spells them in bytes: fifteen tokens for a
//! name that was to be one, and an episode that would have taken two hundred takes two thousand.
//!
//! In: a world, a policy's tokenizer, the context of an episode. Out: findings, and what a name takes. It rolls nothing out: the shortest
//! useful episode is written down and counted.

use std::fmt;

use hypereyes_chassis::Findings;
use hypereyes_chat::{Chat, ChatError};
use hypereyes_environment::observation;
use hypereyes_synth::Split;
use hypereyes_synth::tasks::{Constraint, Drawer, Puzzle};
use hypereyes_world::World;

use crate::config::Config;

/// Tokens of a name, on average, above which a tokenizer spells names instead of knowing them.
const SPELT: f64 = 6.0;
/// Tokens of a byte above which it spells them byte by byte: a general tokenizer takes half a token for a byte of nonsense.
const BYTE_BY_BYTE: f64 = 0.9;

/// Tokens of a world's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Names {
    /// On average.
    pub mean: f64,
    /// Of the longest.
    pub most: usize,
    /// Of a byte, on average.
    pub of_byte: f64,
}

impl Names {
    /// Whether the tokenizer knows none of the words: to a policy with it, names are strings of letters that it never learned.
    pub fn are_strange(&self) -> bool {
        self.mean > SPELT && self.of_byte > BYTE_BY_BYTE
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a name takes {:.1} tokens on average and {} at most", self.mean, self.most)
    }
}

/// What the names of the world's entities take.
pub fn names(world: &World, chat: &Chat) -> Names {
    let counts: Vec<usize> = world.entities().iter().map(|entity| chat.encode(&entity.name).len()).collect();
    let (all, bytes) = (counts.iter().sum::<usize>() as f64, world.entities().iter().map(|entity| entity.name.len()).sum::<usize>());
    Names { mean: all / counts.len().max(1) as f64, most: counts.iter().copied().max().unwrap_or(0), of_byte: all / bytes.max(1) as f64 }
}

/// Tokens of the shortest useful episode about some pictures: all looked at in one round, one fact of each read in the next, an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortest {
    /// The prompt.
    pub prompt: usize,
    /// The longest turn of one who looks at one thing a turn.
    pub turn: usize,
    /// Everything.
    pub episode: usize,
}

/// The shortest useful episode about `pictures` entities whose names are of the usual length.
///
/// # Errors
/// The chat template refuses the prompt.
pub fn shortest(config: &Config, world: &World, chat: &Chat, pictures: usize) -> Result<Shortest, ChatError> {
    let layer = world.layer(0);
    let mut entities: Vec<&str> = world.entities().iter().map(|entity| entity.name.as_str()).collect();
    entities.sort_by_key(|name| chat.encode(name).len());
    let name = entities.get(entities.len() / 2).copied().unwrap_or_default();
    let relation = world.relations().iter().find(|relation| relation.askable).or(world.relations().first());
    let (label, key) = relation.map_or(("", ""), |relation| (relation.label.as_str(), relation.key.as_str()));
    let mut values: Vec<&str> = world.entities().iter().filter_map(|entity| layer.fact(&entity.id, key)).collect();
    values.sort_by_key(|value| chat.encode(value).len());
    let value = values.get(values.len() / 2).copied().unwrap_or_default();
    let question = Puzzle::Select(Constraint { label: label.to_owned(), value: value.to_owned() }).question(world);
    let tokens = |text: String| chat.encode(&text).len() + 1;

    let [width, height] = config.synth.canvas;
    let grid = chat.processor().grid((width, height));
    let prompt = chat.prompt_offering(&config.rollout.system_text(), &question, &[grid], &config.rollout.offered())?.len();
    let areas = vec!["[0.00,0.00,0.50,1.00]"; pictures].join(",");
    let look = format!(r#"<tool_call>{{"name":"image_search","arguments":{{"image_id":"img_0","area":[{areas}]}}}}</tool_call>"#);
    let found: String = (1..=pictures).map(|at| format!("img_{at}\n1. 0.97 {name}\n")).collect();
    let read = |count: usize| {
        let queries = vec![format!("\"{name} {label}\""); count].join(",");
        format!(r#"<tool_call>{{"name":"text_search","arguments":{{"input":[{queries}]}}}}</tool_call>"#)
    };
    let facts: String = (1..=pictures).map(|at| format!("{at}\n1. 0.97 {label}: {value} is {name}'s {label}\n")).collect();
    let answer = tokens(format!("<reason>{value}: {name}</reason><answer>{name}</answer>"));
    let observed = |body: &str| chat.observation(&observation::wrap(body, &question, None), &[]).len();
    let turn = tokens(read(1)).max(answer);
    // A crop comes back as a picture of about its share of the canvas.
    let crop = chat.processor().grid(((width / 2).max(32), (height / 2).max(32)));
    let crops = if config.rollout.env.crop_pictures { pictures * (chat.processor().tokens(crop) + 2) } else { 0 };
    let episode = prompt + tokens(look) + observed(&found) + crops + tokens(read(pictures)) + observed(&facts) + answer;
    Ok(Shortest { prompt, turn, episode })
}

/// Findings about whether tasks can be made of a world at all.
pub fn tasks(config: &Config, world: &World) -> Findings {
    let mut found = Findings::default();
    for split in [Split::Train, Split::HeldOut] {
        if let Err(error) = Drawer::new(world, &config.synth, split).and_then(|drawer| drawer.check_kinds())
            && !found.is_refused()
        {
            found.refuse("synth", format!("asks for tasks that world {:?} does not have: {error}", world.name()));
        }
    }
    found
}

/// Findings about a world and the tokenizer with which it is read, for episodes of `context` tokens.
pub fn findings(config: &Config, world: &World, chat: &Chat, context: usize) -> Findings {
    let mut found = Findings::default();
    let (names, [fewest, most]) = (names(world, chat), config.synth.pictures);
    let episodes = shortest(config, world, chat, fewest).and_then(|easy| Ok((easy, shortest(config, world, chat, most)?)));
    let (easy, hard) = match episodes {
        Ok(episodes) => episodes,
        Err(error) => {
            found.refuse("policy", format!("renders no prompt of world {:?}: {error}", world.name()));
            return found;
        }
    };
    let says = format!("in the policy's tokens {names} (world {:?})", world.name());
    if names.are_strange() {
        let message = format!(
            "is {:?}, and in the policy's tokens {names}: its tokenizer spells this world's names byte by byte, and it was trained on none of them; make a policy of this world \
             (`hypereyes synth`, then `hypereyes sft` without --model) and set `policy` and `teacher` to it",
            world.name()
        );
        found.refuse("world", message);
        return found;
    }
    if easy.episode > context {
        let message = format!(
            "is {context}: {says}, and the shortest episode about {fewest} pictures has {} tokens, {} of them the question; set it, \
             engine.max_context and actor.engine.max_context to {} or more, or take a policy whose tokenizer knows the world",
            easy.episode, easy.prompt, hard.episode
        );
        found.refuse("rollout.max_context_tokens", message);
    } else if names.mean > SPELT {
        let message = format!(
            "is {:?}, and in the policy's tokens {names}, where an episode has {context}: the tokenizer spells this world's names in pieces, which takes space and is hard for a small \
             policy; one that was trained on this world (`hypereyes sft`) has it easier",
            world.name()
        );
        found.warn("world", message);
    } else if hard.episode > context {
        let message =
            format!("is {context}: {says}, and the shortest episode about {most} pictures has {} tokens: it would be cut", hard.episode);
        found.warn("rollout.max_context_tokens", message);
    }
    if easy.turn > config.rollout.max_turn_tokens {
        let (has, needs) = (config.rollout.max_turn_tokens, easy.turn);
        let message = format!("is {has}: {says}, and the shortest useful turn has {needs} tokens; set it to {needs} or more");
        found.refuse("rollout.max_turn_tokens", message);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The embedded world under its own tokenizer, and under one that knows none of its words.
    fn chats(world: &World) -> [hypereyes_chat::Chat; 2] {
        let own = tempfile::tempdir().expect("a temporary folder");
        hypereyes_miniature::tokenizer::of_world(world, own.path()).expect("sound words");
        let other = tempfile::tempdir().expect("a temporary folder");
        let words =
            hypereyes_miniature::tokenizer::TinyWords { terms: &["word".to_owned()], relations: &["colour".to_owned()], phrases: &[] };
        hypereyes_miniature::tokenizer::write(other.path(), words).expect("sound words");
        [own, other].map(|folder| Chat::load(folder.path()).expect("what was just written"))
    }

    #[test]
    fn a_world_that_the_tokenizer_spells_in_bytes_is_refused() {
        let world = World::embedded().expect("the embedded pack is sound");
        let [own, other] = chats(&world);
        let config = Config::default();
        let known = names(&world, &own);
        assert_eq!((known.mean, known.most), (1.0, 1));
        assert_eq!(findings(&config, &world, &own, 768), Findings::default());
        let spelt = names(&world, &other);
        assert!(spelt.mean > 7.0 && spelt.most > 20 && spelt.are_strange(), "{spelt}");
        // However much room there is: nobody was trained to read it.
        for context in [256, 1 << 20] {
            let line = findings(&config, &world, &other, context).result().expect_err("strange names").to_string();
            assert!(line.starts_with("world ") && line.contains("byte by byte") && line.contains("tokens on average"), "{line}");
        }
        // In pieces is dear and no mistake.
        let pieces = Names { of_byte: 0.5, ..spelt };
        assert!(!pieces.are_strange());
    }

    #[test]
    fn a_context_that_cannot_hold_an_episode_is_refused_with_one_that_can() {
        let world = World::embedded().expect("the embedded pack is sound");
        let [own, _] = chats(&world);
        let config = Config::default();
        let line = findings(&config, &world, &own, 40).result().expect_err("40 tokens are not enough").to_string();
        for part in ["rollout.max_context_tokens is 40", "tokens on average", "engine.max_context"] {
            assert!(line.contains(part), "{line}");
        }
        let enough = shortest(&config, &world, &own, config.synth.pictures[1]).expect("a prompt").episode;
        assert!(line.contains(&format!("to {enough} or more")), "{line}");
        assert!(!findings(&config, &world, &own, enough).is_refused());
    }

    #[test]
    fn a_picture_that_fills_the_context_and_questions_that_a_world_has_not_are_refused() {
        let world = World::embedded().expect("the embedded pack is sound");
        let [own, _] = chats(&world);
        let mut config = Config::default();
        config.synth.canvas = [1024, 1024];
        let line = findings(&config, &world, &own, 768).result().expect_err("a thousand tokens for the picture").to_string();
        assert!(line.starts_with("rollout.max_context_tokens is 768"), "{line}");
        assert!(!tasks(&config, &world).is_refused());
        config.synth.relations = vec!["favourite colour".into()];
        assert!(tasks(&config, &world).result().expect_err("no such relation").to_string().contains("favourite colour"));
    }

    #[test]
    fn what_is_counted_is_what_an_episode_has() {
        let world = World::embedded().expect("the embedded pack is sound");
        let [own, _] = chats(&world);
        let short = shortest(&Config::default(), &world, &own, 2).expect("a prompt");
        assert!((30..80).contains(&short.prompt) && (60..300).contains(&short.episode), "{short:?}");
    }
}
