//! How operands lie in a device's memory: alone, or as parts of something larger whose rest is no number.

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorData};

/// How a matrix lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// By itself.
    Plain,
    /// Between rows of NaN: a kernel that reads beyond its rows meets them.
    AmongRows,
    /// Between columns of NaN: a kernel that reads beyond the end of a row meets them.
    AmongColumns,
    /// As columns of memory.
    Turned,
    /// As a product leaves it: rows may be farther apart than they are long, and what is between them is NaN where the memory
    /// was.
    Pitched,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Plain, Self::AmongRows, Self::AmongColumns, Self::Turned, Self::Pitched];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::AmongRows => "among rows of NaN",
            Self::AmongColumns => "among columns of NaN",
            Self::Turned => "turned",
            Self::Pitched => "pitched",
        }
    }
}

/// Rows or columns of NaN on each side: so many that a part begins where devices let views begin, whatever the width.
const BESIDE: usize = 256;

/// A matrix on a device.
pub fn lay<B: Backend>(values: &[f32], [rows, columns]: [usize; 2], lie: Lie, device: &B::Device) -> FloatTensor<B> {
    assert_eq!(values.len(), rows * columns);
    let matrix = |values: Vec<f32>, shape: [usize; 2]| Tensor::<B, 2>::from_data(TensorData::new(values, shape), device);
    let x = match lie {
        Lie::Plain => matrix(values.to_vec(), [rows, columns]),
        Lie::AmongRows => {
            let mut all = vec![f32::NAN; (rows + 2 * BESIDE) * columns];
            all[BESIDE * columns..][..values.len()].copy_from_slice(values);
            matrix(all, [rows + 2 * BESIDE, columns]).narrow(0, BESIDE, rows)
        }
        Lie::AmongColumns => {
            let width = columns + 2 * BESIDE;
            let mut all = vec![f32::NAN; rows * width];
            for (row, values) in values.chunks_exact(columns.max(1)).enumerate() {
                all[row * width + BESIDE..][..columns].copy_from_slice(values);
            }
            matrix(all, [rows, width]).narrow(1, BESIDE, columns)
        }
        Lie::Turned => {
            let turned = (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect();
            matrix(turned, [columns, rows]).swap_dims(0, 1)
        }
        Lie::Pitched => {
            let mut same = vec![0.0; columns * columns];
            (0..columns).for_each(|at| same[at * columns + at] = 1.0);
            poison::<B>(&[(rows + 1) * (columns + BESIDE)], device);
            matrix(values.to_vec(), [rows, columns]).matmul(matrix(same, [columns, columns]))
        }
    };
    x.into_primitive().tensor()
}

/// Leaves memory full of NaN behind, for what is allocated next to lie in: a kernel that does not write all of its result, or
/// reads what it has not written, shows it. Memory of a device that keeps what is given back, that is; others are as they are.
pub fn poison<B: Backend>(values: &[usize], device: &B::Device) {
    let held: Vec<Tensor<B, 1>> =
        values.iter().flat_map(|values| [*values; 3]).map(|values| Tensor::full([values.max(1)], f32::NAN, device)).collect();
    drop(held);
}

/// Numbers that every precision holds, whose products and sums of thousands of them f32 holds exactly: eighths up to 2.
pub fn eighths(count: usize, salt: usize) -> Vec<f32> {
    let hash = |at: usize| (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(salt as u64 * 0x1234_5678_9abc_def1);
    (0..count).map(|at| ((hash(at) ^ (hash(at) >> 31)) % 33) as f32 / 8.0 - 2.0).collect()
}

/// Numbers around 0, bell-shaped, as bf16 holds them, so that every device begins with the same.
pub fn bell(count: usize, salt: usize) -> Vec<f32> {
    let sum = |at: usize| (0..4).map(|part| eighths(1, salt * 101 + at * 4 + part)[0]).sum::<f32>();
    (0..count).map(|at| half::bf16::from_f32(sum(at) / 2.4 + 0.01).to_f32()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Cpu;
    use burn::tensor::TensorPrimitive;

    #[test]
    fn a_matrix_is_the_same_however_it_lies() {
        let values = eighths(35, 3);
        for lie in Lie::ALL {
            let x = Tensor::<Cpu, 2>::from_primitive(TensorPrimitive::Float(lay::<Cpu>(&values, [5, 7], lie, &Default::default())));
            assert_eq!((x.dims(), x.into_data().into_vec::<f32>().unwrap()), ([5, 7], values.clone()), "{}", lie.words());
        }
    }

    #[test]
    fn numbers_are_spread_and_held_by_bf16() {
        let (some, others) = (eighths(1000, 1), eighths(1000, 2));
        assert!(some != others && some.iter().all(|x| x.abs() <= 2.0 && (x * 8.0).fract() == 0.0));
        assert!((some.iter().sum::<f32>() / 1000.0).abs() < 0.2);
        let bell = bell(1000, 1);
        let square = bell.iter().map(|x| x * x).sum::<f32>() / 1000.0;
        assert!((0.5..2.0).contains(&square), "{square}");
        assert!(bell.iter().chain(&some).all(|x| half::bf16::from_f32(*x).to_f32() == *x));
    }
}
