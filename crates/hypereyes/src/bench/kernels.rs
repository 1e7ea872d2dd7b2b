//! Kernels of a device, at every shape at which kernels go wrong.
//!
//! In: a device. Out: a line per kernel and size, as it is done; an error when any of them failed.

use anyhow::Result;
use hypereyes_policy::device::Device;
use hypereyes_policy::probe::{self, Extent, Row};
use serde_json::json;

use crate::{output, parts};

/// Tries a device's kernels, all shapes or one of each kind.
///
/// # Errors
/// When there is no such device, when it fails, or when a kernel is wrong.
pub fn run(device: Device, full: bool, json: bool) -> Result<()> {
    let extent = if full { Extent::Full } else { Extent::Quick };
    let mut show = |row: &Row| {
        if !json {
            output::say(&line(row));
        }
    };
    let rows = probe::matrix(device, extent, &mut show).map_err(parts::refusal)?;
    let (failed, cases) = (rows.iter().filter(|row| row.failed > 0).count(), rows.iter().map(|row| row.cases).sum::<usize>());
    if json {
        output::json(&json!({ "bench": "kernels", "device": device.name(), "full": full, "failed": failed, "cases": cases, "rows": rows }));
    } else {
        output::say(&format!("{device}: {} rows, {cases} cases, {failed} rows failed", rows.len()));
    }
    anyhow::ensure!(failed == 0, "{failed} of {} rows of kernels are wrong on {device}", rows.len());
    Ok(())
}

fn line(row: &Row) -> String {
    let Row { kernel, size, cases, failed, worst, worst_case, allowed } = row;
    let verdict = if *failed == 0 { "ok  " } else { "FAIL" };
    format!("{verdict} {kernel:<27} {size:<26} {failed:>4} of {cases:<4} failed; worst {worst:.1e} of {allowed:.0e} at {worst_case}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_whether_it_failed_and_where_worst() {
        let row = Row {
            kernel: "project",
            size: "m = 65".into(),
            cases: 40,
            failed: 3,
            worst: f64::INFINITY,
            worst_case: "k = 96, n = 33, among rows of NaN".into(),
            allowed: 1e-6,
        };
        let said = line(&row);
        assert!(said.starts_with("FAIL project ") && said.ends_with("worst inf of 1e-6 at k = 96, n = 33, among rows of NaN"), "{said}");
        assert!(line(&Row { failed: 0, worst: 0.0, ..row }).starts_with("ok   project"));
    }
}
