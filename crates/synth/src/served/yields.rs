//! What rejection sampling brought, budget by budget. In: what came of each task. Out: a table, as numbers and as text. Pure.

use std::fmt::Write as _;

use serde::Serialize;

use super::attempt::{Bill, Came, Ended, Line};

/// One budget.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Yield {
    /// Rounds.
    pub budget: u32,
    /// Tasks that were tried under it.
    pub tried: usize,
    /// Tries that came to something.
    pub attempts: usize,
    /// Tasks that were solved under it.
    pub right: usize,
    /// Tries that were wrong, ended without an answer, were right without a search, or were right and no demonstration.
    pub wrong: usize,
    /// See `wrong`.
    pub no_answer: usize,
    /// See `wrong`.
    pub unsearched: usize,
    /// See `wrong`.
    pub misfit: usize,
    /// Share of all tasks that are done with which were solved under it or a smaller one, 0..=1.
    pub share: f64,
    /// Mean rounds of what was kept; nothing where nothing was.
    pub rounds: Option<f64>,
    /// Mean searches of it.
    pub searches: Option<f64>,
    /// Mean tokens of it, as the explorer counts them.
    pub tokens: Option<f64>,
    /// What its tries cost.
    pub bill: Bill,
}

/// The whole of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Yields {
    /// Tasks with a demonstration.
    pub kept: usize,
    /// Tasks without any under the largest budget.
    pub unsolved: usize,
    /// Tasks that the explorer answers without tools.
    pub known_by_heart: usize,
    /// Tasks of which a try failed for a reason outside.
    pub failed: usize,
    /// What all of it cost.
    pub bill: Bill,
    /// Budget by budget, from 1.
    pub budgets: Vec<Yield>,
}

impl Yields {
    /// Of tasks whose largest budget was `most`.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a Line>, most: u32) -> Self {
        let mut this = Self { budgets: (1..=most).map(|budget| Yield { budget, ..Yield::default() }).collect(), ..Self::default() };
        lines.into_iter().for_each(|line| this.add(line));
        let done = this.kept + this.unsolved + this.known_by_heart;
        let mut solved = 0;
        for one in &mut this.budgets {
            solved += one.right;
            one.share = if done == 0 { 0.0 } else { solved as f64 / done as f64 };
            // Until here they are sums.
            let mean = |sum: &mut Option<f64>| *sum = sum.map(|sum| sum / one.right as f64);
            [&mut one.rounds, &mut one.searches, &mut one.tokens].into_iter().for_each(mean);
        }
        this
    }

    fn add(&mut self, line: &Line) {
        match line.ended {
            Ended::Kept => self.kept += 1,
            Ended::Unsolved => self.unsolved += 1,
            Ended::KnownByHeart => self.known_by_heart += 1,
            Ended::Failed => self.failed += 1,
        }
        self.bill += line.bill();
        let mut tried = 0;
        for attempt in &line.attempts {
            let Some(one) = (attempt.which.budget as usize).checked_sub(1).and_then(|at| self.budgets.get_mut(at)) else { continue };
            one.bill += attempt.bill;
            match attempt.came {
                Came::Failed => continue,
                Came::Right => {
                    one.right += 1;
                    let add = |sum: &mut Option<f64>, more: f64| *sum = Some(sum.unwrap_or(0.0) + more);
                    add(&mut one.rounds, f64::from(attempt.rounds));
                    add(&mut one.searches, f64::from(attempt.searches));
                    add(&mut one.tokens, attempt.tokens as f64);
                }
                Came::Wrong => one.wrong += 1,
                Came::NoAnswer => one.no_answer += 1,
                Came::Unsearched => one.unsearched += 1,
                Came::Misfit => one.misfit += 1,
            }
            one.attempts += 1;
            if tried < one.budget {
                (one.tried, tried) = (one.tried + 1, one.budget);
            }
        }
    }

    /// The table for people; budgets that nobody was tried under are left out.
    pub fn table(&self) -> String {
        let mut text = String::from("budget  tried  tries  right  share   rounds  searches  tokens\n");
        let number = |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
        for one in self.budgets.iter().filter(|one| one.attempts > 0) {
            let (rounds, searches, tokens) = (number(one.rounds, 2), number(one.searches, 2), number(one.tokens, 0));
            let _ = writeln!(
                text,
                "{:>6}  {:>5}  {:>5}  {:>5}  {:>4.0} %  {rounds:>6}  {searches:>8}  {tokens:>6}",
                one.budget,
                one.tried,
                one.attempts,
                one.right,
                one.share * 100.0
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::attempt::{Attempt, Try};
    use super::*;

    fn line(ended: Ended, tries: &[(u32, Came)]) -> Line {
        let attempt = |(sample, (budget, came)): (usize, &(u32, Came))| Attempt {
            which: Try { budget: *budget, sample: sample as u32 },
            seed: 0,
            came: *came,
            reason: String::new(),
            ending: None,
            answer: None,
            rounds: *budget,
            searches: 2 * budget,
            tokens: 100 * u64::from(*budget),
            bill: Bill { sent: 10, said: 1 },
        };
        let attempts = tries.iter().enumerate().map(attempt).collect();
        Line { ended, attempts, ..Line::of("t".into()) }
    }

    #[test]
    fn shares_add_up_over_budgets_and_failures_count_for_nothing() {
        use Came::{Failed, Misfit, NoAnswer, Right, Unsearched, Wrong};
        let lines = [
            line(Ended::Kept, &[(1, Right)]),
            line(Ended::Kept, &[(1, Wrong), (1, NoAnswer), (2, Failed), (2, Right)]),
            line(Ended::Kept, &[(1, Wrong), (1, Unsearched), (2, Misfit), (2, Right)]),
            line(Ended::Unsolved, &[(1, Wrong), (1, Wrong), (2, Wrong), (2, Wrong), (3, Wrong), (3, Wrong)]),
            line(Ended::KnownByHeart, &[]),
            line(Ended::Failed, &[(1, Wrong), (1, Failed)]),
        ];
        let yields = Yields::of(&lines, 4);
        assert_eq!((yields.kept, yields.unsolved, yields.known_by_heart, yields.failed), (3, 1, 1, 1));
        assert_eq!(yields.bill, Bill { sent: 170, said: 17 });
        let row = |at: usize| {
            let one = &yields.budgets[at];
            (one.tried, one.attempts, one.right, one.share, one.rounds, one.searches, one.tokens)
        };
        assert_eq!(row(0), (5, 8, 1, 0.2, Some(1.0), Some(2.0), Some(100.0)));
        assert_eq!(row(1), (3, 5, 2, 0.6, Some(2.0), Some(4.0), Some(200.0)));
        assert_eq!(row(2), (1, 2, 0, 0.6, None, None, None));
        assert_eq!(row(3), (0, 0, 0, 0.6, None, None, None));
        let two = &yields.budgets[1];
        assert_eq!((two.wrong, two.no_answer, two.unsearched, two.misfit, two.bill.sent), (2, 0, 0, 1, 60));
        let table = yields.table();
        assert_eq!(table.lines().count(), 4, "{table}");
        assert_eq!(table.lines().nth(2), Some("     2      3      5      2    60 %    2.00      4.00     200"), "{table}");
    }
}
