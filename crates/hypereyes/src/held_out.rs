//! Measures a policy on held-out tasks, in this process. In: a model folder, tasks. Out: a report, the accuracy without
//! tools, and every rollout. The same tasks and the same seeds give the same rollouts, whoever asks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use hypereyes_chassis::BadInput;
use hypereyes_dataset::{DataSet, PictureFiles, load_tasks};
use hypereyes_domain::{Task, TaskId};
use hypereyes_eval::{Progress, Report, TaskSet, closed_book, evaluate};
use hypereyes_pictures::Limits;
use hypereyes_rollout::Player;
use hypereyes_run::Played;
use hypereyes_world::World;

use crate::config::Config;
use crate::parts::{self, Particulars};
use crate::progress::Bar;

/// What a policy is worth.
#[derive(Clone, Debug)]
pub struct Measured {
    /// With tools.
    pub report: Report,
    /// Accuracy without tools, 0..=1.
    pub closed_book_accuracy: f64,
    /// Rollouts in the order of the tasks.
    pub played: Vec<Played>,
}

/// The tasks of a folder; their pictures are all looked at now, and read again when they are needed.
///
/// # Errors
/// [`BadInput`] that names the file.
pub fn load(folder: &Path) -> Result<TaskSet> {
    let tasks = load_tasks(folder).map_err(|error| BadInput::new(error.to_string()))?;
    let pictures = PictureFiles::of_tasks(folder, &tasks, Limits::default()).map_err(|error| BadInput::new(error.to_string()))?;
    Ok(of_files(tasks, pictures))
}

/// Tasks whose pictures are files.
pub fn of_files(tasks: Vec<Task>, pictures: PictureFiles) -> TaskSet {
    TaskSet::new(tasks, move |id| pictures.load(id).map(Arc::new).map_err(|error| error.to_string()))
}

/// The tasks of a set in memory.
pub fn of(set: DataSet) -> TaskSet {
    let DataSet { tasks, pictures, .. } = set;
    TaskSet::new(tasks, move |id| pictures.get(id).cloned().map(Arc::new).ok_or_else(|| "the set does not have it".to_owned()))
}

/// Measures the policy in `model`.
///
/// # Errors
/// When the policy cannot be loaded, or [`BadInput`] when the judge's settings cannot be used.
pub async fn measure(config: &Config, world: &Arc<World>, model: &Path, set: &TaskSet, name: &'static str) -> Result<Measured> {
    let particulars = Particulars { max_picture_tokens: config.eval.max_picture_tokens, ..Particulars::default() };
    let policy = parts::tokens_with(config, world, model, model.display().to_string(), particulars).await?;
    measure_loaded(config, &*policy.player, set, name).await
}

/// Measures a policy that is loaded. `name` is what the progress bar is called. Tasks that fail are counted in the report, and so are
/// answers on which the judge gives no verdict: the judge is the one of training (`reward_service.judge`).
///
/// # Errors
/// [`BadInput`] when the judge's settings cannot be used; when no rollout could be measured, with or without tools.
pub async fn measure_loaded(config: &Config, player: &dyn Player, set: &TaskSet, name: &'static str) -> Result<Measured> {
    let judge = config.reward_service.judge.build(&config.reward_service.judge_model)?;
    let sampling = config.sampling.eval.sampling();
    let bar = Bar::new(name, "tasks");
    let show = |progress: Progress| {
        let right = if progress.judged == 0 {
            String::new()
        } else {
            format!("right {:.0} %", 100.0 * progress.right as f64 / progress.judged as f64)
        };
        bar.at(progress.done, progress.of, &right);
    };
    let mut played = Vec::new();
    let report = evaluate(player, &*judge, set, &config.eval, sampling, show, |task, trajectory, accuracy| {
        played.push(Played { task: task.clone(), sample: 0, trajectory: trajectory.clone(), accuracy });
    })
    .await;
    let without = |progress: Progress| bar.at(progress.done, progress.of, "without tools");
    let alone = closed_book(player, &*judge, set, &config.eval, sampling, without).await;
    bar.done();
    // Nothing measured is no accuracy of zero.
    for (how, report) in [("with tools", &report), ("without tools", &alone)] {
        anyhow::ensure!(
            report.rollouts > 0,
            "no rollout was measured {how}: {} rollouts of {} tasks were left out, {} answers have no verdict; the warnings say why",
            report.invalid,
            report.tasks,
            report.unjudged
        );
    }
    let closed_book_accuracy = alone.accuracy;
    // Rollouts end in any order; files must not depend on it.
    let order: BTreeMap<&TaskId, usize> = set.tasks.iter().enumerate().map(|(at, task)| (&task.id, at)).collect();
    played.sort_by_key(|one| order.get(&one.task.id).copied());
    number(&mut played);
    Ok(Measured { report, closed_book_accuracy, played })
}

/// Says of every rollout which of its task's it is: they stand together, in the order of their seeds.
fn number(played: &mut [Played]) {
    for of_task in played.chunk_by_mut(|one, next| one.task.id == next.task.id) {
        for (sample, one) in (0..).zip(of_task) {
            one.sample = sample;
        }
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Accuracy, Ending, RolloutSummary, TaskKind, Trajectory};

    use super::*;

    #[test]
    fn rollouts_of_a_task_are_numbered() {
        let played = |id: &str| Played {
            task: Task {
                id: id.into(),
                kind: TaskKind::VISUAL_HOP,
                question: "Who?".into(),
                answers: vec!["Ada".into()],
                pictures: vec![],
                layer: None,
                metadata: Default::default(),
                shown: vec![],
                reference: None,
            },
            sample: 0,
            trajectory: Trajectory::from(RolloutSummary { rounds: vec![], ending: Ending::NoAction, answer: None }),
            accuracy: Accuracy::Unparsed,
        };
        let mut all = ["a", "a", "b", "b", "b"].map(played);
        number(&mut all);
        assert_eq!(all.map(|one| one.sample), [0, 1, 0, 1, 2]);
    }
}
