//! Models from object stores. In: an address. Out: a folder on this machine with the same files. Nothing is listed: the files of a
//! model folder have known names, or are named by its index.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use hypereyes_domain::TeacherId;
use object_store::path::Path as Key;
use object_store::{ObjectStore, parse_url_opts};
use reqwest::Url;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// Largest file beside the weights.
const MAX_SMALL: u64 = 128 << 20;
/// Largest file of weights.
const MAX_WEIGHTS: u64 = 64 << 30;
/// Longest wait for the next part of a file.
const PART: Duration = Duration::from_secs(60);
/// Most files of weights.
const MAX_SHARDS: usize = 4096;

const INDEX: &str = "model.safetensors.index.json";

#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, String>,
}

/// Fetches a model into a folder of its own below `into`. Credentials come from the environment, as the store's own tools read
/// them.
///
/// # Errors
/// A text that names the address and what is wrong.
pub async fn fetch(url: &Url, into: &Path, id: &TeacherId) -> Result<PathBuf, String> {
    let fault = |what: &dyn std::fmt::Display| format!("{url}: {what}");
    let plain = url.scheme() == "http";
    // The stores' own variables and no others: some of the library's options have names that anybody's variable may have.
    let of_a_store = |key: &str| ["aws_", "google_", "azure_"].iter().any(|prefix| key.starts_with(prefix));
    let environment = std::env::vars().map(|(key, value)| (key.to_lowercase(), value)).filter(|(key, _)| of_a_store(key));
    // The library gives a whole file half a minute, which is none for a shard of gigabytes; here every part has its own deadline.
    let options = environment.chain([("timeout".to_owned(), "24h".to_owned())]);
    let options = options.chain(plain.then(|| ("allow_http".to_owned(), "true".to_owned())));
    let (store, root) = parse_url_opts(url, options).map_err(|error| fault(&error))?;
    // One folder per name and address: what was fetched for another model is never taken for this one.
    let name = blake3::hash(format!("{id}\n{url}").as_bytes()).to_hex();
    let (folder, partial) = (into.join(&name[..16]), into.join(format!("{}.partial", &name[..16])));
    let io = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let _ = tokio::fs::remove_dir_all(&partial).await; // What an earlier attempt left; it is often not there.
    tokio::fs::create_dir_all(&partial).await.map_err(|error| io(&partial, error))?;
    let get =
        async |name: &str, most: u64, needed: bool| get(&*store, &root, name, &partial, most, needed).await.map_err(|error| fault(&error));
    get("config.json", MAX_SMALL, true).await?;
    get("tokenizer.json", MAX_SMALL, true).await?;
    for optional in ["preprocessor_config.json", "chat_template.jinja", "tokenizer_config.json", "generation_config.json"] {
        get(optional, MAX_SMALL, false).await?;
    }
    if get(INDEX, MAX_SMALL, false).await? {
        let text = tokio::fs::read(partial.join(INDEX)).await.map_err(|error| io(&partial, error))?;
        let index: Index = serde_json::from_slice(&text).map_err(|error| fault(&format!("{INDEX}: {error}")))?;
        let shards: BTreeSet<&String> = index.weight_map.values().collect();
        if shards.len() > MAX_SHARDS || shards.iter().any(|shard| !shard.ends_with(".safetensors") || shard.contains(['/', '\\'])) {
            return Err(fault(&format!("{INDEX} names more than {MAX_SHARDS} files, or files that are none of a model")));
        }
        for shard in shards {
            get(shard, MAX_WEIGHTS, true).await?;
        }
    } else {
        get("model.safetensors", MAX_WEIGHTS, true).await?;
    }
    let _ = tokio::fs::remove_dir_all(&folder).await; // An older copy; a model that is loaded no longer reads its files.
    tokio::fs::rename(&partial, &folder).await.map_err(|error| io(&folder, error))?;
    Ok(folder)
}

/// Fetches one file; whether it was there.
async fn get(store: &dyn ObjectStore, root: &Key, name: &str, into: &Path, most: u64, needed: bool) -> Result<bool, String> {
    let fault = |what: &dyn std::fmt::Display| format!("{name}: {what}");
    let found = match timeout(PART, store.get(&root.child(name))).await.map_err(|_| fault(&"no answer of the store"))? {
        Err(object_store::Error::NotFound { .. }) if !needed => return Ok(false),
        found => found.map_err(|error| fault(&error))?,
    };
    if found.meta.size > most {
        return Err(fault(&format!("{} bytes, at most {most} are fetched", found.meta.size)));
    }
    let path = into.join(name);
    let mut file = tokio::fs::File::create(&path).await.map_err(|error| fault(&error))?;
    let (expected, mut written, mut parts) = (found.meta.size, 0u64, found.into_stream());
    let late = |_| fault(&format!("nothing came for {} s; see the store and the network", PART.as_secs()));
    while let Some(part) = timeout(PART, parts.next()).await.map_err(late)? {
        let part = part.map_err(|error| fault(&error))?;
        written += part.len() as u64;
        if written > most {
            return Err(fault(&format!("more than {most} bytes came")));
        }
        file.write_all(&part).await.map_err(|error| fault(&error))?;
    }
    file.sync_all().await.map_err(|error| fault(&error))?;
    if written != expected {
        return Err(fault(&format!("{written} of {expected} bytes came")));
    }
    Ok(true)
}
