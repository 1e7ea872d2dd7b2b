//! Token rows of any number of sequences end to end, as every family reads them. Lives on the host.

use crate::ops::guards;

/// What the decoder needs to know of its rows, on the host.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// M-RoPE positions, (time, height, width) per row.
    pub positions: Vec<[u32; 3]>,
    /// Row of the visual tokens that stands in for the row's embedding; `None` for text.
    pub visual: Vec<Option<usize>>,
}

impl Rows {
    /// Whether every token has an embedding among `vocab`, and every row that shows a picture one among `visual` visual tokens.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self, vocab: usize, visual: usize) -> Result<(), String> {
        let Self { tokens, positions, visual: shown } = self;
        if positions.len() != tokens.len() || shown.len() != tokens.len() {
            return Err(format!("{} tokens have {} positions, and {} are said to show or not", tokens.len(), positions.len(), shown.len()));
        }
        guards::tokens(tokens, vocab)?;
        guards::below("visual token", shown.iter().copied().flatten(), visual)
    }
}
