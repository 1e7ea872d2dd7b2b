//! Speed, measured: what every benchmark says of the machine and the model, and how one number comes out of several runs.
//!
//! In: a model size, counts. Out: [`Bench`], as JSON or as a table. It judges nothing: ratios to peers are taken from the
//! same run on the same machine (`bench/peers/`). It knows no settings file and no run.

pub mod args;
pub mod device;
pub mod engine;
pub mod folder;
pub mod index;
pub mod kernels;
pub mod learner;
pub mod policy;
pub mod ranks;
pub mod reward;
pub mod teacher;

use std::time::Instant;

use clap::ValueEnum;
use hypereyes_miniature::TinyConfig;
use hypereyes_policy::config::{ModelConfig, TextConfig, VisionConfig};
use hypereyes_policy::models::Family;
use serde::Serialize;
use serde_json::{Map, Value};

/// Models to measure with, at fresh weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// The embedded policy's shape with a vocabulary of 1024: 1.8 million parameters.
    Tiny,
    /// 100 million parameters: 12 layers of width 768.
    #[value(name = "100m")]
    Small,
}

impl Size {
    /// The shape. The same numbers are in `bench/peers/sizes.py`.
    pub fn model(self) -> ModelConfig {
        match self {
            Self::Tiny => TinyConfig::default().model(1024, 1021, 1022, 1023),
            Self::Small => ModelConfig {
                family: Family::Qwen3Vl,
                text: TextConfig {
                    vocab_size: 8192,
                    hidden_size: 768,
                    intermediate_size: 2048,
                    num_hidden_layers: 12,
                    num_attention_heads: 12,
                    num_key_value_heads: 4,
                    head_dim: 64,
                    rms_norm_eps: 1e-6,
                    rope_theta: 5e6,
                    mrope_section: [12, 10, 10],
                    experts: None,
                },
                vision: VisionConfig {
                    depth: 4,
                    hidden_size: 384,
                    intermediate_size: 1536,
                    num_heads: 6,
                    in_channels: 3,
                    patch_size: 16,
                    temporal_patch_size: 2,
                    spatial_merge_size: 2,
                    num_position_embeddings: 576,
                    out_hidden_size: 768,
                    deepstack_visual_indexes: vec![1, 3],
                    rope_theta: 1e4,
                },
                tie_word_embeddings: true,
                image_token_id: 8189,
                vision_start_token_id: 8190,
                vision_end_token_id: 8191,
            },
        }
    }
}

/// The model that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Model {
    /// Its size or folder.
    pub model: String,
    /// Its parameters.
    pub parameters: u64,
}

/// A benchmark's result.
#[derive(Clone, Debug, Serialize)]
pub struct Bench {
    /// `engine`, `policy`, `learner`, `reward`, `device`, `folder`, `ranks` or `index`.
    pub bench: &'static str,
    /// Which model, where there is one.
    #[serde(flatten)]
    pub model: Option<Model>,
    /// Threads that computed.
    pub threads: usize,
    /// Runs of which each number is the median.
    pub repeats: usize,
    /// Seed of weights and tokens.
    pub seed: u64,
    /// Where it ran.
    pub machine: Machine,
    /// Largest memory of this process so far, in bytes; `null` where the system does not say.
    pub peak_bytes: Option<u64>,
    /// One object per measured case; numbers carry their unit in the name.
    pub rows: Vec<Map<String, Value>>,
    /// What makes the rows doubtful, in sentences; the table does not have them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Bench {
    /// A table: one line per case.
    pub fn table(&self) -> String {
        let model = self
            .model
            .as_ref()
            .map_or(String::new(), |model| format!(" · {} ({:.1} M parameters)", model.model, model.parameters as f64 / 1e6));
        let mut lines = vec![format!(
            "{}{model} · {} threads · {} · peak {}",
            self.bench,
            self.threads,
            self.machine.cpu,
            self.peak_bytes.map_or("unknown".into(), |bytes| format!("{} MiB", bytes >> 20)),
        )];
        for row in &self.rows {
            let cells = row.iter().map(|(name, value)| format!("{name} {}", shown(value)));
            lines.push(format!("  {}", cells.collect::<Vec<_>>().join("   ")));
        }
        lines.join("\n")
    }
}

/// A value in a table; a list is a range.
fn shown(value: &Value) -> String {
    match (value, value.as_f64()) {
        (Value::Array(ends), _) => ends.iter().map(shown).collect::<Vec<_>>().join(".."),
        (_, Some(number)) if number.fract() != 0.0 && number.abs() < 1e-3 => format!("{number:.1e}"),
        (_, Some(number)) if number.fract() != 0.0 => format!("{number:.3}"),
        _ => value.to_string(),
    }
}

/// Where a benchmark ran.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Operating system and architecture.
    pub os: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let named = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned()));
        Self {
            cpu: named.unwrap_or_else(|| "unknown processor".into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// The largest memory that this process has had, in bytes.
pub fn peak_bytes() -> Option<u64> {
    status_bytes("VmHWM:")
}

/// The memory that this process has now, in bytes.
pub fn resident_bytes() -> Option<u64> {
    status_bytes("VmRSS:")
}

fn status_bytes(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Seconds that `work` takes.
pub fn seconds(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64()
}

/// The middle of several measurements; of an even number, the lower middle. At least one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// Token ids of the lower half of a model's vocabulary that are text to it, the same for a seed on every machine.
pub fn tokens(count: usize, model: &ModelConfig, seed: u64) -> Vec<u32> {
    let half = (model.text.vocab_size as u64 / 2).max(1);
    let drawn = |at: u64| (at.wrapping_mul(7919).wrapping_add(seed.wrapping_mul(104_729)) % half) as u32;
    (0..count as u64).map(|at| text(drawn(at), model)).collect()
}

/// A token id, or the lowest one that is text where this one stands for a picture: without its picture it has no meaning.
pub fn text(token: u32, model: &ModelConfig) -> u32 {
    let marks = [model.vision_start_token_id, model.image_token_id, model.vision_end_token_id];
    std::iter::once(token).chain(0..).find(|token| !marks.contains(token)).unwrap_or(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_what_they_are_called() {
        assert!((1.5e6..2.5e6).contains(&(Size::Tiny.model().parameters() as f64)));
        assert!((9.5e7..1.05e8).contains(&(Size::Small.model().parameters() as f64)), "{}", Size::Small.model().parameters());
    }

    #[test]
    fn tables_show_small_numbers_and_ranges() {
        let said = [serde_json::json!([0.5, 2.25]), 3e-6.into(), 0.25.into(), 8.into(), "vllm".into(), Value::Null];
        assert_eq!(said.each_ref().map(shown), ["0.500..2.250", "3.0e-6", "0.250", "8", "\"vllm\"", "null"]);
    }

    #[test]
    fn tokens_are_text_wherever_a_vocabulary_has_its_marks() {
        let mut model = Size::Tiny.model();
        (model.vision_start_token_id, model.image_token_id, model.vision_end_token_id) = (0, 26, 1);
        let drawn = tokens(4096, &model, 3);
        assert!(drawn.iter().all(|token| ![0, 1, 26].contains(token) && (*token as usize) < model.text.vocab_size / 2));
        assert_eq!([text(26, &model), text(0, &model), text(25, &model)], [2, 2, 25]);
        assert_eq!(drawn, tokens(4096, &model, 3));
    }

    #[test]
    fn medians_and_peaks() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 1.0);
        if cfg!(target_os = "linux") {
            assert!(peak_bytes().expect("Linux says") > 1 << 20);
        }
    }
}
