//! An evaluator: follows a learner's versions as an actor does, measures some of them on held-out tasks, and keeps the best.
//!
//! In: a policy folder, a world, tasks, the learner's address. Out: a line of `evaluations.jsonl` per version, the best policy in `best/`.
//! It leases nothing and hands nothing in: a learner does not know whether there is one, and trains the same either way. One that dies
//! goes on behind what it has written.
//!
//! It knows no gradient and no reward. Protobuf messages are in [`service`] only.

pub mod config;
pub mod following;
pub mod journal;
pub mod measuring;
pub mod metrics;
pub mod schedule;
pub mod service;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use hypereyes_chassis::backoff::Backoff;
use hypereyes_chassis::{BadInput, Health, ServiceProcess, ServiceProgram, Shutdown, Work};
use hypereyes_dataset::{PictureFiles, load_tasks};
use hypereyes_engines::{Engine, OpenError, Opened, open_folder};
use hypereyes_eval::TaskSet;
use hypereyes_pictures::{Limits, Store};
use hypereyes_policy::checkpoint::Snapshot;
use hypereyes_proto::client;
use hypereyes_rollout::{RolloutConfig, Setup, TokenPlayer};
use hypereyes_weights::{Announcements, Held};
use hypereyes_world::World;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use crate::config::Config;
use crate::following::{Said, follow};
pub use crate::journal::Journal;
use crate::measuring::{Measure, Measuring};
use crate::schedule::Schedule;

/// The service, for a process of its own or somebody else's.
pub struct Evaluator;

impl ServiceProcess for Evaluator {
    const NAME: &'static str = "hypereyes-evaluator";
    const ABOUT: &'static str = "Measures a learner's versions on held-out tasks and keeps the best";
    const ENV: &'static str = "HYPEREYES_EVALUATOR";
    type Config = Config;

    fn run(config: Config, shutdown: Shutdown) -> Work {
        run(config, shutdown)
    }
}

/// An evaluator as a program.
pub static PROGRAM: ServiceProgram = ServiceProgram::of::<Evaluator>(env!("CARGO_PKG_VERSION"));

/// Works until the learner says that the run is over and all is measured that was due, or `shutdown`. Must be called inside a
/// multi-threaded tokio runtime.
///
/// # Errors
/// [`BadInput`] when a setting, the policy, the tasks or the world cannot be used; other errors when a port cannot be taken. A learner
/// that is away is not an error.
pub fn run(config: Config, shutdown: Shutdown) -> Work {
    Box::pin(work(config, shutdown))
}

async fn work(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let process = config.process.start(&config.findings())?;
    metrics::describe();
    hypereyes_eval::metrics::describe();
    hypereyes_judge::metrics::describe();
    hypereyes_rollout::metrics::describe();
    hypereyes_environment::metrics::describe();
    hypereyes_search::metrics::describe();
    hypereyes_weights::metrics::describe();
    hypereyes_engines::metrics::describe();
    hypereyes_pictures::metrics::describe();
    // A pool that is there already is as good.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(config.threads).build_global();
    let health = Health::new().await;
    let security = process.security().clone();
    let watched = process.watched(&health, &shutdown).await?;
    let learner = client::secure(&security).learner(&config.learner).map_err(|error| BadInput::new(format!("learner: {error}")))?;
    let judge = config.judge.build(&config.judge_model)?;
    let loading = config.clone();
    let loaded = tokio::task::spawn_blocking(move || Loaded::new(&loading)).await;
    let Loaded { setup, engine, base, set, journal } = loaded.context("the policy could not be loaded")??;
    match shutdown.race(engine.ready()).await {
        Some(ready) => ready.map_err(OpenError::from)?,
        None => return Ok(()),
    }
    watched.announce(None)?;
    // It serves nothing, so that ready means: it follows.
    health.ready().await;
    if let Some(last) = journal.last() {
        metrics::show(last);
    }
    let (every, tasks, next) = (config.eval.every, set.tasks.len(), journal.next());
    tracing::info!(learner = config.learner, every, tasks, next, "evaluator up");

    let (said, heard) = watch::channel(Said::default());
    let said = Arc::new(said);
    let mut measuring = Measuring {
        held: Held::new(learner.clone(), engine.clone(), base, config.fetch_time()),
        measure: Measure {
            player: Arc::new(TokenPlayer { setup, generator: engine }),
            judge,
            set,
            sampling: config.sampling.sampling(),
            config: config.eval,
        },
        schedule: Schedule::new(every, config.last, next),
        journal,
        backoff: Backoff::new(&config.backoff),
        fresh: true,
    };
    let announcements = Announcements::new(learner.clone(), &config.backoff);
    let (last, telling) = (config.last, said.clone());
    // A task of its own: a policy that is being saved blocks this one, and a learner says only for seconds that the run is over.
    let mut following = JoinSet::new();
    following.spawn(async move { follow(announcements, learner, last, &telling).await });
    tokio::select! {
        done = measuring.run(heard, &shutdown) => done?,
        Some(ended) = following.join_next() => {
            let Err(misfit) = ended.context("nobody follows the learner any more")?;
            return Err(misfit.into());
        }
    }
    tracing::info!("evaluator done");
    Ok(())
}

/// What is read from disk before the first version.
struct Loaded {
    setup: Setup,
    engine: Engine,
    base: Snapshot,
    set: TaskSet,
    journal: Journal,
}

impl Loaded {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let set = held_out(&config.tasks, config.eval.every_tasks)?;
        let journal = Journal::open(&config.out, &config.policy, config.eval.best)?;
        let world = || config.world.as_deref().map_or_else(World::embedded, World::load).map(Arc::new);
        let search = hypereyes_search::open(&config.search, world);
        let search = search.map_err(|error| BadInput::new(format!("{}: {error}", error.key())))?;
        let pictures = Arc::new(Store::new(config.pictures_bytes, Limits::default()));
        let Opened { chat, engine, base } = open_folder(&config.engine, &config.policy, config.eval.max_picture_tokens, &pictures)?;
        let context = config.rollout.max_context_tokens.min(config.engine.max_context);
        // An episode that knows of the engine's limit ends as `context_full`; one that runs into it would be left out.
        let rollout = RolloutConfig { max_context_tokens: context, ..config.rollout.clone() };
        Ok(Self { setup: Setup { chat, search, pictures, config: rollout }, engine, base, set, journal })
    }
}

/// The first `most` tasks of a folder, all of them for 0; their pictures are read when they are needed.
fn held_out(folder: &Path, most: usize) -> Result<TaskSet, BadInput> {
    let named = |error: hypereyes_dataset::DataError| BadInput::new(format!("tasks: {error}"));
    let mut tasks = load_tasks(folder).map_err(named)?;
    if tasks.is_empty() {
        return Err(BadInput::new(format!("tasks: {} holds no task", folder.display())));
    }
    if most > 0 {
        tasks.truncate(most);
    }
    let pictures = PictureFiles::of_tasks(folder, &tasks, Limits::default()).map_err(named)?;
    Ok(TaskSet::new(tasks, move |id| pictures.load(id).map(Arc::new).map_err(|error| error.to_string())))
}

#[cfg(test)]
mod tests {
    use hypereyes_miniature::shipped::Shipped;

    use super::*;

    #[test]
    fn the_default_config_survives_json_and_refuses_unknown_keys() {
        let text = serde_json::to_string(&Config::default()).expect("a config is plain data");
        assert_eq!(serde_json::from_str::<Config>(&text).expect("reads back"), Config::default());
        assert!(serde_json::from_str::<Config>(r#"{"evry":1}"#).is_err());
        assert!(Config::default().check().is_ok());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_used_is_bad_input_by_the_name_of_its_key() {
        let usual = Config::default;
        let cases = [
            ("tasks: ", Config { tasks: "/nowhere/tasks".into(), ..usual() }),
            ("eval.samples is 99", Config { eval: hypereyes_eval::EvalConfig { samples: 99, ..usual().eval }, ..usual() }),
            ("learner cannot be called", Config { learner: "learner".into(), ..usual() }),
            ("eval.every is 0", Config { eval: hypereyes_eval::EvalConfig { every: 0, ..usual().eval }, ..usual() }),
            ("engine.kind is openai", {
                let url = vec!["http://127.0.0.1:1/v1".into()];
                Config { engine: hypereyes_engines::EngineConfig { kind: "openai".into(), url, ..usual().engine }, ..usual() }
            }),
        ];
        for (part, config) in cases {
            let error = run(config, Shutdown::new()).await.expect_err(part);
            assert_eq!(hypereyes_chassis::exit::code_of(error.as_ref()), hypereyes_chassis::exit::BAD_INPUT, "{error}");
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }

    /// The start policy and one task.
    fn made(folder: &Path) -> Config {
        let config = Config { policy: folder.join("policy"), tasks: folder.join("tasks"), out: folder.join("out"), ..Config::default() };
        Shipped::Policy.unpack(&config.policy).expect("is shipped");
        std::fs::create_dir(&config.tasks).expect("a folder");
        let row = r#"{"id": "a", "kind": "k", "question": "q", "answers": ["1"]}"#;
        std::fs::write(config.tasks.join(hypereyes_dataset::TASKS), row).expect("written");
        config
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pictures_are_no_larger_than_before_and_after_training() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = made(folder.path());
        let most = |config: &Config| {
            let processor = Loaded::new(config).expect("loads").setup.chat.processor().clone();
            processor.max_pixels / (processor.factor() * processor.factor())
        };
        let usual = most(&config);
        config.eval.max_picture_tokens = 4;
        assert!(usual > 4);
        assert_eq!(most(&config), 4);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_set_without_a_task_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = made(folder.path());
        std::fs::write(config.tasks.join(hypereyes_dataset::TASKS), "").expect("written");
        let error = run(config, Shutdown::new()).await.expect_err("nothing can be measured");
        assert!(error.to_string().contains("holds no task"), "{error}");
    }
}
