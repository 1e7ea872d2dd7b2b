//! An evaluator beside a learner of a few lines, over real connections on the loopback, with the shipped policy in a real engine.

mod learner;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hypereyes_chassis::{Shutdown, TelemetryConfig, telemetry};
use hypereyes_dataset::DataSet;
use hypereyes_domain::{PolicyVersion, Task, TaskKind};
use hypereyes_engines::EngineConfig;
use hypereyes_eval::{EvalConfig, Evaluation, curve};
use hypereyes_evaluator::{Config, run};
use hypereyes_miniature::shipped::Shipped;
use hypereyes_policy::checkpoint::{self, HostWeights, Snapshot};
use hypereyes_rollout::RolloutConfig;
use learner::Learner;
use tokio::task::JoinHandle;

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(120);

struct Bench {
    folder: tempfile::TempDir,
    weights: HostWeights,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Shipped::Policy.unpack(&folder.path().join("policy")).expect("is shipped");
        let (_, weights) = checkpoint::read(&folder.path().join("policy")).expect("sound");
        let task = |number: usize| Task {
            id: format!("t{number}").as_str().into(),
            kind: TaskKind::TEXTUAL_CONSTRAINTS,
            question: "Which one has currency peso?".into(),
            answers: vec!["Mexico".into()],
            pictures: vec![],
            layer: Some(1),
            metadata: Default::default(),
            shown: vec![],
            reference: None,
        };
        let tasks = (0..3).map(task).collect();
        let set = DataSet { tasks, pictures: Default::default(), demonstrations: vec![], tokenizer: None, dropped: Default::default() };
        set.write(&folder.path().join("tasks")).expect("written");
        Self { folder, weights }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// A version; those of one number have the same weights, and so have the versions 0 and 2.
    fn version(&self, version: u64) -> Snapshot {
        self.with_weights_of(version, version)
    }

    /// A version with the weights of another.
    fn with_weights_of(&self, other: u64, version: u64) -> Snapshot {
        let mut weights = self.weights.clone();
        if other != 0 && other != 2 {
            weights.values_mut().for_each(|tensor| tensor.values.iter_mut().for_each(|value| *value *= 1.0 - other as f32 / 50.0));
        }
        Snapshot::new(&weights, PolicyVersion(version))
    }

    fn spawn(&self, learner: &str, last: Option<u64>) -> (Shutdown, JoinHandle<anyhow::Result<()>>) {
        let at = |name: &str| self.folder.path().join(name);
        let config = Config {
            learner: learner.to_owned(),
            policy: at("policy"),
            tasks: at("tasks"),
            out: self.out(),
            last,
            eval: EvalConfig { every: 2, every_tasks: 2, ..EvalConfig::default() },
            rollout: RolloutConfig { max_turn_tokens: 64, max_context_tokens: 512, ..RolloutConfig::default() },
            engine: EngineConfig { max_sequences: 8, ..EngineConfig::default() },
            ..Config::default()
        };
        let shutdown = Shutdown::new();
        (shutdown.clone(), tokio::spawn(run(config, shutdown)))
    }

    fn lines(&self) -> Vec<Evaluation> {
        curve::read(&self.out().join(curve::EVALUATIONS)).expect("there or not")
    }

    fn steps(&self) -> Vec<(u64, u64)> {
        self.lines().iter().map(|one| (one.step, one.due)).collect()
    }

    async fn until_measured(&self, step: u64) {
        let wait = async {
            while self.lines().iter().all(|one| one.step != step) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("step {step} is never measured: {:?}", self.steps()));
    }

    fn best(&self) -> Evaluation {
        let best: Evaluation = hypereyes_run::read_json(&self.out().join(curve::BEST_JSON)).expect("there is one");
        assert_eq!(checkpoint::digest(&self.out().join(curve::BEST)).expect("whole"), best.digest);
        best
    }
}

async fn end(task: JoinHandle<anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::time::timeout(PATIENCE, task).await.expect("it ends in time").expect("no panic")
}

fn skipped(reason: &str) -> f64 {
    let telemetry = telemetry::init(&TelemetryConfig { filter: "error".into(), ..TelemetryConfig::default() }).expect("sound");
    telemetry.read("hypereyes_eval_skipped_total", &[("reason", reason)]).unwrap_or(0.0)
}

/// One after the other: counters are the process's.
#[tokio::test(flavor = "multi_thread")]
async fn versions_are_measured_kept_gone_on_with_and_stood_in_for() {
    every_due_version_is_measured_once_and_the_best_is_kept().await;
    what_is_gone_is_stood_in_for_by_the_newest_and_counted().await;
    the_last_is_left_to_others_and_a_learner_that_reached_it_may_go().await;
    a_step_that_is_taken_again_is_measured_again().await;
    another_model_ends_it_with_its_reason().await;
}

async fn every_due_version_is_measured_once_and_the_best_is_kept() {
    let bench = Bench::new();
    let (learner, address) = Learner::serve(bench.version(0), 3);
    let (_, task) = bench.spawn(&address, None);
    bench.until_measured(0).await;
    for version in 1..=2 {
        learner.publisher.publish(bench.version(version));
    }
    bench.until_measured(2).await;
    learner.publisher.publish(bench.version(3));
    learner.finish();
    end(task).await.expect("the run is over");
    let lines = bench.lines();
    assert_eq!(bench.steps(), [(0, 0), (2, 2)]);
    assert_eq!((lines[0].report.tasks, lines[0].report.rollouts), (2, 2), "the first tasks");
    assert_eq!((&lines[0].report, &lines[0].digest), (&lines[1].report, &lines[1].digest), "the same weights, tasks and seeds");
    assert_eq!(bench.best(), lines[0], "an equal that came later is not better");
    assert_eq!(learner.worked(), 0, "it leases nothing");
    // Started again, it measures nothing twice.
    let written = std::fs::read(bench.out().join(curve::EVALUATIONS)).expect("there");
    let (_, task) = bench.spawn(&address, None);
    end(task).await.expect("the run is over");
    assert_eq!(std::fs::read(bench.out().join(curve::EVALUATIONS)).expect("there"), written);
}

async fn what_is_gone_is_stood_in_for_by_the_newest_and_counted() {
    let bench = Bench::new();
    let (down, gone) = (skipped("down"), skipped("gone"));
    // Only the newest is published, and it is no multiple.
    let (learner, address) = Learner::serve(bench.version(7), 1);
    let (shutdown, task) = bench.spawn(&address, None);
    bench.until_measured(7).await;
    assert_eq!(bench.steps(), [(7, 6)]);
    assert_eq!((skipped("down") - down, skipped("gone") - gone), (3.0, 1.0), "0, 2 and 4 were before its time");
    learner.publisher.publish(bench.version(8));
    bench.until_measured(8).await;
    shutdown.trigger();
    end(task).await.expect("an orderly end");
    assert_eq!(bench.steps(), [(7, 6), (8, 8)]);
    let lines = bench.lines();
    let best = curve::best(&lines, curve::BestBy::Accuracy).expect("two");
    assert_eq!(&bench.best(), best);
}

async fn the_last_is_left_to_others_and_a_learner_that_reached_it_may_go() {
    let bench = Bench::new();
    let (learner, address) = Learner::serve(bench.version(3), 3);
    let (_, task) = bench.spawn(&address, Some(4));
    for version in [4, 5] {
        learner.publisher.publish(bench.version(version));
    }
    learner.finish();
    end(task).await.expect("the run is over");
    assert!(bench.steps().iter().all(|(step, _)| *step < 4), "{:?}", bench.steps());
}

async fn a_step_that_is_taken_again_is_measured_again() {
    let bench = Bench::new();
    let (learner, address) = Learner::serve(bench.version(4), 3);
    learner.finish();
    let (_, task) = bench.spawn(&address, None);
    end(task).await.expect("the run is over");
    let first = bench.lines();
    // It went back to a checkpoint, and came to other weights.
    let (learner, address) = Learner::serve(bench.with_weights_of(7, 4), 3);
    learner.finish();
    let (_, task) = bench.spawn(&address, None);
    end(task).await.expect("the run is over");
    let lines = bench.lines();
    assert_eq!(bench.steps(), [(4, 4)]);
    assert_ne!(lines[0].digest, first[0].digest, "the later line of a step counts");
    let best = bench.best();
    assert!(best == lines[0] || best == first[0], "one of both, with its weights");
}

async fn another_model_ends_it_with_its_reason() {
    let bench = Bench::new();
    let mut other = bench.weights.clone();
    let (name, mut tensor) = other.pop_first().expect("there is one");
    tensor.values[0] += 1.0;
    other.insert(format!("{name}.other"), tensor);
    let (_learner, address) = Learner::serve(Snapshot::new(&other, PolicyVersion(0)), 3);
    let (_, task) = bench.spawn(&address, None);
    let error = end(task).await.expect_err("no other try would end better");
    assert_eq!(hypereyes_chassis::exit::code_of(error.as_ref()), hypereyes_chassis::exit::BAD_INPUT, "{error}");
    assert!(error.to_string().contains("another model"), "{error}");
    assert_eq!(bench.lines(), []);
}

#[test]
fn the_folder_is_where_it_is_said_to_be() {
    assert_eq!([curve::EVALUATIONS, curve::BEST, curve::BEST_JSON].map(Path::new).map(Path::to_owned), {
        let folder = hypereyes_run::RunFolder::new("");
        [folder.evaluations(), folder.best(), folder.best_json()]
    });
}
