//! A comparison for people. In: a comparison, and what its two sides are called. Out: lines.

use crate::aligned::aligned;
use crate::compare::{Comparison, Difference};

/// Flipped answers that are named.
const NAMED: usize = 10;

/// Decimals and factor of a number, and what its line is called.
const SHOWN: [(&str, &str, f64, usize); 5] = [
    ("accuracy", "accuracy %", 100.0, 1),
    ("rounds", "rounds", 1.0, 2),
    ("searches", "searches", 1.0, 2),
    ("kilotokens", "ktokens", 1.0, 2),
    ("cas", "CAS", 1.0, 2),
];

impl Comparison {
    /// The table, in which a line that differs by more than chance is marked, and what flipped.
    pub fn told(&self, first: &str, second: &str) -> String {
        let row = |name: &str, n: usize, one: &Difference, factor: f64, decimals: usize| {
            let shown = |value: f64| format!("{:.decimals$}", value * factor);
            let apart = |value: f64| format!("{:+.decimals$}", value * factor);
            let [low, high] = one.interval;
            let difference = format!("{} [{}, {}]", apart(one.difference), apart(low), apart(high));
            vec![name.to_owned(), n.to_string(), shown(one.first), shown(one.second), difference, mark(one)]
        };
        let head = ["", "n", first, second, "difference", ""].map(str::to_owned).to_vec();
        let numbers = SHOWN
            .iter()
            .filter_map(|(key, name, factor, decimals)| Some(row(name, self.items, self.differences.get(*key)?, *factor, *decimals)));
        let categories = self.per_category.iter().map(|(name, one)| row(&format!("  {name} %"), one.items, &one.accuracy, 100.0, 1));
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(numbers).chain(categories).collect();
        let test = if self.test == "mcnemar_exact" { "McNemar, exact" } else { "signs flipped by task" };
        let mut text = aligned(&rows);
        text += &format!("{} gained, {} lost; p = {} ({test})\n", self.flipped.gained, self.flipped.lost, short(self.p));
        for (what, ids) in [("gained", &self.flipped.gained_ids), ("lost", &self.flipped.lost_ids)] {
            text += &named(what, ids);
        }
        for (whom, ids) in [(first, &self.only_first), (second, &self.only_second)] {
            text += &named(&format!("only {whom} has a verdict on"), ids);
        }
        text + "brackets are 95 % intervals (paired bootstrap over tasks); the difference is the second less the first\n"
    }
}

/// Says so where an interval leaves 0 out.
fn mark(one: &Difference) -> String {
    let [low, high] = one.interval;
    if low > 0.0 || high < 0.0 { "differs".to_owned() } else { String::new() }
}

/// A line with the first few of many names; none without any.
fn named(what: &str, ids: &[String]) -> String {
    if ids.is_empty() {
        return String::new();
    }
    let shown = ids.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if ids.len() > NAMED { format!(" and {} more", ids.len() - NAMED) } else { String::new() };
    format!("{what} ({}): {shown}{more}\n", ids.len())
}

/// A probability in as many digits as say something.
fn short(p: f64) -> String {
    if p < 0.0001 { format!("{p:.0e}") } else { format!("{p:.4}") }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::Accuracy;

    use crate::compare::compare;
    use crate::item::tests::item;

    #[test]
    fn people_see_what_differs_and_what_flipped() {
        let side = |right: fn(usize) -> bool, rounds| {
            let verdict = move |at| if right(at) { Accuracy::Correct } else { Accuracy::Wrong };
            (0..40).map(|at| item(&format!("t{at}"), 0, if at < 20 { "x" } else { "y" }, verdict(at), rounds, 500)).collect::<Vec<_>>()
        };
        let mut second = side(|at| at != 3, 2);
        second.pop();
        let text = compare(&side(|at| at % 2 == 1, 4), &second).told("cold", "trained");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("cold") && lines[0].contains("trained"), "{text}");
        assert!(
            lines[1].starts_with("accuracy %") && lines[1].contains("48.7") && lines[1].contains("97.4") && lines[1].ends_with("differs")
        );
        assert!(
            lines[2].contains("-2.00 [-2.00, -2.00]") && lines[4].contains("+0.00 [+0.00, +0.00]") && !lines[4].contains("differs"),
            "{text}"
        );
        assert!(lines[6].starts_with("  x %") && lines[7].starts_with("  y %"), "{text}");
        // 2 * (1 + 21) / 2^21.
        assert_eq!(lines[8], "20 gained, 1 lost; p = 2e-5 (McNemar, exact)");
        assert_eq!(lines[9], "gained (20): t0, t2, t4, t6, t8, t10, t12, t14, t16, t18 and 10 more");
        assert_eq!(lines[10], "lost (1): t3");
        assert_eq!(lines[11], "only cold has a verdict on (1): t39");
    }
}
