//! The thread that owns a model. In: questions of waiting calls, by a bounded channel. Out: log-probs.
//!
//! Sequences of several calls share a pass, up to a number of tokens; a call is answered when its last sequence is done.
//! Calls whose asker has gone or whose deadline has passed are dropped between passes. The thread ends with its handle.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant as Clock;

use hypereyes_domain::{Patches, TeacherId};
use hypereyes_policy::Error;
use hypereyes_policy::batch::Batch;
use hypereyes_policy::checkpoint;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::score::{self, Frozen, Sample};
use metrics::{counter, histogram};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::error::ScoreError;
use crate::metrics::{BATCH_SEQUENCES, BATCH_TOKENS, DROPPED, PASS_SECONDS, SEQUENCES, TOKENS};
use crate::model::ModelLimits;

/// A sequence whose response is scored.
#[derive(Clone, Debug)]
pub struct Question {
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

type Answers = Result<Vec<Vec<f32>>, ScoreError>;

struct Job {
    questions: Vec<Question>,
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
        let ModelLimits { device, max_batch_tokens, max_waiting, .. } = *limits;
        let (config, weights) = checkpoint::read(folder)?;
        let model = score::freeze(&config, &weights, device, max_batch_tokens / LANE_TOKENS)?;
        let (jobs, inbox) = mpsc::channel(max_waiting.max(1));
        let worker = Worker { id: id.clone(), model, max_batch_tokens, open: HashMap::new(), queue: VecDeque::new(), next: 0 };
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
    pub fn check(&self, index: usize, question: &Question) -> Result<(), ScoreError> {
        let tokens = question.tokens.len();
        if tokens > self.max_batch_tokens {
            return Err(ScoreError::TooLong { index, tokens, limit: self.max_batch_tokens });
        }
        let misfit = |reason: String| ScoreError::Misfit { model: self.id.clone(), index, reason };
        if question.prompt == 0 && question.mask.first() == Some(&true) {
            return Err(misfit("the first token of all has no log-prob: the prompt is empty".into()));
        }
        Batch::default().push(&self.config, &question.tokens, &question.pictures).map_err(|error| misfit(error.to_string()))
    }

    /// Log-probs of the questions at temperature 1, one per response token, 0 where the mask is false. The questions must have
    /// passed [`Scorer::check`].
    ///
    /// # Errors
    /// [`ScoreError`]; an error concerns the whole call.
    pub async fn score(&self, questions: Vec<Question>, deadline: Instant) -> Answers {
        let broken = |reason: &str| ScoreError::Broken { model: self.id.clone(), reason: reason.to_owned() };
        let (reply, answers) = oneshot::channel();
        let asked = timeout_at(deadline, self.jobs.send(Job { questions, deadline, reply })).await;
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
    answers: Vec<Vec<f32>>,
    left: usize,
    deadline: Instant,
    reply: oneshot::Sender<Answers>,
}

/// One sequence of a call.
struct Item {
    job: u64,
    index: usize,
    question: Question,
}

struct Worker {
    id: TeacherId,
    model: Box<dyn Frozen>,
    max_batch_tokens: usize,
    open: HashMap<u64, Open>,
    queue: VecDeque<Item>,
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
            while self.queue.iter().map(|item| item.question.tokens.len()).sum::<usize>() < self.max_batch_tokens {
                let Ok(job) = inbox.try_recv() else { break };
                self.take(job);
            }
            let items = self.next_items();
            if items.is_empty() {
                continue;
            }
            let start = Clock::now();
            // A panic inside a kernel ends the calls of this pass, not the model.
            let values = catch_unwind(AssertUnwindSafe(|| self.pass(&items))).unwrap_or_else(|_| Err("a pass panicked".into()));
            histogram!(PASS_SECONDS).record(start.elapsed().as_secs_f64());
            match values {
                Ok(values) => self.hand_out(items, values),
                Err(reason) => {
                    for item in items {
                        self.fail(item.job, ScoreError::Broken { model: self.id.clone(), reason: reason.clone() });
                    }
                }
            }
        }
    }

    fn take(&mut self, job: Job) {
        self.next += 1;
        let answers: Vec<Vec<f32>> = job.questions.iter().map(|question| vec![0.0; question.mask.len()]).collect();
        let wanted: Vec<(usize, Question)> =
            job.questions.into_iter().enumerate().filter(|(_, question)| question.mask.contains(&true)).collect();
        if wanted.is_empty() {
            let _ = job.reply.send(Ok(answers)); // The asker may be gone.
            return;
        }
        self.open.insert(self.next, Open { answers, left: wanted.len(), deadline: job.deadline, reply: job.reply });
        self.queue.extend(wanted.into_iter().map(|(index, question)| Item { job: self.next, index, question }));
    }

    /// The sequences of the next pass, in order of arrival.
    fn next_items(&mut self) -> Vec<Item> {
        let mut items: Vec<Item> = Vec::new();
        let mut tokens = 0;
        while let Some(item) = self.queue.pop_front() {
            let Some(open) = self.open.get(&item.job) else { continue };
            if open.reply.is_closed() {
                self.open.remove(&item.job);
                dropped("cancelled");
                continue;
            }
            if open.deadline <= Instant::now() {
                self.fail(item.job, dropped("deadline"));
                continue;
            }
            if !items.is_empty() && tokens + item.question.tokens.len() > self.max_batch_tokens {
                self.queue.push_front(item);
                break;
            }
            tokens += item.question.tokens.len();
            items.push(item);
        }
        items
    }

    /// Log-probs of the wanted tokens, one list per item.
    fn pass(&self, items: &[Item]) -> Result<Vec<Vec<f32>>, String> {
        let sample = |Item { question, .. }: &Item| Sample {
            tokens: question.tokens.clone(),
            pictures: question.pictures.clone(),
            asked: (0..question.mask.len()).filter(|at| question.mask[*at]).map(|at| question.prompt + at).collect(),
        };
        let samples: Vec<Sample> = items.iter().map(sample).collect();
        let tokens: usize = samples.iter().map(|sample| sample.tokens.len()).sum();
        counter!(SEQUENCES).increment(items.len() as u64);
        counter!(TOKENS).increment(tokens as u64);
        histogram!(BATCH_SEQUENCES).record(items.len() as f64);
        histogram!(BATCH_TOKENS).record(tokens as f64);
        self.model.logprobs(&samples, 1.0).map_err(|error| error.to_string())
    }

    fn hand_out(&mut self, items: Vec<Item>, values: Vec<Vec<f32>>) {
        for (Item { job, index, question }, values) in items.into_iter().zip(values) {
            let mut wrong = None;
            for (at, value) in (0..question.mask.len()).filter(|at| question.mask[*at]).zip(values) {
                if !value.is_finite() {
                    wrong.get_or_insert((at, value));
                }
                if let Some(open) = self.open.get_mut(&job) {
                    open.answers[index][at] = value;
                }
            }
            if let Some((at, value)) = wrong {
                self.fail(job, ScoreError::NotFinite { model: self.id.clone(), index, at, value: value.to_string() });
                continue;
            }
            let Some(open) = self.open.get_mut(&job) else { continue };
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
