//! Every kernel of a device over the shapes at which kernels go wrong: sizes around those of tiles and stages, empty segments,
//! operands and results among memory that is poisoned.
//!
//! In: a device. Out: one row per kernel and size, shown as it is done: how many cases, how many failed, the worst. What is right
//! is computed in f64 on the host, straight from the definition, or by the plain chain of operations on the CPU.

mod attention;
mod experts;
mod held;
mod products;
mod reference;
mod rows;

use burn::tensor::Tensor;
use burn::tensor::TensorPrimitive;
use burn::tensor::ops::FloatTensor;
use serde::Serialize;

use crate::Error;
use crate::device::{Device, OnDevice};
use crate::faults;
use crate::ops::Kernels;

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// A shape of every kind, in seconds.
    Quick,
    /// Everything, in minutes.
    Full,
}

/// How far results may be from what is right, relative to `1 + |result|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    /// Products of numbers that every precision holds, whose sums f32 holds: nothing but the result is rounded.
    pub exact: f64,
    /// Kernels without products.
    pub rows: f64,
    /// Kernels with products of any numbers.
    pub products: f64,
}

impl Tolerances {
    /// A device's: f32, TF32 in products, bf16.
    pub fn of(device: Device) -> Self {
        match device {
            Device::Cpu => Self { exact: 1e-6, rows: 2e-5, products: 2e-5 },
            Device::Cuda => Self { exact: 1e-6, rows: 5e-5, products: 1e-2 },
            Device::CudaBf16 => Self { exact: 5e-3, rows: 3e-2, products: 8e-2 },
        }
    }
}

/// What one kernel did at one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Kernel.
    pub kernel: &'static str,
    /// What its cases have in common.
    pub size: String,
    /// Cases.
    pub cases: usize,
    /// Cases that were too far from what is right; a number that is none is infinitely far.
    pub failed: usize,
    /// The largest distance, relative to `1 + |result|`.
    pub worst: f64,
    /// The case that it was.
    pub worst_case: String,
    /// What would have been near enough.
    pub allowed: f64,
}

/// Tries a device; `show` sees every row as it is done.
///
/// # Errors
/// [`Error::Input`] when there is no such device; [`Error::Device`] when it fails.
pub fn matrix(device: Device, extent: Extent, show: &mut dyn FnMut(&Row)) -> Result<Vec<Row>, Error> {
    device.run(Matrix { extent, tolerances: Tolerances::of(device), show })
}

/// A device to be tried.
pub struct Matrix<'a> {
    /// How much.
    pub extent: Extent,
    /// How near is near enough.
    pub tolerances: Tolerances,
    /// Sees every row as it is done.
    pub show: &'a mut dyn FnMut(&Row),
}

impl OnDevice for Matrix<'_> {
    type Output = Vec<Row>;

    fn run<B: Kernels>(self, device: B::Device) -> Vec<Row> {
        let Self { extent, tolerances, show } = self;
        let mut sheet = Sheet::<B> { device, extent, tolerances, show, rows: vec![] };
        products::run(&mut sheet);
        rows::run(&mut sheet);
        attention::run(&mut sheet);
        experts::run(&mut sheet);
        sheet.rows
    }
}

struct Sheet<'a, B: Kernels> {
    device: B::Device,
    extent: Extent,
    tolerances: Tolerances,
    show: &'a mut dyn FnMut(&Row),
    rows: Vec<Row>,
}

impl<B: Kernels> Sheet<'_, B> {
    /// Of a list of sizes, all or those that are marked with true.
    fn sizes(&self, of: &[(usize, bool)]) -> Vec<usize> {
        of.iter().filter(|(_, quick)| *quick || self.extent == Extent::Full).map(|(size, _)| *size).collect()
    }

    /// Compares a result with what is right, as one more case of a kernel at a size.
    fn note<const D: usize>(&mut self, (kernel, allowed): (&'static str, f64), size: &str, case: &str, got: FloatTensor<B>, want: &[f64]) {
        let got = faults::floats_or_panic(Tensor::<B, D>::from_primitive(TensorPrimitive::Float(got)));
        self.compare((kernel, allowed), size, case, &got, want);
    }

    fn compare(&mut self, (kernel, allowed): (&'static str, f64), size: &str, case: &str, got: &[f32], want: &[f64]) {
        let far = |(got, want): (&f32, &f64)| {
            let far = (f64::from(*got) - want).abs() / (1.0 + want.abs());
            if far.is_finite() { far } else { f64::INFINITY }
        };
        let worst = if got.len() == want.len() { got.iter().zip(want).map(far).fold(0.0, f64::max) } else { f64::INFINITY };
        let row = match self.rows.iter_mut().find(|row| row.kernel == kernel && row.size == size) {
            Some(row) => row,
            None => {
                self.rows.push(Row { kernel, size: size.to_owned(), cases: 0, failed: 0, worst: -1.0, worst_case: String::new(), allowed });
                self.rows.last_mut().expect("just put")
            }
        };
        row.cases += 1;
        row.failed += usize::from(worst > allowed);
        if worst > row.worst {
            (row.worst, row.worst_case) = (worst, case.to_owned());
        }
    }

    /// Shows the rows of a size, which are done.
    fn done(&mut self, size: &str) {
        self.rows.iter().filter(|row| row.size == size).for_each(|row| (self.show)(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_right_at_every_size_of_the_matrix() {
        let mut shown = 0;
        let rows = matrix(Device::Cpu, Extent::Quick, &mut |_| shown += 1).unwrap();
        let wrong: Vec<_> = rows.iter().filter(|row| row.failed > 0).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(shown, rows.len(), "every row is shown once");
        let kernels: std::collections::BTreeSet<_> = rows.iter().map(|row| row.kernel).collect();
        assert_eq!(kernels.len(), 23, "{kernels:?}");
        assert!(rows.iter().map(|row| row.cases).sum::<usize>() > 2000);
    }

    #[test]
    fn what_is_no_number_or_not_there_has_failed() {
        let mut sheet = Sheet::<crate::backend::Cpu> {
            device: Default::default(),
            extent: Extent::Quick,
            tolerances: Tolerances::of(Device::Cpu),
            show: &mut |_| {},
            rows: vec![],
        };
        for (case, got) in [("good", &[1.0, 2.0][..]), ("none", &[1.0, f32::NAN]), ("short", &[1.0]), ("far", &[1.0, 2.1])] {
            sheet.compare(("kernel", 1e-3), "size", case, got, &[1.0, 2.0]);
        }
        let row = &sheet.rows[0];
        assert_eq!((row.cases, row.failed, row.worst, row.worst_case.as_str()), (4, 3, f64::INFINITY, "none"));
    }
}
