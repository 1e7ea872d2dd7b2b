//! `hypereyes world check`: is this world pack usable, and by whom?
//!
//! In: a pack, settings of tasks and of the policy. Out: everything that is wrong with its files; then what is ambiguous in it: names that a
//! search confuses, pictures that it takes for each other, documents that cannot be read back; the questions that can be made; what its
//! names take in a policy's tokens. It searches as a rollout would, and writes nothing.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_chat::Chat;
use hypereyes_domain::TaskId;
use hypereyes_environment::{Hit, Query, Search};
use hypereyes_miniature::tokenizer;
use hypereyes_pictures::{Filter, RgbImage, resize};
use hypereyes_search::EmbeddedSearch;
use hypereyes_synth::tasks::Drawer;
use hypereyes_synth::{KindMix, Split, SynthConfig};
use hypereyes_world::document::Fact;
use hypereyes_world::{Document, World};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Serialize;

use crate::check::models::Folders;
use crate::check::world::{Names, names};
use crate::config::Config;
use crate::progress::Bar;
use crate::{output, parts};

/// Draws of each kind of question.
const DRAWS: usize = 2000;
/// The layer that is searched: names and facts are dealt anew in it, as in training.
const LAYER: u64 = 1;
/// Entities that are searched for; of a larger world the first.
const SEARCHED: usize = 2000;
/// Width and height of a picture as a tile of the usual mosaic shows it.
const TILE: (u32, u32) = (64, 43);
/// Relevance of another entity's picture, as a part of its own, from which the two count as look-alikes.
const ALIKE: f64 = 0.6;
/// Things of one kind that are named; behind them they are counted.
const NAMED: usize = 10;
/// Share of facts or pictures that a search does not find, above which a world is of no use.
const LOST: f64 = 0.5;

/// Arguments of `world check`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes world check worlds/mine\n  hypereyes world check worlds/mine --json\n  \
    hypereyes world check worlds/mine --set policy=policies/mine            whether that policy can read it\n\n\
    Ends with 2 where a problem stops: then no task can be made of the pack. worlds/countries/README.md has the format, and \
    `hypereyes coldstart --world DIR` makes a policy and a teacher of a sound one.")]
pub struct CheckArgs {
    /// The world pack: a folder with world.toml, entities.jsonl and pictures/.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// What `--json` prints. Field order is the order of the keys.
#[derive(Debug, Default, Serialize)]
struct Checked {
    entities: usize,
    /// Everything that is wrong or ambiguous, one sentence each.
    problems: Vec<String>,
    /// Those of them with which no task can be made.
    stopping: Vec<String>,
    /// Different questions among [`DRAWS`] draws, by kind of task.
    questions: BTreeMap<String, usize>,
    /// Tokens of a name in the policy's tokenizer.
    tokens_per_name: Option<Tokens>,
    /// Whether the policy can read the world at all; one that is made of it always can.
    policy_reads_it: bool,
    /// Names and values that are searched for and found, of all that were.
    found: [usize; 2],
    /// Pairs of pictures that a search takes for each other, the likest first.
    look_alikes: Vec<Pair>,
    /// Smallest and largest picture as it is kept: width and height.
    pictures: Vec<(u32, u32)>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Tokens {
    mean: f64,
    max: usize,
}

/// Two entities whose pictures are alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Pair {
    one: String,
    other: String,
    /// Relevance of the other for a tile of the first.
    relevance: f64,
    /// Whether world.toml says so; then they are never on one picture.
    declared: bool,
}

impl Checked {
    fn stop(&mut self, problem: String) {
        let problem = problem.split_whitespace().collect::<Vec<_>>().join(" ");
        self.stopping.push(problem.clone());
        self.problems.push(problem);
    }

    /// One problem for many cases of it, of which the first are named.
    fn many(&mut self, what: &str, cases: &[String]) {
        if !cases.is_empty() {
            let more = cases.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            self.problems.push(format!("{what}: {}{more}", cases[..cases.len().min(NAMED)].join("; ")));
        }
    }
}

/// Checks and says what was found.
///
/// # Errors
/// [`BadInput`] with the first problem that stops.
pub fn run(config: &Config, args: &CheckArgs, json: bool) -> Result<()> {
    if !config.world.as_os_str().is_empty() {
        return Err(
            BadInput::new(format!("world is {}, and {} is checked: leave it out", config.world.display(), args.dir.display())).into()
        );
    }
    config.synth.check().map_err(|error| BadInput::new(error.to_string()))?;
    let mut checked = Checked::default();
    match World::check(&args.dir) {
        Ok(world) => looked_at(config, Arc::new(world), &mut checked)?,
        Err(problems) => problems.iter().for_each(|problem| checked.stop(problem.to_string())),
    }
    match json {
        true => output::json(&checked),
        false => say(&checked, &args.dir),
    }
    let more = checked.stopping.len().saturating_sub(1);
    match checked.stopping.first() {
        None => Ok(()),
        Some(problem) if more > 0 => Err(BadInput::new(format!("{problem} (and {more} more)")).into()),
        Some(problem) => Err(BadInput::new(problem.clone()).into()),
    }
}

fn looked_at(config: &Config, world: Arc<World>, checked: &mut Checked) -> Result<()> {
    checked.entities = world.entities().len();
    let by_area = |picture: &&RgbImage| u64::from(picture.width()) * u64::from(picture.height());
    let (smallest, largest) = (world.pictures().iter().min_by_key(by_area), world.pictures().iter().max_by_key(by_area));
    checked.pictures = [smallest, largest].into_iter().flatten().map(RgbImage::dimensions).collect();
    said_twice(&world, checked);
    unread(&world, checked);
    questions(&config.synth, &world, checked);
    let bar = Bar::new("world check", "searches");
    parts::runtime()?.block_on(searched(&world, checked, &bar));
    bar.done();
    let folders = Folders::of(&Config { up: crate::config::UpConfig { distill: false, ..config.up.clone() }, ..config.clone() })?;
    let own = tempfile::tempdir()?;
    match tokenizer::of_world(&world, own.path()).and_then(|_| Chat::load(own.path())) {
        Ok(_) => {}
        Err(error) => checked.stop(format!("no tokenizer can be made of its words: {error}")),
    }
    let told: Names = names(&world, &*parts::chat(&folders.policy)?);
    checked.tokens_per_name = Some(Tokens { mean: told.mean, max: told.most });
    checked.policy_reads_it = !told.are_strange();
    Ok(())
}

/// Names that are also values, and values of two relations: a question with one of them has two meanings to who reads it.
fn said_twice(world: &World, checked: &mut Checked) {
    let names: HashSet<String> = world.entities().iter().map(|entity| entity.name.to_lowercase()).collect();
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    let (mut as_name, mut as_other) = (vec![], vec![]);
    for (number, relation) in world.relations().iter().enumerate().filter(|(_, relation)| relation.askable) {
        let values: HashSet<&str> = world.entities().iter().map(|entity| entity.facts[number].as_str()).collect();
        let mut values: Vec<&str> = values.into_iter().collect();
        values.sort_unstable();
        for value in values {
            if names.contains(&value.to_lowercase()) {
                as_name.push(format!("{} {value:?}", relation.label));
            }
            if let Some(other) = seen.insert(value.to_lowercase(), &relation.label) {
                as_other.push(format!("{value:?} ({other} and {})", relation.label));
            }
        }
    }
    checked.many("values that are also names, so that a search for one finds the other", &as_name);
    checked.many("values of two relations, of which a question may mean either", &as_other);
}

/// Documents that do not tell what they were written of: a name or a value has words in it that a sentence is taken apart by.
fn unread(world: &World, checked: &mut Checked) {
    let layer = world.layer(0);
    let mut cases = vec![];
    for entity in 0..layer.entities().len() {
        for (number, relation) in layer.relations().iter().enumerate().filter(|(_, relation)| relation.askable) {
            let Document { title, content } = Document::of_fact(&layer, entity, number);
            let (name, value) = (layer.name_at(entity), layer.fact_at(entity, number));
            if Document::facts(&title, &content) != [Fact { name: name.into(), label: Some(relation.label.clone()), value: value.into() }] {
                cases.push(format!("{content:?}"));
            }
        }
    }
    checked
        .many("documents that are read back as another fact (avoid \" is \", \" are \", \"'s \" and \", \" in names and values)", &cases);
}

/// Draws questions of each kind, for training and held out.
fn questions(config: &SynthConfig, world: &World, checked: &mut Checked) {
    let none = KindMix { visual_select: 0.0, visual_hop: 0.0, textual: 0.0 };
    let alone =
        [KindMix { visual_select: 1.0, ..none.clone() }, KindMix { visual_hop: 1.0, ..none.clone() }, KindMix { textual: 1.0, ..none }];
    for (mix, (kind, key, _)) in alone.into_iter().zip(config.kinds.shares()) {
        let asked = SynthConfig { kinds: mix, ..config.clone() };
        let mut held_out = 0;
        for split in [Split::Train, Split::HeldOut] {
            let drawer = match Drawer::new(world, &asked, split) {
                Ok(drawer) => drawer,
                Err(error) => {
                    // The kind can be left out, as long as another is left.
                    checked.questions.insert(kind.to_string(), 0);
                    checked.problems.push(format!("of the kind {kind}: {error}"));
                    break;
                }
            };
            let mut random = ChaCha8Rng::seed_from_u64(0);
            let mut different = HashSet::new();
            for at in 0..DRAWS {
                let id = TaskId::new(format!("check-{at}"));
                if let Ok(draft) = drawer.draw(id, &kind, drawer.layer(at, DRAWS), &mut random) {
                    different.insert((draft.task.question, draft.task.answers));
                }
            }
            match split {
                Split::Train => drop(checked.questions.insert(kind.to_string(), different.len())),
                Split::HeldOut => held_out = different.len(),
            }
        }
        let made = checked.questions[kind.as_str()];
        if made == 0 || held_out == 0 {
            let which = if made == 0 { "made" } else { "held out" };
            let problem =
                format!("no question of the kind {kind} can be {which} in {DRAWS} draws: say --set synth.{key}=0 wherever tasks are made");
            checked.problems.push(problem);
        }
    }
    if checked.questions.values().all(|count| *count == 0) {
        checked.stop("no question can be made of it at all".to_owned());
    }
}

/// Searches every fact by the words that a rollout would use, and every picture by a tile of it.
async fn searched(world: &Arc<World>, checked: &mut Checked, bar: &Bar) {
    let search = EmbeddedSearch::new(world.clone());
    let layer = world.layer(LAYER);
    let askable: Vec<usize> = (0..layer.relations().len()).filter(|number| layer.relations()[*number].askable).collect();
    let count = layer.entities().len().min(SEARCHED);
    let (mut lost, mut astray, mut alike): (Vec<String>, Vec<String>, Vec<Pair>) = (vec![], vec![], vec![]);
    let mut seen: HashSet<(usize, usize)> = HashSet::new();
    let place = |name: &str| layer.entity_named(name).and_then(|id| layer.entities().position(|known| known == id));
    let id = |entity: usize| world.entities()[entity].id.to_string();
    for entity in 0..count {
        bar.at(entity + 1, count, &layer.name_at(entity).chars().take(40).collect::<String>());
        let query = |number: &usize| Query::Text(format!("{} {}", layer.name_at(entity), layer.relations()[*number].label));
        let queries: Vec<Query> = askable.iter().map(query).collect();
        for (number, outcome) in askable.iter().zip(search.search(LAYER, &queries).await) {
            let want = Document::of_fact(&layer, entity, *number);
            let hits: Vec<Hit> = outcome.unwrap_or_default();
            if hits.first().is_none_or(|hit| (&hit.title, &hit.content) != (&want.title, &want.content)) {
                let found = hits.first().map_or("nothing", |hit| hit.content.as_str());
                lost.push(format!("{:?} finds {found:?}", format!("{} {}", layer.name_at(entity), layer.relations()[*number].label)));
            }
        }
        let tile = Query::Picture(Arc::new(resize(&world.pictures()[entity], TILE.0, TILE.1, Filter::Bicubic)));
        let hits: Vec<Hit> = search.search(LAYER, &[tile]).await.pop().and_then(Result::ok).unwrap_or_default();
        let found: Vec<(usize, f64)> = hits.iter().filter_map(|hit| Some((place(&hit.title)?, hit.score?))).collect();
        if found.first().is_none_or(|(first, _)| *first != entity) {
            let other = found.first().map_or_else(|| "nothing".to_owned(), |(first, _)| id(*first));
            astray.push(format!("{} is taken for {other}", id(entity)));
        }
        let own = found.iter().find(|(place, _)| *place == entity).map_or(1.0, |(_, relevance)| *relevance);
        for (other, relevance) in found.into_iter().filter(|(other, relevance)| *other != entity && *relevance >= ALIKE * own) {
            if seen.insert((entity.min(other), entity.max(other))) {
                let (one, another) = (&world.entities()[entity].id, &world.entities()[other].id);
                alike.push(Pair { one: id(entity), other: id(other), relevance, declared: world.alike(one, another) });
            }
        }
    }
    alike.sort_by(|one, other| other.relevance.total_cmp(&one.relevance));
    let facts = count * askable.len();
    checked.found = [facts - lost.len() + count - astray.len(), facts + count];
    if lost.len() as f64 > LOST * facts as f64 {
        checked.stop(format!(
            "{} of {facts} facts are not found by the name and the relation: names have to differ in their words",
            lost.len()
        ));
    }
    if astray.len() as f64 > LOST * count as f64 {
        checked.stop(format!("{} of {count} pictures are taken for another entity's", astray.len()));
    }
    checked.many("facts that are not found by name and relation", &lost);
    checked.many("pictures that are taken for another entity's", &astray);
    let undeclared: Vec<String> =
        alike.iter().filter(|pair| !pair.declared).map(|pair| format!("{} and {} ({:.2})", pair.one, pair.other, pair.relevance)).collect();
    checked.many("pictures that look alike (put the pairs into look_alikes of world.toml, and they are never shown together)", &undeclared);
    checked.look_alikes = alike;
    if layer.entities().len() > count {
        checked.problems.push(format!("only the first {count} entities were searched for"));
    }
}

fn say(checked: &Checked, dir: &Path) {
    if checked.entities == 0 {
        output::say(&format!("{}: no world that can be used", dir.display()));
    } else {
        let size = |at: usize| checked.pictures.get(at).map_or_else(String::new, |(width, height)| format!("{width}x{height}"));
        output::say(&format!("entities    {}, pictures from {} to {} as they are kept", checked.entities, size(0), size(1)));
        let kinds: Vec<String> = checked.questions.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        output::say(&format!("questions   different ones in {DRAWS} draws of each kind: {}", kinds.join(", ")));
        output::say(&format!("searches    {} of {} find what they are for", checked.found[0], checked.found[1]));
        output::say(&format!("look-alikes {} pairs, {} of them in world.toml", checked.look_alikes.len(), declared(checked)));
        if let Some(Tokens { mean, max }) = checked.tokens_per_name {
            output::say(&format!(
                "names       {mean:.1} tokens on average in the policy's tokenizer, {max} at most; one in that of a policy of its own"
            ));
        }
        let who = if checked.policy_reads_it {
            "the policy, and one of its own"
        } else {
            "a policy of its own (`hypereyes coldstart`): the tokenizer of this one spells its names byte by byte, and it was trained on none of them"
        };
        output::say(&format!("usable by   {who}"));
    }
    for problem in &checked.problems {
        let mark = if checked.stopping.contains(problem) { "stops" } else { "note " };
        output::say(&format!("{mark}       {problem}"));
    }
}

fn declared(checked: &Checked) -> usize {
    checked.look_alikes.iter().filter(|pair| pair.declared).count()
}
