//! Kernels of a device, at every shape at which kernels go wrong.
//!
//! In: a device. Out: a line per kernel and size, as it is done, and how many of them failed.

use hypereyes_policy::Error;
use hypereyes_policy::device::Device;
use hypereyes_policy::probe::{self, Extent, Row};

/// What became of a device's kernels.
#[derive(Debug)]
pub struct Tried {
    /// A row per kernel and size.
    pub rows: Vec<Row>,
    /// Rows of which a case failed.
    pub failed: usize,
    /// Cases of all rows.
    pub cases: usize,
}

/// Tries a device's kernels, all shapes or one of each kind; `show` is given every row's line as it is done.
///
/// # Errors
/// When there is no such device, or when it fails.
pub fn run(device: Device, full: bool, mut show: impl FnMut(&str)) -> Result<Tried, Error> {
    let extent = if full { Extent::Full } else { Extent::Quick };
    let rows = probe::matrix(device, extent, &mut |row: &Row| show(&line(row)))?;
    let (failed, cases) = (rows.iter().filter(|row| row.failed > 0).count(), rows.iter().map(|row| row.cases).sum());
    Ok(Tried { rows, failed, cases })
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
