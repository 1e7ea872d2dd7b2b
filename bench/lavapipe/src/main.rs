//! The kernels for GPUs on a machine without one, through Vulkan in software: what they compute is compared with what is right,
//! at the shapes of the matrix.
//!
//! In: `--full` for every shape. Out: a line per kernel and size; exit code 1 when one is wrong. As on a GPU are the kernels of
//! this project, in f32. Not as on one: products (there are no tensor cores, and Burn takes another kernel for them), bf16, and
//! planes, which are narrower here.

use std::process::ExitCode;

use burn_wgpu::graphics::Vulkan;
use burn_wgpu::{Wgpu, WgpuDevice, init_setup};
use hypereyes_policy::faults;
use hypereyes_policy::probe::{Extent, Matrix, Row, Tolerances};

fn main() -> ExitCode {
    let extent = if std::env::args().any(|argument| argument == "--full") { Extent::Full } else { Extent::Quick };
    let device = WgpuDevice::Cpu;
    let setup = init_setup::<Vulkan>(&device, Default::default());
    let info = setup.adapter.get_info();
    println!("{}, {}", info.name, info.driver_info);
    let mut show = |row: &Row| {
        let verdict = if row.failed == 0 { "ok  " } else { "FAIL" };
        let Row { kernel, size, cases, failed, worst, worst_case, allowed } = row;
        println!("{verdict} {kernel:<27} {size:<26} {failed:>4} of {cases:<4} failed; worst {worst:.1e} of {allowed:.0e} at {worst_case}");
    };
    let tolerances = Tolerances { exact: 1e-6, rows: 5e-5, products: 5e-5 };
    let rows = match faults::guarded::<Wgpu, _>(Matrix { extent, tolerances, show: &mut show }, device) {
        Ok(rows) => rows,
        Err(error) => {
            println!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let failed = rows.iter().filter(|row| row.failed > 0).count();
    println!("{} rows, {} cases, {failed} rows failed", rows.len(), rows.iter().map(|row| row.cases).sum::<usize>());
    ExitCode::from(u8::from(failed > 0))
}
