//! Measures a policy on held-out tasks, in this process. In: a model folder, tasks. Out: a report, the accuracy without
//! tools, and every rollout. The same tasks and the same seeds give the same rollouts, whoever asks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use hypereyes_chassis::BadInput;
use hypereyes_dataset::{DataError, DataSet, load_picture, load_tasks};
use hypereyes_domain::{PolicyVersion, TaskId};
use hypereyes_engines::Engine;
use hypereyes_eval::{Progress, Report, TaskSet, closed_book, evaluate};
use hypereyes_pictures::Limits;
use hypereyes_rollout::Setup;
use hypereyes_run::Played;
use hypereyes_world::World;

use crate::config::Config;
use crate::parts;
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

/// The tasks of a folder with their pictures.
///
/// # Errors
/// [`BadInput`] that names the file.
pub fn load(folder: &Path) -> Result<TaskSet> {
    let bad = |error: DataError| BadInput::new(error.to_string());
    let tasks = load_tasks(folder).map_err(bad)?;
    let mut pictures = BTreeMap::new();
    for id in tasks.iter().flat_map(|task| &task.pictures) {
        if !pictures.contains_key(id) {
            let picture = load_picture(folder, id, &Limits::default()).map_err(bad)?;
            pictures.insert(id.clone(), Arc::new(picture));
        }
    }
    Ok(TaskSet { tasks, pictures })
}

/// The tasks of a set in memory.
pub fn of(set: DataSet) -> TaskSet {
    let pictures = set.pictures.into_iter().map(|(id, picture)| (id, Arc::new(picture))).collect();
    TaskSet { tasks: set.tasks, pictures }
}

/// Measures the policy in `model`.
///
/// # Errors
/// When the policy cannot be loaded, or [`BadInput`] when the judge's settings cannot be used.
pub async fn measure(config: &Config, world: &Arc<World>, model: &Path, set: &TaskSet, name: &'static str) -> Result<Measured> {
    let (setup, engine) = parts::engine(config, world, model, PolicyVersion(0))?;
    measure_loaded(config, &setup, &engine, set, name).await
}

/// Measures a policy that is loaded. `name` is what the progress bar is called. Tasks that fail are counted in the report, and so are
/// answers on which the judge gives no verdict: the judge is the one of training (`reward_service.judge`).
///
/// # Errors
/// [`BadInput`] when the judge's settings cannot be used; when no rollout could be measured, with or without tools.
pub async fn measure_loaded(config: &Config, setup: &Setup, engine: &Engine, set: &TaskSet, name: &'static str) -> Result<Measured> {
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
    let report = evaluate(setup, engine, &*judge, set, &config.eval, sampling, show, |task, trajectory, accuracy| {
        played.push(Played { task: task.clone(), trajectory: trajectory.clone(), accuracy });
    })
    .await;
    let without = |progress: Progress| bar.at(progress.done, progress.of, "without tools");
    let alone = closed_book(setup, engine, &*judge, set, &config.eval, sampling, without).await;
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
    Ok(Measured { report, closed_book_accuracy, played })
}
