//! Ranks on GPUs: bulk over NCCL, control over the star.
//!
//! In and out: as [`Collective`] says; values are on the host. One thread owns the communicator and its stream. Before each
//! bulk operation the ranks meet over the star, which is what can say who is missing; NCCL itself is then given the same
//! deadline, after which the communicator is aborted.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use cudarc::driver::{CudaContext, CudaSlice, CudaStream};
use cudarc::nccl::{Comm, Id, ReduceOp};

use crate::{Collective, CollectiveError, Op, RankInfo, Tcp, shard_len};

/// Names a communicator; drawn by rank 0 and told to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniqueId([u8; 128]);

impl UniqueId {
    /// A fresh one.
    ///
    /// # Errors
    /// [`CollectiveError::Meeting`] when NCCL cannot be loaded or fails.
    pub fn draw() -> Result<Self, CollectiveError> {
        let failed = |reason: String| CollectiveError::Meeting(format!("NCCL: {reason}"));
        // cudarc panics where there is no libnccl.so.
        let drawn = std::panic::catch_unwind(Id::new)
            .map_err(|_| failed("there is no libnccl.so on the library path (a link to libnccl.so.2 will do)".into()))?;
        let id = drawn.map_err(|error| failed(format!("{error:?}")))?;
        Ok(Self(id.internal().map(|byte| byte as u8)))
    }

    /// Its bytes, for sending.
    pub fn to_bytes(self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// From what was sent.
    ///
    /// # Errors
    /// [`CollectiveError::Meeting`] when it is not one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CollectiveError> {
        let bytes = bytes.try_into().map_err(|_| CollectiveError::Meeting(format!("an id of NCCL has 128 bytes, not {}", bytes.len())))?;
        Ok(Self(bytes))
    }

    fn into_id(self) -> Id {
        Id::uninit(self.0.map(|byte| byte as std::ffi::c_char))
    }
}

enum Work {
    ReduceScatter(Vec<f32>),
    AllGather(Vec<f32>),
}

type Done = Result<Vec<f32>, String>;

/// One rank's end.
#[derive(Debug)]
pub struct Nccl {
    star: Tcp,
    work: Sender<Work>,
    done: Receiver<Done>,
    timeout: Duration,
}

impl Nccl {
    /// Makes the communicator of a group that has met over the star. Blocks until all ranks are here.
    ///
    /// # Errors
    /// [`CollectiveError::Meeting`] when NCCL or the GPU fails, or the deadline passes.
    pub fn join(mut star: Tcp, ordinal: usize, timeout: Duration) -> Result<Self, CollectiveError> {
        let place = star.place();
        let id = if place.rank == 0 { UniqueId::draw()?.to_bytes() } else { vec![] };
        let id = UniqueId::from_bytes(&star.broadcast(0, id)?)?;
        let (work, todo) = channel();
        let (finished, done) = channel();
        let body = move || match Owner::new(place, id, ordinal, timeout) {
            Ok(owner) => {
                if finished.send(Ok(vec![])).is_ok() {
                    owner.run(&todo, &finished);
                }
            }
            Err(error) => drop(finished.send(Err(error))), // Whoever asked has given up waiting.
        };
        let failed = |reason: String| CollectiveError::Meeting(format!("NCCL: {reason}"));
        std::thread::Builder::new().name("nccl".into()).spawn(body).map_err(|error| failed(error.to_string()))?;
        match done.recv_timeout(timeout) {
            Ok(Ok(_)) => Ok(Self { star, work, done, timeout }),
            Ok(Err(reason)) => Err(failed(reason)),
            Err(RecvTimeoutError::Timeout) => Err(failed(format!("the communicator was not made within {} s", timeout.as_secs()))),
            Err(RecvTimeoutError::Disconnected) => Err(failed("its thread died".into())),
        }
    }

    fn bulk(&mut self, op: Op, step: u64, work: Work) -> Result<Vec<f32>, CollectiveError> {
        // Everybody is here, or the star says who is not.
        let here = self.star.gather(step, vec![])?;
        self.star.broadcast(step, vec![])?;
        drop(here);
        let failed = |reason: String| CollectiveError::Device { op, step, reason };
        self.work.send(work).map_err(|_| failed("the communicator's thread has ended".into()))?;
        // The thread keeps the deadline; a little more for what it says then.
        match self.done.recv_timeout(self.timeout.saturating_add(Duration::from_secs(5))) {
            Ok(done) => done.map_err(failed),
            Err(_) => Err(failed("the communicator's thread does not answer".into())),
        }
    }
}

impl Collective for Nccl {
    fn place(&self) -> RankInfo {
        self.star.place()
    }

    fn broadcast(&mut self, step: u64, bytes: Vec<u8>) -> Result<Vec<u8>, CollectiveError> {
        self.star.broadcast(step, bytes)
    }

    fn gather(&mut self, step: u64, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.star.gather(step, bytes)
    }

    fn reduce_scatter(&mut self, step: u64, mut values: Vec<f32>) -> Result<Vec<f32>, CollectiveError> {
        let (place, total) = (self.place(), values.len());
        values.resize(shard_len(total, place.world) * place.world, 0.0);
        let mut shard = self.bulk(Op::ReduceScatter, step, Work::ReduceScatter(values))?;
        shard.truncate(place.shard(total).len());
        Ok(shard)
    }

    fn all_gather(&mut self, step: u64, mut shard: Vec<f32>, total: usize) -> Result<Vec<f32>, CollectiveError> {
        shard.resize(shard_len(total, self.place().world), 0.0);
        let mut all = self.bulk(Op::AllGather, step, Work::AllGather(shard))?;
        all.truncate(total);
        Ok(all)
    }
}

/// What the thread owns. Dropping the communicator aborts whatever still runs on it.
struct Owner {
    comm: Comm,
    stream: std::sync::Arc<CudaStream>,
    world: usize,
    timeout: Duration,
}

impl Owner {
    fn new(place: RankInfo, id: UniqueId, ordinal: usize, timeout: Duration) -> Result<Self, String> {
        let said = |error: cudarc::driver::DriverError| error.to_string();
        let context = CudaContext::new(ordinal).map_err(said)?;
        let stream = context.new_stream().map_err(said)?;
        let comm = Comm::from_rank(stream.clone(), place.rank, place.world, id.into_id()).map_err(|error| format!("{error:?}"))?;
        Ok(Self { comm, stream, world: place.world, timeout })
    }

    fn run(self, todo: &Receiver<Work>, finished: &Sender<Done>) {
        while let Ok(work) = todo.recv() {
            let done = self.work(work);
            let broken = done.is_err();
            if finished.send(done).is_err() || broken {
                return;
            }
        }
    }

    fn work(&self, work: Work) -> Done {
        let said = |error: cudarc::driver::DriverError| error.to_string();
        let nccl = |error: cudarc::nccl::result::NcclError| format!("NCCL: {error:?}");
        let (sent, got): (CudaSlice<f32>, CudaSlice<f32>) = match work {
            Work::ReduceScatter(values) => {
                let sent = self.stream.clone_htod(&values).map_err(said)?;
                let mut got = self.stream.alloc_zeros(values.len() / self.world).map_err(said)?;
                self.comm.reduce_scatter(&sent, &mut got, &ReduceOp::Sum).map_err(nccl)?;
                (sent, got)
            }
            Work::AllGather(shard) => {
                let sent = self.stream.clone_htod(&shard).map_err(said)?;
                let mut got = self.stream.alloc_zeros(shard.len() * self.world).map_err(said)?;
                self.comm.all_gather(&sent, &mut got).map_err(nccl)?;
                (sent, got)
            }
        };
        let event = self.stream.record_event(None).map_err(said)?;
        let deadline = Instant::now() + self.timeout;
        while !event.is_complete() {
            if Instant::now() >= deadline {
                return Err(format!("it was not done within {} s", self.timeout.as_secs()));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        drop(sent);
        let values = self.stream.clone_dtoh(&got).map_err(said)?;
        self.stream.synchronize().map_err(said)?;
        Ok(values)
    }
}
