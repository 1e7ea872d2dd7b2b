//! A chat endpoint. In: settings. Out: a refusal: it gives text and no tokens, so that no engine can be made of it. Commands that measure
//! policies reach it another way (`crates/rollout/src/completions`).

use hypereyes_policy::Error;

use crate::{Engine, EngineConfig, Policy};

/// Refuses.
pub(crate) fn open(_config: &EngineConfig, _policy: Policy<'_>) -> Result<Engine, Error> {
    Err(Error::Input(
        "engine.kind is openai, which speaks text: no tokens and no log-probs come from it; give local, vllm or sglang".into(),
    ))
}
