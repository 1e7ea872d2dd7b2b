//! A model behind somebody else's HTTP server, asked for log-probs of given tokens. In: sequences, with the names of their pictures; token
//! ids go out as they are, nothing is tokenised again. Out: answers that were held against the tokens asked about, or why there are none:
//! an answer that is short, late or of other tokens is no answer, and nothing is made up. How servers are spoken to, and what an answer
//! must be, is that of engines.

use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use hypereyes_domain::{Answer, PictureId, ScoreSequence};
use hypereyes_pictures::{Processor, Store};
use metrics::counter;
use reqwest::header::HeaderValue;
use tokio::time::{Instant, sleep_until};

use crate::metrics::SCORED;
pub use crate::remote::Dialect;
use crate::remote::{Ask, Attempts, Link, Miss, Outcome, Question, Reads, Unshown, Want, compact, exchange, place, scores, shown};

/// Sequences of one call that are under way at the same moment.
const AT_ONCE: usize = 8;
/// Attempts per sequence, within the call's deadline.
const ATTEMPTS: u32 = 3;

/// Why there are no answers. None of these is a policy's fault; an index is that of a sequence of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScoringError {
    /// Pictures that are not here.
    MissingPictures(Vec<PictureId>),
    /// A sequence that cannot be asked about.
    Misfit(usize, String),
    /// The server understood and refused, or said nothing that can be used.
    Unusable(usize, String),
    /// The server cannot be reached, or is busy.
    Unreachable(String),
    /// The call's deadline passed.
    Deadline,
    /// A picture could not be written for the server.
    Broken(String),
}

/// A server that gives log-probs.
#[derive(Clone, Debug)]
pub struct ScoringClient {
    dialect: Dialect,
    link: Link,
    /// The model's name at the server.
    model: String,
    reads: Arc<Reads>,
    processor: Processor,
}

impl ScoringClient {
    /// A server of `model` at `url`, reached by `client`. Nothing is sent yet.
    pub fn new(dialect: Dialect, url: &str, model: String, key: Option<HeaderValue>, client: reqwest::Client) -> Self {
        let reads = Arc::new(Reads { vocabulary: usize::MAX, pad: u32::MAX, end_tokens: vec![] });
        Self { dialect, link: Link::new(url, key, client), model, reads, processor: Processor::default() }
    }

    /// The same for a model of so many tokens, of which `pad` stands for pictures, cut as `processor` says: it is asked about no others.
    #[must_use]
    pub fn of(self, vocabulary: usize, pad: u32, processor: Processor) -> Self {
        Self { reads: Arc::new(Reads { vocabulary, pad, end_tokens: vec![] }), processor, ..self }
    }

    /// Answers at a temperature, one per sequence, with the `top` likeliest tokens at each place.
    ///
    /// # Errors
    /// [`ScoringError`], which concerns the whole call.
    pub async fn score(
        &self,
        sequences: &[ScoreSequence],
        temperature: f32,
        top: usize,
        store: &Arc<Store>,
        deadline: Instant,
    ) -> Result<Vec<Answer>, ScoringError> {
        let misfit = |index: usize, reason: &str| ScoringError::Misfit(index, reason.into());
        if temperature != 1.0 {
            return Err(misfit(0, "its server gives log-probs at temperature 1 only"));
        }
        let missing = store.missing(&sequences.iter().flat_map(|sequence| sequence.pictures.iter().cloned()).collect::<Vec<_>>());
        if !missing.is_empty() {
            return Err(ScoringError::MissingPictures(missing));
        }
        let mut asked = Vec::with_capacity(sequences.len());
        for (index, sequence) in sequences.iter().enumerate() {
            if sequence.prompt.is_empty() && sequence.mask.first() == Some(&true) {
                return Err(misfit(index, "the first token of all has no log-prob: the prompt is empty"));
            }
            let tokens = self.reads.vocabulary;
            if let Some(token) = sequence.prompt.iter().chain(&sequence.response).find(|token| **token as usize >= tokens) {
                return Err(misfit(index, &format!("token {token} is outside its vocabulary of {tokens}")));
            }
            asked.push(self.one(index, sequence, top, store, deadline));
        }
        stream::iter(asked).buffered(AT_ONCE).try_collect().await
    }

    async fn one(
        &self,
        index: usize,
        sequence: &ScoreSequence,
        top: usize,
        store: &Arc<Store>,
        deadline: Instant,
    ) -> Result<Answer, ScoringError> {
        if !sequence.mask.contains(&true) {
            return Ok(Answer::default());
        }
        let ask = Arc::new(self.question(index, sequence, top, store).await?);
        let question = Question { ask, model: self.model.clone(), label: String::new(), seeded: false };
        let mut attempts = Attempts::few(deadline, ATTEMPTS);
        loop {
            let miss = match self.attempt(&question, sequence, top, deadline).await {
                Ok(answer) => {
                    counter!(SCORED, "outcome" => Outcome::Ok.label()).increment(1);
                    return Ok(answer);
                }
                Err(miss) => miss,
            };
            counter!(SCORED, "outcome" => miss.outcome.label()).increment(1);
            let (outcome, again) = (miss.outcome, miss.again);
            if outcome == Outcome::Slow {
                return Err(ScoringError::Deadline);
            }
            attempts.again(miss).await.map_err(|miss| match again {
                true => ScoringError::Unreachable(miss.reason),
                // A server without the route is as it is for every sequence.
                false if outcome == Outcome::Refused && ["403", "404"].iter().any(|code| miss.reason.contains(code)) => {
                    ScoringError::Unusable(index, format!("{}; {}", miss.reason, self.dialect.speaker().advice()))
                }
                false => ScoringError::Unusable(index, miss.reason),
            })?;
        }
    }

    /// A sequence as a question; pictures are written beside the async threads.
    async fn question(&self, index: usize, sequence: &ScoreSequence, top: usize, store: &Arc<Store>) -> Result<Ask, ScoringError> {
        let expanded: Vec<u32> = sequence.prompt.iter().chain(&sequence.response).copied().collect();
        let (ids, store, processor) = (sequence.pictures.clone(), store.clone(), self.processor.clone());
        let written = tokio::task::spawn_blocking(move || shown(&ids, &store, &processor)).await;
        let written = written.unwrap_or_else(|died| Err(Unshown::Broken(died.to_string())));
        let pictures = written.map_err(|error| match error {
            Unshown::Missing(id) => ScoringError::MissingPictures(vec![id]),
            Unshown::Broken(_) => ScoringError::Broken(error.to_string()),
        })?;
        let counts: Vec<usize> = pictures.iter().map(|picture| picture.tokens).collect();
        let compact = compact(&expanded, self.reads.pad, &counts).map_err(|reason| ScoringError::Misfit(index, reason))?;
        // The first token of all has no log-prob; whoever wants it was refused.
        let from = sequence.prompt.len().max(1);
        Ok(Ask { expanded, compact, pictures, reads: self.reads.clone(), want: Want::Score { from, top } })
    }

    async fn attempt(&self, question: &Question, sequence: &ScoreSequence, top: usize, deadline: Instant) -> Result<Answer, Miss> {
        let from = sequence.prompt.len().max(1);
        let scored = exchange(&self.link, self.dialect.speaker(), question, sleep_until(deadline), move |speaker, reply, ask| {
            let scored = speaker.scores(reply, ask)?;
            scores(ask, from, &scored)?;
            Ok(scored)
        });
        let scored = scored.await?;
        let skipped = from - sequence.prompt.len();
        let mut answer = Answer::default();
        let wanted = scored.places.iter().zip(&sequence.mask[skipped..]).enumerate().filter(|(_, (_, wanted))| **wanted);
        for (at, (said, _)) in wanted {
            answer.logprobs.push(place(skipped + at, said, top)?);
            answer.top.extend(&said.top);
        }
        Ok(answer)
    }
}
