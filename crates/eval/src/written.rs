//! The report of an evaluation as text. In: a summary, and what it is of. Out: Markdown for people, CSV for programs.

use hypereyes_scoring::Interval;

use crate::aligned::{csv, markdown};
use crate::rows::Row;
use crate::summary::{Cost, Summary};

/// What a report is of.
#[derive(Clone, Debug, Default)]
pub struct About<'a> {
    /// The policy.
    pub model: &'a str,
    /// Of what: a benchmark, a folder.
    pub tasks: &'a str,
    /// Who judged.
    pub judge: &'a str,
    /// Name of the benchmark's own metric.
    pub metric: Option<&'a str>,
    /// Where texts were searched, and in which mode.
    pub search: &'a str,
    /// First and last day, in UTC.
    pub dates: &'a str,
}

/// The columns of the CSV file: numbers with their intervals.
const COLUMNS: [&str; 25] = [
    "rows",
    "name",
    "rollouts",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "rounds",
    "rounds_low",
    "rounds_high",
    "searches",
    "searches_low",
    "searches_high",
    "kilotokens",
    "kilotokens_low",
    "kilotokens_high",
    "cas",
    "cas_low",
    "cas_high",
    "seconds",
    "seconds_low",
    "seconds_high",
    "usd",
    "metric",
    "metric_low",
    "metric_high",
];

impl Summary {
    /// Every row with its name: all, each category, those without tools.
    fn named_rows(&self) -> Vec<(&'static str, &str, &Row)> {
        let categories = self.per_category.iter().map(|(kind, row)| ("category", kind.as_str(), row));
        let closed_book = self.closed_book.iter().map(|row| ("closed_book", "without tools", row));
        self.all.iter().map(|row| ("all", "all", row)).chain(categories).chain(closed_book).collect()
    }

    /// As CSV; what nobody knows is empty.
    pub fn csv(&self) -> String {
        let head = COLUMNS.map(str::to_owned).to_vec();
        let rows = self.named_rows().into_iter().map(|(scope, name, row)| {
            let known = |value: f64, interval: Interval| [value, interval.low, interval.high].map(|number| number.to_string());
            let numbers = [
                known(row.accuracy, row.accuracy_interval),
                known(row.rounds, row.rounds_interval),
                known(row.searches, row.searches_interval),
                known(row.kilotokens, row.kilotokens_interval),
                known(row.cas, row.cas_interval),
                known(row.seconds, row.seconds_interval),
            ];
            let metric = row.metric.zip(row.metric_interval).map_or_else(Default::default, |(value, interval)| known(value, interval));
            [scope.to_owned(), name.to_owned(), row.rollouts.to_string()]
                .into_iter()
                .chain(numbers.into_iter().flatten())
                .chain([row.usd.map(|usd| usd.to_string()).unwrap_or_default()])
                .chain(metric)
                .collect()
        });
        csv(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
    }

    /// As Markdown.
    pub fn markdown(&self, about: &About<'_>, cost: &Cost) -> String {
        let report = &self.report;
        let mut text = format!("# {} on {}\n\n", plain(about.model), plain(about.tasks));
        text += &format!(
            "{} tasks, {} rollout{} each; judged by {}; searched through {}; {}; hypereyes {}.\n\n",
            report.tasks,
            self.samples,
            if self.samples == 1 { "" } else { "s" },
            plain(about.judge),
            plain(about.search),
            about.dates,
            env!("CARGO_PKG_VERSION")
        );
        text += &markdown(&self.table_rows(about.metric));
        text += &format!("\nBrackets are intervals ({}).\n", self.method());
        text += &format!("Left out: {} rollouts that failed for a reason outside the policy", report.invalid);
        text += &format!(
            ", {} of them because the judge gave no verdict; {} answered nothing, which is not right.\n",
            report.unjudged, report.unparsed
        );
        if let Some(average) = &self.avg_at_k {
            let row = |name: String, estimate: &crate::Estimate| vec![name, percent(estimate.value, estimate.interval)];
            let mut rows = vec![vec!["several rollouts".to_owned(), "%".to_owned()], row(format!("avg@{}", self.samples), average)];
            rows.extend(self.pass_at_k.iter().map(|(k, estimate)| row(format!("pass@{k}"), estimate)));
            text += &format!("\n{}", markdown(&rows));
        }
        text += &format!("\n{}\n", cost.sentence());
        text
    }

    /// Rows for people.
    fn table_rows(&self, metric: Option<&str>) -> Vec<Vec<String>> {
        let has_price = self.named_rows().iter().any(|(.., row)| row.usd.is_some());
        let mut head: Vec<String> = ["", "n", "accuracy %", "rounds", "searches", "ktokens", "CAS", "seconds"].map(str::to_owned).to_vec();
        head.extend(has_price.then(|| "$".to_owned()));
        head.extend(metric.map(|name| format!("{name} %")));
        let rows = self.named_rows().into_iter().map(|(scope, name, row)| {
            let name = if scope == "all" { "**all**" } else { name };
            let mut cells = vec![
                name.to_owned(),
                row.rollouts.to_string(),
                percent(row.accuracy, row.accuracy_interval),
                number(row.rounds, row.rounds_interval),
                number(row.searches, row.searches_interval),
                number(row.kilotokens, row.kilotokens_interval),
                number(row.cas, row.cas_interval),
                number(row.seconds, row.seconds_interval),
            ];
            cells.extend(has_price.then(|| row.usd.map_or_else(String::new, |usd| format!("{usd:.4}"))));
            let of_metric = row.metric.zip(row.metric_interval).map_or_else(String::new, |(value, interval)| percent(value, interval));
            cells.extend(metric.map(|_| of_metric));
            cells
        });
        std::iter::once(head).chain(rows).collect()
    }
}

impl Cost {
    /// What everything cost, in words: what nobody knows is not said.
    pub fn sentence(&self) -> String {
        let mut parts = vec![format!("{:.1} thousand tokens", self.tokens as f64 / 1000.0), format!("{:.0} rollout seconds", self.seconds)];
        parts.extend(self.requests.map(|requests| format!("{requests} search requests")));
        parts.extend(self.usd.map(|usd| format!("${usd:.2} of searches")));
        let again = if self.asked_again > 0 { format!("; {} asked again", self.asked_again) } else { String::new() };
        format!("All of it cost {}{again}.", parts.join(", "))
    }
}

fn percent(share: f64, interval: Interval) -> String {
    format!("{:.1} [{:.1}, {:.1}]", share * 100.0, interval.low * 100.0, interval.high * 100.0)
}

fn number(value: f64, interval: Interval) -> String {
    format!("{value:.2} [{:.2}, {:.2}]", interval.low, interval.high)
}

/// A name of somebody else's within a line.
fn plain(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::Accuracy;

    use super::*;
    use crate::item::Item;
    use crate::item::tests::item;

    #[test]
    fn what_is_known_is_written_and_nothing_else() {
        let mut items = vec![item("a", 0, "x|y", Accuracy::Correct, 1, 1000), item("b", 0, "z", Accuracy::Wrong, 3, 3000)];
        let summary = Summary::new(2, 1, &items, &[], 0);
        let cost = items.iter().fold(Cost::default(), |cost, item| cost.and(item));
        let about = About { model: "m", tasks: "fvqa", judge: "alias", metric: None, search: "world, live", dates: "2026-11-30" };
        let text = summary.markdown(&about, &cost);
        assert!(
            text.starts_with("# m on fvqa\n\n2 tasks, 1 rollout each; judged by alias; searched through world, live; 2026-11-30;"),
            "{text}"
        );
        assert!(text.contains("| **all** | 2 | 50.0 [9.5, 90.5] | 2.00 [0.04, 3.96] |") && text.contains("| x\\|y | 1 | 100.0"), "{text}");
        assert!(!text.contains('$') && !text.contains("pass@") && text.contains("All of it cost 4.0 thousand tokens, 3 rollout seconds."));
        let lines: Vec<String> = summary.csv().lines().map(str::to_owned).collect();
        assert_eq!((lines.len(), lines[0].split(',').count(), lines[1].split(',').count()), (4, 25, 25));
        assert!(
            lines[1].starts_with("all,all,2,0.5,") && lines[1].ends_with(",,,,") && lines[2].starts_with("category,x|y,1,1,"),
            "{lines:?}"
        );

        items.iter_mut().for_each(|item| (item.usd, item.requests, item.metric) = (Some(0.01), Some(2), Some(0.25)));
        items.push(Item { sample: 1, ..items[0].clone() });
        let summary = Summary::new(2, 2, &items, &items[..1], 0);
        let cost = items.iter().fold(Cost { asked_again: 1, ..Cost::default() }, |cost, item| cost.and(item));
        let text = summary.markdown(&About { metric: Some("token_f1"), ..about }, &cost);
        assert!(text.contains("| $ | token_f1 % |") && text.contains("| 0.0100 | 25.0 [25.0, 25.0] |"), "{text}");
        assert!(text.contains("| avg@2 | 50.0") && text.contains("| pass@2 | 100.0") && text.contains("| without tools | 1 |"), "{text}");
        assert!(text.contains("6 search requests, $0.03 of searches; 1 asked again."), "{text}");
        assert!(summary.csv().lines().last().is_some_and(|line| line.starts_with("closed_book,without tools,1,1,")));
    }
}
