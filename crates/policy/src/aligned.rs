//! Floats in host memory from a multiple of a vector register on.
//!
//! In: floats, or how many. Out: a buffer, or tensor data over it. An allocation begins a little behind such a place, where every
//! register's worth of it lies on two lines of the cache: that costs a product, which reads its weights all the time, a sixth of
//! its speed.

use std::ops::{Deref, DerefMut};

use burn::tensor::{AllocationProperty, Bytes, DType, Shape, TensorData};

/// Bytes of a line of the cache, and of the widest register.
const LINE: usize = 64;

/// Floats of which the first begins a line of the cache.
#[derive(Debug)]
pub struct Aligned {
    buffer: Vec<f32>,
    start: usize,
}

impl Aligned {
    /// Zeros.
    pub fn zeros(length: usize) -> Self {
        const SPARE: usize = LINE / size_of::<f32>() - 1;
        let mut buffer = vec![0.0; length + SPARE];
        // Nowhere, when the platform does not tell: then the floats lie as they come.
        let start = buffer.as_ptr().align_offset(LINE).min(SPARE);
        buffer.truncate(start + length);
        Self { buffer, start }
    }

    /// A copy.
    pub fn copy_of(values: &[f32]) -> Self {
        let mut copy = Self::zeros(values.len());
        copy.copy_from_slice(values);
        copy
    }

    /// The data of a tensor of this shape.
    pub fn into_data(self, shape: impl Into<Shape>) -> TensorData {
        let bytes = Bytes::from_shared(bytes::Bytes::from_owner(self), AllocationProperty::Native);
        TensorData::from_bytes(bytes, shape.into(), DType::F32)
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[self.start..]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[self.start..]
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Cpu;
    use burn::tensor::{Tensor, TensorPrimitive};

    fn begins_a_line(values: &[f32]) -> bool {
        values.as_ptr().align_offset(LINE) == 0
    }

    #[test]
    fn buffers_and_the_tensors_made_of_them_begin_a_line_of_the_cache() {
        for length in [0, 1, 15, 16, 17, 1000, 100_000] {
            let values: Vec<f32> = (0..length).map(|at| at as f32).collect();
            let copy = Aligned::copy_of(&values);
            assert!(begins_a_line(&copy) && *copy == *values);
            let tensor = Tensor::<Cpu, 2>::from_data(copy.into_data([length, 1]), &Default::default());
            let TensorPrimitive::Float(held) = tensor.clone().into_primitive() else { panic!("floats") };
            assert!(begins_a_line(held.storage::<f32>()), "the backend keeps them where they are");
            assert_eq!((tensor * 2.0).into_data().into_vec::<f32>().expect("floats"), values.iter().map(|x| x * 2.0).collect::<Vec<_>>());
        }
    }
}
