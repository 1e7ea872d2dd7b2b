//! Making a data set: draw, solve, keep, for every index on its own.
//!
//! In: a world, what rollouts run with, a configuration, a seed. Out: a data set. The same three and the same seed give the
//! same set, however many threads make it: each index has its own random source and knows of no other.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hypereyes_dataset::{DataSet, Demonstration};
use hypereyes_domain::{Sampling, Task, TaskId, Trajectory};
use hypereyes_pictures::Picture;
use hypereyes_rollout::{Setup, run_group};
use hypereyes_scoring::{AliasJudge, Judge, Verdict};
use hypereyes_world::World;
use metrics::{counter, histogram};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::SynthError;
use crate::config::SynthConfig;
use crate::explorer::{Explorer, Habit};
use crate::metrics::{BUDGET, DROPPED, MADE};
use crate::rejection::{Budgets, Kept, progressive};
use crate::tasks::{Draft, Drawer, Dropped, Split};

/// True when a task needs searching: a policy that cannot search does not answer it.
pub type NeedSearch = Arc<dyn Fn(Arc<Task>, Vec<Arc<Picture>>) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tasks finished.
    pub done: usize,
    /// Tasks in all.
    pub of: usize,
}

/// What a run is made of. Cheap to clone.
#[derive(Clone)]
pub struct Workshop {
    /// Where entities, facts and pictures come from.
    pub world: Arc<World>,
    /// What episodes run with: demonstrations have the prompts and observations of training because they use the same.
    pub setup: Setup,
    /// What to make.
    pub config: SynthConfig,
    /// The need-search filter, if any.
    pub need_search: Option<NeedSearch>,
}

/// One finished index.
struct Made {
    task: Task,
    pictures: Vec<Picture>,
    trajectory: Trajectory,
    /// Draws passed over before it.
    dropped: BTreeMap<Dropped, usize>,
}

/// Makes the training or the held-out set, on all threads of the runtime. `progress` is called after each task.
pub async fn synthesise(workshop: &Workshop, seed: u64, split: Split, mut progress: impl FnMut(Progress)) -> Result<DataSet, SynthError> {
    workshop.config.check()?;
    Drawer::new(&workshop.world, &workshop.config, split)?.check_kinds()?;
    let of = match split {
        Split::Train => workshop.config.tasks,
        Split::HeldOut => workshop.config.held_out,
    };
    let shared = Arc::new(workshop.clone());
    let at_once = std::thread::available_parallelism().map_or(2, usize::from) * 2;
    let mut running = JoinSet::new();
    let mut made: BTreeMap<usize, Made> = BTreeMap::new();
    let mut next = 0;
    loop {
        while next < of && running.len() < at_once {
            let (workshop, index) = (shared.clone(), next);
            let deadline = Duration::from_secs(workshop.config.task_timeout_s);
            running.spawn(async move {
                let one = timeout(deadline, make(&workshop, seed, split, index, of)).await;
                (index, one.unwrap_or(Err(SynthError::Late { index, seconds: deadline.as_secs() })))
            });
            next += 1;
        }
        let Some(joined) = running.join_next().await else { break };
        let (index, one) = joined.map_err(|error| SynthError::Interrupted { index: made.len(), reason: error.to_string() })?;
        made.insert(index, one?);
        progress(Progress { done: made.len(), of });
    }
    let mut set = DataSet::default();
    if workshop.need_search.is_some() {
        set.dropped.insert(Dropped::KnownByHeart.label(), 0);
    }
    for one in made.into_values() {
        for (reason, count) in one.dropped {
            *set.dropped.entry(reason.label()).or_default() += count;
        }
        set.demonstrations.push(Demonstration { task: one.task.id.clone(), trajectory: one.trajectory });
        set.tasks.push(one.task);
        set.pictures.extend(one.pictures.into_iter().map(|picture| (picture.id.clone(), picture)));
    }
    Ok(set)
}

/// Draws the tasks of the training or the held-out set without solving any: whoever explores them is not asked which are easy to make.
/// `keep` is given each task with its picture, in order. How many draws were passed over, by reason.
///
/// # Errors
/// As [`synthesise`], and those of `keep`.
pub fn draw(
    world: &World,
    config: &SynthConfig,
    seed: u64,
    split: Split,
    mut keep: impl FnMut(Task, Option<Picture>) -> Result<(), SynthError>,
) -> Result<BTreeMap<&'static str, usize>, SynthError> {
    config.check()?;
    let drawer = Drawer::new(world, config, split)?;
    drawer.check_kinds()?;
    let of = match split {
        Split::Train => config.tasks,
        Split::HeldOut => config.held_out,
    };
    let mut passed_over: BTreeMap<&'static str, usize> = BTreeMap::new();
    for index in 0..of {
        let mut random = source(seed, split, index);
        let kind = drawer.kind(&mut random);
        let (id, layer) = (TaskId::new(format!("{}-{index:06}", split.label())), drawer.layer(index, of));
        let mut reasons: BTreeMap<Dropped, usize> = BTreeMap::new();
        let drawn = (0..config.max_attempts).find_map(|_| match drawer.draw(id.clone(), &kind, layer, &mut random) {
            Ok(draft) => Some(draft),
            Err(dropped) => {
                counter!(DROPPED, "reason" => dropped.label()).increment(1);
                *reasons.entry(dropped).or_default() += 1;
                None
            }
        });
        let Some(Draft { task, picture, .. }) = drawn else {
            let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{} {count}", reason.label())).collect();
            return Err(SynthError::GivenUp { index, attempts: config.max_attempts, reasons: reasons.join(", ") });
        };
        reasons.into_iter().for_each(|(reason, count)| *passed_over.entry(reason.label()).or_default() += count);
        keep(task, picture)?;
    }
    Ok(passed_over)
}

/// Draws until a task passes every filter.
async fn make(workshop: &Workshop, seed: u64, split: Split, index: usize, of: usize) -> Result<Made, SynthError> {
    let config = &workshop.config;
    let drawer = Drawer::new(&workshop.world, config, split)?;
    let mut random = source(seed, split, index);
    // The kind and the habit are drawn once: tasks that are hard to draw or to solve must not change the mixture.
    let kind = drawer.kind(&mut random);
    let habit = Habit::draw(&config.explorer, &mut random);
    let id = TaskId::new(format!("{}-{index:06}", split.label()));
    let layer = drawer.layer(index, of);
    let mut reasons: BTreeMap<Dropped, usize> = BTreeMap::new();
    for _ in 0..config.max_attempts {
        let dropped = match drawer.draw(id.clone(), &kind, layer, &mut random) {
            Err(dropped) => dropped,
            Ok(draft) => match solve(workshop, draft, habit, random.random()).await? {
                Ok(made) => {
                    let made = Made { dropped: reasons, ..made };
                    counter!(MADE, "split" => split.label(), "kind" => format!("{kind:?}")).increment(1);
                    return Ok(made);
                }
                Err(dropped) => dropped,
            },
        };
        counter!(DROPPED, "reason" => dropped.label()).increment(1);
        *reasons.entry(dropped).or_default() += 1;
    }
    let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{} {count}", reason.label())).collect();
    Err(SynthError::GivenUp { index, attempts: config.max_attempts, reasons: reasons.join(", ") })
}

/// Filters a draft by need, then by rejection sampling.
async fn solve(workshop: &Workshop, draft: Draft, habit: Habit, seed: u64) -> Result<Result<Made, Dropped>, SynthError> {
    let pictures: Vec<Arc<Picture>> = draft.picture.iter().cloned().map(Arc::new).collect();
    if let Some(need_search) = &workshop.need_search
        && !need_search(Arc::new(draft.task.clone()), pictures.clone()).await
    {
        return Ok(Err(Dropped::KnownByHeart));
    }
    let config = &workshop.config;
    let explorer = Explorer::new(workshop.setup.chat.clone(), &draft, habit, config.max_budget, workshop.setup.config.env.box_units);
    let budgets = Budgets { max: config.max_budget, samples: config.samples };
    let crops = parking_lot::Mutex::new(Vec::new());
    let right = |trajectory: &Trajectory| {
        let answer = trajectory.summary.answer.as_deref().unwrap_or_default();
        AliasJudge.judge(&draft.task.question, answer, &draft.task.answers) == Verdict::Correct
    };
    let (explorer, pictures, task) = (&explorer, &pictures, &draft.task);
    let (crops_of, right_of) = (&crops, &right);
    let kept = progressive(budgets, right, |budget, count| async move {
        let mut tried = Vec::new();
        // Who plans for more rounds than the budget has is not asked; and one by one, because the first success ends it.
        for number in 0..if explorer.least_rounds() <= budget { count } else { 0 } {
            let one = seed.wrapping_add(u64::from(budget) << 32).wrapping_add(number as u64);
            let rollouts = run_group(&workshop.setup, explorer, task, pictures, &[one], Sampling::GREEDY).await?;
            crops_of.lock().extend(rollouts.crops);
            let done = rollouts.trajectories.iter().any(right_of);
            tried.extend(rollouts.trajectories);
            if done {
                break;
            }
        }
        Ok::<_, SynthError>(tried)
    });
    let Some(Kept { trajectory, reference, budget, .. }) = kept.await? else { return Ok(Err(Dropped::Unsolved)) };
    histogram!(BUDGET).record(f64::from(budget));
    let crops: Vec<Arc<Picture>> = crops.into_inner();
    let crops = crops.iter().map(|crop| Picture::clone(crop));
    let named = draft.picture.into_iter().chain(crops).filter(|picture| trajectory.pictures.contains(&picture.id));
    Ok(Ok(Made {
        task: Task { reference: Some(reference), ..draft.task },
        pictures: named.collect(),
        trajectory,
        dropped: BTreeMap::new(),
    }))
}

/// The random source of one index of one split.
fn source(seed: u64, split: Split, index: usize) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8] = split as u8;
    key[16..24].copy_from_slice(&(index as u64).to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use hypereyes_domain::{Ending, EntityId, TaskKind};
    use hypereyes_environment::BoxUnits;

    use super::*;
    use crate::testing::workshop;

    async fn made(workshop: &Workshop, seed: u64, split: Split) -> DataSet {
        synthesise(workshop, seed, split, |_| {}).await.expect("the embedded world suffices")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn train_and_held_out_share_no_layer_and_no_set_of_entities() {
        let workshop = workshop(150, 60);
        let (train, held_out) = (made(&workshop, 1, Split::Train).await, made(&workshop, 1, Split::HeldOut).await);
        assert_eq!((train.tasks.len(), held_out.tasks.len()), (150, 60));
        let layers = |set: &DataSet| set.tasks.iter().map(Task::world_seed).collect::<HashSet<u64>>();
        assert!(layers(&train).is_disjoint(&layers(&held_out)) && !layers(&train).contains(&0));
        let shown = |set: &DataSet| {
            let ids = |task: &Task| task.shown.iter().map(|shown| shown.entity.clone()).collect::<BTreeSet<EntityId>>();
            set.tasks.iter().filter(|task| !task.shown.is_empty()).map(ids).collect::<HashSet<_>>()
        };
        assert!(shown(&train).is_disjoint(&shown(&held_out)));
        assert!(train.tasks.iter().all(|task| task.shown.is_empty() == (task.kind == TaskKind::TEXTUAL_CONSTRAINTS)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_question_has_exactly_one_answer_and_no_shortcut() {
        let workshop = workshop(120, 0);
        let set = made(&workshop, 2, Split::Train).await;
        for task in &set.tasks {
            let layer = workshop.world.layer(task.world_seed());
            let relation = |label: &str| workshop.world.relations().iter().find(|one| one.label == label).expect("a relation").key.clone();
            let who = layer.entity_named(task.answer());
            match task.kind.as_str() {
                "visual_select" => {
                    let asked = task.question.strip_prefix("Which one has ").and_then(|rest| rest.strip_suffix('?')).expect("the wording");
                    let (label, value) = asked.split_once(' ').expect("relation and value");
                    let fit: Vec<_> = task.shown.iter().filter(|one| layer.fact(&one.entity, &relation(label)) == Some(value)).collect();
                    assert!(fit.len() == 1 && Some(&fit[0].entity) == who, "{}", task.question);
                }
                "visual_hop" => {
                    let asked = task.question.strip_prefix("What is the ").and_then(|rest| rest.strip_suffix('?')).expect("the wording");
                    let (second, rest) = asked.split_once(" of the one whose ").expect("the wording");
                    let (label, value) = rest.split_once(" is ").expect("the wording");
                    let fit: Vec<_> = task.shown.iter().filter(|one| layer.fact(&one.entity, &relation(label)) == Some(value)).collect();
                    assert!(fit.len() == 1 && layer.fact(&fit[0].entity, &relation(second)) == Some(task.answer()), "{}", task.question);
                }
                "textual_constraints" => {
                    let asked =
                        task.question.strip_prefix("Which country has ").and_then(|rest| rest.strip_suffix('?')).expect("the wording");
                    let parts = asked.split(" and ").map(|part| part.split_once(' ').expect("relation and value"));
                    let sets: Vec<HashSet<EntityId>> =
                        parts.map(|(label, value)| layer.with_fact(&relation(label), value).into_iter().collect()).collect();
                    assert!(sets.iter().all(|set| set.len() > 1), "a shortcut: {}", task.question);
                    let both: Vec<&EntityId> = sets[0].intersection(&sets[1]).collect();
                    assert_eq!((both.len(), Some(both[0])), (1, who), "{}", task.question);
                }
                other => panic!("{other} is not made here"),
            }
            let pairs = task.shown.iter().flat_map(|one| task.shown.iter().map(move |other| (one, other)));
            assert!(pairs.into_iter().all(|(one, other)| !workshop.world.alike(&one.entity, &other.entity)));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn demonstrations_are_right_cost_their_reference_and_are_mixed() {
        let workshop = workshop(300, 0);
        let began = std::time::Instant::now();
        let set = made(&workshop, 3, Split::Train).await;
        let stats = set.stats();
        eprintln!("{} tasks in {:.1} s; {stats:?}", set.tasks.len(), began.elapsed().as_secs_f64());
        for (task, demonstration) in set.tasks.iter().zip(&set.demonstrations) {
            let trajectory = &demonstration.trajectory;
            trajectory.check().expect("sound");
            assert_eq!((&demonstration.task, trajectory.summary.ending), (&task.id, Ending::Answered));
            assert_eq!(trajectory.summary.answer.as_deref(), Some(task.answer()));
            let reference = task.reference.expect("rejection sampling found it");
            assert_eq!((reference.rounds, reference.searches), (trajectory.summary.round_count(), trajectory.summary.searches()));
            assert!(trajectory.pictures.iter().all(|id| set.pictures.contains_key(id)));
        }
        let shares = [stats.visual_select, stats.visual_hop, stats.textual].map(|count| count as f64 / 300.0);
        assert!((shares[0] - 0.55).abs() < 0.1 && (shares[1] - 0.2).abs() < 0.1 && (shares[2] - 0.25).abs() < 0.1, "{shares:?}");
        let visual = set.tasks.iter().filter(|task| task.kind == TaskKind::VISUAL_SELECT).filter_map(|task| task.reference);
        let (fast, slow): (Vec<_>, Vec<_>) = visual.partition(|reference| reference.rounds <= 2);
        assert!(fast.len() > 20 && slow.len() > 40, "{} fast, {} slow", fast.len(), slow.len());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn demonstrations_write_boxes_in_the_units_of_the_environment() {
        let mut workshop = workshop(12, 0);
        (workshop.config.kinds.textual, workshop.config.kinds.visual_hop) = (0.0, 0.0);
        let mut sets = Vec::new();
        for units in [BoxUnits::Ratio, BoxUnits::Thousandths, BoxUnits::Pixels] {
            workshop.setup.config.env.box_units = units;
            let set = made(&workshop, 8, Split::Train).await;
            let trajectory = &set.demonstrations[0].trajectory;
            let text = workshop.setup.chat.decode(&trajectory.response);
            assert_eq!(text.contains("\"area\":[[0.") || text.contains(",1.00]"), units == BoxUnits::Ratio, "{units:?}: {text}");
            let said = workshop.setup.chat.decode(&trajectory.prompt).contains("Areas are [x1,y1,x2,y2] in");
            assert_eq!(said, units != BoxUnits::Ratio, "{units:?}");
            sets.push(set);
        }
        // The same areas are searched, whatever they are written in.
        let rounds = |set: &DataSet| -> Vec<_> { set.demonstrations.iter().map(|one| one.trajectory.summary.round_count()).collect() };
        assert_eq!(rounds(&sets[0]), rounds(&sets[1]));
        assert_eq!(sets[0].tasks, sets[1].tasks);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn turns_are_worded_exactly_and_nearly_every_token_is_a_word() {
        let workshop = workshop(80, 0);
        let set = made(&workshop, 4, Split::Train).await;
        let chat = &workshop.setup.chat;
        let mut bytes = std::collections::BTreeMap::<String, usize>::new();
        let mut count = 0;
        for demonstration in &set.demonstrations {
            let text = chat.decode(&demonstration.trajectory.response);
            assert!(text.ends_with("</answer><|im_end|>") && text.contains("<reason>"), "{text}");
            let image = r#"<tool_call>{"name":"image_search","arguments":{"image_id":"img_0","area":[["#;
            let query = r#"<tool_call>{"name":"text_search","arguments":{"input":[""#;
            assert!(text.starts_with(image) || text.starts_with(query), "{text}");
            for id in &demonstration.trajectory.response {
                count += 1;
                if *id < 256 {
                    *bytes.entry(chat.decode(&[*id])).or_default() += 1;
                }
            }
        }
        let single: usize = bytes.values().sum();
        eprintln!("{single} of {count} tokens are single bytes: {bytes:?}");
        assert!(single * 4 < count, "{bytes:?}");
    }

    #[test]
    fn one_seed_gives_one_set_whatever_the_threads() {
        let run = |threads: usize, seed: u64| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().expect("a runtime");
            runtime.block_on(made(&workshop(30, 0), seed, Split::Train))
        };
        let (one, two, other) = (run(1, 5), run(2, 5), run(2, 6));
        assert_eq!(one.tasks, two.tasks);
        assert_eq!(one.demonstrations, two.demonstrations);
        assert!(one.pictures.keys().eq(two.pictures.keys()));
        assert_ne!(one.tasks, other.tasks);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_policy_knows_by_heart_is_dropped_and_impossible_orders_say_why() {
        let mut workshop = workshop(3, 0);
        workshop.config.max_attempts = 5;
        workshop.need_search = Some(Arc::new(|_, _| Box::pin(std::future::ready(false))));
        let error = synthesise(&workshop, 7, Split::Train, |_| {}).await.expect_err("everything is known").to_string();
        assert!(error.contains("known_by_heart"), "{error}");
        workshop.config.relations = vec!["anthem".into()];
        let error = synthesise(&workshop, 7, Split::Train, |_| {}).await.expect_err("no such relation").to_string();
        assert!(error.contains("anthem"), "{error}");
    }
}
