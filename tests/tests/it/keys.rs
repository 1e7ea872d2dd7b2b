//! Every key of the settings is read by somebody, arrives where it is said, and is documented.
//!
//! What this shows, for every key that a user can write under any command or service:
//! - **read**: some product function reads the field, other than its struct's default and check, findings, debug output and log lines.
//!   Types are followed, so that a read of another struct's `seed` does not count; a settings struct's own accessor counts only where it
//!   is called by somebody else.
//! - **arrives**: what is said of a service under `up` is in the file that this service is started with, or `up` refuses it by name.
//! - **documented**: `docs/configuration.md` has the table that the structs' documentation makes.
//!
//! What it does not show: that the value which is read makes a difference. A field that is read into a product with zero passes; the
//! tests of each part are there for that, and so is the sample of effects in `crates/hypereyes/tests/it/every_key.rs`.

use std::collections::BTreeMap;

use hypereyes::check::leaves::is_in;
use hypereyes::check::overwritten::{self, FILLED_IN};
use hypereyes::config::Config;
use hypereyes::services::{self, Services};
use hypereyes_chassis::config::load_from;
use hypereyes_run::RunFolder;
use hypereyes_tests::keys::{Key, Name, Program, Reads, keys, program, unread};
use hypereyes_tests::root;
use toml::{Table, Value};

/// Keys that nobody reads, each with why it may stay. Empty, and to stay so.
const ALLOWED: &[(&str, &str)] = &[];

fn settings() -> Name {
    Name::new("hypereyes", "Config")
}

fn dead(texts: &[(String, String, String)]) -> Vec<String> {
    let program = Program::of(texts);
    unread(&keys(&program, &settings()), &Reads::of(&program))
}

#[test]
fn every_key_is_read_by_somebody() {
    let texts = program::texts(&root());
    let program = Program::of(&texts);
    let found = keys(&program, &settings());
    assert!(found.iter().filter(|key| !key.is_table).count() > 280, "{} keys", found.len());
    let dead = dead(&texts);
    let strange: Vec<&String> = dead.iter().filter(|key| !ALLOWED.iter().any(|(known, _)| key.starts_with(&format!("{known} ")))).collect();
    assert!(strange.is_empty(), "keys that nobody reads: {strange:#?}");
    for (known, _) in ALLOWED {
        assert!(dead.iter().any(|key| key.starts_with(&format!("{known} "))), "{known} is read: take it off the list");
    }
}

/// A key that is planted in the real sources is found, whatever pretends to read it.
#[test]
fn a_planted_key_that_nobody_reads_is_found() {
    let texts = program::texts(&root());
    let before = dead(&texts);
    let plant = |file: &str, after: &str, text: &str, more: &[(&str, &str)]| {
        let mut planted = texts.clone();
        let (_, _, source) = planted.iter_mut().find(|(_, path, _)| path == file).expect(file);
        for (after, text) in [(after, text)].iter().chain(more) {
            assert!(source.contains(after), "{file} has no {after}");
            *source = source.replacen(after, &format!("{after}\n{text}"), 1);
        }
        dead(&planted).into_iter().filter(|key| !before.contains(key)).collect::<Vec<_>>()
    };
    // Its default, its check and a log line know it; nobody else does.
    let checked = [
        ("fn default() -> Self {\n        Self {", "            patience_s: 3,"),
        ("        let mut found = Findings::default();", "        found.span(\"patience_s\", self.patience_s, 1, 1);"),
    ];
    let learner = plant("learner/src/config.rs", "pub struct Config {", "    /// Patience.\n    pub patience_s: u64,", &checked);
    assert_eq!(learner, ["learner.patience_s (hypereyes_learner::Config::patience_s)"]);
    // A name that half of all structs have.
    let common = plant("crates/hypereyes/src/config.rs", "pub struct UpConfig {", "    /// A seed.\n    pub seed: u64,", &[]);
    assert_eq!(common, ["up.seed (hypereyes::UpConfig::seed)"]);
    // Only its own accessor reads it, and nobody calls that.
    let accessor = [("impl RolloutConfig {", "    /// Warmth.\n    pub fn heat(&self) -> f32 {\n        self.warmth\n    }\n")];
    let mut rollout =
        plant("crates/rollout/src/config.rs", "pub struct RolloutConfig {", "    /// Warmth.\n    pub warmth: f32,", &accessor);
    rollout.sort();
    let want =
        ["actor.rollout", "evaluator.rollout", "rollout"].map(|table| format!("{table}.warmth (hypereyes_rollout::RolloutConfig::warmth)"));
    assert_eq!(rollout, want);
}

/// How a reader is told from who is none, on a page.
#[test]
fn reads_are_told_by_type() {
    let text = "
        #[derive(Default, Deserialize)] pub struct Config { pub seed: u64, pub part: Part, pub many: Vec<Part>, pub way: Way, pub quiet: u8 }
        #[derive(Deserialize)] pub struct Part { pub seed: u64, pub size: u32, pub dead: u32, pub logged: u32, pub written: u32, pub asked: u32 }
        #[derive(Deserialize)] pub enum Way { Short { steps: u32, never: u32 }, Long }
        pub struct Other { pub dead: u32, pub quiet: u8 }
        impl Part { fn check(&self) -> bool { self.dead > 0 } fn size(&self) -> u32 { self.size } }
        fn work(config: &Config, other: &Other) {
            let (part, many) = (&config.part, config.many.iter().map(|part| part.seed));
            tracing::info!(logged = part.logged);
            let read = other.dead + part.size() + u32::from(other.quiet);
            if let Way::Short { steps, .. } = &config.way { println!(\"{}\", steps) }
            tokio::select! { x = wait(part.asked) => {} }
        }
        fn set(config: &mut Config) { config.part.written = 1; }
        #[cfg(test)] mod tests { fn t(c: &super::Config) { c.quiet; c.part.dead; } }
    ";
    let program = Program::of(&[("a".to_owned(), "a.rs".to_owned(), text.to_owned())]);
    let dead = unread(&keys(&program, &Name::new("a", "Config")), &Reads::of(&program));
    let paths: Vec<&str> = dead.iter().map(|key| key.split(' ').next().expect("a path")).collect();
    assert_eq!(
        paths,
        ["many.dead", "many.logged", "many.written", "part.dead", "part.logged", "part.written", "quiet", "seed", "way.never"]
    );
}

/// Values of which one is another than the default, whatever the key's type.
const OTHERS: &[&str] = &[
    "3",
    "5",
    "64",
    "1000",
    "0.75",
    "0.5",
    "true",
    "false",
    "[-2.0, 3.0]",
    "[0.5, 0.5]",
    "\"mean\"",
    "\"replay\"",
    "\"bf16\"",
    "\"exact\"",
    "\"hle\"",
    "\"static\"",
    "\"all\"",
    "\"nccl\"",
    "\"s3\"",
    "\"cuda\"",
    "\"cas\"",
    "\"model\"",
    "\"thousandths\"",
    "\"scattered\"",
    "\"127.0.0.1:9\"",
    "\"0.0.0.0\"",
    "\"/elsewhere\"",
    "[\"/elsewhere\"]",
    "[{env = \"KEY\", hosts = [\"https://h\"]}]",
    "[{prefix = \"model\", rate = 0.5}]",
    "[{backend = \"searxng\"}]",
];

fn flat(table: &Table, prefix: &str, into: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        match value {
            Value::Table(inner) => flat(inner, &format!("{prefix}{key}."), into),
            value => drop(into.insert(format!("{prefix}{key}"), value.clone())),
        }
    }
}

/// The settings with another value of a key, and that value.
fn with_another(key: &str) -> Option<(Config, Value)> {
    let of = |config: &Config| {
        let mut found = BTreeMap::new();
        flat(&Table::try_from(config).expect("settings are TOML"), "", &mut found);
        found.get(key).cloned()
    };
    let usual = of(&Config::default());
    OTHERS.iter().find_map(|value| {
        let config = load_from(Config::default(), None, "X", [], &[format!("{key}={value}")]).ok()?;
        let said = of(&config).filter(|said| Some(said) != usual.as_ref())?;
        Some((config, said))
    })
}

/// What is said of a service is in the file that `up` starts it with, or refused by name.
#[test]
fn what_is_said_of_a_service_arrives_or_is_refused_by_name() {
    let program = Program::of_workspace(&root());
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let folder = RunFolder::new(scratch.path());
    let _held = folder.hold().expect("the folder can be made");
    let services = [
        ("learner", services::LEARNER.to_owned()),
        ("actor", services::actor(0)),
        ("evaluator", services::EVALUATOR.to_owned()),
        ("reward_service", services::REWARD.to_owned()),
        ("teacher_service", services::TEACHER.to_owned()),
    ];
    let (mut arrived, mut refused, mut lost, mut unsaid) = (0, 0, vec![], vec![]);
    for (table, service) in &services {
        for Key { path, .. } in leaves_of(&program, table) {
            let Some((config, said)) = with_another(&path) else {
                unsaid.push(path);
                continue;
            };
            let planned = Services::planned(&config, &folder).expect("the current folder is there");
            planned.write(service).expect("the folder is writable");
            let text = std::fs::read_to_string(folder.service_config(service)).expect("just written");
            let mut given = BTreeMap::new();
            flat(&text.parse().expect("TOML"), &format!("{table}."), &mut given);
            if given.get(&path) == Some(&said) {
                arrived += 1;
            } else if overwritten::findings(&config).refused().iter().any(|finding| is_in(&path, &finding.key)) {
                refused += 1;
            } else {
                lost.push(format!("{path} = {said}: started with {:?}", given.get(&path)));
            }
        }
    }
    println!("{arrived} arrive, {refused} are refused");
    assert!(arrived > 120 && refused > 40, "{arrived} arrive, {refused} are refused");
    assert!(lost.is_empty(), "said, and dropped without a word: {lost:#?}");
    assert!(unsaid.is_empty(), "no other value of these is known here: {unsaid:#?}");
}

/// Keys under a table that hold values. A list is said whole; keys of a variant that is not the default cannot be said alone.
fn leaves_of(program: &Program, table: &str) -> Vec<Key> {
    let mut usual = BTreeMap::new();
    flat(&Table::try_from(Config::default()).expect("settings are TOML"), "", &mut usual);
    let lists: Vec<String> = usual.into_iter().filter(|(_, value)| value.is_array()).map(|(key, _)| key).collect();
    let in_list = |key: &Key| lists.iter().any(|list| is_in(&key.path, list) && key.path != *list);
    let holds_value = |key: &Key| !key.is_table || lists.contains(&key.path);
    let of_table = |key: &Key| is_in(&key.path, table) && holds_value(key) && !in_list(key) && !key.owner.name.contains("::");
    keys(program, &settings()).into_iter().filter(of_table).collect()
}

#[test]
fn what_is_refused_by_name_is_a_key() {
    let program = Program::of_workspace(&root());
    let known: Vec<String> = keys(&program, &settings()).into_iter().map(|key| key.path).collect();
    for (key, _) in FILLED_IN {
        assert!(known.iter().any(|path| path == key), "{key} is no key any more");
    }
}

/// What is said once for several services is in each.
#[test]
fn what_is_said_once_reaches_its_services() {
    let folder = RunFolder::new("/nowhere/run");
    let sets = ["seed=7", "sampling.train.top_p=0.5", "rollout.max_turn_tokens=77", "rollout.max_context_tokens=700", "up.ranks=2"];
    let config = load_from(Config::default(), None, "X", [], &sets.map(str::to_owned)).expect("there are such keys");
    let planned = Services::planned(&config, &folder).expect("the current folder is there");
    let (learner, actor) = (planned.learner_settings(1), planned.actor_settings("actor-0").expect("the current folder is there"));
    assert_eq!((learner.seed, learner.sampling.top_p, learner.max_context_tokens, learner.ranks.world), (7, 0.5, 700, 2));
    assert_eq!((actor.rollout.max_turn_tokens, actor.rollout.max_context_tokens), (77, 700));
}

/// Where the generated part of the page begins and ends.
const MARKS: [&str; 2] = ["<!-- every key: begin -->\n", "<!-- every key: end -->\n"];

/// Every key is on the page with what its struct says of it. `WRITE_DOCS=1` writes the page.
#[test]
fn every_key_is_documented() {
    let path = root().join("docs/configuration.md");
    let page = std::fs::read_to_string(&path).expect("the page is there");
    let (before, rest) = page.split_once(MARKS[0]).expect("the page has a place for the keys");
    let (_, after) = rest.split_once(MARKS[1]).expect("the place has an end");
    let want = format!("{before}{}{}{}{after}", MARKS[0], tables(), MARKS[1]);
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, &want).expect("the page can be written");
        return;
    }
    assert!(page == want, "docs/configuration.md does not say what the settings' documentation says: run this test with WRITE_DOCS=1");
}

/// A table per struct, in the order in which they are met; a struct that is met again is pointed to.
fn tables() -> String {
    let program = Program::of_workspace(&root());
    let all = keys(&program, &settings());
    let mut defaults = BTreeMap::new();
    flat(&Table::try_from(Config::default()).expect("settings are TOML"), "", &mut defaults);
    let undocumented: Vec<&str> = all.iter().filter(|key| key.docs.is_empty()).map(|key| key.path.as_str()).collect();
    assert!(undocumented.is_empty(), "keys without documentation: {undocumented:?}");
    let parent = |key: &Key| key.path.rsplit_once('.').map_or("", |(table, _)| table).to_owned();
    // Where each struct is met first.
    let mut first: BTreeMap<&Name, String> = BTreeMap::new();
    for key in &all {
        first.entry(&key.owner).or_insert_with(|| parent(key));
    }
    let mut pages: Vec<(String, Vec<&Key>)> = Vec::new();
    for key in all.iter().filter(|key| first[&key.owner] == parent(key)) {
        match pages.iter_mut().find(|(table, _)| *table == parent(key)) {
            Some((_, keys)) => keys.push(key),
            None => pages.push((parent(key), vec![key])),
        }
    }
    let mut text = String::new();
    for (table, keys) in pages {
        text.push_str(&if table.is_empty() { "\n### Of every command\n\n".to_owned() } else { format!("\n### `{table}`\n\n") });
        text.push_str("| key | default | what it says |\n|---|---|---|\n");
        for key in keys {
            let name = key.path.rsplit('.').next().unwrap_or(&key.path);
            let inner = all.iter().find(|other| parent(other) == key.path).map(|inner| first[&inner.owner].clone());
            let default = match (&inner, defaults.get(&key.path)) {
                (Some(place), _) if *place == key.path => "a table".to_owned(),
                (Some(place), _) => format!("a table like `{place}`"),
                (None, Some(value)) => format!("`{}`", shown(value)),
                (None, None) => "none".to_owned(),
            };
            text.push_str(&format!("| `{name}` | {default} | {} |\n", key.docs.replace('|', "\\|")));
        }
    }
    text.push('\n');
    text
}

/// A value on one line; numbers that came from 32 bits as short as they were.
fn shown(value: &Value) -> String {
    match value {
        Value::Float(number) if *number as f32 as f64 == *number => (*number as f32).to_string(),
        value => value.to_string(),
    }
}
