//! The vision tower: patches to merged visual tokens, with taps for the first text layers (DeepStack).
//!
//! In: patches of any number of pictures end to end, in the processor's merge order. Out: one row per 2 x 2 patches for
//! the text, and as many again per tap. Position embeddings are interpolated to each picture's grid on the host.

use burn::module::{Module, Param};
use burn::tensor::activation::gelu;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use hypereyes_pictures::Patches;

use crate::config::VisionConfig;
use crate::models::layers::{Embedding, Init, LayerNorm, Linear};
use crate::models::{Rotary, VisualTokens};
use crate::ops::{self, Kernels, Segments};

/// Flattened patches to vectors; the published weight is a 3-D convolution whose stride is its kernel.
#[derive(Module, Debug)]
pub struct PatchProjection<B: Backend> {
    /// \[width, channels, frames, patch, patch\]
    weight: Param<Tensor<B, 5>>,
    /// \[width\]
    bias: Param<Tensor<B, 1>>,
}

/// Holder of the projection, for its published name.
#[derive(Module, Debug)]
pub struct PatchEmbed<B: Backend> {
    proj: PatchProjection<B>,
}

#[derive(Module, Debug)]
struct VisionAttention<B: Backend> {
    qkv: Linear<B>,
    proj: Linear<B>,
}

#[derive(Module, Debug)]
struct VisionMlp<B: Backend> {
    linear_fc1: Linear<B>,
    linear_fc2: Linear<B>,
}

#[derive(Module, Debug)]
struct VisionBlock<B: Backend> {
    norm1: LayerNorm<B>,
    norm2: LayerNorm<B>,
    attn: VisionAttention<B>,
    mlp: VisionMlp<B>,
}

/// Joins 2 x 2 patches to one token. A tap's merger norms after joining, the last one before.
#[derive(Module, Debug)]
struct Merger<B: Backend> {
    norm: LayerNorm<B>,
    linear_fc1: Linear<B>,
    linear_fc2: Linear<B>,
    norm_joined: bool,
    join: usize,
}

impl<B: Kernels> Merger<B> {
    fn init(init: &Init<'_, B>, config: &VisionConfig, norm_joined: bool) -> Self {
        let join = config.spatial_merge_size * config.spatial_merge_size;
        let joined = config.hidden_size * join;
        Self {
            norm: LayerNorm::init(init, if norm_joined { joined } else { config.hidden_size }),
            linear_fc1: Linear::init(init, joined, joined, true),
            linear_fc2: Linear::init(init, joined, config.out_hidden_size, true),
            norm_joined,
            join,
        }
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let [n, width] = x.dims();
        let joined = [n / self.join, width * self.join];
        let x = if self.norm_joined { self.norm.forward(x.reshape(joined)) } else { self.norm.forward(x).reshape(joined) };
        self.linear_fc2.forward(gelu(self.linear_fc1.forward(x)))
    }
}

/// The tower.
#[derive(Module, Debug)]
pub struct Vision<B: Backend> {
    patch_embed: PatchEmbed<B>,
    pos_embed: Embedding<B>,
    blocks: Vec<VisionBlock<B>>,
    merger: Merger<B>,
    deepstack_merger_list: Vec<Merger<B>>,
    heads: usize,
    merge: usize,
    theta: f64,
    taps: Vec<usize>,
}

impl<B: Kernels> Vision<B> {
    /// Fresh weights.
    pub fn init(init: &Init<'_, B>, config: &VisionConfig) -> Self {
        let d = config.hidden_size;
        let patch = config.patch_size;
        let blocks = (0..config.depth)
            .map(|_| VisionBlock {
                norm1: LayerNorm::init(init, d),
                norm2: LayerNorm::init(init, d),
                attn: VisionAttention { qkv: Linear::init(init, d, 3 * d, true), proj: Linear::init(init, d, d, true) },
                mlp: VisionMlp {
                    linear_fc1: Linear::init(init, d, config.intermediate_size, true),
                    linear_fc2: Linear::init(init, config.intermediate_size, d, true),
                },
            })
            .collect();
        Self {
            patch_embed: PatchEmbed {
                proj: PatchProjection {
                    weight: init.weight([d, config.in_channels, config.temporal_patch_size, patch, patch]),
                    bias: init.zeros([d]),
                },
            },
            pos_embed: Embedding { weight: init.weight([config.num_position_embeddings, d]) },
            blocks,
            merger: Merger::init(init, config, false),
            deepstack_merger_list: config.deepstack_visual_indexes.iter().map(|_| Merger::init(init, config, true)).collect(),
            heads: config.num_heads,
            merge: config.spatial_merge_size,
            theta: config.rope_theta,
            taps: config.deepstack_visual_indexes.clone(),
        }
    }

    /// Encodes pictures, end to end; at least one.
    pub fn encode(&self, pictures: &[&Patches], device: &B::Device) -> VisualTokens<B> {
        let grids: Vec<_> = pictures.iter().map(|picture| picture.grid).collect();
        let n: usize = grids.iter().map(|(rows, columns)| rows * columns).sum();
        let mut values = Vec::with_capacity(pictures.iter().map(|picture| picture.values.len()).sum());
        for picture in pictures {
            values.extend_from_slice(&picture.values);
        }
        let width = values.len() / n;
        let patches = Tensor::from_data(TensorData::new(values, [n, width]), device);
        self.forward(patches, &grids)
    }

    /// `patches` \[n, channels * frames * patch * patch\], pictures end to end; `grids` their (rows, columns) in patches.
    pub fn forward(&self, patches: Tensor<B, 2>, grids: &[(usize, usize)]) -> VisualTokens<B> {
        let device = patches.device();
        let weight = self.patch_embed.proj.weight.val();
        let [d, channels, frames, side, _] = weight.dims();
        let weight = weight.reshape([d, channels * frames * side * side]);
        let mut x = ops::project(patches, weight) + self.patch_embed.proj.bias.val().unsqueeze();
        x = x + self.positions(grids, &device);
        let rotary = self.rotary(grids, d / self.heads, &device);
        let lengths: Vec<usize> = grids.iter().map(|(rows, columns)| rows * columns).collect();
        let segments = Segments::of_lengths(&lengths, false, self.heads, self.heads);
        let mut deepstack = vec![];
        for (index, block) in self.blocks.iter().enumerate() {
            let qkv = block.attn.qkv.forward(block.norm1.forward(x.clone()));
            let part = |at: usize| qkv.clone().narrow(1, at * d, d);
            let q = ops::rotate(part(0), rotary.cos.clone(), rotary.sin.clone());
            let k = ops::rotate(part(1), rotary.cos.clone(), rotary.sin.clone());
            x = x + block.attn.proj.forward(ops::attention(q, k, part(2), &segments));
            let inner = gelu_tanh(block.mlp.linear_fc1.forward(block.norm2.forward(x.clone())));
            x = x + block.mlp.linear_fc2.forward(inner);
            if let Some(tap) = self.taps.iter().position(|tap| *tap == index) {
                deepstack.push(self.deepstack_merger_list[tap].forward(x.clone()));
            }
        }
        VisualTokens { embeddings: self.merger.forward(x), deepstack }
    }

    /// Learned positions, interpolated bilinearly from the square table to each grid: \[n, d\] in merge order.
    fn positions(&self, grids: &[(usize, usize)], device: &B::Device) -> Tensor<B, 2> {
        let table = self.pos_embed.weight.val();
        let side = (table.dims()[0] as f64).sqrt().round() as usize;
        let n: usize = grids.iter().map(|(rows, columns)| rows * columns).sum();
        let mut corners = [(); 4].map(|()| Vec::<i64>::with_capacity(n));
        let mut weights = [(); 4].map(|()| Vec::<f32>::with_capacity(n));
        for grid in grids {
            for (row, column) in merge_order(*grid, self.merge) {
                let (r, c) = (spread(row, grid.0, side), spread(column, grid.1, side));
                for (corner, (at_row, at_column)) in [(r.0, c.0), (r.0, c.1), (r.1, c.0), (r.1, c.1)].into_iter().enumerate() {
                    corners[corner].push((at_row * side + at_column) as i64);
                    let row_weight = if corner < 2 { 1.0 - r.2 } else { r.2 };
                    let column_weight = if corner % 2 == 0 { 1.0 - c.2 } else { c.2 };
                    weights[corner].push(row_weight * column_weight);
                }
            }
        }
        corners
            .into_iter()
            .zip(weights)
            .map(|(index, weight)| {
                let index = Tensor::<B, 1, Int>::from_data(TensorData::new(index, [n]), device);
                let weight = Tensor::<B, 2>::from_data(TensorData::new(weight, [n, 1]), device);
                table.clone().select(0, index) * weight
            })
            .reduce(|sum, part| sum + part)
            .expect("four corners")
    }

    /// Two-dimensional rotary tables: the first quarter of the frequencies turns with the row, the second with the column.
    fn rotary(&self, grids: &[(usize, usize)], e: usize, device: &B::Device) -> Rotary<B> {
        let quarter = e / 4;
        let frequency = |at: usize| self.theta.powf(-(at as f64) / quarter as f64);
        let (mut cos, mut sin) = (vec![], vec![]);
        for grid in grids {
            for (row, column) in merge_order(*grid, self.merge) {
                let angles: Vec<f64> =
                    [row, column].into_iter().flat_map(|place| (0..quarter).map(move |at| place as f64 * frequency(at))).collect();
                for _ in 0..2 {
                    cos.extend(angles.iter().map(|angle| angle.cos() as f32));
                    sin.extend(angles.iter().map(|angle| angle.sin() as f32));
                }
            }
        }
        let n = cos.len() / e;
        Rotary {
            cos: Tensor::from_data(TensorData::new(cos, [n, e]), device),
            sin: Tensor::from_data(TensorData::new(sin, [n, e]), device),
        }
    }
}

/// (row, column) of the patches in the processor's order: merge blocks row by row, patches row by row within a block.
fn merge_order((rows, columns): (usize, usize), merge: usize) -> impl Iterator<Item = (usize, usize)> {
    let blocks = (0..rows / merge).flat_map(move |row| (0..columns / merge).map(move |column| (row * merge, column * merge)));
    blocks.flat_map(move |(row, column)| (0..merge).flat_map(move |r| (0..merge).map(move |c| (row + r, column + c))))
}

/// Where the `at`-th of `n` points spread evenly over 0..side-1 lies: lower entry, upper entry, share of the upper.
fn spread(at: usize, n: usize, side: usize) -> (usize, usize, f32) {
    let place = if n > 1 { at as f32 * (side - 1) as f32 / (n - 1) as f32 } else { 0.0 };
    let low = place as usize;
    (low, (low + 1).min(side - 1), place - low as f32)
}

/// GELU by its tanh approximation, as the reference's tower uses it.
fn gelu_tanh<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let inner = (x.clone() + x.clone().powi_scalar(3) * 0.044_715) * (2.0 / std::f64::consts::PI).sqrt();
    x * (inner.tanh() + 1.0) * 0.5
}
