//! The golden vectors of the objective (origin noted in the file): every value of every case, gradients included, to 1e-9.

use hypereyes_objective::cases::{Case, CaseError, first_difference};
use hypereyes_objective::{evaluate, evaluate_case};
use serde::Deserialize;
use serde_json::{Value, json};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../data/policy_gradient_vectors.json")).expect("the vectors are JSON")
}

fn cases() -> Vec<Value> {
    vectors()["cases"].as_array().expect("a list").clone()
}

#[test]
fn every_golden_case_agrees() {
    let tolerance = vectors()["note"]["tolerance"].as_f64().expect("a number");
    assert_eq!((tolerance, cases().len()), (1e-9, 36));
    for case in cases() {
        let got = evaluate_case(&case).expect("a sound case");
        if let Some(difference) = first_difference(&got, &case["expected"], tolerance) {
            panic!("{}{difference}", case["id"]);
        }
    }
}

#[test]
fn teacher_distance_counts_distilled_tokens_only() {
    let mut told_apart = 0;
    for case in cases() {
        let case = Case::deserialize(&case).expect("a case");
        let sequences = case.sequences().expect("sound");
        let metrics = evaluate(&sequences, &case.objective_options().expect("sound")).expect("sound").metrics;
        let (mut sum, mut count) = (0.0, 0);
        for sequence in sequences.iter().filter(|sequence| sequence.distill && sequence.is_valid()) {
            let teacher = sequence.teacher.as_ref().expect("the vectors have one");
            for at in (0..sequence.len()).filter(|at| sequence.mask[*at]) {
                sum += sequence.old[at] - teacher[at];
                count += 1;
            }
        }
        assert_eq!(metrics.distilled_tokens, count);
        let Some(got) = metrics.opd_reverse_kl else {
            assert_eq!(count, 0, "only a batch without distilled tokens has no mean");
            continue;
        };
        assert!((got - sum / count as f64).abs() < 1e-12);
        told_apart += usize::from((got - metrics.opd_reverse_kl_diluted).abs() > 1e-3);
    }
    assert!(told_apart > 20, "the diluted mean is another number: {told_apart}");
}

#[test]
fn broken_cases_are_refused_with_their_name() {
    let sound = cases().swap_remove(0);
    let broken = |change: fn(&mut Value)| {
        let mut case = sound.clone();
        change(&mut case);
        evaluate_case(&case).expect_err("it is broken").to_string()
    };
    assert!(broken(|case| case["options"]["eps_clip_c"] = json!(3.0)).contains("eps_clip_c"));
    assert!(broken(|case| case["options"]["groups"] = json!(3)).contains("lv01"));
    assert!(broken(|case| case["options"]["group_size"] = json!(0)).contains("groups of 0"));
    let both = |case: &mut Value| {
        case["options"]["tis"] = json!([0.0, 2.0]);
        case["options"]["icepop"] = json!([0.5, 2.0]);
    };
    assert!(broken(both).contains("choose one"));
    assert!(broken(|case| case["masks"][0] = json!([1])).contains("`mask`"));
    assert!(broken(|case| case["distill"] = json!([true])).contains("`distill`"));
    assert!(matches!(evaluate_case(&json!({})), Err(CaseError::Shape(_))));
    assert!(broken(|case| case["rollout_log_probs"] = case["rollout_logprobs"].clone()).contains("`rollout_log_probs`"));
    for mask in [json!(0.5), json!(-1), json!(2), json!("1"), json!(null)] {
        let mut case = sound.clone();
        case["masks"][0][0] = mask;
        assert!(evaluate_case(&case).expect_err("no mask").to_string().contains("give 0 or 1"));
    }
    let mut free = sound.clone();
    for key in ["expected", "note", "notes", "metadata"] {
        free[key] = json!({"any": "thing"});
    }
    for id in [json!(7), json!(null), json!("name")] {
        free["id"] = id;
        evaluate_case(&free).expect("what is free may be anything");
    }
}

#[test]
fn difference_names_the_first_place() {
    let want = json!({"loss": 1.0, "rows": [[1.0, 2.0]]});
    assert_eq!(first_difference(&json!({"loss": 1.0 + 1e-12, "rows": [[1.0, 2.0]]}), &want, 1e-9), None);
    assert_eq!(first_difference(&json!({"loss": 1.0, "rows": [[1.0, 2.5]]}), &want, 1e-9), Some(".rows[0][1]: got 2.5, want 2.0".into()));
    assert_eq!(first_difference(&json!({"loss": 1.0}), &want, 1e-9), Some(".rows: missing".into()));
}
