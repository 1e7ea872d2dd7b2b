//! Which tasks a report shows. In: the rollouts of both policies on the held-out tasks. Out: a handful of them.
//!
//! First what the run is about (one round of several areas, one of several queries, a right answer), most of all where the
//! start policy was slower or wrong; then one task of every other kind; then a failure, because there are some.

use std::collections::{BTreeMap, BTreeSet};

use hypereyes_chat::Chat;
use hypereyes_domain::{Accuracy, Task, TaskId, TaskKind};
use hypereyes_pictures::RgbImage;
use hypereyes_run::Played;

use super::Example;
use super::episode::Told;
use crate::transcript::Episode;

/// Parallel episodes shown.
const PARALLEL: usize = 3;

/// Chooses and reads the examples. `pictures` gives a task's pictures.
pub fn examples(
    before: &BTreeMap<TaskId, Played>,
    after: &BTreeMap<TaskId, Played>,
    chat: &Chat,
    pictures: impl Fn(&Task) -> Vec<RgbImage>,
) -> Vec<Example> {
    let chosen = choose(before, after, |played| tell(chat, played, &[]).episode.is_parallel());
    let example = |id: &TaskId| {
        let played = after.get(id)?;
        let pictures = pictures(&played.task);
        let after = tell(chat, played, &pictures);
        let before = before.get(id).map(|played| tell(chat, played, &pictures));
        Some(Example { task: played.task.clone(), picture: pictures.into_iter().next(), after, before })
    };
    chosen.iter().filter_map(example).collect()
}

fn tell(chat: &Chat, played: &Played, pictures: &[RgbImage]) -> Told {
    // Boxes and queries can be read without the pictures; crops cannot.
    Told { episode: Episode::read(Some(chat), &played.trajectory, pictures), accuracy: played.accuracy }
}

/// Ids in the order in which they are shown.
fn choose(before: &BTreeMap<TaskId, Played>, after: &BTreeMap<TaskId, Played>, is_parallel: impl Fn(&Played) -> bool) -> Vec<TaskId> {
    let right = |played: &Played| played.accuracy == Accuracy::Correct;
    // Rounds saved, and a wrong answer put right counts like several.
    let gain = |played: &Played| {
        let was = before.get(&played.task.id);
        let rounds =
            was.map_or(0, |was| i64::from(was.trajectory.summary.round_count())) - i64::from(played.trajectory.summary.round_count());
        rounds + if was.is_some_and(|was| !right(was)) { 3 } else { 0 }
    };
    // The best by gain; ties by the most pictures, then by id, so that a report can be made again.
    let best = |wanted: &dyn Fn(&Played) -> bool, taken: &[TaskId]| {
        let candidates = after.values().filter(|played| wanted(played) && !taken.contains(&played.task.id));
        candidates
            .max_by_key(|played| (gain(played), played.task.shown.len(), std::cmp::Reverse(&played.task.id)))
            .map(|played| played.task.id.clone())
    };
    let mut chosen = Vec::new();
    let parallel: BTreeSet<&TaskId> = after.values().filter(|played| is_parallel(played)).map(|played| &played.task.id).collect();
    for pictures in (0..PARALLEL).map(|at| 6 - at) {
        // One with many pictures, then ones with fewer, so that they do not look alike.
        let wanted = |played: &Played| right(played) && parallel.contains(&played.task.id) && played.task.shown.len() <= pictures;
        chosen.extend(best(&wanted, &chosen));
    }
    if chosen.is_empty() {
        chosen.extend(best(&|played| right(played), &chosen));
    }
    for kind in [TaskKind::VISUAL_HOP, TaskKind::TEXTUAL_CONSTRAINTS] {
        chosen.extend(best(&|played| right(played) && played.task.kind == kind, &chosen));
    }
    let failed = |played: &Played| {
        matches!(played.accuracy, Accuracy::Wrong | Accuracy::NotAttempted | Accuracy::Unparsed) && !played.task.shown.is_empty()
    };
    chosen.extend(best(&failed, &chosen));
    chosen
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Area, Ending, RolloutSummary, Round, Shown};

    use super::*;

    fn played(id: &str, kind: TaskKind, shown: usize, rounds: usize, accuracy: Accuracy) -> (TaskId, Played) {
        let task = Task {
            id: id.into(),
            kind,
            question: "q".into(),
            answers: vec!["a".into()],
            pictures: vec![],
            layer: Some(1),
            metadata: Default::default(),
            shown: vec![Shown { entity: "mx".into(), area: Area::WHOLE }; shown],
            reference: None,
        };
        let rounds = vec![Round::counted(1, 0); rounds];
        let summary = RolloutSummary { rounds, ending: Ending::Answered, answer: Some("a".into()) };
        (id.into(), Played { task, trajectory: summary.into(), accuracy })
    }

    #[test]
    fn parallel_successes_come_first_then_other_kinds_then_a_failure() {
        let before = BTreeMap::from([
            played("a", TaskKind::VISUAL_SELECT, 3, 4, Accuracy::Correct),
            played("b", TaskKind::VISUAL_SELECT, 4, 8, Accuracy::Wrong),
            played("c", TaskKind::VISUAL_HOP, 2, 6, Accuracy::Correct),
            played("d", TaskKind::TEXTUAL_CONSTRAINTS, 0, 2, Accuracy::Correct),
            played("e", TaskKind::VISUAL_SELECT, 2, 3, Accuracy::Wrong),
        ]);
        let after = BTreeMap::from([
            played("a", TaskKind::VISUAL_SELECT, 3, 2, Accuracy::Correct),
            played("b", TaskKind::VISUAL_SELECT, 4, 2, Accuracy::Correct),
            played("c", TaskKind::VISUAL_HOP, 2, 3, Accuracy::Correct),
            played("d", TaskKind::TEXTUAL_CONSTRAINTS, 0, 1, Accuracy::Correct),
            played("e", TaskKind::VISUAL_SELECT, 2, 2, Accuracy::Wrong),
        ]);
        let chosen = choose(&before, &after, |played| played.trajectory.summary.round_count() == 2);
        assert_eq!(chosen.iter().map(TaskId::as_str).collect::<Vec<_>>(), ["b", "a", "c", "d", "e"]);
    }

    #[test]
    fn a_run_without_parallel_episodes_still_shows_something() {
        let after = BTreeMap::from([played("a", TaskKind::VISUAL_SELECT, 3, 5, Accuracy::Correct)]);
        assert_eq!(choose(&BTreeMap::new(), &after, |_| false), ["a".into()]);
        assert!(choose(&BTreeMap::new(), &BTreeMap::new(), |_| true).is_empty());
    }
}
