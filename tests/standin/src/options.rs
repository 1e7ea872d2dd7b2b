//! What a stand-in is started with. In: values. Out: the same, with defaults. Opens nothing.

use std::path::PathBuf;
use std::time::Duration;

use crate::Lies;

/// Whose HTTP it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Dialect {
    /// vLLM 0.32, with its development routes.
    Vllm,
    /// SGLang 0.5.23.
    Sglang,
}

/// What is told as the log-prob of a sampled token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogprobsMode {
    /// Of the model's own distribution, whatever it was sampled at: vLLM's `raw_logprobs`, SGLang's `SGLANG_RETURN_ORIGINAL_LOGPROB`.
    Raw,
    /// Of the distribution that it was sampled from, temperature and truncation included: vLLM's `processed_logprobs`.
    Processed,
    /// At the temperature, before truncation: what SGLang tells.
    Temperature,
}

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Model folder to start from.
    pub model: PathBuf,
    /// Whose HTTP it speaks.
    pub dialect: Dialect,
    /// Where it listens on this machine; 0 is any free port.
    pub port: u16,
    /// The model's name.
    pub name: String,
    /// Tokens of a sequence.
    pub max_model_len: usize,
    /// Sequences at once.
    pub max_sequences: usize,
    /// What is told as log-probs.
    pub logprobs: LogprobsMode,
    /// A key that must be shown, if any.
    pub api_key: Option<String>,
    /// How it lies.
    pub lies: Lies,
    /// How long nobody answers after a restart.
    pub down: Duration,
    /// File to which a line is appended per answer, if any.
    pub audit: Option<PathBuf>,
}

impl Options {
    /// An honest server of a folder, at a free port, in its dialect's own convention.
    pub fn new(model: impl Into<PathBuf>, dialect: Dialect) -> Self {
        Self {
            model: model.into(),
            dialect,
            port: 0,
            name: "policy".into(),
            max_model_len: 1024,
            max_sequences: 33,
            logprobs: match dialect {
                Dialect::Vllm => LogprobsMode::Raw,
                Dialect::Sglang => LogprobsMode::Temperature,
            },
            api_key: None,
            lies: Lies::default(),
            down: Duration::from_millis(50),
            audit: None,
        }
    }
}
