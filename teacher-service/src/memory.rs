//! How much memory models may take. In: the bytes that a model's weights will need, said before one of them is read. Out: a
//! share that is given back when the model goes, or how much is missing.

use std::sync::{Arc, Mutex, PoisonError};

use metrics::gauge;

use crate::metrics::MODEL_BYTES;

/// Memory for models.
#[derive(Debug)]
pub struct Memory {
    limit: u64,
    held: Mutex<u64>,
}

/// A model's share.
#[derive(Debug)]
pub struct Share {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Memory {
    /// At most `limit` bytes; 0 takes four fifths of this machine's memory.
    pub fn new(limit: u64) -> Arc<Self> {
        let limit = if limit == 0 { of_this_machine() / 5 * 4 } else { limit };
        Arc::new(Self { limit, held: Mutex::default() })
    }

    /// The most bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Sets bytes aside.
    ///
    /// # Errors
    /// A text that says how much is needed, taken and allowed.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Result<Share, String> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.limit.saturating_sub(*held);
        if bytes > left {
            return Err(format!(
                "its weights need {} MiB, but {} of {} MiB are left; retire a model, or raise model_bytes",
                mib(bytes),
                mib(left),
                mib(self.limit)
            ));
        }
        *held += bytes;
        gauge!(MODEL_BYTES).set(*held as f64);
        Ok(Share { memory: self.clone(), bytes })
    }
}

impl Share {
    /// How much it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.memory.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = held.saturating_sub(self.bytes);
        gauge!(MODEL_BYTES).set(*held as f64);
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// Bytes of memory; without an answer of the system, no limit.
fn of_this_machine() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.map_or(u64::MAX, |kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_and_come_back() {
        let memory = Memory::new(10 << 20);
        let first = memory.take(6 << 20).expect("it fits");
        let error = memory.take(5 << 20).expect_err("it does not");
        assert!(error.contains("need 5 MiB, but 4 of 10 MiB"), "{error}");
        drop(first);
        assert_eq!(memory.take(10 << 20).expect("all of it").bytes(), 10 << 20);
        assert!(Memory::new(0).take(1).is_ok());
    }
}
