//! Look-up drills: short texts in which everything to be learned is "find the value, name its owner".
//!
//! In: a world, a chat, a seed. Out: trajectories whose only trained tokens are names. A drill shows three to eight facts
//! in one tool response and then asks for the owner of each in turn, in the very words in which an agent concludes. One
//! drill carries several times the signal of a demonstration, which trains a single name among its hundred tokens; without
//! them choosing from evidence is learned last, if at all.

use hypereyes_chat::Chat;
use hypereyes_domain::{Ending, Trajectory};
use hypereyes_search::World;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Fewest and most facts of a drill.
const FACTS: std::ops::RangeInclusive<usize> = 3..=8;

/// `count` drills over counterfactual layers, deterministic in the seed.
pub fn drills(world: &World, chat: &Chat, system: &str, count: usize, seed: u64) -> Vec<Trajectory> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| drill(world, chat, system, &mut random)).collect()
}

fn drill(world: &World, chat: &Chat, system: &str, random: &mut ChaCha8Rng) -> Trajectory {
    let layer = world.layer(random.random_range(1..=64));
    let askable: Vec<_> = world.relations().iter().filter(|relation| relation.askable).collect();
    let relation = askable.choose(random).expect("a world has something to ask");
    let mut entities: Vec<_> = world.entities().iter().collect();
    entities.shuffle(random);
    let mut facts: Vec<(&str, &str)> = vec![];
    for entity in entities {
        let (Some(name), Some(value)) = (layer.name(&entity.id), layer.fact(&entity.id, &relation.key)) else { continue };
        // Each value has one owner, so that each question has one answer.
        if facts.iter().all(|(_, known)| *known != value) {
            facts.push((name, value));
        }
        if facts.len() == *FACTS.end() {
            break;
        }
    }
    facts.truncate(random.random_range(FACTS));
    let label = &relation.label;
    let body: String =
        facts.iter().enumerate().map(|(at, (name, value))| format!("{}\n1. 1.00 {label}: {value} is {name}'s {label}\n", at + 1)).collect();
    let question = format!("Which one has {label} {}?", facts[0].1);
    let prompt = chat.prompt(system, &question, &[]);
    let mut response = chat.observation(&format!("<tool_response>{body}</tool_response>{question}"), &[]);
    let mut mask = vec![false; response.len()];
    facts.shuffle(random);
    for (name, value) in facts {
        for (text, trained) in [(format!("<reason>{value}: "), false), (name.to_owned(), true), ("</reason>".to_owned(), false)] {
            let tokens = chat.encode(&text);
            mask.extend(std::iter::repeat_n(trained, tokens.len()));
            response.extend(tokens);
        }
    }
    let n = response.len();
    Trajectory {
        prompt,
        response,
        mask,
        logprobs: vec![0.0; n],
        versions: vec![Default::default(); n],
        pictures: vec![],
        rounds: vec![],
        ending: Ending::NoAction,
        answer: None,
    }
}
