//! What goes over a connection between two ranks: a header of fixed size, then bytes.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A rank introduces itself.
    Join,
    /// Rank 0's bytes to all.
    Broadcast,
    /// Everybody's bytes to rank 0.
    Gather,
    /// Sums, a shard each.
    ReduceScatter,
    /// Shards, put together.
    AllGather,
    /// The group is done for; the bytes say why.
    Failed,
}

impl Op {
    const ALL: [Self; 6] = [Self::Join, Self::Broadcast, Self::Gather, Self::ReduceScatter, Self::AllGather, Self::Failed];

    /// As metrics and messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Broadcast => "broadcast",
            Self::Gather => "gather",
            Self::ReduceScatter => "reduce_scatter",
            Self::AllGather => "all_gather",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What comes before the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub op: Op,
    pub rank: u32,
    pub generation: u64,
    pub step: u64,
    pub length: u64,
}

const MAGIC: [u8; 4] = *b"HyRk";
const HEADER: usize = 4 + 4 + 4 + 8 + 8 + 8;

/// Most bytes of one frame; a larger announcement is a stranger's.
const MOST_BYTES: u64 = 1 << 40;
/// Bytes that are allocated on a header's word alone; the rest as they come.
const TRUSTED: usize = 64 << 20;

impl Header {
    fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = Op::ALL.iter().position(|op| *op == self.op).unwrap_or_default() as u8;
        bytes[8..12].copy_from_slice(&self.rank.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.generation.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.step.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; HEADER]) -> io::Result<Self> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        if bytes[..4] != MAGIC {
            return Err(bad("it does not speak the protocol of ranks"));
        }
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let header = Self {
            op: *Op::ALL.get(usize::from(bytes[4])).ok_or_else(|| bad("an unknown operation"))?,
            rank: u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes")),
            generation: number(12),
            step: number(20),
            length: number(28),
        };
        if header.length > MOST_BYTES { Err(bad("a frame of absurd length")) } else { Ok(header) }
    }
}

/// The time that is left until a deadline; an error once it has passed.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Sends a frame by a deadline.
pub(crate) fn send(stream: &mut TcpStream, header: Header, bytes: &[u8], deadline: Instant) -> io::Result<()> {
    write_by(stream, &Header { length: bytes.len() as u64, ..header }.to_bytes(), deadline)?;
    write_by(stream, bytes, deadline)
}

fn write_by(stream: &mut TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Receives a frame by a deadline.
pub(crate) fn receive(stream: &mut TcpStream, deadline: Instant) -> io::Result<(Header, Vec<u8>)> {
    let mut header = [0; HEADER];
    read_by(stream, &mut header, deadline)?;
    let header = Header::from_bytes(header)?;
    let length = usize::try_from(header.length).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut bytes = vec![];
    while bytes.len() < length {
        let start = bytes.len();
        bytes.resize(length.min(start + TRUSTED), 0);
        read_by(stream, &mut bytes[start..], deadline)?;
    }
    Ok((header, bytes))
}

fn read_by(stream: &mut TcpStream, mut into: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !into.is_empty() {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(into) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "its connection is closed")),
            Ok(count) => into = &mut into[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether an error is a deadline that has passed.
pub(crate) fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_back_and_strangers_refused() {
        let header = Header { op: Op::AllGather, rank: 3, generation: 7, step: 1 << 40, length: 12 };
        assert_eq!(Header::from_bytes(header.to_bytes()).unwrap(), header);
        let mut bytes = header.to_bytes();
        bytes[0] = b'G';
        assert!(Header::from_bytes(bytes).is_err());
        let mut bytes = header.to_bytes();
        bytes[4] = 200;
        assert!(Header::from_bytes(bytes).is_err());
        assert!(Header::from_bytes(Header { length: u64::MAX, ..header }.to_bytes()).is_err());
    }
}
