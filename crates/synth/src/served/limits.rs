//! The limits of one try. In: those of an episode of the policy, a budget of rounds. Out: an episode's with at most so many. Pure.

use hypereyes_rollout::RolloutConfig;

/// The limits of an episode with at most `budget` rounds. An explorer that speaks text and is told how to answer is told its budget, too.
/// One that samples the policy's own tokens is told nothing that the policy would not be told: of what is left of a smaller budget it
/// learns nothing, and nor does whoever learns from it.
pub fn within(config: &RolloutConfig, budget: u32, speaks_text: bool) -> RolloutConfig {
    let mut within = config.clone();
    let env = &mut within.env;
    let is_smaller = budget < env.max_rounds;
    env.max_rounds = env.max_rounds.min(budget);
    env.max_turns = env.max_turns.min(budget.saturating_add(1));
    if !speaks_text {
        if is_smaller {
            [&mut env.hint_one_left, &mut env.hint_none_left].into_iter().for_each(String::clear);
        }
        return within;
    }
    if config.offer_tools {
        let calls = if budget == 1 { "one call".to_owned() } else { format!("{budget} calls") };
        let sentence = format!("You have {calls} in all: look for as much as you can in each.");
        let before = if config.system_prompt.is_empty() { String::new() } else { format!("{} ", config.system_prompt) };
        within.system_prompt = before + &sentence;
    }
    within
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explorer_that_speaks_text_is_told_its_budget_and_nobody_else_is() {
        let usual = RolloutConfig::default();
        let told = within(&usual, 1, true);
        assert_eq!((told.env.max_rounds, told.env.max_turns), (1, 2));
        assert_eq!(told.system_prompt, "Search wide, then answer. You have one call in all: look for as much as you can in each.");
        assert!(within(&usual, 3, true).system_prompt.contains("You have 3 calls in all"));
        let taught = RolloutConfig { offer_tools: false, ..usual.clone() };
        assert_eq!(within(&taught, 3, true).system_prompt, usual.system_prompt, "it knows its own prompt");
        let tokens = within(&usual, 3, false);
        assert_eq!((&tokens.system_prompt, tokens.env.hint_one_left.as_str(), tokens.env.max_rounds), (&usual.system_prompt, "", 3));
        assert_eq!(within(&usual, 8, false), usual, "the largest budget is that of training");
    }
}
