//! The published protocol of evaluation (docs/spec.md#episodes): 18 calls in 19 turns, 38,000 tokens, 1200 visual tokens a picture.
//!
//! In: nothing. Out: settings that `eval --benchmark` begins with, in the place of the embedded job's; whatever a person says wins.

use hypereyes_chassis::Findings;
use hypereyes_environment::EnvConfig;
use hypereyes_eval::EvalConfig;
use hypereyes_pictures::Processor;
use hypereyes_rollout::RolloutConfig;

use crate::config::Config;

/// Executed calls.
const CALLS: u32 = 18;
/// Turns: one more, for the answer.
const TURNS: u32 = 19;
/// Tokens of an episode.
const TOKENS: usize = 38_000;
/// Tokens of one turn, and of an answer without tools.
const TURN_TOKENS: usize = 1524;
/// Visual tokens of a picture.
const PICTURE_TOKENS: usize = 1200;
/// Hits that are shown of a search.
const HITS: usize = 3;

/// Settings in which `eval --benchmark` differs from other commands.
pub fn published() -> Config {
    let usual = Config::default();
    Config {
        rollout: RolloutConfig {
            max_turn_tokens: TURN_TOKENS,
            max_context_tokens: TOKENS,
            max_closed_book_tokens: TURN_TOKENS,
            env: EnvConfig {
                max_rounds: CALLS,
                max_turns: TURNS,
                crop_pictures: true,
                image_hits: HITS,
                text_hits: HITS,
                ..usual.rollout.env
            },
            ..usual.rollout
        },
        eval: EvalConfig { max_picture_tokens: PICTURE_TOKENS, ..usual.eval },
        ..usual
    }
}

/// An engine that was told no other size holds an episode. A chat endpoint's size is its own.
pub fn make_room(config: &mut Config) {
    let is_usual = config.engine.max_context == Config::default().engine.max_context;
    if !config.engine.speaks_text() && is_usual && config.rollout.max_context_tokens > config.engine.max_context {
        config.engine.max_context = config.rollout.max_context_tokens;
    }
}

/// Whether the bound on pictures can be kept: what servers make of a picture is said by the model's folder, which they read themselves.
pub fn of_pictures(config: &Config, processor: &Processor) -> Findings {
    let mut found = Findings::default();
    let (most, factor) = (config.eval.max_picture_tokens, processor.factor());
    let has = processor.max_pixels / (factor * factor);
    if most > 0 && config.engine.is_remote() && !config.engine.speaks_text() && has > most {
        let pixels = most * factor * factor;
        let message = format!(
            "is {most}, but the servers make up to {has} tokens of a picture, as the model's preprocessor_config.json says: set its \
             size.longest_edge (or max_pixels) to {pixels} and start them again, or set eval.max_picture_tokens=0 for the model's own"
        );
        found.refuse("eval.max_picture_tokens", message);
    }
    found
}

/// What to set for the shipped policy, which knows shorter episodes.
pub fn of_shipped() -> String {
    let Config { rollout, .. } = Config::default();
    let keys = [
        ("max_context_tokens", rollout.max_context_tokens.to_string()),
        ("max_turn_tokens", rollout.max_turn_tokens.to_string()),
        ("max_closed_book_tokens", rollout.max_closed_book_tokens.to_string()),
        ("env.max_rounds", rollout.env.max_rounds.to_string()),
        ("env.max_turns", rollout.env.max_turns.to_string()),
        ("env.image_hits", rollout.env.image_hits.to_string()),
        ("env.text_hits", rollout.env.text_hits.to_string()),
        ("env.crop_pictures", rollout.env.crop_pictures.to_string()),
    ];
    let sets: Vec<String> = keys.into_iter().map(|(key, value)| format!("--set rollout.{key}={value}")).collect();
    format!(
        "the published limits are in force ({CALLS} calls, {TURNS} turns, {TOKENS} tokens, {PICTURE_TOKENS} visual tokens a picture); the \
         shipped policy was taught shorter episodes: its own are {}",
        sets.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_limits_fit_an_engine_that_was_told_none() {
        let mut config = published();
        assert_eq!((config.rollout.env.max_rounds, config.rollout.env.max_turns, config.rollout.max_context_tokens), (18, 19, 38_000));
        assert!(config.rollout.check().is_ok() && config.eval.check().is_ok());
        make_room(&mut config);
        assert_eq!(config.engine.max_context, 38_000);
        config.engine.max_context = 20_000;
        make_room(&mut config);
        assert_eq!(config.engine.max_context, 20_000, "it was said");
        let mut endpoint = published();
        (endpoint.engine.kind, endpoint.engine.url) = ("openai".into(), vec!["http://127.0.0.1:1/v1".into()]);
        make_room(&mut endpoint);
        assert!(endpoint.engine.check().is_ok(), "the endpoint's size is its own");
        assert!(of_shipped().contains("--set rollout.max_context_tokens=768 ") && of_shipped().contains("--set rollout.env.max_turns=9"));
    }

    #[test]
    fn what_is_said_of_the_shipped_policy_is_all_that_differs() {
        let sets: Vec<String> = of_shipped().split(" --set ").skip(1).map(str::to_owned).collect();
        let said = hypereyes_chassis::config::load_from(published(), None, "X", [], &sets).expect("there are such keys");
        assert_eq!(said.rollout, Config::default().rollout);
    }

    #[test]
    fn servers_that_would_see_more_of_a_picture_are_refused_with_what_to_set() {
        let large = Processor { max_pixels: 16_777_216, ..Processor::default() };
        let mut config = published();
        assert!(!of_pictures(&config, &large).is_refused(), "this process bounds its pictures itself");
        config.engine.kind = "vllm".into();
        let line = of_pictures(&config, &large).result().expect_err("refused").to_string();
        assert!(line.starts_with("eval.max_picture_tokens is 1200, but the servers make up to 16384"), "{line}");
        assert!(line.contains("1228800") && !line.contains('\n'), "{line}");
        assert!(!of_pictures(&config, &Processor::default()).is_refused());
        config.eval.max_picture_tokens = 0;
        assert!(!of_pictures(&config, &large).is_refused());
    }
}
