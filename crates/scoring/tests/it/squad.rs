//! Exact match and token F1 against another implementation. In: `data/squad_vectors.jsonl`, made by `data/squad_vectors.py`, which says
//! with whom it agrees. Every number is the same to the last bit.

use hypereyes_scoring::Metric;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    prediction: String,
    answers: Vec<String>,
    em: f64,
    f1: f64,
}

#[test]
fn exact_match_and_token_f1_are_those_of_another_implementation() {
    let lines: Vec<&str> = include_str!("../data/squad_vectors.jsonl").lines().collect();
    assert!(lines.len() > 500, "{} vectors", lines.len());
    let mut between = 0;
    for line in lines {
        let Vector { prediction, answers, em, f1 } = serde_json::from_str(line).expect(line);
        let of = |metric: Metric| metric.value("Which?", &prediction, &answers);
        assert_eq!((of(Metric::Em), of(Metric::TokenF1)), (em, f1), "{line}");
        between += u32::from(f1 > 0.0 && f1 < 1.0);
    }
    assert!(between > 200, "{between} vectors overlap in part");
}
