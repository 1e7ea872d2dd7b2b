//! Every key of every part, with values that nobody can mean: what a service would refuse at its start, the check before a run refuses.

use std::collections::{BTreeMap, HashSet};

use hypereyes::check;
use hypereyes::check::leaves::leaves;
use hypereyes::commands::synth;
use hypereyes::config::Config;
use hypereyes_chassis::config::load_from;
use hypereyes_run::RunFolder;
use hypereyes_synth::Split;

use crate::chat_endpoint::server::{Reply, Server};

/// Values that no key but those below can have.
fn nonsense(value: &str) -> &'static [&'static str] {
    if value.parse::<i64>().is_ok() {
        &["-1", "0", "9223372036854775807", "1.5", "\"\"", "\"many\"", "[]"]
    } else if value.parse::<f64>().is_ok() {
        &["-1.0", "nan", "inf", "-inf", "1e300", "\"\"", "\"many\"", "[]"]
    } else if value == "true" || value == "false" {
        &["2", "\"\"", "\"perhaps\"", "[]"]
    } else if value.starts_with('[') {
        &["[-1]", "[nan]", "\"\"", "\"many\"", "7"]
    } else {
        &["[]", "{}", "true", "-1"]
    }
}

/// Keys whose 0 has a meaning of its own: it is in their description.
const ZERO: &[&str] = &[
    "actor.backoff.first_ms",
    "actor.engine.patches_bytes",
    "actor.grace_ms",
    "actor.teacher_breaker.pause_ms",
    "actor.search.budget.requests",
    "actor.teacher_top_k",
    "actor.threads",
    "engine.patches_bytes",
    "eval.every",
    "eval.every_tasks",
    "eval.max_picture_tokens",
    "eval.seed",
    "evaluator.backoff.first_ms",
    "evaluator.engine.patches_bytes",
    "evaluator.eval.every_tasks",
    "evaluator.eval.max_picture_tokens",
    "evaluator.eval.seed",
    "evaluator.judge_model.cache_entries",
    "evaluator.search.budget.requests",
    "evaluator.threads",
    "learner.lease_most_s",
    "learner.max_staleness",
    "learner.ranks.gpu",
    "learner.ranks.rank",
    "learner.seed",
    "learner.stop_s",
    "learner.patches_bytes",
    "learner.task_tries",
    "learner.server.grace_secs",
    "learner.threads",
    "learner.time_limit_s",
    "learner.warmup",
    "learner.optim.lora.rank",
    "reward_service.backups",
    "reward_service.judge_model.cache_entries",
    "reward_service.remember_groups",
    "reward_service.server.grace_secs",
    "search.budget.requests",
    "seed",
    "miniature.blind_steps",
    "sft.checkpoint_every",
    "sft.warmup",
    "sft_optim.lora.rank",
    "synth.layers.first",
    "synth.served.again",
    "teacher_service.keep_groups_s",
    "teacher_service.model_bytes",
    "teacher_service.patches_bytes",
    "teacher_service.server.grace_secs",
    "teacher_service.threads",
    "up.grace_s",
    "up.learner_grace_s",
    "up.ports.learner",
    "up.ports.reward",
    "up.ports.teacher",
    "up.restarts.backoff.first_ms",
    "up.restarts.per_minute",
];
/// Keys whose largest number does no harm: seeds, layers, and bounds that are then never reached.
const HUGE: &[&str] = &[
    "actor.backoff.first_ms",
    "actor.engine.cache_bytes",
    "actor.engine.patches_bytes",
    "actor.pictures_bytes",
    "engine.cache_bytes",
    "engine.patches_bytes",
    "eval.concurrency",
    "eval.every",
    "eval.every_tasks",
    "eval.seed",
    "evaluator.backoff.first_ms",
    "evaluator.pictures_bytes",
    "learner.checkpoint_every",
    "learner.checkpoint_keep",
    "learner.max_staleness",
    "learner.micro_tokens",
    "learner.patches_bytes",
    "learner.pictures_bytes",
    "learner.ranks.gpu",
    "learner.record_every",
    "learner.steps",
    "learner.warmup",
    "reward_service.backups",
    "reward_service.judge_model.cache_entries",
    "reward_service.judge_model.concurrency",
    "reward_service.remember_groups",
    "rollout.env.image_hits",
    "rollout.env.max_hit_chars",
    "rollout.env.text_hits",
    "search.concurrency",
    "seed",
    "miniature.blind_steps",
    "sft.checkpoint_every",
    "sft.micro_tokens",
    "sft.steps",
    "sft.warmup",
    "synth.held_out_layers.count",
    "synth.held_out_layers.first",
    "synth.layers.first",
    "teacher_service.model_bytes",
    "teacher_service.patches_bytes",
    "teacher_service.pictures_bytes",
    "up.restarts.backoff.first_ms",
    "up.restarts.per_minute",
];
/// Other values that can be meant: a search service has its own scale, a penalty is negative, nothing is clipped above infinity.
const FINE: &[(&str, &str)] = &[
    ("learner.optim.clip_norm", "1e300"),
    ("learner.optim.clip_norm", "inf"),
    ("reward_service.trace.wrong_in_band_bonus", "-1.0"),
    ("reward_service.trace.wrong_penalty", "-1.0"),
    ("rollout.env.text_min_relevance", "-1.0"),
    ("sft_optim.clip_norm", "1e300"),
    ("sft_optim.clip_norm", "inf"),
];
/// Texts may say anything: what they mean is known where they are used.
const TEXTS: &[&str] = &[
    "actor.process.telemetry.filter",
    "actor.process.telemetry.otlp_file",
    "evaluator.process.telemetry.filter",
    "evaluator.process.telemetry.otlp_file",
    "learner.process.telemetry.filter",
    "learner.process.telemetry.otlp_file",
    "policy",
    "reward_service.process.telemetry.filter",
    "reward_service.process.telemetry.otlp_file",
    "rollout.env.hint_none_left",
    "rollout.env.hint_one_left",
    "rollout.system_prompt",
    "run_dir",
    "synth.graph.alias",
    "teacher",
    "teacher_service.id",
    "teacher_service.process.telemetry.filter",
    "teacher_service.process.telemetry.otlp_file",
    "world",
];
/// Likewise of a judge; a number that is larger than every bound it meets does no harm there either.
const TEXT_OF_A_JUDGE: &[&str] = &["reward_service.judge_model.model"];
/// Keys of a judge: they are looked at where a model judges.
const UNASKED: &str = "reward_service.judge_model.";

fn outcome(key: &str, value: &str) -> Result<(), String> {
    let mut sets = vec![format!("{key}={value}")];
    if key.starts_with(UNASKED) {
        let asked = ["reward_service.judge=model", "reward_service.judge_model.url=http://h/v1", "reward_service.judge_model.model=m"];
        sets.splice(0..0, asked.map(str::to_owned));
    }
    let config = load_from(Config::default(), None, "X", [], &sets).map_err(|error| error.to_string())?;
    config.check_places().map_err(|error| error.to_string())?;
    let folder = RunFolder::new("/nowhere/run");
    check::run(&config, &folder).expect("the current folder is there").result().map_err(|error| error.to_string())?;
    check::cold_start(&config).result().map_err(|error| error.to_string())
}

#[test]
fn values_that_nobody_can_mean_are_refused_by_name() {
    let defaults = leaves(&Config::default());
    assert!(defaults.len() > 250, "{} keys", defaults.len());
    let mut accepted: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let (mut refused, mut unnamed) = (0, vec![]);
    for (key, value) in &defaults {
        let last = key.rsplit('.').next().unwrap();
        for value in nonsense(value) {
            match outcome(key, value) {
                Ok(()) => accepted.entry(key.clone()).or_default().push(value),
                Err(line) => {
                    refused += 1;
                    if !line.contains(last) || line.lines().count() != 1 {
                        unnamed.push(format!("{key}={value}: {line}"));
                    }
                }
            }
        }
    }
    let known = |key: &str, value: &str| {
        (value == "0" && ZERO.contains(&key))
            || (value == "9223372036854775807" && HUGE.contains(&key))
            || FINE.contains(&(key, value))
            || TEXTS.contains(&key)
            || (key.starts_with(UNASKED) && TEXT_OF_A_JUDGE.contains(&key))
    };
    let strange: Vec<String> = accepted
        .iter()
        .flat_map(|(key, values)| values.iter().map(move |value| (key, *value)))
        .filter(|(key, value)| !known(key, value))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    println!("{refused} refused");
    assert!(unnamed.is_empty(), "refused, but not by name: {unnamed:#?}");
    assert!(strange.is_empty(), "accepted: {strange:#?}");
}

/// What a command makes differs when a key that it reads says something else: a sample, of the keys with which tasks and demonstrations
/// are made. That every key is read at all is `tests/tests/it/keys.rs`.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_making_tasks_make_other_tasks() {
    let made = async |set: &str| {
        let sets: Vec<String> =
            ["synth.tasks=12", "synth.held_out=12", set].iter().filter(|set| !set.is_empty()).map(|set| (*set).to_owned()).collect();
        let config = load_from(Config::default(), None, "X", [], &sets).unwrap_or_else(|error| panic!("{set}: {error}"));
        let mut all = String::new();
        for split in [Split::Train, Split::HeldOut] {
            // That nothing can be made is a difference, too.
            all += &match synth::make(&config, split).await {
                Ok(made) => format!("{:?} {:?} {:?}\n", made.tasks, made.demonstrations, made.pictures.keys()),
                Err(error) => format!("{error}\n"),
            };
        }
        all
    };
    let usual = made("").await;
    assert_eq!(usual, made("").await, "the same settings make the same");
    assert!(usual.len() > 10_000, "something is made: {usual}");
    let mut inert = vec![];
    for set in [
        "seed=1",
        "rollout.env.header=true",
        "rollout.env.image_hits=2",
        "rollout.env.max_hit_chars=3",
        "rollout.env.text_hits=2",
        "rollout.env.text_min_relevance=0.999",
        "rollout.system_prompt=\"Answer.\"",
        "synth.canvas=[256, 128]",
        "synth.explorer.hasty=0",
        "synth.explorer.jitter=1",
        "synth.explorer.pairs=50",
        "synth.explorer.parallel=50",
        "synth.explorer.serial=50",
        "synth.held_out_layers.first=2000001",
        "synth.held_out_share=0.5",
        "synth.kinds.textual=0",
        "synth.kinds.visual_hop=50",
        "synth.kinds.visual_select=0",
        "synth.layers.count=1",
        "synth.layers.first=7",
        "synth.level=\"scattered\"",
        "synth.pictures=[2, 3]",
        "synth.relations=[\"capital\", \"currency\"]",
        "synth.tasks=11",
    ] {
        if made(set).await == usual {
            inert.push(set);
        }
    }
    assert!(inert.is_empty(), "these make no difference: {inert:?}");
}

/// The same of the keys of a judge: who judges, what a model is asked and how often.
#[tokio::test]
async fn keys_of_a_judge_make_it_judge_otherwise() {
    let server = Server::start(|_| Reply::say("Correct")).await;
    let judged = async |sets: &[&str]| {
        let url = format!("reward_service.judge_model.url={}", server.url);
        let model = ["reward_service.judge=model", "reward_service.judge_model.model=m", "reward_service.judge_model.attempts=1", &url];
        let sets: Vec<String> = model.iter().chain(sets).map(|set| (*set).to_owned()).collect();
        let reward = load_from(Config::default(), None, "X", [], &sets).unwrap_or_else(|error| panic!("{sets:?}: {error}")).reward_service;
        let judge = reward.judge.build(&reward.judge_model).unwrap_or_else(|error| panic!("{sets:?}: {error}"));
        let before = server.count();
        let predictions = ["New Rome", "new rome", "N-ew Rome", "New Rome city", "B"];
        let verdicts = judge.verdicts("Which?\nA. Paris\nB. New Rome", &predictions, &["New Rome".to_owned()]).await;
        let mut asked: Vec<String> = server.asked()[before..].iter().map(|asked| asked.body.to_string()).collect();
        asked.sort();
        format!("{verdicts:?} {asked:?}")
    };
    let usual = judged(&[]).await;
    assert_eq!(usual, judged(&[]).await, "the same settings ask and say the same");
    let mut seen = HashSet::from([usual]);
    for set in [
        "reward_service.judge=exact",
        "reward_service.judge=alias",
        "reward_service.judge=contains",
        "reward_service.judge=em",
        "reward_service.judge=token_f1",
        "reward_service.judge=option",
        "reward_service.judge_model.model=n",
        "reward_service.judge_model.prompt=hypereyes",
        "reward_service.judge_model.prompt=hle",
        "reward_service.judge_model.prompt=simpleqa",
        "reward_service.judge_model.max_tokens=9",
        "reward_service.judge_model.temperature=0.5",
        "reward_service.judge_model.votes=3",
    ] {
        assert!(seen.insert(judged(&[set]).await), "{set} makes no difference");
    }
}
