//! Several evaluations in one table, as papers have it: a line per system, a column per benchmark, `accuracy / rounds` in the cells, the
//! average in the last. In: rows of evaluations. Out: cells for people, and the same for machines.

use serde::{Deserialize, Serialize};

use crate::rows::Row;

/// One evaluation.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The policy.
    pub system: String,
    /// Of what.
    pub benchmark: String,
    /// With tools.
    pub with_tools: Option<Row>,
    /// Without.
    pub closed_book: Option<Row>,
}

/// One system in one manner. Field order is the order of the JSON keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemRow {
    /// The policy.
    pub system: String,
    /// With tools.
    pub tools: bool,
    /// By benchmark, in the order of the table; benchmarks that it was not measured on are absent.
    pub benchmarks: serde_json::Map<String, serde_json::Value>,
    /// Mean accuracy over all benchmarks of the table; absent where one is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average_accuracy: Option<f64>,
    /// Mean rounds, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average_rounds: Option<f64>,
}

/// The table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Systems {
    /// Columns.
    pub benchmarks: Vec<String>,
    /// Lines: systems without tools first, as papers list them.
    pub systems: Vec<SystemRow>,
}

impl Systems {
    /// Arranges evaluations in the order in which systems and benchmarks first come.
    ///
    /// # Errors
    /// The system and the benchmark that come twice.
    pub fn of(measured: &[Measured]) -> Result<Self, (String, String)> {
        let first_of = |name: fn(&Measured) -> &String| {
            let mut names: Vec<String> = vec![];
            for one in measured {
                if !names.contains(name(one)) {
                    names.push(name(one).clone());
                }
            }
            names
        };
        let (systems, benchmarks) = (first_of(|one| &one.system), first_of(|one| &one.benchmark));
        for (at, one) in measured.iter().enumerate() {
            if measured[..at].iter().any(|other| (&other.system, &other.benchmark) == (&one.system, &one.benchmark)) {
                return Err((one.system.clone(), one.benchmark.clone()));
            }
        }
        let row = |system: &String, tools: bool| {
            let cells: Vec<(&String, &Row)> = benchmarks
                .iter()
                .filter_map(|benchmark| {
                    let one = measured.iter().find(|one| one.system == *system && one.benchmark == *benchmark)?;
                    Some((benchmark, if tools { one.with_tools.as_ref()? } else { one.closed_book.as_ref()? }))
                })
                .collect();
            let average = |of: fn(&Row) -> f64| {
                let is_whole = cells.len() == benchmarks.len();
                is_whole.then(|| cells.iter().map(|(_, row)| of(row)).sum::<f64>() / cells.len() as f64)
            };
            let value = |row: &Row| serde_json::to_value(row).expect("rows are plain values");
            (!cells.is_empty()).then(|| SystemRow {
                system: system.clone(),
                tools,
                average_accuracy: average(|row| row.accuracy),
                average_rounds: average(|row| row.rounds).filter(|_| tools),
                benchmarks: cells.iter().map(|(benchmark, row)| ((*benchmark).clone(), value(row))).collect(),
            })
        };
        let rows = [false, true].into_iter().flat_map(|tools| systems.iter().filter_map(move |system| row(system, tools)));
        Ok(Self { systems: rows.collect(), benchmarks })
    }

    /// Cells for people: percent, and rounds where there are tools; `-` where nothing was measured.
    pub fn cells(&self) -> Vec<Vec<String>> {
        let several = self.benchmarks.len() > 1;
        let average = several.then(|| "average".to_owned());
        let head = std::iter::once(String::new()).chain(self.benchmarks.iter().cloned()).chain(average).collect();
        let none = || "-".to_owned();
        let line = |row: &SystemRow| {
            let cell = |accuracy: Option<f64>, rounds: Option<f64>| match (accuracy, rounds.filter(|_| row.tools)) {
                (Some(accuracy), Some(rounds)) => format!("{:.1} / {rounds:.1}", accuracy * 100.0),
                (Some(accuracy), None) => format!("{:.1}", accuracy * 100.0),
                (None, _) => none(),
            };
            let of = |benchmark: &String| {
                let number = |key: &str| row.benchmarks.get(benchmark)?.get(key)?.as_f64();
                cell(number("accuracy"), number("rounds"))
            };
            let name = if row.tools { row.system.clone() } else { format!("{}, without tools", row.system) };
            let average = several.then(|| cell(row.average_accuracy, row.average_rounds));
            std::iter::once(name).chain(self.benchmarks.iter().map(of)).chain(average).collect()
        };
        std::iter::once(head).chain(self.systems.iter().map(line)).collect()
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::Accuracy;

    use super::*;
    use crate::item::tests::item;

    fn measured(system: &str, benchmark: &str, right: usize, rounds: u32, closed_book: bool) -> Measured {
        let verdict = |at| if at < right { Accuracy::Correct } else { Accuracy::Wrong };
        let items: Vec<_> = (0..10).map(|at| item(&format!("t{at}"), 0, "x", verdict(at), rounds, 100)).collect();
        let row = Row::of(&items, 0);
        Measured { system: system.into(), benchmark: benchmark.into(), closed_book: row.clone().filter(|_| closed_book), with_tools: row }
    }

    #[test]
    fn systems_are_lines_and_benchmarks_columns() {
        let all =
            [measured("cold", "fvqa", 5, 4, true), measured("trained", "fvqa", 8, 2, false), measured("trained", "imeb", 6, 3, false)];
        let table = Systems::of(&all).expect("each once");
        let cells = table.cells();
        let expected = [
            ["", "fvqa", "imeb", "average"],
            ["cold, without tools", "50.0", "-", "-"],
            ["cold", "50.0 / 4.0", "-", "-"],
            ["trained", "80.0 / 2.0", "60.0 / 3.0", "70.0 / 2.5"],
        ];
        assert_eq!(cells, expected.map(|line| line.map(str::to_owned).to_vec()));
        let value = serde_json::to_value(&table).expect("plain");
        assert_eq!(value["systems"][2]["benchmarks"]["imeb"]["accuracy"], 0.6);
        assert!(value["systems"][1].get("average_accuracy").is_none());
        assert_eq!(Systems::of(&[all[0].clone(), all[0].clone()]), Err(("cold".into(), "fvqa".into())));
        let one = Systems::of(&all[..1]).expect("one").cells();
        assert_eq!(one[0], ["", "fvqa"], "an average of one is none");
    }
}
