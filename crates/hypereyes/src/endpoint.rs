//! A chat endpoint that plays tasks: `engine.kind = "openai"`. In: the settings. Out: whoever plays, once the server has answered, or
//! which key is wrong. No policy folder is needed: the server has the model.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use hypereyes_chassis::BadInput;
use hypereyes_environment::Search;
use hypereyes_openai::{Client, Endpoint};
use hypereyes_rollout::{ChatPlayer, completions};
use hypereyes_world::World;

use crate::config::Config;
use crate::parts::{self, Chosen};

/// Longest wait for the list of models.
const PATIENCE: Duration = Duration::from_secs(10);
/// Models of a server that are named where one has to be chosen.
const MOST_NAMED: usize = 8;

/// Refuses a policy folder beside a server that has its own model; `flag` is what names it.
///
/// # Errors
/// [`BadInput`] that names both.
pub fn needs_no_folder(config: &Config, flag: &str, folder: Option<&Path>) -> Result<(), BadInput> {
    match folder {
        Some(folder) if config.engine.speaks_text() => Err(BadInput::new(format!(
            "{flag} names {}, but engine.kind is openai: the model is the server's, which engine.model names; leave {flag} out",
            folder.display()
        ))),
        _ => Ok(()),
    }
}

/// The model behind `engine.url`.
///
/// # Errors
/// [`BadInput`] for a key that cannot be used, a server that cannot be reached or refuses the key, and a model that nobody named.
pub async fn client(config: &Config) -> Result<Client> {
    let bad = |text: String| BadInput::new(format!("engine.{text}"));
    let engine = &config.engine;
    let url = engine.url.first().map(String::as_str).unwrap_or_default();
    let endpoint = Endpoint { url, model: &engine.model, api_key_env: engine.key_variable() };
    let client = Client::new(endpoint, engine.max_sequences, completions::MAX_REPLY_BYTES, completions::counted).map_err(bad)?;
    let listed = match client.models(PATIENCE).await {
        Ok(listed) => listed,
        // A server may have no list, or keep it to itself; nobody goes on without a connection or with the wrong key.
        Err(missed) if !engine.model.is_empty() && missed.label != "connect" && !matches!(missed.status, Some(401 | 403)) => vec![],
        Err(missed) => return Err(bad(format!("url is {url}, where no chat server answers: {missed}")).into()),
    };
    if !engine.model.is_empty() && !listed.is_empty() && !listed.contains(&engine.model) {
        crate::output::note(&format!("warning: engine.model is {}, which {url} does not list", engine.model));
    }
    match &listed[..] {
        _ if !engine.model.is_empty() => Ok(client),
        [only] => Ok(client.of(only.clone())),
        [] => {
            let message =
                format!("model is empty, and {url} lists none: name the model, or give the address with its path, such as {url}/v1");
            Err(bad(message).into())
        }
        several => {
            let named = several.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            Err(bad(format!("model is empty, and {url} serves {}: name one, such as {named}", several.len())).into())
        }
    }
}

/// The player behind `engine.url`.
///
/// # Errors
/// As [`client`], and a search service that cannot be opened.
pub async fn open(config: &Config, world: &Arc<World>) -> Result<Chosen> {
    open_with(config, parts::search(config, world)?).await
}

/// The same, with searches that go there.
///
/// # Errors
/// As [`client`].
pub async fn open_with(config: &Config, search: Arc<dyn Search>) -> Result<Chosen> {
    let client = client(config).await?;
    let (name, served) = (name_of(&client), Some(client.model().to_owned()));
    let player = ChatPlayer::new(client, search, config.rollout.clone(), config.engine.request_timeout());
    Ok(Chosen { player: Arc::new(player), chat: None, name, served })
}

/// What a model is called in results.
pub fn name_of(client: &Client) -> String {
    format!("{} at {}", client.model(), client.url())
}
