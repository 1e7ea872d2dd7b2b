//! `hypereyes synth` with a served model as explorer. In: tasks, an engine, the policy that is to learn. Out: a task folder with
//! demonstrations, and beside it what came of every task (`attempts.jsonl`), on what terms (`settings.json`), and everything that the
//! model wrote (`written.jsonl`). The same command goes on where it was cut.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use hypereyes_chassis::{BadInput, Findings, Shutdown};
use hypereyes_chat::Chat;
use hypereyes_dataset::{DataError, Demonstration, Growing, load_picture, load_tasks};
use hypereyes_domain::{PolicyVersion, Reference, Task, TaskId};
use hypereyes_environment::{BoxUnits, Search};
use hypereyes_miniature::tokenizer;
use hypereyes_pictures::{Limits, Picture};
use hypereyes_rollout::{ChatPlayer, Player, RolloutConfig, Setup, TokenPlayer};
use hypereyes_run::write_json;
use hypereyes_search::EmbeddedSearch;
use hypereyes_synth::served::{self, ATTEMPTS, Ended, Keeper, Ledger, Players, Served, Standing, Yields};
use hypereyes_synth::{Budgets, ClosedBook, SynthError, draw};
use hypereyes_teacher_service::vocabulary::Vocabulary;
use hypereyes_trainer::sft::checkpoint::Terms;
use hypereyes_world::World;
use serde::Serialize;
use serde_json::Value;

use super::terms::{SETTINGS, agree};
use super::writer::Written;
use super::{CLOSED_BOOK_TRIES, SynthArgs, split};
use crate::config::Config;
use crate::progress::Bar;
use crate::{check, endpoint, output, parts};

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    tasks: usize,
    /// Tasks that are neither done with nor failed: the run was stopped before.
    open: usize,
    #[serde(flatten)]
    yields: &'a Yields,
    usd: f64,
    passed_over: &'a BTreeMap<&'static str, usize>,
    model: &'a str,
    out: &'a Path,
}

/// Explores and writes.
///
/// # Errors
/// [`BadInput`] for what cannot work; an error where tasks are left that the same command takes up again.
pub(super) fn run(config: &Config, args: &SynthArgs, json: bool) -> Result<()> {
    parts::telemetry()?;
    hypereyes_synth::metrics::describe();
    let found = findings(config, args);
    found.result()?;
    found.warned().iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    let given = args.tasks.as_deref().map(|folder| given(folder, &args.out)).transpose()?;
    let runtime = parts::runtime()?;
    let shutdown = runtime.block_on(async { Shutdown::on_signal() }).context("cannot listen for signals")?;
    let world = parts::world(config)?;
    let learns = Learner::of(config, args, &world)?;
    // Tasks of the world are searched in it: no service is asked, or paid, for what is known here.
    let search: Option<Arc<dyn Search>> = if given.is_some() { None } else { Some(Arc::new(EmbeddedSearch::new(world.clone()))) };
    let Explorer { players, plain, name, setup } = runtime.block_on(Explorer::open(config, &world, &learns, search))?;
    let growing = Growing::new(&args.out).map_err(bad)?;
    let (tasks, pictures, passed_over) = match given {
        Some(tasks) => (tasks, args.tasks.clone().unwrap_or_default(), BTreeMap::new()),
        None => {
            let (tasks, passed_over) = drawn(config, args, &world, &growing)?;
            (tasks, args.out.clone(), passed_over)
        }
    };
    let terms = terms(config, args, &tasks, &learns, &name);
    agree(&args.out, ATTEMPTS, &terms)?;
    let mut ledger = Ledger::open(&args.out).map_err(bad)?;
    write_json(&args.out.join(SETTINGS), &terms)?;
    let judge = config.reward_service.judge.build(&config.reward_service.judge_model)?;
    let sampling = config.sampling.train.sampling();
    let closed_book = args.need_search.is_some().then(|| ClosedBook {
        player: plain,
        model: name.clone(),
        judge: judge.clone(),
        sampling,
        tries: CLOSED_BOOK_TRIES,
        at_most: 1,
    });
    let limits = Limits::default();
    let find = move |task: &Task| -> Result<Vec<Arc<Picture>>, String> {
        let one = |id| load_picture(&pictures, id, &limits).map(Arc::new).map_err(|error| error.to_string());
        task.pictures.iter().map(one).collect()
    };
    let serves = Served {
        players: players.clone(),
        model: name.clone(),
        judge,
        sampling,
        budgets: Budgets { max: config.synth.max_budget, samples: config.synth.samples },
        setup,
        closed_book,
        again: config.synth.served.again,
        at_once: config.synth.served.concurrency,
        seed: config.seed,
        pictures: Arc::new(find),
    };
    let mut keeping = Keeping {
        growing: &growing,
        written: Written::open(&args.out)?,
        bar: Bar::new("synth", "tasks"),
        prices: config.synth.served.prices(),
    };
    let explored = runtime.block_on(serves.explore(&tasks, &mut ledger, &mut keeping, shutdown.cancelled()));
    keeping.bar.done();
    explored?;
    let yields = yields(config, &tasks, &ledger);
    finish(growing, &tasks, &ledger, learns.tokenizer)?;
    let done = yields.kept + yields.unsolved + yields.known_by_heart;
    let open = tasks.len() - done - yields.failed;
    let usd = yields.bill.usd(config.synth.served.prices());
    if json {
        let (model, out) = (name.as_str(), args.out.as_path());
        output::json(&Report { tasks: tasks.len(), open, yields: &yields, usd, passed_over: &passed_over, model, out });
    } else {
        say(&yields, tasks.len(), usd, &name, &args.out);
    }
    if yields.failed + open > 0 {
        let stopped = if shutdown.is_triggered() { "stopped by a signal: " } else { "" };
        let why = failure(&tasks, &ledger).map(|why| format!(" ({why})")).unwrap_or_default();
        bail!(
            "{stopped}{} tasks of {} failed for reasons outside{why}, {open} were not tried: the same command goes on, and asks for nothing \
             again that came to something",
            yields.failed,
            tasks.len()
        );
    }
    Ok(())
}

fn bad(error: impl std::fmt::Display) -> BadInput {
    BadInput::new(error.to_string())
}

/// What cannot work, before anybody is called.
fn findings(config: &Config, args: &SynthArgs) -> Findings {
    let mut found = check::tasks(config);
    found.told("engine", config.engine.check());
    found.under("reward_service", config.reward_service.judge.findings(&config.reward_service.judge_model));
    found.extend(check::pairs::of_engine(config, None));
    let (most, env) = (config.synth.max_budget, &config.rollout.env);
    let rounds = env.max_rounds.min(env.max_turns.saturating_sub(1));
    if most > rounds {
        let message = format!(
            "is {most}, but an episode has rollout.env.max_rounds = {} and rollout.env.max_turns = {}: give at most {rounds}, or raise them",
            env.max_rounds, env.max_turns
        );
        found.refuse("synth.max_budget", message);
    }
    if config.engine.speaks_text() {
        if env.box_units == BoxUnits::Pixels {
            let message = "is pixels, but engine.kind is openai: a server counts the pixels of a picture as it is, and the policy those of the \
                           picture as it sees it; give ratio or thousandths";
            found.refuse("rollout.env.box_units", message);
        }
        if args.model.is_none() && args.tasks.is_some() {
            let message = "is missing: demonstrations are token ids; name the folder of the policy that is to learn from them (its tokenizer and \
                           chat template are read, its weights are not)";
            found.refuse("--model", message);
        }
    } else if args.model.is_none() {
        let kind = &config.engine.kind;
        found.refuse("--model", format!("is missing: with engine.kind {kind:?} the policy that explores is a folder; name it"));
    }
    if let Some(Some(folder)) = &args.need_search {
        let folder = folder.display();
        found.refuse("--need-search", format!("names {folder}, but who explores is asked itself: leave the folder out"));
    }
    found
}

/// The tasks of a folder.
fn given(folder: &Path, out: &Path) -> Result<Vec<Task>> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    if real(folder).is_some_and(|folder| real(out) == Some(folder)) {
        return Err(BadInput::new(format!(
            "--out is the folder of --tasks, {}: its tasks would be replaced; name another",
            folder.display()
        ))
        .into());
    }
    let tasks = load_tasks(folder).map_err(bad)?;
    if tasks.is_empty() {
        return Err(BadInput::new(format!("--tasks {} holds no task", folder.display())).into());
    }
    Ok(tasks)
}

/// Tasks of the world; their pictures are written at once.
fn drawn(config: &Config, args: &SynthArgs, world: &World, growing: &Growing) -> Result<(Vec<Task>, BTreeMap<&'static str, usize>)> {
    let mut tasks = vec![];
    let passed_over = draw(world, &config.synth, config.seed, split(args), |task, picture| {
        tasks.push(task);
        picture.map_or(Ok(()), |picture| growing.picture(&picture).map_err(file))
    });
    Ok((tasks, passed_over.map_err(bad)?))
}

fn file(error: DataError) -> SynthError {
    SynthError::Kept(error.to_string())
}

/// The policy that is to learn.
struct Learner {
    chat: Arc<Chat>,
    /// Digest of its vocabulary.
    tokenizer: Option<String>,
    folder: Option<PathBuf>,
    _scratch: tempfile::TempDir,
}

impl Learner {
    /// That of `--model`; without it a fresh one of the world's own words.
    fn of(config: &Config, args: &SynthArgs, world: &World) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        if args.model.is_none() {
            tokenizer::of_world(world, scratch.path()).map_err(bad)?;
        }
        let folder = args.model.as_deref().unwrap_or(scratch.path());
        let chat = parts::chat(folder)?;
        if args.tasks.is_none() {
            check::world::findings(config, world, &chat, config.rollout.max_context_tokens).result()?;
        }
        let tokenizer = Vocabulary::load(folder, chat.image_pad()).map_err(BadInput::new)?.digest();
        Ok(Self { chat, tokenizer: Some(tokenizer), folder: args.model.clone(), _scratch: scratch })
    }
}

/// Who explores, and what the policy that is to learn runs with.
struct Explorer {
    players: Players,
    /// The same without a budget, to be asked without tools.
    plain: Arc<dyn Player>,
    name: String,
    setup: Setup,
}

impl Explorer {
    /// Searches go to `search`, or where the settings say.
    async fn open(config: &Config, world: &Arc<World>, learns: &Learner, search: Option<Arc<dyn Search>>) -> Result<Self> {
        let rollout = config.rollout.clone();
        if config.engine.speaks_text() {
            let client = endpoint::client(config).await?;
            let name = endpoint::name_of(&client);
            let search = search.map_or_else(|| parts::search(config, world), Ok)?;
            let setup = parts::setup_with(config, search, learns.chat.clone());
            let player = Arc::new(ChatPlayer::new(client, setup.search.clone(), rollout.clone(), config.engine.request_timeout()));
            let plain = player.clone();
            let players = move |budget: u32, search: Arc<dyn Search>| -> Arc<dyn Player> {
                Arc::new(player.with(search, served::within(&rollout, budget, true)))
            };
            return Ok(Self { players: Arc::new(players), plain, name, setup });
        }
        let folder = learns.folder.as_deref().context("without a folder it is refused before")?;
        let (setup, generator) = parts::engine(config, world, folder, PolicyVersion(0)).await?;
        let setup = Setup { search: search.unwrap_or_else(|| setup.search.clone()), ..setup };
        let there = setup.clone();
        let plain = Arc::new(TokenPlayer { setup: setup.clone(), generator: generator.clone() });
        let players = move |budget: u32, search: Arc<dyn Search>| -> Arc<dyn Player> {
            let setup = Setup { search, config: served::within(&rollout, budget, false), ..there.clone() };
            Arc::new(TokenPlayer { setup, generator: generator.clone() })
        };
        Ok(Self { players: Arc::new(players), plain, name: format!("{} ({})", folder.display(), config.engine.kind), setup })
    }
}

/// What attempts depend on: under other terms they are others.
fn terms(config: &Config, args: &SynthArgs, tasks: &[Task], learns: &Learner, explorer: &str) -> Terms {
    let mut hasher = blake3::Hasher::new();
    for task in tasks {
        hasher.update(&serde_json::to_vec(task).expect("plain values"));
    }
    // How long one waits decides which tries fail, and those are made again.
    let rollout = RolloutConfig { turn_timeout_s: 0, ..config.rollout.clone() };
    let model = if config.engine.speaks_text() { explorer.split(" at ").next().unwrap_or(explorer) } else { explorer };
    Terms::default()
        .with("seed", &config.seed)
        .with("the tasks", &hasher.finalize().to_hex().to_string())
        .with("the explorer", &model)
        .with("the vocabulary of --model", &learns.tokenizer)
        .with("--need-search", &args.need_search.is_some())
        .with("synth.max_budget", &config.synth.max_budget)
        .with("synth.samples", &config.synth.samples)
        .with("sampling.train", &config.sampling.train)
        .with("rollout", &rollout)
        .with("search.text.backend", &config.search.text.backend)
        .with("search.image.backend", &config.search.image.backend)
        .with("reward_service.judge", &config.reward_service.judge.about(&config.reward_service.judge_model))
}

/// Keeps what comes while a run goes on.
struct Keeping<'a> {
    growing: &'a Growing,
    written: Written,
    bar: Bar,
    prices: [f64; 2],
}

impl Keeper for Keeping<'_> {
    fn wrote(&mut self, written: Value) -> Result<(), SynthError> {
        self.written.keep(&written).map_err(SynthError::Kept)
    }

    fn picture(&mut self, picture: &Picture) -> Result<(), SynthError> {
        self.growing.picture(picture).and_then(|()| self.growing.sync()).map_err(file)
    }

    fn stands(&mut self, standing: Standing) {
        let Standing { done, of, kept, failed, bill } = standing;
        let mut text = format!("kept {kept}");
        if failed > 0 {
            text.push_str(&format!(", {failed} failed"));
        }
        text.push_str(&format!(", {:.1} k tokens sent, {:.1} k said", bill.sent as f64 / 1e3, bill.said as f64 / 1e3));
        if self.prices != [0.0; 2] {
            text.push_str(&format!(", {:.2} USD", bill.usd(self.prices)));
        }
        self.bar.at(done, of, &text);
    }
}

fn yields(config: &Config, tasks: &[Task], ledger: &Ledger) -> Yields {
    Yields::of(tasks.iter().filter_map(|task| ledger.line(&task.id)), config.synth.max_budget)
}

/// Writes the tasks that have a demonstration, and those.
fn finish(growing: Growing, tasks: &[Task], ledger: &Ledger, tokenizer: Option<String>) -> Result<()> {
    let mut kept = vec![];
    for task in tasks.iter().filter(|task| ledger.line(&task.id).is_some_and(|line| line.ended == Ended::Kept)) {
        let cost = ledger
            .line(&task.id)
            .and_then(|line| line.attempts.last())
            .map(|last| Reference { rounds: last.rounds, searches: last.searches });
        let reference = cost.map(|cost| Reference::tighten(task.reference, cost));
        kept.push(Task { reference, ..task.clone() });
    }
    let one = |task: &TaskId| -> Result<Demonstration> {
        let kept = ledger.kept(task)?.with_context(|| format!("the demonstration of task {task} is not where it was"))?;
        Ok(Demonstration { task: task.clone(), trajectory: kept.trajectory })
    };
    growing.finish(&kept, kept.iter().map(|task| one(&task.id)), tokenizer)?;
    Ok(())
}

/// Why the first task failed that did.
fn failure(tasks: &[Task], ledger: &Ledger) -> Option<String> {
    let failed = tasks.iter().filter_map(|task| ledger.line(&task.id)).find(|line| line.ended == Ended::Failed)?;
    Some(format!("task {}: {}", failed.task, failed.reason))
}

fn say(yields: &Yields, tasks: usize, usd: f64, model: &str, out: &Path) {
    output::say(yields.table().trim_end());
    let Yields { kept, unsolved, known_by_heart, failed, bill, .. } = yields;
    output::say(&format!(
        "{kept} of {tasks} tasks kept, {unsolved} unsolved, {known_by_heart} known by heart, {failed} failed; explorer {model}; \
         {:.1} k tokens sent, {:.1} k said{}; {}",
        bill.sent as f64 / 1e3,
        bill.said as f64 / 1e3,
        if usd > 0.0 { format!(", {usd:.2} USD") } else { String::new() },
        out.display()
    ));
}
