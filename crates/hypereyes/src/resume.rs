//! A run that goes on with other settings: what takes effect, and what cannot, because the work that it decides is done.
//!
//! In: the settings that a run folder keeps, those that are asked for now, and how far the run is. Out: findings that name the key, or
//! what changed. It writes nothing.

use hypereyes_chassis::Findings;
use hypereyes_judge::JudgeChoice;
use hypereyes_run::{Change, RunFolder};

use crate::check::leaves::{Difference, differences, is_in};
use crate::config::Config;

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// A task set is made.
    pub tasks: bool,
    /// The start policy is measured.
    pub measured: bool,
    /// There is a checkpoint.
    pub begun: bool,
    /// The teacher service has kept what it served.
    pub taught: bool,
}

impl Done {
    /// What the folder shows.
    pub fn of(folder: &RunFolder) -> Self {
        let made = |set: std::path::PathBuf| set.join(hypereyes_dataset::TASKS).exists();
        let holds_any = |folder: std::path::PathBuf| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
        Self {
            tasks: made(folder.train()) || made(folder.held_out()),
            measured: folder.before().exists(),
            begun: holds_any(folder.checkpoint()),
            taught: holds_any(folder.teacher()),
        }
    }
}

/// Tables of which nothing in a run depends.
const ELSEWHERE: &[&str] = &["sft", "sft_optim", "miniature", "tiny", "init"];
/// Keys that decide how fast and how patiently something is done, not what comes out.
const PACE: &[&str] = &[
    "rollout.turn_timeout_s",
    "engine.device",
    "engine.cache_bytes",
    "engine.max_sequences",
    "engine.max_rows",
    "engine.url",
    "engine.model",
    "engine.policy_folder",
    "engine.api_key_env",
    "engine.request_timeout_s",
    "engine.reload_timeout_s",
    "engine.start_timeout_s",
    "engine.health_interval_s",
    "eval.concurrency",
    "eval.every",
    "eval.best",
];

/// What a model that judges says by.
const JUDGED_BY: &[&str] = &[
    "reward_service.judge_model.model",
    "reward_service.judge_model.prompt",
    "reward_service.judge_model.votes",
    "reward_service.judge_model.temperature",
    "reward_service.judge_model.max_tokens",
];

/// Why a key cannot change any more, if it cannot; `model` is whether a model judges.
fn settled(key: &str, done: Done, model: bool) -> Option<&'static str> {
    let of = |tables: &[&str]| tables.iter().any(|table| is_in(key, table));
    if of(&["synth", "seed", "world", "up.tasks", "up.held_out"]) && done.tasks {
        return Some("the tasks are made already");
    }
    if of(&["policy"]) && (done.measured || done.begun) {
        return Some("a resumed run keeps its policy and goes on from its checkpoint");
    }
    if of(&["teacher"]) && done.taught {
        return Some("the teacher service goes on with what served last: swap it with `hypereyes teacher load` and `promote`");
    }
    if of(&["learner.optim.lora"]) && done.begun {
        return Some("the checkpoint holds what was trained with the old ones");
    }
    if of(&["rollout", "sampling.eval", "eval", "engine", "reward_service.judge", "seed", "world"]) && !of(PACE) && done.measured {
        return Some("the start policy is measured with the old one, and the trained one must be measured alike");
    }
    if model && of(JUDGED_BY) && done.measured {
        return Some("the start policy was judged with the old one, and the trained one must be judged alike");
    }
    None
}

/// What a resumed run is told anew, and what of it is refused. Where the run writes is not looked at: it is where it is.
pub fn compare(was: &Config, is: &Config, done: Done) -> (Vec<Change>, Findings) {
    let (mut changes, mut found) = (Vec::new(), Findings::default());
    let model = was.reward_service.judge == JudgeChoice::Model;
    for Difference { key, was, is } in differences(was, is) {
        if key == "run_dir" {
            continue;
        }
        let show = |value: &str| if value.is_empty() { "nothing".to_owned() } else { value.to_owned() };
        if let Some(why) = settled(&key, done, model) {
            let message = format!("is {} in this run and cannot become {}: {why}; leave it out, or begin a new run", show(&was), show(&is));
            found.refuse(key, message);
            continue;
        }
        if ELSEWHERE.iter().any(|table| is_in(&key, table)) {
            found.warn(key.clone(), "has no effect on `up`");
        }
        changes.push(Change { key, was, is });
    }
    (changes, found)
}

#[cfg(test)]
mod tests {
    use hypereyes_judge::PromptKind;

    use super::*;

    type Change = fn(&mut Config);

    #[test]
    fn what_is_done_cannot_be_told_anew_and_the_rest_takes_effect() {
        let was = Config { run_dir: "a".into(), ..Config::default() };
        let told = |change: fn(&mut Config), done: Done| {
            let mut is = Config { run_dir: "b".into(), ..was.clone() };
            change(&mut is);
            let (changes, found) = compare(&was, &is, done);
            let keys = |found: &[hypereyes_chassis::Finding]| found.iter().map(|it| it.key.clone()).collect::<Vec<_>>();
            (changes.into_iter().map(|change| change.key).collect::<Vec<_>>(), keys(found.refused()))
        };
        let all = Done { tasks: true, measured: true, begun: true, taught: true };
        let none = |keys: (Vec<String>, Vec<String>)| keys.0.is_empty() && keys.1.is_empty();
        assert!(none(told(|_| {}, all)));
        let refused: [(&str, Change); 8] = [
            ("up.tasks", |config| config.up.tasks = "other".into()),
            ("synth.tasks", |config| config.synth.tasks = 8),
            ("synth.held_out", |config| config.synth.held_out = 4),
            ("seed", |config| config.seed = 3),
            ("policy", |config| config.policy = "other".into()),
            ("teacher", |config| config.teacher = "other".into()),
            ("sampling.eval.temperature", |config| config.sampling.eval.temperature = 0.1),
            ("learner.optim.lora.rank", |config| config.learner.optim.lora.rank = 4),
        ];
        for (key, change) in refused {
            assert_eq!(told(change, all), (vec![], vec![key.to_owned()]));
            assert_eq!(told(change, Done::default()), (vec![key.to_owned()], vec![]), "nothing is done yet");
        }
        let by_model: [Change; 5] = [
            |config| config.reward_service.judge_model.model = "another".into(),
            |config| config.reward_service.judge_model.prompt = PromptKind::Hle,
            |config| config.reward_service.judge_model.votes = 3,
            |config| config.reward_service.judge_model.temperature = 0.5,
            |config| config.reward_service.judge_model.max_tokens = Some(9),
        ];
        for change in by_model {
            let judged = |judge: JudgeChoice| {
                let mut was = was.clone();
                was.reward_service.judge = judge;
                let mut is = was.clone();
                change(&mut is);
                compare(&was, &is, all).1.is_refused()
            };
            assert!(judged(JudgeChoice::Model) && !judged(JudgeChoice::Alias), "a model that judges nothing may change");
        }
        let effective: [(&str, Change); 4] = [
            ("learner.steps", |config| config.learner.steps = 9),
            ("learner.lr", |config| config.learner.lr = 1e-5),
            ("up.actors", |config| config.up.actors = 1),
            ("rollout.turn_timeout_s", |config| config.rollout.turn_timeout_s = 30),
        ];
        for (key, change) in effective {
            assert_eq!(told(change, all), (vec![key.to_owned()], vec![]));
        }
    }
}
