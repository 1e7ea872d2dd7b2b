//! What a sequence keeps between tokens. Caches are made from it and know nothing else of a model. A family with recurrent layers
//! makes it an enum, and its caches another kind of slot.

/// Keys and values of every position, in every layer alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeysValues {
    /// Layers.
    pub layers: usize,
    /// Heads that ask.
    pub query_heads: usize,
    /// Heads that have keys and values.
    pub heads: usize,
    /// Width of a head.
    pub width: usize,
}

impl KeysValues {
    /// Width of one position's keys in a layer, and of its values.
    pub fn row(&self) -> usize {
        self.heads * self.width
    }

    /// Bytes of `positions` positions at `value_bytes` per value.
    pub fn bytes(&self, positions: usize, value_bytes: usize) -> u64 {
        (2 * self.layers * self.row() * positions * value_bytes) as u64
    }
}
