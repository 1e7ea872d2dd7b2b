//! Sizes of an engine. In: what settings say. Out: what such an engine holds of a model, or which key keeps a group out. Makes nothing.

use serde::{Deserialize, Serialize};

use super::cache::{self, most_siblings};
use super::device_cache;
use super::host_cache::KvPool;
use crate::config::ModelConfig;
use crate::device::Device;
use crate::models;

/// Sizes above this are slips: products of them could not be counted.
const MOST: usize = 1 << 24;

/// Sizes of an engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Sequences held at once, prompts that are being read included; further groups wait.
    pub max_sequences: usize,
    /// Tokens of one sequence, prompt included.
    pub max_context: usize,
    /// Most bytes of keys and values; fewer sequences are held if they would need more. Default 4 GiB.
    pub cache_bytes: u64,
    /// Where the model computes: `cpu`, `cuda` or `cuda-bf16`. Default `cpu`.
    pub device: Device,
    /// Rows in one pass: bounds the memory of a pass and how long decoding waits for a long prompt.
    pub max_rows: usize,
    /// Tokens that end a turn, any of them. Set from the model folder, not from a file.
    #[serde(skip)]
    pub end_tokens: Vec<u32>,
    /// Who writes placeholders of pictures. Set by what the engine is for, not from a file.
    #[serde(skip)]
    pub placeholders: Placeholders,
}

impl EngineConfig {
    /// Refuses sizes with which nothing could ever be computed, naming the key.
    ///
    /// # Errors
    /// A sentence for whoever wrote the settings.
    pub fn check(&self) -> Result<(), String> {
        let sizes = [("max_sequences", self.max_sequences), ("max_context", self.max_context), ("max_rows", self.max_rows)];
        if self.cache_bytes == 0 {
            return Err("cache_bytes is 0: no token could be kept; give room for a sequence".to_owned());
        }
        match sizes.iter().find(|(_, size)| !(1..=MOST).contains(size)) {
            Some((key, 0)) => Err(format!("{key} is 0: no token could be fed; give at least 1")),
            Some((key, size)) => Err(format!("{key} is {size}: give at most {MOST}")),
            None => Ok(()),
        }
    }

    /// Sequences that such an engine holds of a model: as many as `max_sequences` allows and `cache_bytes` has room for.
    pub fn slots(&self, model: &ModelConfig) -> usize {
        let (context, most, bytes) = (self.max_context, self.max_sequences, self.cache_bytes);
        let state = models::state(model);
        match self.device {
            Device::Cpu => KvPool::slots_of(&state, context, most, bytes),
            device => device_cache::slots_on_gpu(&state, context, most, bytes, device.value_bytes() as usize),
        }
    }

    /// What keeps a group of `siblings` out of such an engine, and what would let it in; `group` is the key that asks for it.
    /// Without a model only the number of sequences can be told.
    ///
    /// # Errors
    /// A sentence that follows `group` and names the other key, whose table is `table`.
    pub fn holds_group(&self, table: &str, siblings: usize, model: Option<&ModelConfig>) -> Result<(), String> {
        if self.check().is_err() {
            // Said by who looks at the sizes alone.
            return Ok(());
        }
        let needed = 1 + cache::beside_the_prompt(siblings);
        if needed > self.max_sequences {
            let (has, fits) = (self.max_sequences, most_siblings(self.max_sequences));
            return Err(format!(
                "is {siblings}, but {table}.max_sequences = {has} holds a group of {fits} beside its prompt: set {table}.max_sequences = \
                 {needed}, or give at most {fits}"
            ));
        }
        let Some(model) = model else { return Ok(()) };
        let slots = self.slots(model);
        if needed > slots {
            let wanted = self.slot_bytes(model).saturating_mul(needed as u64);
            let fits = match most_siblings(slots) {
                0 => String::new(),
                fits => format!(", or give at most {fits}"),
            };
            return Err(format!(
                "is {siblings}, which takes {needed} sequences of {} tokens, but {table}.cache_bytes = {} holds {slots}: set \
                 {table}.cache_bytes = {wanted}{fits}, or lower {table}.max_context",
                self.max_context, self.cache_bytes
            ));
        }
        Ok(())
    }

    /// Bytes of the keys and values of one sequence.
    fn slot_bytes(&self, model: &ModelConfig) -> u64 {
        let capacity = match self.device {
            Device::Cpu => KvPool::capacity_of(self.max_context),
            _ => self.max_context,
        };
        models::state(model).bytes(capacity, self.device.value_bytes() as usize)
    }
}

/// What a placeholder of a picture is where there is no picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placeholders {
    /// An error in a prompt, and never sampled: only the environment shows pictures.
    #[default]
    OfPictures,
    /// A token as any other, as transformers has it.
    Text,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_sequences: 33,
            max_context: 768,
            cache_bytes: 4 << 30,
            device: Device::Cpu,
            max_rows: 1024,
            end_tokens: vec![],
            placeholders: Placeholders::OfPictures,
        }
    }
}
