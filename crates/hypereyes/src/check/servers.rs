//! Who must answer before anything is made. In: settings. Out: a finding for everybody who does not. The only part of the check that calls
//! anybody, each with a deadline of five seconds.

use std::time::Duration;

use hypereyes_chassis::Findings;
use hypereyes_judge::JudgeChoice;

use crate::config::Config;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether there is anybody to ask.
pub fn are_named(config: &Config) -> bool {
    config.reward_service.judge == JudgeChoice::Model
}

/// Asks everybody whom a run needs.
pub async fn findings(config: &Config) -> Findings {
    let mut found = Findings::default();
    let reward = &config.reward_service;
    if reward.judge == JudgeChoice::Model {
        // It is not quoted: one that is no plain address may hold a password.
        let key = "reward_service.judge_model.url";
        match hypereyes_judge::probe(&reward.judge_model, PATIENCE).await {
            Ok(true) => {}
            Ok(false) => found.warn(key, "is answered by a judge that called a right answer to a plain question wrong"),
            Err(reason) => found.refuse(key, format!("is answered by no judge: {reason}")),
        }
    }
    found
}
