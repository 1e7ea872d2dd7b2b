//! What all ranks start from: rank 0's weights and moments, as bytes.

use hypereyes_policy::Error;
use hypereyes_policy::checkpoint::{HostTensor, HostWeights, StoredDtype, parse, serialise};
use hypereyes_trainer::Moments;

/// Weights and moments.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// Master weights.
    pub weights: HostWeights,
    /// Moments; empty before the first step.
    pub moments: Moments,
}

const WEIGHTS: &str = "w/";
const FIRST: &str = "m/";
const SECOND: &str = "v/";
const STEPS: &str = "steps";

impl Start {
    /// For sending.
    ///
    /// # Errors
    /// [`Error`] when tensors cannot be stored.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut all = HostWeights::new();
        for (prefix, tensors) in [(WEIGHTS, &self.weights), (FIRST, &self.moments.first), (SECOND, &self.moments.second)] {
            all.extend(tensors.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())));
        }
        // Sixteen bits at a time, so that the count is exact in f32.
        let steps: Vec<f32> = (0..4).map(|part| ((self.moments.steps >> (16 * part)) & 0xffff) as f32).collect();
        all.insert(STEPS.into(), HostTensor { shape: vec![4], values: steps });
        serialise(&all, StoredDtype::F32)
    }

    /// From what was sent.
    ///
    /// # Errors
    /// [`Error`] when it is not that.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut all = parse(bytes)?;
        let steps = all.remove(STEPS).ok_or_else(|| Error::Input("rank 0 sent no state to start from".into()))?;
        let steps = steps.values.iter().enumerate().map(|(part, value)| (*value as u64) << (16 * part)).sum();
        let mut of = |prefix: &str| -> HostWeights {
            let names: Vec<String> = all.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
            names.into_iter().filter_map(|name| Some((name[prefix.len()..].to_owned(), all.remove(&name)?))).collect()
        };
        let (weights, first, second) = (of(WEIGHTS), of(FIRST), of(SECOND));
        Ok(Self { weights, moments: Moments { steps, first, second } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_read_back_bit_for_bit() {
        let tensors = |scale: f32| -> HostWeights {
            [("a.b".to_owned(), HostTensor { shape: vec![2], values: vec![0.1 * scale, -3e-30 * scale] })].into()
        };
        let moments = Moments { steps: (1 << 40) + 77_777, first: tensors(2.0), second: tensors(3.0) };
        let start = Start { weights: tensors(1.0), moments };
        assert_eq!(Start::from_bytes(&start.to_bytes().unwrap()).unwrap(), start);
        let fresh = Start { moments: Moments::default(), ..start };
        assert_eq!(Start::from_bytes(&fresh.to_bytes().unwrap()).unwrap(), fresh);
        assert!(Start::from_bytes(b"nothing").is_err());
    }
}
