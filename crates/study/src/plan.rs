//! The file of a study. In: TOML. Out: arms with their settings merged, models to be made, claims; or what is wrong with them, by key.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use hypereyes_chassis::BadInput;
use serde::Deserialize;
use toml::{Table, Value};

use crate::claim::Claim;

/// The arm that every study has: the policy that the base arm starts from, as that arm measured it before its first step.
pub const START: &str = "start";
/// The largest file of a study.
const MAX_BYTES: u64 = 1 << 20;
/// Bounds of a study.
const MOST_ARMS: usize = 64;
const MOST_SEEDS: usize = 1000;
const MOST_NAME: usize = 40;
/// Settings that the study gives itself, and by what.
const ITS_OWN: [(&str, &str); 4] = [
    ("seed", "seeds"),
    ("run_dir", "--out"),
    ("policy", "the key `policy` of the study or of an arm"),
    ("teacher", "the key `teacher` of the study or of an arm"),
];

/// What a study asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// One paragraph for people.
    pub about: String,
    /// The arm that the others are compared with.
    pub base: String,
    /// In the order of the file.
    pub arms: Vec<Arm>,
    /// Models that arms start from or are taught by, in the order in which they can be made.
    pub models: Vec<Model>,
    /// In the order of the file.
    pub claims: Vec<Claim>,
}

/// Named settings of `up`.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// What it is, for people.
    pub about: String,
    /// The study's settings with its own on top: what `up` is told beyond its defaults, the seed and the models apart.
    pub settings: Table,
    /// Seeds that it is run with.
    pub seeds: Vec<u64>,
    /// Policy to start from: one of the study's models, or none for the shipped one.
    pub policy: Option<String>,
    /// The same of the teacher.
    pub teacher: Option<String>,
}

/// A model that the study makes: demonstrations (`synth`) and a cold start on them (`sft --recipe miniature`).
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// What it is, for people.
    pub about: String,
    /// What it goes on from: `policy` or `teacher`, the shipped ones, or a model that stands before it.
    pub from: String,
    /// Settings of both commands.
    pub settings: Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StudyFile {
    about: String,
    base: String,
    seeds: Vec<u64>,
    #[serde(default)]
    policy: Option<String>,
    #[serde(default)]
    teacher: Option<String>,
    #[serde(default)]
    settings: Table,
    #[serde(default)]
    models: Table,
    arms: Table,
    #[serde(default)]
    claims: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArmRow {
    about: String,
    #[serde(default)]
    settings: Table,
    #[serde(default)]
    seeds: Option<Vec<u64>>,
    #[serde(default)]
    policy: Option<String>,
    #[serde(default)]
    teacher: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelRow {
    about: String,
    from: String,
    #[serde(default)]
    settings: Table,
}

impl Plan {
    /// Reads a study's file.
    ///
    /// # Errors
    /// One line that names the file and the key.
    pub fn read(path: &Path) -> Result<Self, BadInput> {
        let named = |reason: &dyn std::fmt::Display| BadInput::new(format!("{}: {reason}", path.display()));
        let text = hypereyes_outside::files::read_to_string(path, MAX_BYTES).map_err(|error| named(&error))?;
        Self::parse(&text).map_err(|reason| named(&reason))
    }

    /// The study that a text is.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: StudyFile = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        check_seeds("seeds", &file.seeds)?;
        check_settings("settings", &file.settings)?;
        let models = file.models.into_iter().map(|(name, row)| model(name, row)).collect::<Result<Vec<_>, _>>()?;
        for (at, model) in models.iter().enumerate() {
            let made = models[..at].iter().map(|model| model.name.as_str());
            if !made.chain(["policy", "teacher"]).any(|name| name == model.from) {
                let (name, from) = (&model.name, &model.from);
                return Err(format!("models.{name}.from is {from:?}: give policy, teacher or a model that stands before it"));
            }
        }
        let known = |key: &str, name: Option<&String>| match name {
            Some(name) if models.iter().all(|model| model.name != *name) => Err(format!("{key} is {name:?}, which is none of models")),
            _ => Ok(()),
        };
        known("policy", file.policy.as_ref())?;
        known("teacher", file.teacher.as_ref())?;
        if file.arms.is_empty() || file.arms.len() > MOST_ARMS {
            return Err(format!("arms: {} of them; a study has 1..={MOST_ARMS}", file.arms.len()));
        }
        let mut arms = Vec::with_capacity(file.arms.len());
        for (name, row) in file.arms {
            check_name("arms", &name)?;
            if name == START {
                return Err(format!(
                    "arms.{START} is there in every study: the policy that the base arm starts from; give this one another name"
                ));
            }
            let row: ArmRow = row.try_into().map_err(|error: toml::de::Error| format!("arms.{name}: {}", error.message()))?;
            check_settings(&format!("arms.{name}.settings"), &row.settings)?;
            let seeds = row.seeds.unwrap_or_else(|| file.seeds.clone());
            check_seeds(&format!("arms.{name}.seeds"), &seeds)?;
            known(&format!("arms.{name}.policy"), row.policy.as_ref())?;
            known(&format!("arms.{name}.teacher"), row.teacher.as_ref())?;
            let settings = merged(file.settings.clone(), row.settings);
            let (policy, teacher) = (row.policy.or_else(|| file.policy.clone()), row.teacher.or_else(|| file.teacher.clone()));
            arms.push(Arm { name, about: row.about, settings, seeds, policy, teacher });
        }
        if arms.iter().all(|arm| arm.name != file.base) {
            return Err(format!("base is {:?}, which is none of arms", file.base));
        }
        let names: BTreeSet<&str> = arms.iter().map(|arm| arm.name.as_str()).chain([START]).collect();
        let claims = file.claims.iter().map(|text| {
            let claim: Claim = text.parse().map_err(|reason| format!("claims: {text:?}: {reason}"))?;
            let unknown = claim.arms().find(|arm| !names.contains(arm)).map(str::to_owned);
            unknown.map_or(Ok(claim), |arm| Err(format!("claims: {text:?}: {arm:?} is none of arms")))
        });
        let claims = claims.collect::<Result<_, String>>()?;
        Ok(Self { about: file.about, base: file.base, arms, models, claims })
    }

    /// The arm of this name.
    pub fn arm(&self, name: &str) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.name == name)
    }

    /// Every arm with every seed of it: all arms with the first seed, then all with the second, so that what is there of a study that was
    /// cut can be compared.
    pub fn cells(&self) -> Vec<(&Arm, u64)> {
        let most = self.arms.iter().map(|arm| arm.seeds.len()).max().unwrap_or(0);
        (0..most).flat_map(|at| self.arms.iter().filter_map(move |arm| Some((arm, *arm.seeds.get(at)?)))).collect()
    }

    /// Models that an arm needs, in the order in which they can be made.
    pub fn models_of(&self, arm: &Arm) -> Vec<&Model> {
        let mut wanted: HashSet<&str> = [&arm.policy, &arm.teacher].into_iter().flatten().map(String::as_str).collect();
        for model in self.models.iter().rev() {
            if wanted.contains(model.name.as_str()) {
                wanted.insert(&model.from);
            }
        }
        self.models.iter().filter(|model| wanted.contains(model.name.as_str())).collect()
    }
}

fn model(name: String, row: Value) -> Result<Model, String> {
    check_name("models", &name)?;
    if ["policy", "teacher"].contains(&name.as_str()) {
        return Err(format!("models.{name} has the name of the shipped one: give it another"));
    }
    let row: ModelRow = row.try_into().map_err(|error: toml::de::Error| format!("models.{name}: {}", error.message()))?;
    // Its seed is a setting like any other: a model is made once.
    for (key, by) in ITS_OWN.iter().filter(|(key, _)| *key != "seed") {
        if row.settings.contains_key(*key) {
            return Err(format!("models.{name}.settings.{key} is given by {by}"));
        }
    }
    Ok(Model { name, about: row.about, from: row.from, settings: row.settings })
}

fn check_name(table: &str, name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    match !name.is_empty() && name.len() <= MOST_NAME && name.bytes().all(is_plain) {
        true => Ok(()),
        false => Err(format!("{table}.{name:?}: a name has 1..={MOST_NAME} of a-z, 0-9, - and _")),
    }
}

fn check_seeds(key: &str, seeds: &[u64]) -> Result<(), String> {
    let distinct: HashSet<&u64> = seeds.iter().collect();
    if seeds.is_empty() || seeds.len() > MOST_SEEDS || distinct.len() < seeds.len() {
        return Err(format!("{key} is {seeds:?}: give 1..={MOST_SEEDS} different seeds"));
    }
    Ok(())
}

fn check_settings(key: &str, settings: &Table) -> Result<(), String> {
    match ITS_OWN.iter().find(|(own, _)| settings.contains_key(*own)) {
        Some((own, by)) => Err(format!("{key}.{own} is given by {by}")),
        None => Ok(()),
    }
}

/// `over` on top of `under`, table by table.
fn merged(mut under: Table, over: Table) -> Table {
    for (key, value) in over {
        match (under.remove(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => under.insert(key, Value::Table(merged(below, above))),
            (_, value) => under.insert(key, value),
        };
    }
    under
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUDY: &str = r#"
about = "a"
base = "plain"
seeds = [1, 2]
claims = ["rounds(trace) <= 0.8 x rounds(plain)", "accuracy(plain) >= accuracy(start)"]
[settings]
learner = { steps = 4, groups_per_step = 2 }
[models.slow]
about = "one at a time"
from = "teacher"
settings = { seed = 3, sft = { steps = 10 } }
[models.slower]
about = "slower"
from = "slow"
[arms.trace]
about = "with TRACE"
teacher = "slower"
settings = { learner = { steps = 8 } }
[arms.plain]
about = "without"
seeds = [1]
settings = { reward_service = { trace = { enabled = false } } }
"#;

    #[test]
    fn an_arm_has_the_settings_of_the_study_and_its_own_on_top() {
        let plan = Plan::parse(STUDY).expect("sound");
        let steps = |name: &str, key: &str| plan.arm(name).expect("there").settings["learner"][key].as_integer();
        assert_eq!([steps("trace", "steps"), steps("trace", "groups_per_step"), steps("plain", "steps")], [Some(8), Some(2), Some(4)]);
        let cells: Vec<(&str, u64)> = plan.cells().iter().map(|(arm, seed)| (arm.name.as_str(), *seed)).collect();
        assert_eq!(cells, [("trace", 1), ("plain", 1), ("trace", 2)], "seed by seed, in the order of the file");
        let models = |name: &str| plan.models_of(plan.arm(name).expect("there")).iter().map(|model| model.name.clone()).collect::<Vec<_>>();
        assert_eq!((models("trace"), models("plain")), (vec!["slow".to_owned(), "slower".to_owned()], vec![]));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        for (from, to, says) in [
            ("base = \"plain\"", "base = \"none\"", "base is \"none\""),
            ("seeds = [1, 2]", "seeds = [1, 1]", "seeds is [1, 1]"),
            ("seeds = [1, 2]", "seeds = []", "seeds is []"),
            ("from = \"slow\"", "from = \"slowest\"", "models.slower.from is \"slowest\""),
            ("teacher = \"slower\"", "teacher = \"fast\"", "arms.trace.teacher is \"fast\""),
            ("[arms.trace]", "[arms.start]", "arms.start is there in every study"),
            ("[arms.trace]", "[arms.\"Trace 1\"]", "arms.\"Trace 1\""),
            ("rounds(plain)", "rounds(none)", "\"none\" is none of arms"),
            ("learner = { steps = 4", "seed = 4\nlearner = { steps = 4", "settings.seed is given by seeds"),
            ("about = \"with TRACE\"", "abuot = \"with TRACE\"", "arms.trace: unknown field `abuot`"),
            ("settings = { seed = 3,", "settings = { run_dir = \"x\",", "models.slow.settings.run_dir is given by --out"),
            ("claims = [", "claims = [\"speed(trace) <= 1\", ", "\"speed(trace) <= 1\""),
        ] {
            assert!(STUDY.contains(from), "{from}");
            let error = Plan::parse(&STUDY.replacen(from, to, 1)).expect_err(says);
            assert!(error.contains(says), "{error}");
        }
    }
}
