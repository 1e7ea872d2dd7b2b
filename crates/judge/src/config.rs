//! Settings of the model that judges. In: a table. Out: what cannot be meant in it, and what verdicts by it depend on. It asks nobody.

use std::path::PathBuf;

use hypereyes_chassis::Findings;
use serde::{Deserialize, Serialize};

use crate::about::ModelAbout;
use crate::prompts::PromptKind;

/// Settings of the model that judges.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Base of the API, such as `https://api.example.com/v1`; `/chat/completions` is added.
    pub url: String,
    /// Name of the model.
    pub model: String,
    /// Environment variable that holds the API key; empty sends none. The key itself is in no file and no log.
    pub api_key_env: String,
    /// What it is asked, and how its replies are read: `plain` (all right answers, one line), `hypereyes` (the released judge's rules),
    /// `hle` (the judge of Humanity's Last Exam, BrowseComp and WebWatcher), `simpleqa` (with a third grade, not attempted). Texts are
    /// ours. Default `plain`.
    pub prompt: PromptKind,
    /// Times that it is asked; a verdict is what more than half of them say. Odd, 1 to 99; more than 1 wants a temperature above 0.
    /// Default 1.
    pub votes: u32,
    /// Sampling temperature. Default 0, as released.
    pub temperature: f64,
    /// Tokens of a reply; one that needs more is no verdict. Default by prompt: 30, as released; 1024 for `hle`. More for a model that
    /// thinks first.
    pub max_tokens: Option<u32>,
    /// Attempts per verdict. Default 3.
    pub attempts: u32,
    /// Longest wait for one attempt, in milliseconds. Default 20000.
    pub attempt_timeout_ms: u64,
    /// Longest wait for a verdict, all attempts and pauses included, in milliseconds. Default 25000: below the deadline of a
    /// scoring call.
    pub deadline_ms: u64,
    /// Requests at the same moment; others wait. Default 32.
    pub concurrency: usize,
    /// Verdicts remembered, every vote by itself. Default 100000, some ten MiB.
    pub cache_entries: usize,
    /// A file in which verdicts are kept from run to run, as many as are remembered read back: an answer that was judged before, by the
    /// same model in the same way, is not paid for again. Several processes may share it. Default none.
    pub cache_path: Option<PathBuf>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            model: String::new(),
            api_key_env: String::new(),
            prompt: PromptKind::default(),
            votes: 1,
            temperature: 0.0,
            max_tokens: None,
            attempts: 3,
            attempt_timeout_ms: 20_000,
            deadline_ms: 25_000,
            concurrency: 32,
            cache_entries: 100_000,
            cache_path: None,
        }
    }
}

impl ModelConfig {
    /// Tokens of a reply: those that are said, or the prompt's.
    pub fn reply_tokens(&self) -> u32 {
        self.max_tokens.unwrap_or_else(|| self.prompt.prompt().max_tokens())
    }

    /// The same, with a path that means the same in every process.
    #[must_use]
    pub fn absolute(mut self) -> Self {
        self.cache_path = self.cache_path.map(|path| std::path::absolute(&path).unwrap_or(path));
        self
    }

    /// What its verdicts depend on.
    pub fn about(&self) -> ModelAbout {
        ModelAbout {
            model: self.model.clone(),
            prompt: self.prompt,
            prompt_hash: self.prompt.hash().to_hex().to_string(),
            temperature: self.temperature,
            max_tokens: self.reply_tokens(),
            votes: self.votes,
        }
    }

    /// Which of the numbers nobody can mean.
    pub fn findings(&self) -> Findings {
        let mut found = Findings::default();
        found.within("temperature", self.temperature, 0.0..=100.0);
        let (tokens, least) = (self.reply_tokens(), self.prompt.prompt().least_tokens());
        found.at_least_one("max_tokens", tokens);
        if tokens < least {
            found.warn(
                "max_tokens",
                format!(
                    "is {tokens}, in which no whole reply to the prompt {:?} fits: leave it out, or give more",
                    self.prompt.prompt().label()
                ),
            );
        }
        if self.votes > 1 && self.temperature == 0.0 {
            found.warn(
                "votes",
                format!("is {} at temperature 0, where most servers say the same every time: raise temperature, or ask once", self.votes),
            );
        }
        if let Some(path) = &self.cache_path {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            if path.as_os_str().is_empty() || path.is_dir() {
                found.refuse("cache_path", format!("is {:?}, which is no file: name one, or leave it out", path.display().to_string()));
            } else if folder.is_some_and(|folder| !folder.is_dir()) {
                found.refuse("cache_path", format!("is {}, whose folder is not there", path.display()));
            } else if self.cache_entries == 0 {
                found.refuse("cache_path", "has no effect with cache_entries = 0, where nothing is read back: raise that, or leave it out");
            }
        }
        found.span("attempt_timeout_ms", self.attempt_timeout_ms.max(1), 1, 1000);
        found.span("deadline_ms", self.deadline_ms.max(1), 1, 1000);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_reply_follow_the_prompt_unless_they_are_said() {
        let of = |prompt: PromptKind, max_tokens: Option<u32>| ModelConfig { prompt, max_tokens, ..ModelConfig::default() }.reply_tokens();
        assert_eq!(PromptKind::ALL.map(|kind| of(kind, None)), [30, 30, 1024, 30]);
        assert_eq!(PromptKind::ALL.map(|kind| of(kind, Some(7))), [7; 4]);
    }

    #[test]
    fn what_can_hardly_be_meant_is_warned_of() {
        let warned = |config: ModelConfig| config.findings().warned().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(warned(ModelConfig::default()), Vec::<String>::new());
        let three = ModelConfig { votes: 3, ..ModelConfig::default() };
        assert!(warned(three.clone())[0].starts_with("votes is 3 at temperature 0, "));
        assert_eq!(warned(ModelConfig { temperature: 0.7, ..three }), Vec::<String>::new());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let kept = |path: &str| {
            let config = ModelConfig { cache_path: Some(folder.path().join(path)), ..ModelConfig::default() };
            config.findings().refused().iter().map(|finding| finding.key.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            (kept("verdicts.jsonl").len(), kept(""), kept("no/such")),
            (0, vec!["cache_path".to_owned()], vec!["cache_path".to_owned()])
        );
        let unread = ModelConfig { cache_path: Some(folder.path().join("verdicts.jsonl")), cache_entries: 0, ..ModelConfig::default() };
        assert_eq!(unread.findings().refused().iter().map(|finding| finding.key.as_str()).collect::<Vec<_>>(), ["cache_path"]);
        let short = ModelConfig { prompt: PromptKind::Hle, max_tokens: Some(30), ..ModelConfig::default() };
        assert!(warned(short)[0].starts_with("max_tokens is 30, in which no whole reply to the prompt \"hle\" fits"));
    }
}
