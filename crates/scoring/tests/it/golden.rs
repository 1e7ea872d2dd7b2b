//! The golden vectors of the released reward, family by family. In: `data/reward_vectors.json` (origin noted there).
//! Every case must agree to 1e-9 (1e-5 for normalisation, which is derived from a formula).

use std::sync::Mutex;

use hypereyes_domain::{Accuracy, Reference, Spent};
use hypereyes_scoring::compat::{CacheOp, Family, Sample, reward_func, run_cache_sequence, run_case};
use hypereyes_scoring::{ContainsJudge, Judge, TraceConfig, Verdict, bonuses};
use serde_json::{Value, json};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../data/reward_vectors.json")).expect("the vectors are JSON")
}

fn cases(vectors: &Value, family: &str) -> Vec<Value> {
    let list = vectors[family].as_array().or_else(|| vectors[family]["cases"].as_array());
    let golden =
        vectors["golden"].as_array().expect("a list").iter().filter(|entry| entry["family"] == family).map(|entry| entry["case"].clone());
    list.expect("the family has cases").iter().cloned().chain(golden).collect()
}

fn close(got: &Value, want: &Value, tolerance: f64) -> bool {
    match (got, want) {
        (Value::Number(got), Value::Number(want)) => {
            let (got, want) = (got.as_f64().unwrap_or(f64::NAN), want.as_f64().unwrap_or(f64::NAN));
            (got - want).abs() <= tolerance
        }
        (Value::Array(got), Value::Array(want)) => {
            got.len() == want.len() && got.iter().zip(want).all(|(got, want)| close(got, want, tolerance))
        }
        (Value::Object(got), Value::Object(want)) => {
            got.len() == want.len() && want.iter().all(|(key, want)| got.get(key).is_some_and(|got| close(got, want, tolerance)))
        }
        (got, want) => got == want,
    }
}

#[test]
fn every_golden_case_of_every_family_agrees() {
    let vectors = vectors();
    for (family, at_least) in [
        (Family::GroupBonus, 144),
        (Family::ExtractCompletion, 70),
        (Family::CacheSequences, 15),
        (Family::BestRolloutBaseline, 16),
        (Family::RewardFunc, 10),
        (Family::GroupNormalisation, 7),
    ] {
        let tolerance = if family == Family::GroupNormalisation { 1e-5 } else { 1e-9 };
        let cases = cases(&vectors, family.label());
        println!("{family}: {} cases", cases.len());
        assert!(cases.len() >= at_least, "{family}: {} cases", cases.len());
        for case in &cases {
            let got = run_case(family, case).expect("a golden case can be run");
            assert!(close(&got, &case["expected"], tolerance), "{family} {}:\n got {got}\nwant {}", case["id"], case["expected"]);
        }
    }
}

#[test]
fn the_cache_ends_with_the_memory_and_the_file_of_the_released_one() {
    for case in cases(&vectors(), "cache_sequences") {
        let ops: Vec<CacheOp> = serde_json::from_value(case["ops"].clone()).expect("operations");
        let run = run_cache_sequence(case.get("preload").filter(|preload| !preload.is_null()), &ops);
        assert_eq!(run.final_memory, case["final_memory"], "{}", case["id"]);
        assert_eq!(run.final_disk, case["final_disk"], "{}", case["id"]);
    }
}

/// Containment that remembers what it was asked.
#[derive(Default)]
struct Recorder(Mutex<Vec<Value>>);

impl Judge for Recorder {
    fn judge(&self, question: &str, prediction: &str, answers: &[String]) -> Verdict {
        let call = json!({"pred": prediction, "gt": answers[0], "question": question});
        self.0.lock().expect("no test thread panicked while holding it").push(call);
        ContainsJudge.judge(question, prediction, answers)
    }
}

#[test]
fn the_judge_is_asked_what_the_released_judge_was_asked() {
    for case in cases(&vectors(), "reward_func") {
        let samples: Vec<Sample> = serde_json::from_value(case["samples"].clone()).expect("samples");
        let recorder = Recorder::default();
        reward_func(&samples, &recorder);
        let calls = recorder.0.into_inner().expect("no test thread panicked while holding it");
        assert_eq!(Value::Array(calls), case["judge_calls"], "{}", case["id"]);
    }
}

/// Where everybody who made calls searched, number by number. Who made calls and searched nothing is a guess here, so that such groups
/// agree with what the released bonus gives them when it is told of no calls.
#[test]
fn trace_gives_the_released_bonus_wherever_there_is_a_reference() {
    let (mut compared, mut guesses) = (0, 0);
    for case in cases(&vectors(), "group_bonus") {
        let input = &case["input"];
        let number = |value: &Value| u32::try_from(value.as_i64().unwrap_or(-1)).ok();
        let (Some(rounds), Some(searches)) = (number(&input["sft_tc"]), number(&input["sft_total_search"])) else { continue };
        let rollouts: Vec<_> = input["rollouts"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|rollout| {
                let accuracy = match rollout["acc_reward"].as_f64().expect("a number") {
                    value if value <= -0.5 => Accuracy::Unparsed,
                    value if value <= 0.0 => Accuracy::Wrong,
                    _ => Accuracy::Correct,
                };
                let rounds = number(&rollout["count"]).expect("a count");
                (accuracy, Spent { rounds, searched: rounds, searches: number(&rollout["total"]).expect("a count"), failed: 0 })
            })
            .collect();
        let got: Vec<f64> =
            bonuses(&TraceConfig::default(), Some(Reference { rounds, searches }), &rollouts).into_iter().map(|(bonus, _)| bonus).collect();
        if rollouts.iter().all(|(_, spent)| spent.searches > 0 || spent.rounds == 0) {
            assert!(close(&json!(got), &case["expected"], 1e-9), "{}: got {got:?}", case["id"]);
            compared += 1;
        } else {
            let mut told = case.clone();
            for rollout in told["input"]["rollouts"].as_array_mut().expect("a list") {
                if rollout["total"] == 0 {
                    rollout["count"] = json!(0);
                }
            }
            let want = run_case(Family::GroupBonus, &told).expect("a group");
            assert!(close(&json!(got), &want, 1e-9), "{}: got {got:?}, want {want}", case["id"]);
            guesses += 1;
        }
    }
    assert!(compared > 100 && guesses > 10, "only {compared} cases had a reference and searchers, {guesses} had guesses");
}

#[test]
fn bad_cases_are_refused_with_a_reason() {
    assert!("group_bonus".parse::<Family>().is_ok());
    let unknown = "bonus".parse::<Family>().expect_err("no such family").to_string();
    assert!(unknown.contains("group_bonus"), "{unknown}");
    let missing = run_case(Family::GroupBonus, &json!({})).expect_err("no input").to_string();
    assert!(missing.contains("input"), "{missing}");
    assert!(run_case(Family::RewardFunc, &json!({"samples": [1]})).is_err());
}
