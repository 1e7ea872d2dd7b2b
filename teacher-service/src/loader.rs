//! The thread that reads models, one after the other. In: work. Out: its results.
//!
//! One thread, and always the same: an allocator keeps what a thread has freed near that thread, so that a retired model's memory
//! is there for the next one. Read here and there, fifty models leave twenty models' memory behind.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};

use hypereyes_chassis::BadInput;
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A handle to the thread, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Loader {
    jobs: Sender<Job>,
}

impl Loader {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start() -> Result<Self, BadInput> {
        let (jobs, inbox) = channel::<Job>();
        let work = move || inbox.into_iter().for_each(|job| job());
        let started = std::thread::Builder::new().name("loader".into()).spawn(work);
        started.map(|_| Self { jobs }).map_err(|error| BadInput::new(format!("cannot start a thread: {error}")))
    }

    /// Does work when it is its turn, whether or not the caller still waits; `None` when it panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (reply, done) = oneshot::channel();
        let job = move || {
            if let Ok(result) = catch_unwind(AssertUnwindSafe(work)) {
                let _ = reply.send(result); // Nobody may be waiting any more.
            }
        };
        self.jobs.send(Box::new(job)).ok()?;
        done.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_in_turn_and_a_panic_ends_only_itself() {
        let loader = Loader::start().expect("a thread");
        let name = || std::thread::current().name().map(str::to_owned);
        assert_eq!(loader.run(name).await.flatten().as_deref(), Some("loader"));
        assert_eq!(loader.run(|| -> u32 { panic!("damaged") }).await, None);
        assert_eq!(loader.run(|| 7).await, Some(7));
    }
}
