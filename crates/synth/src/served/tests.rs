//! Whole runs with an explorer that does what the id of a task says: what is kept, and that nothing is asked for twice.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use hypereyes_domain::{Call, Ending, Failure, GenerateError, Reference, RolloutSummary, Round, Spoken, TaskKind, Trajectory};
use hypereyes_environment::Query;
use hypereyes_rollout::Rollouts;
use hypereyes_scoring::JudgeKind;
use parking_lot::Mutex;

use super::*;
use crate::testing::workshop;

/// Searches as often as it may, and is right from the budget on that the task's id ends with; while it is ill, it fails at two rounds or
/// without tools, if the id says so.
struct Fake {
    budget: u32,
    search: Arc<dyn Search>,
    asked: Arc<Mutex<Vec<(String, u32, u64)>>>,
    ill: Arc<AtomicBool>,
}

impl Fake {
    async fn one(&self, task: &Task) -> Trajectory {
        let id = task.id.as_str();
        let from: u32 = id.rsplit('-').next().and_then(|from| from.parse().ok()).unwrap_or(99);
        let fails = id.starts_with("ill") && self.budget == 2 && self.ill.load(Ordering::SeqCst);
        let call = Call::text_search(&["Mexico currency"]);
        let (mut rounds, mut spoken) = (vec![], Spoken::default());
        for _ in 0..self.budget {
            self.search.search(0, &[Query::Text("Mexico currency".into())]).await;
            rounds.push(Round { call: Some(Box::new(call.clone())), ..Round::counted(1, 0) });
            spoken.turns.push(r#"<tool_call>{"name":"text_search","arguments":{"input":["Mexico currency"]}}</tool_call>"#.into());
            spoken.count(100, 10, 0);
        }
        let answer = if self.budget >= from { "peso" } else { "sol" };
        spoken.turns.push(format!("<answer>{answer}</answer>"));
        spoken.count(100, 10, 0);
        let (ending, answer) = if fails { (Ending::Failed(Failure::Timeout), None) } else { (Ending::Answered, Some(answer.to_owned())) };
        Trajectory { spoken: Some(Box::new(spoken)), ..Trajectory::from(RolloutSummary { rounds, ending, answer }) }
    }
}

impl Player for Fake {
    fn play<'a>(
        &'a self,
        task: &'a Task,
        _: &'a [Arc<Picture>],
        seeds: &'a [u64],
        _: Sampling,
    ) -> BoxFuture<'a, Result<Rollouts, GenerateError>> {
        self.asked.lock().push((task.id.to_string(), self.budget, seeds[0]));
        Box::pin(async move { Ok(Rollouts { trajectories: vec![self.one(task).await], crops: vec![] }) })
    }

    fn closed_book<'a>(
        &'a self,
        task: &'a Task,
        _: &'a [Arc<Picture>],
        seeds: &'a [u64],
        _: Sampling,
    ) -> BoxFuture<'a, Result<Vec<Trajectory>, GenerateError>> {
        let answer = if task.id.as_str().starts_with("known") { "peso" } else { "sol" };
        let fails = task.id.as_str().starts_with("mute") && self.ill.load(Ordering::SeqCst);
        let (ending, answer) = if fails { (Ending::Failed(Failure::Timeout), None) } else { (Ending::Answered, Some(answer.to_owned())) };
        let summary = RolloutSummary { rounds: vec![], ending, answer };
        Box::pin(async move { Ok(seeds.iter().map(|_| summary.clone().into()).collect()) })
    }
}

#[derive(Default)]
struct Kept {
    written: Vec<Value>,
    standing: Standing,
}

impl Keeper for Kept {
    fn wrote(&mut self, written: Value) -> Result<(), SynthError> {
        self.written.push(written);
        Ok(())
    }

    fn picture(&mut self, _: &Picture) -> Result<(), SynthError> {
        Ok(())
    }

    fn stands(&mut self, standing: Standing) {
        self.standing = standing;
    }
}

fn task(id: &str) -> Task {
    Task {
        id: id.into(),
        kind: TaskKind::new("own"),
        question: "What is the currency of Mexico?".into(),
        answers: vec!["peso".into()],
        pictures: if id.starts_with("lost") { vec!["p".into()] } else { vec![] },
        layer: None,
        shown: vec![],
        reference: None,
        metadata: Default::default(),
    }
}

#[tokio::test]
async fn the_first_success_is_kept_and_nothing_is_asked_twice() {
    let (asked, ill) = (Arc::<Mutex<Vec<(String, u32, u64)>>>::default(), Arc::new(AtomicBool::new(true)));
    let (of_fake, of_ill) = (asked.clone(), ill.clone());
    let players: Players = Arc::new(move |budget, search| Arc::new(Fake { budget, search, asked: of_fake.clone(), ill: of_ill.clone() }));
    let judge: Arc<dyn Verdicts> = Arc::new(JudgeKind::Alias);
    let setup = workshop(1, 0).setup;
    let closed_book = ClosedBook {
        player: players(3, setup.search.clone()),
        model: "fake".into(),
        judge: judge.clone(),
        sampling: Sampling::GREEDY,
        tries: 4,
        at_most: 1,
    };
    let served = Served {
        players,
        model: "fake".into(),
        judge,
        sampling: Sampling::GREEDY,
        budgets: Budgets { max: 3, samples: 2 },
        setup,
        closed_book: Some(closed_book),
        again: 1,
        at_once: 2,
        seed: 1,
        pictures: Arc::new(|task| if task.pictures.is_empty() { Ok(vec![]) } else { Err("there is none".into()) }),
    };
    let tasks: Vec<Task> = ["a-1", "b-2", "c-99", "known-1", "ill-3", "mute-1", "lost-1"].map(task).to_vec();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut ledger = Ledger::open(folder.path()).expect("made");
    let mut kept = Kept::default();
    served.explore(&tasks, &mut ledger, &mut kept, std::future::pending()).await.expect("explored");
    let ended = |ledger: &Ledger| tasks.iter().map(|task| ledger.line(&task.id).map(|line| line.ended)).collect::<Vec<_>>();
    let (unsolved, known, failed) = (Some(Ended::Unsolved), Some(Ended::KnownByHeart), Some(Ended::Failed));
    assert_eq!(ended(&ledger), [Some(Ended::Kept), Some(Ended::Kept), unsolved, known, failed, failed, failed]);
    assert_eq!((kept.standing.done, kept.standing.of, kept.standing.kept, kept.standing.failed), (7, 7, 2, 3));
    let reason = |ledger: &Ledger, id: &str| ledger.line(&id.into()).map(|line| line.reason.clone()).unwrap_or_default();
    assert!(reason(&ledger, "mute-1").contains("by heart") && reason(&ledger, "lost-1").ends_with("there is none"));
    assert_eq!(reason(&ledger, "ill-3"), Failure::Timeout.label());
    let budgets = |from: usize, id: &str| -> Vec<u32> {
        asked.lock()[from..].iter().filter(|(task, ..)| task == id).map(|(_, budget, _)| *budget).collect()
    };
    assert_eq!([budgets(0, "a-1"), budgets(0, "b-2"), budgets(0, "c-99")], [vec![1], vec![1, 1, 2], vec![1, 1, 2, 2, 3, 3]]);
    assert!(budgets(0, "mute-1").is_empty(), "it may be known by heart");
    // A try that fails is made once more, with the same seed.
    assert_eq!(budgets(0, "ill-3"), [1, 1, 2, 2]);
    let seeds: Vec<u64> = asked.lock().iter().filter(|(task, ..)| task == "ill-3").map(|(.., seed)| *seed).collect();
    assert!(seeds[2] == seeds[3] && seeds[0] != seeds[1] && seeds[1] != seeds[2]);
    let demonstration = ledger.kept(&"b-2".into()).expect("reads").expect("kept");
    assert_eq!((demonstration.which, demonstration.reference), (Try { budget: 2, sample: 0 }, Reference { rounds: 2, searches: 2 }));
    assert!(demonstration.trajectory.spoken.is_none() && demonstration.trajectory.sampled_tokens() > 0);
    demonstration.trajectory.check().expect("sound");
    let yields = Yields::of(tasks.iter().filter_map(|task| ledger.line(&task.id)), 3);
    assert_eq!((yields.kept, yields.unsolved, yields.known_by_heart, yields.failed), (2, 1, 1, 3));
    assert_eq!(yields.budgets.iter().map(|one| (one.tried, one.right)).collect::<Vec<_>>(), [(4, 1), (2, 1), (1, 0)]);
    assert_eq!(kept.standing.bill, yields.bill);
    // Four tries without tools of every task with pictures that are there, twice where they fail; and every episode.
    assert_eq!(kept.written.len(), 5 * 4 + 2 * 4 + 1 + 3 + 6 + 4);
    let spent = kept.standing.bill;

    // Begun again: what failed goes on where it was, everything else stands.
    drop(ledger);
    let from = asked.lock().len();
    ill.store(false, Ordering::SeqCst);
    let mut ledger = Ledger::open(folder.path()).expect("there");
    let mut kept = Kept::default();
    served.explore(&tasks, &mut ledger, &mut kept, std::future::pending()).await.expect("explored");
    assert_eq!(ended(&ledger), [Some(Ended::Kept), Some(Ended::Kept), unsolved, known, Some(Ended::Kept), Some(Ended::Kept), failed]);
    assert_eq!(budgets(from, "ill-3"), [2, 2, 3]);
    assert_eq!(asked.lock().len() - from, 3 + 1);
    let line = ledger.line(&"ill-3".into()).expect("known");
    assert_eq!(line.attempts.iter().map(|one| (one.which.budget, one.came)).collect::<Vec<_>>(), {
        let (wrong, right) = (Came::Wrong, Came::Right);
        [(1, wrong), (1, wrong), (2, wrong), (2, wrong), (3, right)]
    });
    assert_eq!(kept.standing.bill, Yields::of(tasks.iter().filter_map(|task| ledger.line(&task.id)), 3).bill);
    // What tries cost that failed stays spent: three, four and two requests were made since, of 100 tokens each.
    assert_eq!(kept.standing.bill.sent, spent.sent + 100 * (3 + 3 + 4 + 2));
    // Stopped before it begins, it asks nobody.
    served.explore(&tasks, &mut ledger, &mut kept, std::future::ready(())).await.expect("stopped");
    assert_eq!(asked.lock().len() - from, 3 + 1);
}
