//! The table of spellings: what the alias judge takes for one answer and for two. In: `data/spellings.jsonl`.

use hypereyes_scoring::{AliasJudge, Judge, Verdict};

/// Kind, and the two texts.
fn table() -> Vec<(String, String, String)> {
    let rows = include_str!("../data/spellings.jsonl").lines().map(|line| serde_json::from_str::<Vec<String>>(line).expect(line));
    let rows = rows.filter(|row| row[0] != "#");
    rows.map(|row| <[String; 3]>::try_from(row).expect("a kind and two texts").into()).collect()
}

fn equal(prediction: &str, answer: &str) -> bool {
    AliasJudge.judge("Which?", prediction, &[answer.to_owned()]) == Verdict::Correct
}

#[test]
fn the_table_of_spellings_holds_both_ways_round() {
    let table = table();
    let mut wrong = vec![];
    for (kind, left, right) in &table {
        let want = kind == "=";
        for (prediction, answer) in [(left, right), (right, left)] {
            if equal(prediction, answer) != want {
                wrong.push(format!("{prediction:?} {kind} {answer:?}"));
            }
        }
    }
    assert!(table.len() > 230, "{} rows", table.len());
    assert!(wrong.is_empty(), "{} of {} do not hold:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

/// Equality of answers is an equivalence: what it says does not depend on which of two is the prediction, and two that are
/// equal to a third are equal.
#[test]
fn to_be_spelt_alike_is_an_equivalence() {
    let texts: Vec<String> = table().into_iter().flat_map(|(_, left, right)| [left, right]).collect();
    let count = texts.len();
    let same: Vec<Vec<bool>> = texts.iter().map(|left| texts.iter().map(|right| equal(left, right)).collect()).collect();
    for a in 0..count {
        let blank = !same[a][a];
        for b in 0..count {
            assert_eq!(same[a][b], same[b][a], "{:?} {:?}", texts[a], texts[b]);
            // A blank answer matches nothing, itself included.
            assert!(!(blank && same[a][b]), "{:?} {:?}", texts[a], texts[b]);
            if same[a][b] {
                assert_eq!(same[a], same[b], "{:?} {:?}", texts[a], texts[b]);
            }
        }
    }
}
