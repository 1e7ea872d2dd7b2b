//! The models that a study makes: demonstrations by scripts, then a cold start on them. In: their recipes. Out: folders, each with the
//! recipe that it was made by beside it. A cold start that was cut goes on.

use std::path::Path;

use anyhow::Result;
use hypereyes_chassis::{BadInput, Shutdown};
use hypereyes_miniature::shipped::Shipped;
use hypereyes_outside::atomic;
use hypereyes_run::read_json;
use hypereyes_study::Model;
use serde_json::{Value, json};

use super::{StudyFolder, settings};
use crate::{again, output, parts};

/// Which shipped model a name means.
fn shipped(name: &str) -> Option<Shipped> {
    [Shipped::Policy, Shipped::Teacher].into_iter().find(|model| model.label() == name)
}

/// How a model is made, as it is kept beside it.
fn recipe(model: &Model) -> Value {
    json!({ "from": model.from, "settings": model.settings })
}

/// Whether a model is there.
///
/// # Errors
/// [`BadInput`] where another one is there, by the same name.
pub fn is_made(model: &Model, folder: &StudyFolder) -> Result<bool> {
    let kept = folder.model(&format!("{}.json", model.name));
    if !kept.exists() {
        return Ok(false);
    }
    let made: Value = read_json(&kept)?;
    if made != recipe(model) {
        let (name, path) = (&model.name, folder.model(&model.name));
        return Err(BadInput::new(format!(
            "models.{name} is not how {} was made: take {} and that folder away to make it anew",
            path.display(),
            kept.display()
        ))
        .into());
    }
    Ok(folder.model(&model.name).join("config.json").exists())
}

/// Makes a model, unless it is there. Those that it goes on from are.
///
/// # Errors
/// What the commands say, or that it was told to stop.
pub async fn make(model: &Model, folder: &StudyFolder, shutdown: &Shutdown) -> Result<()> {
    if is_made(model, folder)? {
        return Ok(());
    }
    let from = folder.model(&model.from);
    if let Some(shipped) = shipped(&model.from) {
        parts::unpack(shipped, &from)?;
    }
    let (out, data) = (folder.model(&model.name), folder.model(&format!("{}.data", model.name)));
    let told = folder.model(&format!("{}.toml", model.name));
    settings::write(&settings::of_model(model)?, &told)?;
    atomic::write(&folder.model(&format!("{}.json", model.name)), recipe(model).to_string().as_bytes())?;
    let path = |path: &Path| path.display().to_string();
    // The tasks' file is written last, so a set that has it is whole.
    if !data.join(hypereyes_dataset::TASKS).exists() {
        step(model, folder, shutdown, &["synth", "--config", &path(&told), "--out", &path(&data)]).await?;
    }
    let (told, data, from, to) = (path(&told), path(&data), path(&from), path(&out));
    let mut sft = vec!["sft", "--config", &told, "--recipe", "miniature", "--data", &data, "--model", &from, "--out", &to];
    if Path::new(&format!("{to}.checkpoint")).exists() {
        sft.push("--resume");
    }
    step(model, folder, shutdown, &sft).await
}

async fn step(model: &Model, folder: &StudyFolder, shutdown: &Shutdown, arguments: &[&str]) -> Result<()> {
    output::note(&format!("model {}: {}", model.name, arguments[0]));
    let log = folder.log(&format!("{}-{}", model.name, arguments[0]));
    again::run("a model of the study", arguments, &log, shutdown).await.map(|_| ())
}
