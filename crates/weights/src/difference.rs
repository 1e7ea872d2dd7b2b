//! A version as its difference to another, for many readers. In: two snapshots of the same shapes. Out: its chunks, each
//! written once, when the first reader comes to it: a learner's work does not grow with its actors.

use std::sync::{Arc, OnceLock};

use hypereyes_policy::checkpoint::Snapshot;

use crate::delta::{self, Chunk};
use crate::{CHUNK_BYTES, Digest};

/// What turns one snapshot into another.
#[derive(Debug)]
pub(crate) struct Difference {
    base: Arc<Snapshot>,
    snapshot: Arc<Snapshot>,
    written: Vec<OnceLock<Chunk>>,
}

impl Difference {
    /// Nothing is written yet. `None` where the two do not have the same shapes.
    pub(crate) fn between(base: Arc<Snapshot>, snapshot: Arc<Snapshot>) -> Option<Self> {
        let chunks = snapshot.payload.len().div_ceil(CHUNK_BYTES);
        let written = (0..chunks).map(|_| OnceLock::new()).collect();
        (base.tensors == snapshot.tensors).then_some(Self { base, snapshot, written })
    }

    /// Of what to what.
    pub(crate) fn ends(&self) -> (Digest, Digest) {
        (self.base.digest, self.snapshot.digest)
    }

    /// The snapshot that is held in exchange for the base.
    pub(crate) fn base(&self) -> &Snapshot {
        &self.base
    }

    /// The chunk that begins at a byte of the payload. Only a reader that begins where no chunk does has it written for itself.
    pub(crate) fn chunk(&self, start: usize) -> Chunk {
        let end = self.snapshot.payload.len().min(start + CHUNK_BYTES);
        let write = || delta::encode(start as u64, self.snapshot.payload.slice(start..end), Some(&self.base.payload[start..end]));
        match self.written.get(start / CHUNK_BYTES) {
            Some(chunk) if start.is_multiple_of(CHUNK_BYTES) => chunk.get_or_init(write).clone(),
            _ => write(),
        }
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::PolicyVersion;
    use hypereyes_policy::checkpoint::{HostTensor, HostWeights};

    use super::*;

    fn snapshot(version: u64, step: usize, length: usize) -> Arc<Snapshot> {
        let mut values: Vec<f32> = (0..length).map(|at| at as f32).collect();
        values.iter_mut().step_by(step).for_each(|value| *value += 1.0);
        let tensor = HostTensor { shape: vec![length], values };
        Arc::new(Snapshot::new(&HostWeights::from([("w".to_owned(), tensor)]), PolicyVersion(version)))
    }

    #[test]
    fn a_chunk_is_written_once_and_from_wherever_a_reader_begins_the_bytes_are_the_same() {
        let length = CHUNK_BYTES / 4 * 2 + 1000;
        let (base, new) = (snapshot(1, 1000, length), snapshot(2, 777, length));
        let difference = Difference::between(base.clone(), new.clone()).expect("the same shapes");
        let (first, again) = (difference.chunk(CHUNK_BYTES), difference.chunk(CHUNK_BYTES));
        assert!(first.data.len() < CHUNK_BYTES / 10, "{} bytes", first.data.len());
        assert_eq!(first.data.as_ptr(), again.data.as_ptr(), "the second reader shares the first one's");
        for begin in [0, 4, CHUNK_BYTES, CHUNK_BYTES + 12] {
            let mut read = new.payload[..begin].to_vec();
            while read.len() < new.payload.len() {
                let chunk = difference.chunk(read.len());
                let base = &base.payload[read.len()..read.len() + chunk.length];
                read.extend(delta::decode(&chunk, Some(base)).expect("it fits"));
            }
            assert_eq!(read, new.payload, "from byte {begin}");
        }
        assert!(Difference::between(snapshot(1, 1000, 8), new).is_none());
    }
}
