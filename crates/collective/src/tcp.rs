//! A star of TCP connections around rank 0.
//!
//! Rank 0 hears from every other rank in order, does the work and answers; so sums are added in the order of ranks, whoever
//! arrives first. Whatever goes wrong, rank 0 tells all others who was missing before it gives up.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::frame::{self, Header, Op, is_late};
use crate::{Collective, CollectiveError, RankInfo, metrics, shard_len};

/// How much longer others wait than rank 0, so that its word on who is missing reaches them.
const GRACE: Duration = Duration::from_secs(2);
/// How long a rank may take to introduce itself once it is connected.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// How long the news that the group is done for may take to one rank.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Where rank 0 waits for the others.
#[derive(Debug)]
pub struct Hub {
    listener: TcpListener,
}

impl Hub {
    /// Listens.
    ///
    /// # Errors
    /// [`CollectiveError::Meeting`] when the address cannot be had.
    pub fn bind(address: SocketAddr) -> Result<Self, CollectiveError> {
        let listener = TcpListener::bind(address).map_err(|error| CollectiveError::Meeting(format!("{address}: {error}")))?;
        Ok(Self { listener })
    }

    /// The address in use.
    ///
    /// # Errors
    /// [`CollectiveError::Meeting`] when the system does not say.
    pub fn address(&self) -> Result<SocketAddr, CollectiveError> {
        self.listener.local_addr().map_err(|error| CollectiveError::Meeting(error.to_string()))
    }

    /// Waits for up to `patience` until every other rank of the group is here. `timeout` is for every operation afterwards.
    ///
    /// # Errors
    /// [`CollectiveError::Missing`] names the first rank that did not come.
    pub fn meet(self, place: RankInfo, patience: Duration, timeout: Duration) -> Result<Tcp, CollectiveError> {
        let deadline = Instant::now() + patience;
        let meeting = |error: io::Error| CollectiveError::Meeting(error.to_string());
        self.listener.set_nonblocking(true).map_err(meeting)?;
        let mut peers: Vec<Option<TcpStream>> = (1..place.world).map(|_| None).collect();
        while let Some(absent) = peers.iter().position(Option::is_none) {
            match self.listener.accept() {
                Ok((mut stream, from)) => {
                    let came = {
                        // A stranger that says nothing must not hold up the others.
                        let heard_by = deadline.min(Instant::now() + HANDSHAKE);
                        stream.set_nonblocking(false).and_then(|()| frame::receive(&mut stream, heard_by))
                    };
                    let refused = match &came {
                        Ok((header, _)) if header.op != Op::Join => "it did not introduce itself".to_owned(),
                        Ok((header, _)) if header.generation != place.generation => "it belongs to another generation".to_owned(),
                        Ok((header, world)) if world[..] != (place.world as u64).to_le_bytes() => {
                            format!("rank {} counts other ranks than {}", header.rank, place.world)
                        }
                        Ok((header, _)) => match peers.get_mut((header.rank as usize).wrapping_sub(1)) {
                            Some(slot @ None) => {
                                stream.set_nodelay(true).map_err(meeting)?;
                                *slot = Some(stream);
                                continue;
                            }
                            Some(Some(_)) => format!("rank {} is here already", header.rank),
                            None => format!("there is no rank {} of {}", header.rank, place.world),
                        },
                        Err(error) => error.to_string(),
                    };
                    tracing::warn!(%from, reason = refused, "a rank was refused");
                    let header = Header { op: Op::Failed, rank: 0, generation: place.generation, step: 0, length: 0 };
                    let _ = frame::send(&mut stream, header, refused.as_bytes(), Instant::now() + LAST_WORD); // It may be gone.
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= deadline {
                        return Err(CollectiveError::Missing { rank: absent + 1, op: Op::Join, step: 0, waited: patience });
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(meeting(error)),
            }
        }
        Ok(Tcp { place, peers: peers.into_iter().flatten().collect(), timeout })
    }
}

/// One rank's end of the star.
#[derive(Debug)]
pub struct Tcp {
    place: RankInfo,
    /// Rank 0: all others, in order. Elsewhere: rank 0.
    peers: Vec<TcpStream>,
    timeout: Duration,
}

impl Tcp {
    /// A group of one.
    pub fn alone() -> Self {
        Self { place: RankInfo::ALONE, peers: vec![], timeout: Duration::MAX }
    }

    /// Goes to rank 0's [`Hub`].
    ///
    /// # Errors
    /// [`CollectiveError::Meeting`] when it cannot be reached in time.
    pub fn join(place: RankInfo, hub: SocketAddr, timeout: Duration) -> Result<Self, CollectiveError> {
        let deadline = Instant::now() + timeout;
        let meeting = |error: io::Error| CollectiveError::Meeting(format!("rank 0 at {hub}: {error}"));
        let mut stream = TcpStream::connect_timeout(&hub, timeout).map_err(meeting)?;
        stream.set_nodelay(true).map_err(meeting)?;
        let header = Header { op: Op::Join, rank: place.rank as u32, generation: place.generation, step: 0, length: 0 };
        frame::send(&mut stream, header, &(place.world as u64).to_le_bytes(), deadline).map_err(meeting)?;
        Ok(Self { place, peers: vec![stream], timeout })
    }

    fn header(&self, op: Op, step: u64) -> Header {
        Header { op, rank: self.place.rank as u32, generation: self.place.generation, step, length: 0 }
    }

    /// Rank 0: whether everybody is still there.
    fn whole(&self) -> Result<(), CollectiveError> {
        if self.peers.len() + 1 == self.place.world { Ok(()) } else { Err(CollectiveError::Told("the group is done for".into())) }
    }

    /// Rank 0: everybody else's bytes, handed to `each` in the order of ranks.
    fn collect(&mut self, op: Op, step: u64, each: &mut dyn FnMut(usize, Vec<u8>) -> Result<(), String>) -> Result<(), CollectiveError> {
        self.whole()?;
        let deadline = Instant::now().checked_add(self.timeout).unwrap_or_else(far);
        for at in 0..self.peers.len() {
            let rank = at + 1;
            let error = match frame::receive(&mut self.peers[at], deadline) {
                Ok((header, bytes)) if (header.op, header.step) == (op, step) => {
                    count(op, bytes.len());
                    match each(rank, bytes) {
                        Ok(()) => continue,
                        Err(reason) => CollectiveError::OutOfStep { rank, op, step, reason },
                    }
                }
                Ok((header, _)) => {
                    CollectiveError::OutOfStep { rank, op, step, reason: format!("it is at {} of step {}", header.op, header.step) }
                }
                Err(error) if is_late(&error) => CollectiveError::Missing { rank, op, step, waited: self.timeout },
                Err(error) => CollectiveError::Lost { rank, op, step, reason: error.to_string() },
            };
            return Err(self.give_up(error));
        }
        Ok(())
    }

    /// Rank 0: an answer to everybody else.
    fn answer<'a>(&mut self, op: Op, step: u64, of: impl Fn(usize) -> &'a [u8]) -> Result<(), CollectiveError> {
        self.whole()?;
        let deadline = Instant::now().checked_add(self.timeout).unwrap_or_else(far);
        let header = self.header(op, step);
        for at in 0..self.peers.len() {
            let (rank, bytes) = (at + 1, of(at + 1));
            count(op, bytes.len());
            if let Err(error) = frame::send(&mut self.peers[at], header, bytes, deadline) {
                let error = match is_late(&error) {
                    true => CollectiveError::Missing { rank, op, step, waited: self.timeout },
                    false => CollectiveError::Lost { rank, op, step, reason: error.to_string() },
                };
                return Err(self.give_up(error));
            }
        }
        Ok(())
    }

    /// Rank 0: tells everybody why, and leaves.
    fn give_up(&mut self, error: CollectiveError) -> CollectiveError {
        failed(&error);
        let header = self.header(Op::Failed, 0);
        for peer in &mut self.peers {
            // Whoever cannot be told finds out by its own deadline.
            let _ = frame::send(peer, header, error.to_string().as_bytes(), Instant::now() + LAST_WORD);
        }
        self.peers.clear();
        error
    }

    /// Others: this rank's bytes to rank 0.
    fn tell(&mut self, op: Op, step: u64, bytes: &[u8]) -> Result<(), CollectiveError> {
        let header = self.header(op, step);
        let deadline = Instant::now() + self.timeout;
        count(op, bytes.len());
        let lost = |error: io::Error| CollectiveError::Lost { rank: 0, op, step, reason: error.to_string() };
        let sent = match self.peers.first_mut() {
            Some(peer) => frame::send(peer, header, bytes, deadline).map_err(lost),
            None => Err(CollectiveError::Told("the group is done for".into())),
        };
        // If rank 0 has given up, its last words say more than the broken connection.
        sent.or_else(|error| {
            self.hear(op, step).map(drop).map_err(|heard| if let CollectiveError::Told(_) = heard { heard } else { error })
        })
    }

    /// Others: rank 0's answer.
    fn hear(&mut self, op: Op, step: u64) -> Result<Vec<u8>, CollectiveError> {
        let waited = self.timeout + GRACE;
        let Some(peer) = self.peers.first_mut() else { return Err(CollectiveError::Told("the group is done for".into())) };
        let heard = match frame::receive(peer, Instant::now() + waited) {
            Ok((header, bytes)) if header.op == Op::Failed => Err(CollectiveError::Told(String::from_utf8_lossy(&bytes).into_owned())),
            Ok((header, bytes)) if (header.op, header.step) == (op, step) => Ok(bytes),
            Ok((header, _)) => {
                let reason = format!("it is at {} of step {}", header.op, header.step);
                Err(CollectiveError::OutOfStep { rank: 0, op, step, reason })
            }
            Err(error) if is_late(&error) => Err(CollectiveError::Missing { rank: 0, op, step, waited }),
            Err(error) => Err(CollectiveError::Lost { rank: 0, op, step, reason: error.to_string() }),
        };
        match &heard {
            Ok(bytes) => count(op, bytes.len()),
            Err(error) => {
                failed(error);
                self.peers.clear();
            }
        }
        heard
    }

    fn timed<T>(&mut self, op: Op, work: impl FnOnce(&mut Self) -> T) -> T {
        let began = Instant::now();
        let done = work(self);
        ::metrics::histogram!(metrics::SECONDS, "op" => op.name()).record(began.elapsed().as_secs_f64());
        done
    }
}

impl Collective for Tcp {
    fn place(&self) -> RankInfo {
        self.place
    }

    fn broadcast(&mut self, step: u64, bytes: Vec<u8>) -> Result<Vec<u8>, CollectiveError> {
        self.timed(Op::Broadcast, |star| {
            if star.place.rank != 0 {
                return star.hear(Op::Broadcast, step);
            }
            star.answer(Op::Broadcast, step, |_| &bytes)?;
            Ok(bytes)
        })
    }

    fn gather(&mut self, step: u64, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.timed(Op::Gather, |star| {
            if star.place.rank != 0 {
                star.tell(Op::Gather, step, &bytes)?;
                return Ok(vec![]);
            }
            let mut all = vec![bytes];
            star.collect(Op::Gather, step, &mut |_, bytes| {
                all.push(bytes);
                Ok(())
            })?;
            Ok(all)
        })
    }

    fn reduce_scatter(&mut self, step: u64, mut values: Vec<f32>) -> Result<Vec<f32>, CollectiveError> {
        let op = Op::ReduceScatter;
        self.timed(op, |star| {
            if star.place.rank != 0 {
                star.tell(op, step, bytemuck::cast_slice(&values))?;
                return Ok(floats(&star.hear(op, step)?));
            }
            star.collect(op, step, &mut |_, bytes| {
                if bytes.len() != values.len() * size_of::<f32>() {
                    return Err(format!("it has {} bytes for {} values", bytes.len(), values.len()));
                }
                let theirs = bytes.chunks_exact(size_of::<f32>()).map(float);
                values.iter_mut().zip(theirs).for_each(|(sum, value)| *sum += value);
                Ok(())
            })?;
            let place = star.place;
            let shard = |rank: usize| &values[RankInfo { rank, ..place }.shard(values.len())];
            star.answer(op, step, |rank| bytemuck::cast_slice(shard(rank)))?;
            Ok(shard(0).to_vec())
        })
    }

    fn all_gather(&mut self, step: u64, shard: Vec<f32>, total: usize) -> Result<Vec<f32>, CollectiveError> {
        let op = Op::AllGather;
        self.timed(op, |star| {
            if star.place.rank != 0 {
                star.tell(op, step, bytemuck::cast_slice(&shard))?;
                return Ok(floats(&star.hear(op, step)?));
            }
            let place = star.place;
            let mut all = shard;
            all.reserve(shard_len(total, place.world) * (place.world - 1));
            star.collect(op, step, &mut |rank, bytes| {
                let expected = RankInfo { rank, ..place }.shard(total).len();
                if bytes.len() != expected * size_of::<f32>() {
                    return Err(format!("it has {} bytes for {expected} values", bytes.len()));
                }
                all.extend(bytes.chunks_exact(size_of::<f32>()).map(float));
                Ok(())
            })?;
            star.answer(op, step, |_| bytemuck::cast_slice(&all))?;
            Ok(all)
        })
    }
}

/// Both ends are little-endian machines of one job.
fn float(bytes: &[u8]) -> f32 {
    f32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(size_of::<f32>()).map(float).collect()
}

/// A deadline for those who never wait.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600 * 24 * 365)
}

fn count(op: Op, bytes: usize) {
    ::metrics::counter!(metrics::BYTES, "op" => op.name()).increment(bytes as u64);
}

fn failed(error: &CollectiveError) {
    let reason = match error {
        CollectiveError::Missing { .. } => "missing",
        CollectiveError::Lost { .. } => "lost",
        CollectiveError::OutOfStep { .. } => "out_of_step",
        CollectiveError::Told(_) => "told",
        CollectiveError::Meeting(_) => "meeting",
        CollectiveError::Device { .. } => "device",
    };
    ::metrics::counter!(metrics::FAILED, "reason" => reason).increment(1);
}
