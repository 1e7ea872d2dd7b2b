//! Threads that read models. In: work. Out: its results, or the word that the disk does not answer.
//!
//! Weights are read by one thread, one model after the other, and always the same: an allocator keeps what a thread has freed
//! near that thread, so that a retired model's memory is there for the next one. Read here and there, fifty models leave twenty
//! models' memory behind. What is small is read before, each by a thread that is thrown away.
//!
//! Nothing here is a runtime's thread: a disk that never answers holds none that serves, and none that the process waits for at
//! its end. A thread that does not come back in time is left to itself and another takes its place; how many may be lost is
//! bounded, and each that comes back after all makes room again.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use hypereyes_chassis::BadInput;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

/// Threads that read what is small, at the same moment, lost ones included.
const READERS: usize = 8;
/// Threads that read weights and did not come back.
const LOST: usize = 4;

/// Nobody waits for the job any more.
const ABANDONED: u64 = u64::MAX;

type Work = Box<dyn FnOnce() + Send>;

struct Job {
    work: Work,
    /// Which thread began it (its generation and 1), or [`ABANDONED`] by who waits no more: whoever is first. 0 before.
    taken: Arc<AtomicU64>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Which thread reads; an earlier one that comes back ends.
    generation: u64,
    lost: usize,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the thread with the last handle.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.ready.notify_all();
    }
}

/// A handle to the threads.
#[derive(Clone)]
pub struct Loader {
    handle: Arc<Handle>,
    readers: Arc<Semaphore>,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("lost", &self.handle.0.lock().lost).finish_non_exhaustive()
    }
}

impl Loader {
    /// Starts the thread for weights.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start() -> Result<Self, BadInput> {
        let shared = Arc::<Shared>::default();
        spawn(&shared, 0).map_err(|error| BadInput::new(format!("cannot start a thread: {error}")))?;
        Ok(Self { handle: Arc::new(Handle(shared)), readers: Arc::new(Semaphore::new(READERS)) })
    }

    /// Does work on the thread for weights when it is its turn, whether or not the caller still waits.
    ///
    /// # Errors
    /// A text: it panicked, or is not done by the deadline.
    pub async fn run<T: Send + 'static>(&self, deadline: Instant, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let shared = &self.handle.0;
        let (reply, done) = oneshot::channel();
        let taken = Arc::<AtomicU64>::default();
        {
            let mut queue = shared.lock();
            if queue.lost >= LOST {
                return Err(format!("{LOST} readings of models have not come back; see the disks, and start the service again"));
            }
            queue.jobs.push_back(Job { work: caught(work, reply), taken: taken.clone() });
        }
        shared.ready.notify_one();
        match timeout_at(deadline, done).await {
            Ok(result) => result.map_err(|_| "reading it panicked; see the log".into()),
            Err(_) => {
                if let Err(taker) = taken.compare_exchange(0, ABANDONED, Ordering::AcqRel, Ordering::Acquire) {
                    self.give_up(taker - 1);
                }
                Err("its weights are not read within `load_s`; see the disk, or raise it".into())
            }
        }
    }

    /// Lets the thread that hangs go, unless that has been done.
    fn give_up(&self, generation: u64) {
        let shared = &self.handle.0;
        let mut queue = shared.lock();
        if queue.generation != generation {
            return;
        }
        queue.generation += 1;
        queue.lost += 1;
        tracing::warn!(lost = queue.lost, "a thread that reads a model does not come back; another takes its place");
        if let Err(error) = spawn(shared, queue.generation) {
            tracing::error!(%error, "no thread takes its place");
        }
    }

    /// Does work on a thread of its own.
    ///
    /// # Errors
    /// A text: too many such threads are under way, it panicked, or is not done by the deadline.
    pub async fn apart<T: Send + 'static>(&self, deadline: Instant, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let full = || format!("{READERS} folders are being read, or their disks do not answer; try again later");
        let turn = timeout_at(deadline, self.readers.clone().acquire_owned()).await;
        let place = turn.map_err(|_| full())?.map_err(|_| full())?;
        let (reply, done) = oneshot::channel();
        let work = caught(work, reply);
        let started = std::thread::Builder::new().name("reader".into()).spawn(move || {
            work();
            drop(place);
        });
        started.map_err(|error| format!("cannot start a thread: {error}"))?;
        match timeout_at(deadline, done).await {
            Ok(result) => result.map_err(|_| "reading it panicked; see the log".into()),
            Err(_) => Err("its disk does not answer".into()),
        }
    }
}

/// Work that answers unless it panics.
fn caught<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static, reply: oneshot::Sender<T>) -> Work {
    Box::new(move || {
        if let Ok(result) = catch_unwind(AssertUnwindSafe(work)) {
            let _ = reply.send(result); // Nobody may be waiting any more.
        }
    })
}

fn spawn(shared: &Arc<Shared>, generation: u64) -> std::io::Result<()> {
    let shared = shared.clone();
    std::thread::Builder::new().name("loader".into()).spawn(move || serve(&shared, generation)).map(drop)
}

fn serve(shared: &Shared, generation: u64) {
    loop {
        let job = {
            let mut queue = shared.lock();
            loop {
                if queue.closed || queue.generation != generation {
                    return;
                }
                match queue.jobs.pop_front() {
                    Some(job) => break job,
                    None => queue = shared.ready.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            }
        };
        if job.taken.compare_exchange(0, generation + 1, Ordering::AcqRel, Ordering::Acquire).is_err() {
            continue;
        }
        (job.work)();
        let mut queue = shared.lock();
        if queue.generation != generation {
            // It was given up, and is back after all.
            queue.lost -= 1;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn work_is_done_in_turn_and_a_panic_ends_only_itself() {
        let loader = Loader::start().expect("a thread");
        let name = || std::thread::current().name().map(str::to_owned);
        assert_eq!(loader.run(soon(), name).await.expect("done").as_deref(), Some("loader"));
        assert!(loader.run(soon(), || -> u32 { panic!("damaged") }).await.expect_err("it panics").contains("panicked"));
        assert_eq!(loader.run(soon(), || 7).await, Ok(7));
        assert_eq!(loader.apart(soon(), name).await.expect("done").as_deref(), Some("reader"));
    }

    #[tokio::test]
    async fn a_disk_that_does_not_answer_holds_up_nobody_else() {
        let loader = Loader::start().expect("a thread");
        let (held, release) = channel::<()>();
        let (began, begun) = channel::<()>();
        let hang = move || {
            began.send(()).expect("the test waits");
            let _ = release.recv();
        };
        let waiting = loader.clone();
        let hung = tokio::spawn(async move { waiting.run(Instant::now() + Duration::from_millis(200), hang).await });
        tokio::task::spawn_blocking(move || begun.recv()).await.expect("no panic").expect("it has begun");
        assert!(hung.await.expect("no panic").expect_err("too late").contains("load_s"));
        assert_eq!(loader.run(soon(), || 7).await, Ok(7), "another thread took its place");
        assert_eq!(loader.handle.0.lock().lost, 1);
        drop(held);
        let back = async {
            while loader.handle.0.lock().lost > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), back).await.expect("it comes back and is no longer lost");
        // Readers hold their place until they are really back.
        let (held, release) = channel::<()>();
        let release = Arc::new(Mutex::new(release));
        for _ in 0..READERS {
            let release = release.clone();
            let hang = move || drop(release.lock().map(|release| release.recv()));
            assert!(loader.apart(Instant::now() + Duration::from_millis(1), hang).await.is_err());
        }
        let full = loader.apart(Instant::now() + Duration::from_millis(1), || 7).await.expect_err("all hang");
        assert!(full.contains("disks"), "{full}");
        drop(held);
        assert_eq!(loader.apart(soon(), || 7).await, Ok(7));
    }
}
