//! Reports side by side, for people. In: named reports. Out: text with aligned columns.

use std::fmt;

use hypereyes_domain::TaskKind;

use crate::aligned::aligned;
use crate::report::{KindReport, Report};

/// The columns, in the order of the JSON keys.
const HEAD: [&str; 7] = ["", "n", "accuracy %", "rounds", "searches", "ktokens", "CAS"];

impl Report {
    /// A table with one line per named report, each followed by its kinds of task; below it how many answers got no verdict, if any did
    /// not.
    pub fn table(rows: &[(&str, &Report)]) -> String {
        let mut lines = vec![HEAD.map(str::to_owned).to_vec()];
        for (name, report) in rows {
            lines.push(report.cells(name));
            lines.extend(report.by_kind.iter().map(KindReport::cells));
        }
        let unjudged = rows.iter().filter(|(_, report)| report.unjudged > 0);
        let without = unjudged.map(|(name, report)| {
            format!("{name}: the judge gave no verdict on {} answers, which are left out and not wrong\n", report.unjudged)
        });
        std::iter::once(aligned(&lines)).chain(without).collect()
    }

    fn cells(&self, name: &str) -> Vec<String> {
        let percent = |share: f64| format!("{:.1}", share * 100.0);
        let accuracy =
            format!("{} [{}, {}]", percent(self.accuracy), percent(self.accuracy_interval.low), percent(self.accuracy_interval.high));
        let rounds = format!("{:.2} [{:.2}, {:.2}]", self.rounds, self.rounds_interval.low, self.rounds_interval.high);
        let rest = [format!("{:.2}", self.searches), format!("{:.2}", self.kilotokens), format!("{:.2}", self.cas)];
        [name.to_owned(), self.rollouts.to_string(), accuracy, rounds].into_iter().chain(rest).collect()
    }
}

impl KindReport {
    fn cells(&self) -> Vec<String> {
        let numbers = [self.accuracy * 100.0, self.rounds, self.searches, self.kilotokens, self.cas];
        let decimals = [1, 2, 2, 2, 2];
        let cells = numbers.iter().zip(decimals).map(|(number, decimals)| format!("{number:.decimals$}"));
        [format!("  {}", label(&self.kind)), self.rollouts.to_string()].into_iter().chain(cells).collect()
    }
}

/// Our own kinds in words, others as their set calls them.
fn label(kind: &TaskKind) -> &str {
    let at = TaskKind::SYNTHETIC.iter().position(|known| known == kind);
    at.map_or(kind.as_str(), |at| ["visual select", "visual hop", "textual"][at])
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Report::table(&[("all", self)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcomes;

    #[test]
    fn columns_are_aligned_and_reports_stand_side_by_side() {
        let report = Report::new(5, &outcomes(), 0);
        let table = Report::table(&[("before", &report), ("after", &report)]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 7);
        assert!(lines[1].starts_with("before") && lines[4].starts_with("after"), "{table}");
        assert!(lines[1].contains("50.0 [15.0, 85.0]"), "{table}");

        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{table}");
        let unjudged = Report { unjudged: 3, ..report.clone() };
        let table = Report::table(&[("before", &report), ("after", &unjudged)]);
        assert_eq!(table.lines().count(), 8);
        assert!(table.lines().last().is_some_and(|line| line.starts_with("after: the judge gave no verdict on 3 answers")), "{table}");
    }
}
