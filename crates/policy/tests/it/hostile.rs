//! Damaged and hostile model folders: an error that says what is wrong, never a panic, never memory that no file holds.

// This file needs the folders only.
#[allow(dead_code)]
use std::path::Path;

use crate::fixture::{ALL, folder};
use hypereyes_policy::checkpoint;
use hypereyes_policy::config::ModelConfig;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Every place of a JSON tree, as pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| places(value, &format!("{at}/{key}"), found)),
        Value::Array(list) => list.iter().enumerate().for_each(|(key, value)| places(value, &format!("{at}/{key}"), found)),
        _ => {}
    }
}

fn config(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder(name).join("config.json")).unwrap()).unwrap()
}

#[test]
fn no_config_makes_the_reader_panic_and_what_it_accepts_can_be_counted() {
    let hostile = [
        json!(null),
        json!(0),
        json!(1),
        json!(3),
        json!(-1),
        json!(255),
        json!(1u64 << 24),
        json!(u64::MAX),
        json!(1e300),
        json!(0.5),
        json!("x"),
        json!([]),
        json!([1, 2, 3]),
        json!([16777216, 16777216, 16777216]),
        json!({}),
        json!(true),
    ];
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut accepted = 0;
    for name in ALL {
        let whole = config(name);
        let mut found = vec![];
        places(&whole, "", &mut found);
        // Every place with every value, then several places at once.
        let single = found.iter().flat_map(|place| hostile.iter().map(move |value| vec![(place.clone(), value.clone())]));
        let many: Vec<Vec<(String, Value)>> = (0..2000)
            .map(|_| {
                let change = |random: &mut ChaCha8Rng| (found.choose(random).unwrap().clone(), hostile.choose(random).unwrap().clone());
                (0..random.random_range(2..6)).map(|_| change(&mut random)).collect()
            })
            .collect();
        for changes in single.chain(many) {
            let mut wrong = whole.clone();
            for (place, value) in changes {
                // An earlier change may have taken the place away.
                if let Some(target) = wrong.pointer_mut(&place) {
                    *target = value;
                }
            }
            if let Ok(config) = ModelConfig::from_json(&wrong) {
                accepted += 1;
                assert!(config.parameters() > 0 && config.patch_values() > 0);
            }
        }
    }
    assert!(accepted > 100, "most keys do not matter for the shape");
}

#[test]
fn a_model_without_width_is_refused_by_the_key() {
    for (place, says) in [("text_config", "hidden_size is 0"), ("vision_config", "vision hidden_size is 0")] {
        let mut flat = config(ALL[1]);
        flat[place]["hidden_size"] = json!(0);
        flat["vision_config"]["out_hidden_size"] = flat["text_config"]["hidden_size"].clone();
        assert_eq!(ModelConfig::from_json(&flat), Err(says.to_owned()));
    }
}

fn with_weights(config: &Value, weights: &[u8]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
    std::fs::write(copy.path().join("model.safetensors"), weights).unwrap();
    copy
}

fn refused(folder: &Path) -> String {
    checkpoint::read(folder).unwrap_err().to_string()
}

#[test]
fn a_config_that_asks_for_more_than_the_files_hold_is_refused_before_it_is_built() {
    let weights = std::fs::read(folder(ALL[1]).join("model.safetensors")).unwrap();
    for (place, value) in [
        ("/text_config/vocab_size", json!(1 << 24)),
        ("/text_config/num_hidden_layers", json!(4096)),
        ("/text_config/moe_intermediate_size", json!(1 << 24)),
        ("/text_config/num_local_experts", json!(1 << 20)),
        ("/vision_config/depth", json!(4096)),
        ("/vision_config/num_position_embeddings", json!(1 << 24)),
    ] {
        let mut greedy = config(ALL[1]);
        *greedy.pointer_mut(place).unwrap() = value;
        let error = match ModelConfig::from_json(&greedy) {
            Ok(_) => refused(with_weights(&greedy, &weights).path()),
            Err(error) => error,
        };
        assert!(error.contains("parameters, the files hold") || error.contains("vision depth"), "{place}: {error}");
    }
}

#[test]
fn no_damage_to_a_weights_file_makes_the_reader_panic() {
    let (whole, config) = (std::fs::read(folder(ALL[0]).join("model.safetensors")).unwrap(), config(ALL[0]));
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut random = ChaCha8Rng::seed_from_u64(2);
    for _ in 0..1500 {
        let mut wrong = whole.clone();
        match random.random_range(0..4) {
            0 => wrong.truncate(random.random_range(0..whole.len())),
            1 => wrong[random.random_range(0..8)] = random.random(),
            2 => (0..random.random_range(1..8)).for_each(|_| wrong[random.random_range(8..header)] = random.random()),
            _ => {
                // A digit for a digit: shapes and offsets that are still JSON.
                let digits: Vec<usize> = (8..header).filter(|at| whole[*at].is_ascii_digit()).collect();
                wrong[*digits.choose(&mut random).unwrap()] = b'0' + random.random_range(0..10u8);
            }
        }
        // Whatever comes back is within what the file holds; most often it is an error.
        if let Ok(weights) = checkpoint::parse(&wrong) {
            assert!(weights.values().map(|tensor| tensor.values.len() * 4).sum::<usize>() <= wrong.len());
        }
    }
    let huge = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    assert!(refused(with_weights(&config, &huge).path()).contains("not a sound safetensors file"));
}

#[test]
fn no_damage_to_an_index_makes_the_reader_panic() {
    let copy = with_weights(&config(ALL[0]), b"");
    let index = json!({"metadata": {}, "weight_map": {"lm_head.weight": "model.safetensors", "a": "b.safetensors"}}).to_string();
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..500 {
        let mut wrong = index.clone().into_bytes();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..wrong.len());
            wrong[at] = random.random();
        }
        std::fs::write(copy.path().join("model.safetensors.index.json"), wrong).unwrap();
        refused(copy.path());
    }
}
