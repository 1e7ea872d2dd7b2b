//! What is exactly right, without an index: BM25 over all documents, inner products with all vectors in 64 bits. In: what was asked and
//! found. Out: which part of the best was found. Of equals each is as good as the others.

use std::collections::HashMap;

use hypereyes_corpus::vectors::Vectors;
use rayon::prelude::*;

use super::generate::{Asked, Documents};

/// BM25's, as everybody has them.
const SATURATION: f64 = 1.2;
const BY_LENGTH: f64 = 0.75;
/// Scores that differ by less are equal.
const EQUAL: f64 = 1e-9;

/// The mean part of the `top` best documents that `found` has.
pub(super) fn texts(of: &Documents, asked: &[Asked], found: &[Vec<u64>], top: usize) -> f64 {
    let mut queries_of: HashMap<u32, Vec<usize>> = HashMap::new();
    for (at, asked) in asked.iter().enumerate() {
        asked.ranks.iter().for_each(|rank| queries_of.entry(*rank).or_default().push(at));
    }
    let counted = |at: u64| {
        let (title, text) = of.ranks(at);
        let length = title.len() + text.len();
        let mut times: HashMap<u32, u32> = HashMap::new();
        for rank in title.into_iter().chain(text).filter(|rank| queries_of.contains_key(rank)) {
            *times.entry(rank).or_default() += 1;
        }
        (times, length)
    };
    // How many documents have a word, and how long all are.
    let none = || (HashMap::<u32, u64>::new(), 0_u64);
    let (having, words) = (0..of.count)
        .into_par_iter()
        .fold(none, |(mut having, words), at| {
            let (times, length) = counted(at);
            times.keys().for_each(|rank| *having.entry(*rank).or_default() += 1);
            (having, words + length as u64)
        })
        .reduce(none, |(mut one, words), (other, more)| {
            other.into_iter().for_each(|(rank, count)| *one.entry(rank).or_default() += count);
            (one, words + more)
        });
    let (count, mean) = (of.count as f64, words as f64 / of.count as f64);
    let rarity = |rank: &u32| {
        let having = having.get(rank).copied().unwrap_or(0) as f64;
        (1.0 + (count - having + 0.5) / (having + 0.5)).ln()
    };
    // For each query the best scores, and those of what was found.
    let empty = || vec![(Vec::<f64>::new(), HashMap::<u64, f64>::new()); asked.len()];
    let scored = (0..of.count)
        .into_par_iter()
        .fold(empty, |mut scored, at| {
            let (times, length) = counted(at);
            let mut scores: HashMap<usize, f64> = HashMap::new();
            for (rank, times) in &times {
                let times = f64::from(*times);
                let norm = SATURATION * (1.0 - BY_LENGTH + BY_LENGTH * length as f64 / mean);
                let score = rarity(rank) * times * (SATURATION + 1.0) / (times + norm);
                queries_of[rank].iter().for_each(|query| *scores.entry(*query).or_default() += score);
            }
            for (query, score) in scores {
                let (best, of_found) = &mut scored[query];
                best.push(score);
                if best.len() > 8 * top {
                    keep(best, top);
                }
                if found[query].contains(&at) {
                    of_found.insert(at, score);
                }
            }
            scored
        })
        .reduce(empty, |mut one, other| {
            for ((best, of_found), (more, others)) in one.iter_mut().zip(other) {
                best.extend(more);
                keep(best, top);
                of_found.extend(others);
            }
            one
        });
    let parts = scored.into_iter().zip(found).map(|((mut best, of_found), found)| {
        keep(&mut best, top);
        let Some(least) = best.last() else { return 1.0 };
        let right = found.iter().filter(|at| of_found.get(at).is_some_and(|score| *score >= least - EQUAL)).count();
        right as f64 / best.len() as f64
    });
    parts.sum::<f64>() / asked.len().max(1) as f64
}

fn keep(best: &mut Vec<f64>, top: usize) {
    best.sort_by(|one, other| other.total_cmp(one));
    best.truncate(top);
}

/// The part of the `top` nearest rows that `found` has.
pub(super) fn pictures(vectors: &Vectors, query: &[f32], found: &[(usize, f32)], top: usize) -> f64 {
    let product = |at: usize| query.iter().zip(vectors.row(at)).map(|(one, other)| f64::from(*one) * f64::from(*other)).sum::<f64>();
    let mut best: Vec<f64> = (0..vectors.len()).into_par_iter().map(product).collect();
    keep(&mut best, top);
    let Some(least) = best.last() else { return 1.0 };
    // Inner products of 32 bits are right to some 1e-7.
    let right = found.iter().take(top).filter(|(at, _)| product(*at) >= least - 1e-6).count();
    right as f64 / best.len() as f64
}
