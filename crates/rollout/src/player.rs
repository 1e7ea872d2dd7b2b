//! Whoever plays tasks. In: a task and its pictures, a seed per rollout. Out: trajectories. Who measures policies asks a [`Player`] and
//! does not know whether it samples tokens or talks to a chat endpoint.

use std::sync::Arc;

use futures::future::BoxFuture;
use hypereyes_domain::{Generate, GenerateError, Sampling, Task, Trajectory};
use hypereyes_pictures::Picture;

use crate::{Rollouts, Setup, closed_book, run_group};

/// A policy that plays tasks, however it is reached.
pub trait Player: Send + Sync {
    /// Rolls a task out once per seed; `pictures` are the task's, in order.
    ///
    /// # Errors
    /// When nothing could be rolled out; a rollout that fails later is a masked trajectory of its own.
    fn play<'a>(
        &'a self,
        task: &'a Task,
        pictures: &'a [Arc<Picture>],
        seeds: &'a [u64],
        sampling: Sampling,
    ) -> BoxFuture<'a, Result<Rollouts, GenerateError>>;

    /// Answers a task without tools, once per seed.
    ///
    /// # Errors
    /// As [`Player::play`].
    fn closed_book<'a>(
        &'a self,
        task: &'a Task,
        pictures: &'a [Arc<Picture>],
        seeds: &'a [u64],
        sampling: Sampling,
    ) -> BoxFuture<'a, Result<Vec<Trajectory>, GenerateError>>;
}

/// A policy behind the token port.
#[derive(Clone)]
pub struct TokenPlayer<G> {
    /// What its episodes run with.
    pub setup: Setup,
    /// Who samples.
    pub generator: G,
}

impl<G: Generate> Player for TokenPlayer<G> {
    fn play<'a>(
        &'a self,
        task: &'a Task,
        pictures: &'a [Arc<Picture>],
        seeds: &'a [u64],
        sampling: Sampling,
    ) -> BoxFuture<'a, Result<Rollouts, GenerateError>> {
        Box::pin(run_group(&self.setup, &self.generator, task, pictures, seeds, sampling))
    }

    fn closed_book<'a>(
        &'a self,
        task: &'a Task,
        pictures: &'a [Arc<Picture>],
        seeds: &'a [u64],
        sampling: Sampling,
    ) -> BoxFuture<'a, Result<Vec<Trajectory>, GenerateError>> {
        Box::pin(closed_book(&self.setup, &self.generator, task, pictures, seeds, sampling))
    }
}
