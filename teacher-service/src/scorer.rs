//! The thread that owns a model. In: sequences of waiting calls, by a bounded channel. Out: what the model says of them.
//!
//! Sequences of several calls share a pass, up to a number of tokens, and siblings the rows of their prompt; a call is answered
//! when its last sequence is done.
//! Calls whose asker has gone or whose deadline has passed are dropped between passes. The thread ends with its handle.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant as Clock;

use hypereyes_domain::{Answer, TeacherId};
use hypereyes_pictures::Patches;
use hypereyes_policy::Error;
use hypereyes_policy::batch::Batch;
use hypereyes_policy::checkpoint;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::frozen::{self, Frozen, ScoreOptions, TokenScores};
use hypereyes_policy::score::Sample;
use metrics::{counter, histogram};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::error::ScoreError;
use crate::limits::ModelLimits;
use crate::metrics::{BATCH_SEQUENCES, BATCH_TOKENS, DROPPED, PASS_SECONDS, SEQUENCES, TOKENS};

/// A sequence whose response is scored.
#[derive(Clone, Debug)]
pub struct Item {
    /// Prompt and response.
    pub tokens: Vec<u32>,
    /// Prompt tokens, at least 1 where a log-prob is wanted.
    pub prompt: usize,
    /// One entry per response token: true where a log-prob is wanted.
    pub mask: Vec<bool>,
    /// Pictures in the order of their placeholders.
    pub pictures: Vec<Arc<Patches>>,
}

/// Fewest tokens of a pass worth a lane of their own.
const LANE_TOKENS: usize = 256;

type Answers = Result<Vec<Answer>, ScoreError>;

struct Job {
    items: Vec<Item>,
    wanted: ScoreOptions,
    deadline: Instant,
    reply: oneshot::Sender<Answers>,
}

/// The handle to a model's thread.
#[derive(Debug)]
pub struct Scorer {
    id: TeacherId,
    config: ModelConfig,
    max_batch_tokens: usize,
    jobs: mpsc::Sender<Job>,
}

impl Scorer {
    /// Reads a model and starts its thread; takes as long as the disk does.
    ///
    /// # Errors
    /// [`Error`], which names the file.
    pub fn load(id: TeacherId, folder: &Path, limits: &ModelLimits) -> Result<Self, Error> {
        let ModelLimits { device, max_batch_tokens, max_waiting, .. } = limits.clone();
        device.admits_folder(folder)?;
        let (config, weights) = checkpoint::read(folder)?;
        let model = frozen::freeze(&config, &weights, device, max_batch_tokens / LANE_TOKENS)?;
        let (jobs, inbox) = mpsc::channel(max_waiting.max(1));
        let image_token = config.image_token_id;
        let worker = Worker { id: id.clone(), model, image_token, max_batch_tokens, open: HashMap::new(), queue: VecDeque::new(), next: 0 };
        let failed = |source| Error::Io { path: format!("thread of model {id}"), source };
        std::thread::Builder::new().name("teacher".into()).spawn(move || worker.run(inbox)).map_err(failed)?;
        Ok(Self { id, config, max_batch_tokens, jobs })
    }

    /// The shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Whether sequence `index` of a call fits the model. Cheap next to a pass.
    ///
    /// # Errors
    /// [`ScoreError::TooLong`] or [`ScoreError::Misfit`].
    pub fn check(&self, index: usize, item: &Item) -> Result<(), ScoreError> {
        let tokens = item.tokens.len();
        if tokens > self.max_batch_tokens {
            return Err(ScoreError::TooLong { index, tokens, limit: self.max_batch_tokens });
        }
        let misfit = |reason: String| ScoreError::Misfit { model: self.id.clone(), index, reason };
        if item.prompt == 0 && item.mask.first() == Some(&true) {
            return Err(misfit("the first token of all has no log-prob: the prompt is empty".into()));
        }
        Batch::default().push(&self.config, &item.tokens, &item.pictures).map_err(|error| misfit(error.to_string()))
    }

    /// What the model says of each item's masked-in tokens. The items must have passed [`Scorer::check`].
    ///
    /// # Errors
    /// [`ScoreError`]; an error concerns the whole call.
    pub async fn score(&self, items: Vec<Item>, wanted: ScoreOptions, deadline: Instant) -> Answers {
        let broken = |reason: &str| ScoreError::Broken { model: self.id.clone(), reason: reason.to_owned() };
        let (reply, answers) = oneshot::channel();
        let asked = timeout_at(deadline, self.jobs.send(Job { items, wanted, deadline, reply })).await;
        asked.map_err(|_| dropped("deadline"))?.map_err(|_| broken("its thread has ended"))?;
        let answered = timeout_at(deadline, answers).await;
        answered.map_err(|_| ScoreError::Deadline)?.map_err(|_| broken("its thread has ended"))?
    }
}

fn dropped(reason: &'static str) -> ScoreError {
    counter!(DROPPED, "reason" => reason).increment(1);
    ScoreError::Deadline
}

/// A call under way.
struct Open {
    answers: Vec<Answer>,
    left: usize,
    deadline: Instant,
    reply: oneshot::Sender<Answers>,
}

/// One sequence of a call, on its way into a pass.
struct Queued {
    job: u64,
    index: usize,
    item: Item,
    wanted: ScoreOptions,
}

struct Worker {
    id: TeacherId,
    model: Box<dyn Frozen>,
    image_token: u32,
    max_batch_tokens: usize,
    open: HashMap<u64, Open>,
    queue: VecDeque<Queued>,
    next: u64,
}

impl Worker {
    fn run(mut self, mut inbox: mpsc::Receiver<Job>) {
        loop {
            if self.queue.is_empty() {
                let Some(job) = inbox.blocking_recv() else { return };
                self.take(job);
            }
            // No more than fills the next pass: what waits in the channel holds callers back.
            while self.queue.iter().map(|queued| queued.item.tokens.len()).sum::<usize>() < self.max_batch_tokens {
                let Ok(job) = inbox.try_recv() else { break };
                self.take(job);
            }
            let queued = self.next_items();
            if queued.is_empty() {
                continue;
            }
            let start = Clock::now();
            // A panic inside a kernel ends the calls of this pass, not the model.
            let values = catch_unwind(AssertUnwindSafe(|| self.pass(&queued))).unwrap_or_else(|_| Err("a pass panicked".into()));
            histogram!(PASS_SECONDS).record(start.elapsed().as_secs_f64());
            match values {
                Ok(said) => self.hand_out(queued, said),
                Err(reason) => {
                    for Queued { job, .. } in queued {
                        self.fail(job, ScoreError::Broken { model: self.id.clone(), reason: reason.clone() });
                    }
                }
            }
        }
    }

    fn take(&mut self, job: Job) {
        self.next += 1;
        let answers = vec![Answer::default(); job.items.len()];
        let wanted: Vec<(usize, Item)> = job.items.into_iter().enumerate().filter(|(_, item)| item.mask.contains(&true)).collect();
        if wanted.is_empty() {
            let _ = job.reply.send(Ok(answers)); // The asker may be gone.
            return;
        }
        self.open.insert(self.next, Open { answers, left: wanted.len(), deadline: job.deadline, reply: job.reply });
        self.queue.extend(wanted.into_iter().map(|(index, item)| Queued { job: self.next, index, item, wanted: job.wanted }));
    }

    /// The sequences of the next pass, in order of arrival; all want the same.
    fn next_items(&mut self) -> Vec<Queued> {
        let mut items: Vec<Queued> = Vec::new();
        let mut tokens = 0;
        while let Some(queued) = self.queue.pop_front() {
            let Some(open) = self.open.get(&queued.job) else { continue };
            if open.reply.is_closed() {
                self.open.remove(&queued.job);
                dropped("cancelled");
                continue;
            }
            if open.deadline <= Instant::now() {
                self.fail(queued.job, dropped("deadline"));
                continue;
            }
            let more = tokens + queued.item.tokens.len();
            if items.first().is_some_and(|first| more > self.max_batch_tokens || first.wanted != queued.wanted) {
                self.queue.push_front(queued);
                break;
            }
            tokens = more;
            items.push(queued);
        }
        items
    }

    /// What the model says of the wanted tokens, one answer per sequence.
    fn pass(&self, queued: &[Queued]) -> Result<Vec<TokenScores>, String> {
        let sample = |Queued { item, .. }: &Queued| Sample {
            tokens: item.tokens.clone(),
            pictures: item.pictures.clone(),
            asked: (0..item.mask.len()).filter(|at| item.mask[*at]).map(|at| item.prompt + at).collect(),
            // A picture cannot be cut in two: placeholders right behind the prompt may belong to its last picture.
            trunk: if item.tokens.get(item.prompt) == Some(&self.image_token) { 0 } else { item.prompt },
        };
        let samples: Vec<Sample> = queued.iter().map(sample).collect();
        let tokens: usize = samples.iter().map(|sample| sample.tokens.len()).sum();
        counter!(SEQUENCES).increment(queued.len() as u64);
        counter!(TOKENS).increment(tokens as u64);
        histogram!(BATCH_SEQUENCES).record(queued.len() as f64);
        histogram!(BATCH_TOKENS).record(tokens as f64);
        let wanted = queued.first().map_or(ScoreOptions::PLAIN, |first| first.wanted);
        self.model.score(&samples, wanted).map_err(|error| error.to_string())
    }

    fn hand_out(&mut self, queued: Vec<Queued>, said: Vec<TokenScores>) {
        for (Queued { job, index, .. }, said) in queued.into_iter().zip(said) {
            if let Some(at) = said.logprobs.iter().position(|value| !value.is_finite()) {
                let value = said.logprobs[at].to_string();
                self.fail(job, ScoreError::NotFinite { model: self.id.clone(), index, at, value });
                continue;
            }
            let Some(open) = self.open.get_mut(&job) else { continue };
            open.answers[index] = Answer { logprobs: said.logprobs, top: said.top };
            open.left -= 1;
            if open.left == 0
                && let Some(done) = self.open.remove(&job)
            {
                let _ = done.reply.send(Ok(done.answers)); // The asker may be gone.
            }
        }
    }

    fn fail(&mut self, job: u64, error: ScoreError) {
        if let Some(open) = self.open.remove(&job) {
            tracing::warn!(model = %self.id, %error, "a call failed");
            let _ = open.reply.send(Err(error)); // The asker may be gone.
        }
    }
}
