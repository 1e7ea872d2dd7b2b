//! An engine of one's own behind the port: `cargo run --release -p hypereyes-engines --example custom_engine`.
//!
//! It samples every token with the same probability, so that its log-probs are known; a real one would call a server. In: nothing.
//! Out: what two siblings say over two turns, before and after new weights.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hypereyes_domain::{
    Chunk, Failure, Generate, GenerateError, PolicyVersion, Sampled, Sampling, Sequence, SetWeights, SetWeightsError, Stop,
};
use hypereyes_engines::Engine;
use hypereyes_policy::checkpoint::{HostWeights, Snapshot};

/// Tokens of the vocabulary; the last one ends a turn.
const VOCABULARY: u32 = 16;

/// The engine: cheap to clone, as every handle is.
#[derive(Clone, Default)]
struct Uniform {
    version: Arc<AtomicU64>,
}

/// One sequence. What it keeps is its place between turns; dropping it aborts it.
struct Turns {
    engine: Uniform,
    state: u64,
    held: Vec<u32>,
}

impl Generate for Uniform {
    type Sequence = Turns;

    async fn start(&self, prompt: Chunk, seeds: Vec<u64>, _sampling: Sampling) -> Result<Vec<Turns>, GenerateError> {
        if !prompt.pictures.is_empty() {
            // An engine that shows pictures finds them by name in the store that it was opened with.
            return Err(GenerateError { failure: Failure::Infrastructure, message: "this engine shows no pictures".into() });
        }
        let turns = |seed| Turns { engine: self.clone(), state: seed, held: prompt.tokens.clone() };
        Ok(seeds.into_iter().map(turns).collect())
    }

    fn most_siblings(&self) -> usize {
        64
    }
}

impl Sequence for Turns {
    async fn advance(&mut self, observation: Chunk, max_tokens: usize) -> Result<Sampled, GenerateError> {
        self.held.extend(observation.tokens);
        let mut sampled = Sampled { tokens: vec![], logprobs: vec![], versions: vec![], stop: Stop::Length };
        while sampled.tokens.len() < max_tokens {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let token = (self.state >> 33) as u32 % VOCABULARY;
            sampled.tokens.push(token);
            sampled.logprobs.push(-(VOCABULARY as f32).ln());
            sampled.versions.push(PolicyVersion(self.engine.version.load(Ordering::Acquire)));
            if token == VOCABULARY - 1 {
                sampled.stop = Stop::EndToken;
                break;
            }
        }
        self.held.extend(&sampled.tokens);
        Ok(sampled)
    }
}

impl SetWeights<Snapshot> for Uniform {
    async fn set_weights(&self, _snapshot: Snapshot, version: PolicyVersion) -> Result<(), SetWeightsError> {
        self.version.store(version.0, Ordering::Release);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // From here on nobody knows which kind it is.
    let engine = Engine::new(Uniform::default());
    let prompt = Chunk { tokens: vec![1, 2, 3], pictures: vec![] };
    let mut group = engine.start(prompt, vec![7, 8], Sampling::of(1.0, 1.0)).await?;
    for turn in 0..2 {
        let observation = if turn == 0 { Chunk::default() } else { Chunk { tokens: vec![4, 5], pictures: vec![] } };
        for (sibling, sequence) in group.iter_mut().enumerate() {
            let Sampled { tokens, logprobs, versions, stop } = sequence.advance(observation.clone(), 6).await?;
            println!("sibling {sibling}, turn {turn}: {tokens:?} {stop:?}, each at {:.3} by {}", logprobs[0], versions[0]);
        }
        engine.set_weights(Snapshot::new(&HostWeights::new(), PolicyVersion(1)), PolicyVersion(1)).await?;
    }
    Ok(())
}
