//! Trainable parameters end to end: the order in which gradients are exchanged and optimiser state is kept.
//!
//! In: weights by name, and which of them are frozen or treated apart. Out: one flat row of values, and which piece of which
//! parameter lies where. Parameters are in the order of their names, so that every rank and every start agrees.

use std::collections::BTreeMap;
use std::ops::Range;

use hypereyes_policy::checkpoint::{HostTensor, HostWeights};

use crate::config::OptimConfig;

/// Gradients by parameter name, row-major like the parameter.
pub type Gradients = BTreeMap<String, Vec<f32>>;

/// One trainable parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Published name.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Where it begins in the flat row.
    pub at: usize,
    /// Values.
    pub length: usize,
    /// Its share of the learning rate.
    pub rate: f64,
    /// Decoupled decay per unit of learning rate.
    pub decay: f64,
}

/// All trainable parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// In order.
    pub entries: Vec<Entry>,
    total: usize,
}

/// A piece of one parameter that lies within a shard.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece<'a> {
    /// The parameter.
    pub entry: &'a Entry,
    /// Values of the parameter.
    pub of_entry: Range<usize>,
    /// Values of the shard.
    pub of_shard: Range<usize>,
}

impl Layout {
    /// Lays out what `config` does not freeze.
    pub fn of(weights: &HostWeights, config: &OptimConfig) -> Self {
        let mut at = 0;
        let mut entries = vec![];
        for (name, tensor) in weights {
            let group = config.groups.iter().find(|group| name.starts_with(&group.prefix));
            let rate = group.map_or(1.0, |group| group.rate);
            if rate == 0.0 {
                continue;
            }
            let decay = if decays(name, tensor) { group.and_then(|group| group.weight_decay).unwrap_or(config.weight_decay) } else { 0.0 };
            let (shape, length) = (tensor.shape.clone(), tensor.values.len());
            entries.push(Entry { name: name.clone(), shape, at, length, rate, decay });
            at += length;
        }
        Self { entries, total: at }
    }

    /// Values of the flat row.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Adds gradients to a flat row. Those of frozen parameters are left out; a parameter without one has gradient 0.
    pub fn add(&self, gradients: &Gradients, row: &mut [f32]) {
        for entry in &self.entries {
            let Some(gradient) = gradients.get(&entry.name) else { continue };
            row[entry.at..][..entry.length].iter_mut().zip(gradient).for_each(|(sum, part)| *sum += part);
        }
    }

    /// The pieces of parameters that make up a shard, in order.
    pub fn pieces(&self, shard: Range<usize>) -> impl Iterator<Item = Piece<'_>> {
        let first = self.entries.partition_point(|entry| entry.at + entry.length <= shard.start);
        self.entries[first..].iter().take_while(move |entry| entry.at < shard.end).filter(|entry| entry.length > 0).map(move |entry| {
            let (start, end) = (entry.at.max(shard.start), (entry.at + entry.length).min(shard.end));
            Piece { entry, of_entry: start - entry.at..end - entry.at, of_shard: start - shard.start..end - shard.start }
        })
    }

    /// A shard's values of weights.
    pub fn read(&self, weights: &HostWeights, shard: Range<usize>) -> Vec<f32> {
        self.pieces(shard).flat_map(|piece| &weights[&piece.entry.name].values[piece.of_entry]).copied().collect()
    }

    /// Puts a whole flat row into weights.
    pub fn write(&self, row: &[f32], weights: &mut HostWeights) {
        for entry in &self.entries {
            if let Some(tensor) = weights.get_mut(&entry.name) {
                tensor.values.copy_from_slice(&row[entry.at..][..entry.length]);
            }
        }
    }

    /// A whole flat row by name.
    pub fn named(&self, row: &[f32]) -> HostWeights {
        let tensor = |entry: &Entry| HostTensor { shape: entry.shape.clone(), values: row[entry.at..][..entry.length].to_vec() };
        self.entries.iter().map(|entry| (entry.name.clone(), tensor(entry))).collect()
    }

    /// The inverse of [`Layout::named`]: a shard of the flat row; what is not named is 0, as it is before the first step.
    pub fn shard_of(&self, named: &HostWeights, shard: Range<usize>) -> Vec<f32> {
        let mut row = vec![0.0; shard.len()];
        for piece in self.pieces(shard) {
            if let Some(tensor) = named.get(&piece.entry.name).filter(|tensor| tensor.shape == piece.entry.shape) {
                row[piece.of_shard].copy_from_slice(&tensor.values[piece.of_entry]);
            }
        }
        row
    }
}

fn decays(name: &str, tensor: &HostTensor) -> bool {
    tensor.shape.len() >= 2 && !name.contains("embed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ParameterGroup;

    fn weights() -> HostWeights {
        let tensor = |shape: &[usize], from: usize| HostTensor {
            shape: shape.to_vec(),
            values: (0..shape.iter().product()).map(|at| (from + at) as f32).collect(),
        };
        [
            ("a.embed", tensor(&[2, 2], 0)),
            ("b.weight", tensor(&[2, 3], 10)),
            ("c.norm", tensor(&[3], 20)),
            ("v.weight", tensor(&[1, 2], 30)),
        ]
        .into_iter()
        .map(|(name, tensor)| (name.to_owned(), tensor))
        .collect()
    }

    #[test]
    fn shards_of_any_count_put_together_are_the_whole() {
        let (weights, layout) = (weights(), Layout::of(&weights(), &OptimConfig::default()));
        assert_eq!(layout.total(), 15);
        for world in 1..=17 {
            let each = hypereyes_collective::shard_len(15, world);
            let shard = |rank: usize| (rank * each).min(15)..((rank + 1) * each).min(15);
            let row: Vec<f32> = (0..world).flat_map(|rank| layout.read(&weights, shard(rank))).collect();
            assert_eq!(layout.named(&row), weights, "{world} shards");
            let again: Vec<f32> = (0..world).flat_map(|rank| layout.shard_of(&weights, shard(rank))).collect();
            assert_eq!(again, row);
        }
    }

    #[test]
    fn groups_freeze_slow_down_and_decay() {
        let group = |prefix: &str, rate, weight_decay| ParameterGroup { prefix: prefix.into(), rate, weight_decay };
        let config =
            OptimConfig { weight_decay: 0.5, groups: vec![group("v.", 0.0, None), group("b.", 0.1, Some(0.2))], ..Default::default() };
        let layout = Layout::of(&weights(), &config);
        let seen: Vec<_> = layout.entries.iter().map(|entry| (entry.name.as_str(), entry.rate, entry.decay)).collect();
        assert_eq!(seen, [("a.embed", 1.0, 0.0), ("b.weight", 0.1, 0.2), ("c.norm", 1.0, 0.0)]);
        let mut row = vec![0.0; layout.total()];
        layout.add(&[("c.norm".to_owned(), vec![1.0, 2.0, 3.0]), ("v.weight".to_owned(), vec![9.0, 9.0])].into(), &mut row);
        assert_eq!(row[10..], [1.0, 2.0, 3.0]);
        assert!(row[..10].iter().all(|value| *value == 0.0));
    }
}
