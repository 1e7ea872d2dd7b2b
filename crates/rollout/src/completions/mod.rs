//! A chat endpoint as a policy: text in, text out. In: a client of chat completions, limits and wording of episodes, where searches go.
//! Out: a [`Player`] whose rollouts are measured as any other's, and never trained: nobody knows their tokens.
//!
//! The episode is the same; what is told and how replies are read is in [`messages`], one dialogue in `dialogue.rs`.

mod dialogue;
pub mod messages;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use hypereyes_chassis::backoff::BackoffConfig;
use hypereyes_domain::{Ending, Failure, GenerateError, RolloutSummary, Sampling, Spoken, Task, Trajectory};
use hypereyes_environment::{Episode, Search};
use hypereyes_openai::{Client, Completion, Finish, Miss, Patience, Request, Usage};
use hypereyes_pictures::{Picture, RgbImage};
use metrics::counter;
use serde_json::Value;
use tokio::time::Instant;

use self::dialogue::ChatDialogue;
use crate::group::{are_all, side_by_side};
use crate::metrics::{ANSWERS, BILLED, MASKED};
use crate::{Player, RolloutConfig, Rollouts};

/// Longest reply that is read: a turn of a hundred thousand tokens has less.
pub const MAX_REPLY_BYTES: usize = 4 << 20;
/// Attempts per turn, within its deadline.
const ATTEMPTS: u32 = 8;
/// Seeds have so many bits: servers read them as numbers of JSON, some in floating point.
const SEED_BITS: u64 = (1 << 53) - 1;

/// A model behind a chat endpoint, and what its episodes run with.
pub struct ChatPlayer {
    client: Arc<Client>,
    search: Arc<dyn Search>,
    config: RolloutConfig,
    /// Longest wait for one attempt.
    attempt: Duration,
    /// Tools that are offered; none where the policy knows them.
    tools: Vec<Value>,
    /// Whether the server takes no `tools` and they are in the system text.
    tools_as_text: Arc<AtomicBool>,
}

impl ChatPlayer {
    /// Episodes with the model of `client`, which counts its attempts with [`counted`].
    pub fn new(client: impl Into<Arc<Client>>, search: Arc<dyn Search>, config: RolloutConfig, attempt: Duration) -> Self {
        let tools = config.offered();
        Self { client: client.into(), search, config, attempt, tools, tools_as_text: Arc::default() }
    }

    /// The same model, whose episodes search there and run with these limits. What was learned of the server is known to both.
    #[must_use]
    pub fn with(&self, search: Arc<dyn Search>, config: RolloutConfig) -> Self {
        let (client, tools_as_text) = (self.client.clone(), self.tools_as_text.clone());
        Self { client, tools: config.offered(), search, config, attempt: self.attempt, tools_as_text }
    }

    /// The message that shows a task, if it can be asked.
    fn question(task: &Task, pictures: &[Arc<Picture>], sampling: Sampling) -> Result<Value, GenerateError> {
        are_all(task, pictures)?;
        if sampling.top_k != 0 || sampling.min_p != 0.0 {
            let message = "a chat endpoint is told neither top_k nor min_p".to_owned();
            return Err(GenerateError { failure: Failure::Infrastructure, message });
        }
        messages::question(&task.question, pictures).map_err(|error| broken(task, &error))
    }

    /// One turn: a completion whose tokens were counted.
    async fn complete(
        &self,
        messages: &[Value],
        tools: &[Value],
        most: usize,
        sampling: Sampling,
        seed: u64,
    ) -> Result<(Completion, Usage), Miss> {
        let request = Request {
            messages,
            tools,
            max_tokens: u32::try_from(most).unwrap_or(u32::MAX),
            temperature: decimal(sampling.temperature),
            // Some servers take one of the two only.
            top_p: Some(decimal(sampling.top_p)).filter(|top_p| *top_p < 1.0),
            seed: Some(seed & SEED_BITS),
        };
        let patience = Patience {
            attempts: ATTEMPTS,
            attempt: self.attempt,
            deadline: Instant::now() + self.config.turn_timeout(),
            backoff: BackoffConfig { first_ms: 500, max_ms: 20_000, ..BackoffConfig::default() },
        };
        let read = |completion: Completion| match (completion.finish, completion.usage) {
            (Finish::Withheld, _) => Err(Miss::last("withheld", "the server withheld the reply (content_filter)")),
            (_, None) => Err(Miss::last("no_usage", "the reply does not count its tokens (usage): nothing can be measured")),
            (_, Some(usage)) => Ok((completion, usage)),
        };
        let (completion, usage) = self.client.ask(&request, &patience, read).await?;
        counter!(BILLED, "kind" => "prompt").increment(usage.prompt);
        counter!(BILLED, "kind" => "completion").increment(usage.completion);
        Ok((completion, usage))
    }

    async fn answer(&self, messages: &[Value], task: &Task, seed: u64, sampling: Sampling) -> Trajectory {
        let mut spoken = Spoken::default();
        let asked = self.complete(messages, &[], self.config.max_closed_book_tokens, sampling, seed).await;
        let (ending, answer) = match asked {
            Ok((completion, usage)) => {
                spoken.count(usage.prompt, usage.completion, usage.reasoning);
                let text = completion.text.unwrap_or_default();
                let answer = messages::plain_answer(&text, completion.finish == Finish::Length);
                spoken.turns.push(text);
                match (&answer, completion.finish) {
                    (Some(_), _) => (Ending::Answered, answer),
                    (None, Finish::Length) => (Ending::TurnTruncated, None),
                    (None, _) => (Ending::NoAction, None),
                }
            }
            Err(missed) => {
                let GenerateError { failure, message } = failure_of(&missed);
                tracing::warn!(failure = failure.label(), message, "a closed-book answer failed and is masked");
                (Ending::Failed(failure), None)
            }
        };
        trajectory(task.pictures.clone(), RolloutSummary { rounds: vec![], ending, answer }, spoken)
    }
}

impl Player for ChatPlayer {
    fn play<'a>(
        &'a self,
        task: &'a Task,
        pictures: &'a [Arc<Picture>],
        seeds: &'a [u64],
        sampling: Sampling,
    ) -> BoxFuture<'a, Result<Rollouts, GenerateError>> {
        Box::pin(async move {
            let shown = Self::question(task, pictures, sampling)?;
            let images: Vec<Arc<RgbImage>> = pictures.iter().map(|picture| picture.image.clone()).collect();
            let (env, search) = (&self.config.env, &self.search);
            let played = seeds.iter().map(|seed| {
                let episode = Episode::new(env.clone(), search.clone(), task.world_seed(), &task.question, images.clone());
                (ChatDialogue::new(self, task, &shown, *seed, sampling), episode)
            });
            Ok(side_by_side(&self.config, played).await)
        })
    }

    fn closed_book<'a>(
        &'a self,
        task: &'a Task,
        pictures: &'a [Arc<Picture>],
        seeds: &'a [u64],
        sampling: Sampling,
    ) -> BoxFuture<'a, Result<Vec<Trajectory>, GenerateError>> {
        Box::pin(async move {
            let shown = Self::question(task, pictures, sampling)?;
            let messages = [messages::system(&messages::without_tools(&self.config.system_text())), shown];
            let answers = seeds.iter().map(|seed| self.answer(&messages, task, *seed, sampling));
            Ok(join_all(answers).await)
        })
    }
}

/// Counts how an attempt of the client ended.
pub fn counted(outcome: &'static str) {
    counter!(ANSWERS, "outcome" => outcome).increment(1);
}

/// A number of the settings as it was written there.
fn decimal(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

fn broken(task: &Task, error: &str) -> GenerateError {
    GenerateError { failure: Failure::Infrastructure, message: format!("task {}: {error}", task.id) }
}

fn failure_of(missed: &Miss) -> GenerateError {
    let failure = if missed.is_late() { Failure::Timeout } else { Failure::Infrastructure };
    GenerateError { failure, message: format!("no turn from the chat endpoint ({}): {missed}", missed.label) }
}

/// What remains of an episode.
fn trajectory(pictures: Vec<hypereyes_domain::PictureId>, summary: RolloutSummary, spoken: Spoken) -> Trajectory {
    if let Ending::Failed(failure) = summary.ending {
        counter!(MASKED, "reason" => failure.label()).increment(1);
    }
    let trajectory = Trajectory { pictures, spoken: Some(Box::new(spoken)), ..Trajectory::from(summary) };
    crate::metrics::count(&trajectory);
    trajectory
}
