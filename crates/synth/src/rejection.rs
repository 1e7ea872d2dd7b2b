//! Progressive Rejection Sampling: the shortest success of a task, found by raising the turn budget (docs/spec.md#synthesis).
//!
//! In: a way to sample trajectories under a budget of rounds, and a judge of them. Out: the first correct one with its
//! cost, or nothing. It knows neither who samples nor what a question is: an explorer, a policy and a recorded set all fit.

use std::future::Future;

use hypereyes_domain::{Ending, Reference, Trajectory};

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// The largest budget of rounds.
    pub max: u32,
    /// Trajectories sampled under each budget.
    pub samples: usize,
}

/// What was kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// The first correct trajectory.
    pub trajectory: Trajectory,
    /// Its cost.
    pub reference: Reference,
    /// The budget that it was found under.
    pub budget: u32,
    /// Trajectories looked at, this one included.
    pub looked_at: usize,
}

/// Samples under budgets 1, 2, ..., keeps the first trajectory that `correct` accepts, and stops. `None` drops the task.
///
/// `sample(budget, count)` gives at most `count` trajectories, fewer if it knows that more would not help. A trajectory
/// beyond its budget or without any search is passed over: a guess shows nobody how to search.
pub async fn progressive<S, F, E>(budgets: Budgets, correct: impl Fn(&Trajectory) -> bool, mut sample: S) -> Result<Option<Kept>, E>
where
    S: FnMut(u32, usize) -> F,
    F: Future<Output = Result<Vec<Trajectory>, E>>,
{
    let mut looked_at = 0;
    for budget in 1..=budgets.max {
        for trajectory in sample(budget, budgets.samples).await? {
            looked_at += 1;
            let rounds = trajectory.summary.round_count();
            let reference = Reference { rounds, searches: trajectory.summary.searches() };
            let searched = reference.is_possible() && rounds <= budget;
            if searched && trajectory.summary.ending == Ending::Answered && correct(&trajectory) {
                return Ok(Some(Kept { trajectory, reference, budget, looked_at }));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hypereyes_domain::{RolloutSummary, Round};

    use super::*;

    fn trajectory(rounds: usize, answer: &str) -> Trajectory {
        let rounds = vec![Round::counted(2, 0); rounds];
        RolloutSummary { rounds, ending: Ending::Answered, answer: Some(answer.into()) }.into()
    }

    async fn kept(budgets: Budgets, answers: impl Fn(u32, usize) -> Vec<Trajectory>) -> Option<Kept> {
        let right = |trajectory: &Trajectory| trajectory.summary.answer.as_deref() == Some("right");
        let result: Result<_, Infallible> =
            progressive(budgets, right, |budget, count| std::future::ready(Ok(answers(budget, count)))).await;
        match result {
            Ok(kept) => kept,
        }
    }

    #[tokio::test]
    async fn the_first_success_under_the_smallest_budget_is_kept() {
        let budgets = Budgets { max: 8, samples: 4 };
        let found = kept(budgets, |budget, count| {
            let word = if budget >= 3 { "right" } else { "wrong" };
            (0..count).map(|_| trajectory(budget as usize, word)).collect()
        });
        let found = found.await.expect("a success at budget 3");
        assert_eq!((found.budget, found.looked_at), (3, 9));
        assert_eq!(found.reference, Reference { rounds: 3, searches: 6 });
    }

    #[tokio::test]
    async fn a_task_without_a_success_is_dropped() {
        let budgets = Budgets { max: 3, samples: 2 };
        assert_eq!(kept(budgets, |_, count| vec![trajectory(1, "wrong"); count]).await, None);
    }

    #[tokio::test]
    async fn guesses_and_overdrawn_budgets_do_not_count() {
        let budgets = Budgets { max: 3, samples: 2 };
        let mut idle = trajectory(1, "right");
        idle.summary.rounds[0].searches = 0;
        assert_eq!(kept(budgets, |_, _| vec![trajectory(0, "right"), trajectory(4, "right"), idle.clone()]).await, None);
    }
}
