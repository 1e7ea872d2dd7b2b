//! The engine outside: a server that is measured beside this process, over all that a rollout goes through.
//!
//! In: the settings of an engine, a policy. Out: an engine that holds the policy's weights, and by how much its log-probs differ from ours.
//! The weights are put into the server as an actor does it, under a version that no run had before: what the server remembers of prompts
//! is apart for each version.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use hypereyes_chassis::BadInput;
use hypereyes_domain::{Chunk, Generate, PolicyVersion, Sampling, Sequence};
use hypereyes_engines::{Engine, EngineConfig};
use hypereyes_policy::device::Device;
use hypereyes_policy::frozen::{ScoreOptions, freeze};
use hypereyes_policy::score::Sample;

use super::prompts::{Prompt, Prompts};
use super::{Load, Policy, open};

/// Log-probs of the same weights that differ by more are not of the same arithmetic.
pub const TOLERANCE: f32 = 1e-3;
/// Tokens whose log-probs are compared, if so many are sampled.
const COMPARED: usize = 32;
/// Seconds to wait for a server that is said to be there.
const THERE_S: u64 = 30;

/// Refuses settings with which no server can be measured, naming the key.
///
/// # Errors
/// [`BadInput`].
pub fn check(engine: &EngineConfig, folder: Option<&Path>) -> Result<(), BadInput> {
    let refuse = |reason: String| Err(BadInput::new(reason));
    if engine.speaks_text() {
        return refuse("engine.kind is openai, which speaks text: there are no tokens to count; give vllm or sglang".into());
    }
    if engine.is_remote() && engine.url.len() > 1 {
        return refuse(format!("engine.url names {} servers, and a group keeps to one: give one", engine.url.len()));
    }
    if engine.is_remote() && folder.is_none() {
        return refuse(format!("engine.kind is {:?}, whose server serves a folder: give the same with --model", engine.kind));
    }
    let given = EngineConfig { policy_folder: folder_or(engine, "given".as_ref()), ..engine.clone() };
    given.check().map_err(|reason| BadInput::new(format!("engine.{reason}")))
}

/// The folder that the settings name, else another, where the kind needs one.
fn folder_or(engine: &EngineConfig, other: &Path) -> std::path::PathBuf {
    let none = engine.policy_folder.as_os_str().is_empty() && engine.is_remote();
    if none { other.to_owned() } else { engine.policy_folder.clone() }
}

/// Opens it and waits until it takes part.
///
/// # Errors
/// A server that is not there, does not serve the model, or answers otherwise than it must.
pub async fn start(engine: &EngineConfig, policy: &Policy<'_>, prompts: &Prompts, load: &Load, scratch: &Path) -> Result<Engine> {
    // A server of ours loads for a while; one at an address is up or is not.
    let usual = engine.start_timeout_s == EngineConfig::default().start_timeout_s && engine.command.is_empty();
    let config = EngineConfig {
        policy_folder: folder_or(engine, scratch),
        start_timeout_s: if usual { THERE_S } else { engine.start_timeout_s },
        max_sequences: load.largest_batch(),
        max_context: prompts.length() + load.new,
        ..engine.clone()
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("this machine's clock is before 1970")?;
    let version = PolicyVersion(u64::try_from(since.as_millis())?);
    let opened = open(&config, policy, version, prompts)?;
    opened.ready().await.map_err(super::refusal)?;
    opened.gives_logprobs(Sampling::of(1.0, 1.0)).map_err(BadInput::new)?;
    Ok(opened)
}

/// How many log-probs were compared, and the largest difference between what it says of tokens that it samples and a forward pass of ours.
///
/// # Errors
/// An answer that fails, a model that does not fit the device.
pub async fn difference(
    engine: &Engine,
    policy: &Policy<'_>,
    prompts: &Prompts,
    prompt: &Prompt,
    (count, device): (usize, Device),
) -> Result<(usize, f32)> {
    let mut sequences = engine.start(prompt.chunk.clone(), vec![0], Sampling::of(1.0, 1.0)).await?;
    let sampled = sequences[0].advance(Chunk::default(), count.min(COMPARED)).await?;
    let read = prompt.chunk.tokens.len();
    let tokens = [&prompt.chunk.tokens[..], &sampled.tokens].concat();
    let sample = Sample { asked: (read..tokens.len()).collect(), tokens, pictures: prompts.patches(prompt), trunk: 0 };
    let ours = freeze(policy.model, policy.weights, device, 1)?.score(&[sample], ScoreOptions::PLAIN)?.remove(0).logprobs;
    ensure!(ours.len() == sampled.logprobs.len(), "{} log-probs came for {} tokens", sampled.logprobs.len(), ours.len());
    let apart = sampled.logprobs.iter().zip(&ours).map(|(theirs, ours)| (theirs - ours).abs());
    // A number that is none stays so: `f32::max` would leave it out.
    let largest = apart.fold(0.0, |largest: f32, one| if one > largest || one.is_nan() { one } else { largest });
    Ok((ours.len(), largest))
}

/// What to say of a difference that is too large.
pub fn warning(kind: &str, difference: f32) -> Option<String> {
    let agree = difference <= TOLERANCE;
    (!agree).then(|| {
        format!(
            "log-probs of {kind} differ from ours by up to {difference:.1e}, more than {TOLERANCE:.0e}: it computes in another type than f32, or \
             not with the weights of the folder; what is compared may not be the same model"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_above_rounding_and_those_that_are_none_are_warned_of() {
        assert_eq!(warning("vllm", 1e-5), None);
        assert!(warning("vllm", 0.02).expect("too large").contains("2.0e-2"));
        assert!(warning("vllm", f32::NAN).is_some());
    }
}
