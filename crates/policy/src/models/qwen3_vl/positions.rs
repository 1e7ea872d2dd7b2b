//! Interleaved M-RoPE: where each row stands in time, height and width, and the rotary tables that follow.
//!
//! Text advances all three axes together; a picture's tokens share one time and spread over height and width; what
//! follows a picture starts after its larger side (transformers `get_rope_index`).

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use rayon::prelude::*;

use crate::config::TextConfig;
use crate::models::Rotary;

/// Assigns positions to the tokens of one sequence as they come; it survives between turns.
#[derive(Clone, Debug, Default)]
pub struct Positions {
    next: u32,
    /// The picture under way: its first position, its width in tokens, and how many of its tokens have passed.
    picture: Option<(u32, usize, usize, usize)>,
}

impl Positions {
    /// The position of a text token.
    pub fn text(&mut self) -> [u32; 3] {
        let at = self.next;
        self.next += 1;
        [at, at, at]
    }

    /// The position of the next token of a picture of (rows, columns) merged tokens.
    pub fn visual(&mut self, (rows, columns): (usize, usize)) -> [u32; 3] {
        let (start, _, _, passed) = self.picture.unwrap_or((self.next, columns, rows, 0));
        let place = [start, start + (passed / columns) as u32, start + (passed % columns) as u32];
        if passed + 1 == rows * columns {
            self.picture = None;
            self.next = start + rows.max(columns) as u32;
        } else {
            self.picture = Some((start, columns, rows, passed + 1));
        }
        place
    }
}

/// Rows that one task of the pool turns.
const ROWS_PER_TASK: usize = 256;

/// Rotary tables \[n, e\] of rows at `positions`: frequency `i` turns with height if `i % 3 == 1` and with width if
/// `i % 3 == 2`, as far as their sections reach, and with time otherwise.
pub fn rotary_tables<B: Backend>(config: &TextConfig, positions: &[[u32; 3]], device: &B::Device) -> Rotary<B> {
    let half = config.head_dim / 2;
    let axes: Vec<(f32, usize)> = (0..half)
        .map(|at| {
            let frequency = config.rope_theta.powf(-(at as f64) / half as f64) as f32;
            let axis = if at % 3 != 0 && at < 3 * config.mrope_section[at % 3] { at % 3 } else { 0 };
            (frequency, axis)
        })
        .collect();
    let n = positions.len();
    let (mut cos, mut sin) = (vec![0.0; n * half * 2], vec![0.0; n * half * 2]);
    let rows = cos.par_chunks_mut((half * 2).max(1)).zip(sin.par_chunks_mut((half * 2).max(1))).zip(positions);
    rows.with_min_len(ROWS_PER_TASK).for_each(|((cos, sin), position)| {
        for (at, (frequency, axis)) in axes.iter().enumerate() {
            (sin[at], cos[at]) = (position[*axis] as f32 * frequency).sin_cos();
        }
        cos.copy_within(..half, half);
        sin.copy_within(..half, half);
    });
    Rotary {
        cos: Tensor::from_data(TensorData::new(cos, [n, config.head_dim]), device),
        sin: Tensor::from_data(TensorData::new(sin, [n, config.head_dim]), device),
    }
}
