//! Look-up drills: short texts in which everything to be learned is "find the value, name its owner".
//!
//! In: a world, a chat, a seed. Out: trajectories whose only trained tokens are names and values. A drill shows up to eight
//! facts in one tool response and then asks for the owner of each in turn (or for another fact of that owner), in the very
//! words in which an agent concludes. One
//! drill carries several times the signal of a demonstration, which trains a single name among its hundred tokens; without
//! them choosing from evidence is learned last, if at all.

use hypereyes_chat::{Chat, ChatError};
use hypereyes_domain::{Ending, RolloutSummary, Trajectory};
use hypereyes_world::World;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Distinct drills of a cold start; far more than are used twice.
pub const COUNT: usize = 4000;
/// Fewest and most facts of a drill.
const FACTS: std::ops::RangeInclusive<usize> = 3..=8;
/// Share of drills that go on to another fact of the owner.
const HOPS: f64 = 0.4;

/// `count` drills over counterfactual layers, deterministic in the seed.
///
/// # Errors
/// The chat template refuses one of the prompts.
pub fn drills(world: &World, chat: &Chat, system: &str, count: usize, seed: u64) -> Result<Vec<Trajectory>, ChatError> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| drill(world, chat, system, &mut random)).collect()
}

fn drill(world: &World, chat: &Chat, system: &str, random: &mut ChaCha8Rng) -> Result<Trajectory, ChatError> {
    let layer = world.layer(random.random_range(1..=64));
    let mut relations: Vec<_> = world.relations().iter().filter(|relation| relation.askable).collect();
    relations.shuffle(random);
    // One relation: who has the value? Two: and what is the other fact of that one?
    relations.truncate(if random.random_bool(HOPS) { 2 } else { 1 });
    let mut entities: Vec<_> = world.entities().iter().collect();
    entities.shuffle(random);
    let mut owners: Vec<(&str, Vec<&str>)> = vec![];
    for entity in entities {
        let values = relations.iter().map(|relation| layer.fact(&entity.id, &relation.key)).collect::<Option<Vec<&str>>>();
        let (Some(name), Some(values)) = (layer.name(&entity.id), values) else { continue };
        // Each value that is asked for has one owner, so that each question has one answer.
        if owners.iter().all(|(_, known)| known[0] != values[0]) {
            owners.push((name, values));
        }
        if owners.len() == *FACTS.end() / relations.len() {
            break;
        }
    }
    owners.truncate(random.random_range(FACTS));
    let facts =
        owners.iter().flat_map(|(name, values)| relations.iter().zip(values).map(move |(relation, value)| (name, &relation.label, value)));
    let body: String =
        facts.enumerate().map(|(at, (name, label, value))| format!("{}\n1. 1.00 {label}: {value} is {name}'s {label}\n", at + 1)).collect();
    let (label, value) = (&relations[0].label, owners[0].1[0]);
    let question = match relations.get(1) {
        Some(asked) => format!("What is the {} of the one whose {label} is {value}?", asked.label),
        None => format!("Which one has {label} {value}?"),
    };
    let prompt = chat.prompt(system, &question, &[])?;
    let mut response = chat.observation(&format!("<tool_response>{body}</tool_response>{question}"), &[]);
    let mut mask = vec![false; response.len()];
    owners.shuffle(random);
    for (name, values) in owners {
        let mut parts = vec![(format!("<reason>{}: ", values[0]), false), (name.to_owned(), true), ("</reason>".to_owned(), false)];
        if let Some(asked) = values.get(1) {
            parts.extend([("<answer>".to_owned(), false), ((*asked).to_owned(), true), ("</answer>".to_owned(), false)]);
        }
        for (text, trained) in parts {
            let tokens = chat.encode(&text);
            mask.extend(std::iter::repeat_n(trained, tokens.len()));
            response.extend(tokens);
        }
    }
    let n = response.len();
    Ok(Trajectory {
        prompt,
        response,
        mask,
        logprobs: vec![0.0; n],
        versions: vec![Default::default(); n],
        pictures: vec![],
        summary: RolloutSummary { rounds: vec![], ending: Ending::NoAction, answer: None },
        spoken: None,
    })
}
