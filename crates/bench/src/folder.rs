//! Policy versions as folders for inference servers: how long a generation takes to write, and how many bytes.
//!
//! In: the size of a model, the share of values that a step changes, a type. Out: a row for the first generation, one in which every
//! tensor changed a little, one in which few tensors changed, as where adapters are merged, and, to compare, a copy of the folder and
//! the reading of it. In memory is one payload; the model is random and never computes.

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use hypereyes_domain::PolicyVersion;
use hypereyes_policy::checkpoint::{Generation, PolicyFolder, Snapshot, StoredDtype, TensorPlace};
use hypereyes_policy::config::{ExpertsConfig, ModelConfig, TextConfig};
use hypereyes_policy::init;
use serde_json::{Map, Value};

use crate::{Size, seconds};

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Parameters of the model, about.
    pub parameters: u64,
    /// Experts of a layer; 0 is a dense model.
    pub experts: usize,
    /// Share of the values of a tensor that a step changes.
    pub changed: f64,
    /// How values are written.
    pub dtype: StoredDtype,
}

/// Says by name which tensors a step changes.
type Which<'a> = &'a dyn Fn(&str) -> bool;

/// Tensors that change where adapters of attention are merged into them.
const ADAPTED: [&str; 2] = ["self_attn.q_proj.weight", "self_attn.v_proj.weight"];

/// Measures in `folder`, of which the content is removed afterwards by whoever made it.
///
/// # Errors
/// A disk that is full, or a model that is too small.
pub fn measure(load: Load, folder: &Path, seed: u64) -> Result<(ModelConfig, Vec<Map<String, Value>>)> {
    let model = model(load.parameters, load.experts)?;
    let (start, root, copy) = (folder.join("start"), folder.join("root"), folder.join("copy"));
    fs::create_dir_all(&start)?;
    fs::write(start.join("config.json"), model.to_json(load.dtype).to_string())?;
    let mut snapshot = random(&model, load.dtype, seed);
    let mut policies = PolicyFolder::open(&root, &start)?;
    let mut rows = vec![];
    let everything = |_: &str| true;
    let adapted = |name: &str| ADAPTED.iter().any(|end| name.ends_with(end));
    let cases: [(&str, Option<Which<'_>>); 3] =
        [("first", None), ("every tensor changed", Some(&everything)), ("adapters merged", Some(&adapted))];
    let mut newest = None;
    for (case, which) in cases {
        let mut row = Map::new();
        row.insert("case".into(), case.into());
        if let Some(which) = which {
            let began = Instant::now();
            snapshot = stepped(snapshot, load.changed, which);
            row.insert("apply_s".into(), began.elapsed().as_secs_f64().into());
        }
        let began = Instant::now();
        let generation = policies.write(&snapshot)?;
        row.insert("write_s".into(), began.elapsed().as_secs_f64().into());
        row.insert("bytes_written".into(), generation.bytes_written.into());
        row.insert("bytes_linked".into(), generation.bytes_linked.into());
        policies.retain(&[])?;
        newest = Some(generation);
        rows.push(row);
    }
    let newest = newest.expect("three were written");
    let mut compared = |case: &str, seconds: f64, bytes: u64| {
        let fields = [("case", case.into()), ("write_s", seconds.into()), ("bytes_written", bytes.into())];
        rows.push(fields.into_iter().map(|(key, value): (&str, Value)| (key.to_owned(), value)).collect());
    };
    let began = Instant::now();
    let bytes = copied(&newest.path, &copy)?;
    compared("copy of the folder", began.elapsed().as_secs_f64(), bytes);
    let mut found = None;
    let read = seconds(|| found = Some(Generation::open(&newest.path)));
    ensure!(found.expect("it ran")?.digest == snapshot.digest, "the folder does not hold what was published");
    let fields =
        [("case", Value::from("read and compared")), ("read_s", read.into()), ("bytes_read", (snapshot.payload.len() as u64).into())];
    rows.push(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
    Ok((model, rows))
}

/// A model of about so many parameters: the widest of three with as many layers as it takes.
fn model(parameters: u64, experts: usize) -> Result<ModelConfig> {
    let small = Size::Small.model();
    let mut wide = small.clone();
    wide.text = TextConfig {
        vocab_size: 32_768,
        hidden_size: 2048,
        intermediate_size: 6144,
        num_attention_heads: 16,
        num_key_value_heads: 8,
        head_dim: 128,
        mrope_section: [24, 20, 20],
        ..wide.text
    };
    wide.vision.out_hidden_size = 2048;
    for mut model in [wide, small, Size::Tiny.model()] {
        let inner = model.text.hidden_size * 3 / 8;
        model.text.experts = (experts > 0).then(|| ExpertsConfig {
            count: experts,
            per_token: experts.min(8),
            intermediate_size: inner,
            every: 1,
            dense_layers: vec![],
        });
        let mut with = |layers: usize| {
            model.text.num_hidden_layers = layers;
            model.parameters()
        };
        let (one, two) = (with(1), with(2));
        if one <= u128::from(parameters) {
            let more = (u128::from(parameters) - one + (two - one) / 2) / (two - one);
            with(1 + more as usize);
            ensure!(ModelConfig::from_json(&model.to_json(StoredDtype::F32)).is_ok(), "{parameters} parameters take too many layers");
            return Ok(model);
        }
    }
    anyhow::bail!("no model has as few as {parameters} parameters")
}

/// Random weights, drawn in place: values of the size that weights have. Shapes are those of a model of one layer and one expert.
fn random(model: &ModelConfig, dtype: StoredDtype, seed: u64) -> Snapshot {
    let mut one = model.clone();
    one.text.num_hidden_layers = 1;
    if let Some(experts) = &mut one.text.experts {
        (experts.count, experts.per_token) = (1, 1);
    }
    let shapes = init::fresh(&one, &Default::default(), seed);
    let mut shapes: Vec<(String, Vec<usize>)> = shapes.into_iter().map(|(name, tensor)| (name, tensor.shape)).collect();
    for (name, shape) in &mut shapes {
        if let Some(experts) = model.text.experts.as_ref().filter(|_| name.contains(".mlp.experts.") || name.ends_with(".mlp.gate.weight"))
        {
            shape[0] = experts.count;
        }
    }
    const FIRST: &str = "model.language_model.layers.0.";
    let of_a_layer: Vec<_> =
        shapes.iter().filter_map(|(name, shape)| Some((name.strip_prefix(FIRST)?.to_owned(), shape.clone()))).collect();
    for layer in 1..model.text.num_hidden_layers {
        shapes.extend(of_a_layer.iter().map(|(rest, shape)| (format!("model.language_model.layers.{layer}.{rest}"), shape.clone())));
    }
    shapes.sort();
    let mut total = 0;
    let place = |(name, shape): (String, Vec<usize>)| {
        let bytes = (shape.iter().product::<usize>() * dtype.bytes()) as u64;
        let offset = total;
        total += bytes;
        TensorPlace { name, shape, dtype, offset, bytes }
    };
    let tensors: Vec<TensorPlace> = shapes.into_iter().map(place).collect();
    // Sign and fraction are random; the exponent is that of numbers around a hundredth.
    let (random_bits, exponent) = match dtype {
        StoredDtype::F32 => (0x80ff_ffff_80ff_ffff_u64, 0x3c00_0000_3c00_0000),
        StoredDtype::Bf16 => (0x80ff_80ff_80ff_80ff, 0x3c00_3c00_3c00_3c00),
    };
    let mut payload = vec![0; total as usize];
    let mut state = seed;
    for values in payload.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (mixed ^ (mixed >> 27)) & random_bits | exponent;
        values.copy_from_slice(&bits.to_le_bytes()[..values.len()]);
    }
    Snapshot::of(PolicyVersion(0), payload.into(), tensors)
}

/// The next version: the lowest bit of a share of the values differs, as a difference from the wire changes them in place.
fn stepped(snapshot: Snapshot, share: f64, which: Which<'_>) -> Snapshot {
    let Snapshot { version, payload, tensors, .. } = snapshot;
    let step = (1.0 / share.max(1e-9)).round().max(1.0) as usize;
    let mut bytes = Vec::from(payload);
    for place in tensors.iter().filter(|place| which(&place.name)) {
        let range = place.offset as usize..(place.offset + place.bytes) as usize;
        bytes[range].iter_mut().step_by(step * place.dtype.bytes()).for_each(|byte| *byte ^= 1);
    }
    Snapshot::of(version.next(), bytes.into(), tensors)
}

/// Copies the files of a folder, and puts them on disk. Returns their bytes.
fn copied(from: &Path, to: &Path) -> Result<u64> {
    fs::create_dir_all(to)?;
    let mut bytes = 0;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        bytes += fs::copy(entry.path(), &target)?;
        File::open(&target)?.sync_all()?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tensor_is_written_after_a_step_and_few_after_adapters() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for experts in [0, 4] {
            let load = Load { parameters: 3_000_000, experts, changed: 0.015, dtype: StoredDtype::Bf16 };
            let (model, rows) = measure(load, &folder.path().join(experts.to_string()), 3).expect("it runs");
            assert!((2.5e6..3.5e6).contains(&(model.parameters() as f64)), "{}", model.parameters());
            let of = |row: usize, key: &str| rows[row][key].as_u64().expect("a number");
            // A tied table is written under both its names.
            let again = if model.tie_word_embeddings { model.text.vocab_size * model.text.hidden_size } else { 0 };
            let whole = (model.parameters() as u64 + again as u64) * 2;
            assert_eq!([of(0, "bytes_written"), of(1, "bytes_written"), of(1, "bytes_linked")], [whole, whole, 0]);
            assert_eq!(of(2, "bytes_written") + of(2, "bytes_linked"), whole);
            assert_eq!(rows.len(), 5);
        }
    }
}
