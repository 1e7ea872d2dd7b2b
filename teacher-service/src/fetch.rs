//! Models from object stores. In: an address. Out: a folder on this machine with the same files. Nothing is listed: the files of a
//! model folder have known names, or are named by its index.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use hypereyes_chassis::exit::line_of;
use hypereyes_domain::TeacherId;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use reqwest::Url;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::web::Stores;

/// Largest file beside the weights.
const MAX_SMALL: u64 = 128 << 20;
/// Largest file of weights.
const MAX_WEIGHTS: u64 = 64 << 30;
/// Longest wait for the next part of a file.
const PART: Duration = Duration::from_secs(60);
/// Most files of weights.
const MAX_SHARDS: usize = 4096;

const INDEX: &str = "model.safetensors.index.json";
const WHOLE: &str = "model.safetensors";
/// Files beside the weights that a folder may have. Named templates (`additional_chat_templates/`) are not among them: a teacher
/// renders no dialogue, and nothing is listed.
const OPTIONAL: [&str; 7] = [
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
];

#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, String>,
}

/// Fetches a model into a folder of its own below `into`. Credentials come from the environment, as the store's own tools read
/// them.
///
/// # Errors
/// A text that names the address and what is wrong.
///
/// `stores` opens the connections; all files together have at most twice `memory` bytes, or 1 GiB.
pub async fn fetch(url: &Url, stores: Stores, into: &Path, id: &TeacherId, memory: u64) -> Result<PathBuf, String> {
    let fault = |what: &dyn std::fmt::Display| format!("{url}: {what}");
    // The stores' own variables and no others: some of the library's options have names that anybody's variable may have.
    let of_a_store = |key: &str| ["aws_", "google_", "azure_"].iter().any(|prefix| key.starts_with(prefix));
    let unicode = std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    let environment = unicode.map(|(key, value)| (key.to_lowercase(), value)).filter(|(key, _)| of_a_store(key));
    let (store, root) = open(url, stores, environment).map_err(|error| fault(&error))?;
    // One folder per name and address: what was fetched for another model is never taken for this one.
    let name = blake3::hash(format!("{id}\n{url}").as_bytes()).to_hex();
    let (folder, partial) = (into.join(&name[..16]), into.join(format!("{}.partial", &name[..16])));
    let io = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let _ = tokio::fs::remove_dir_all(&partial).await; // What an earlier attempt left; it is often not there.
    tokio::fs::create_dir_all(&partial).await.map_err(|error| io(&partial, error))?;
    let room = AtomicU64::new(memory.saturating_mul(2).max(1 << 30));
    let get = async |name: &str, most: u64, needed: bool| {
        let got =
            get(&*store, &root, name, &partial, most.min(room.load(Ordering::Relaxed)), needed).await.map_err(|error| fault(&error))?;
        room.fetch_sub(got.unwrap_or(0), Ordering::Relaxed);
        Ok::<_, String>(got.is_some())
    };
    get("config.json", MAX_SMALL, true).await?;
    get("tokenizer.json", MAX_SMALL, true).await?;
    for optional in OPTIONAL {
        get(optional, MAX_SMALL, false).await?;
    }
    // As transformers looks for them: an index beside a whole file is one that was left over.
    let whole = get(WHOLE, MAX_WEIGHTS, false).await?;
    if !whole && get(INDEX, MAX_SMALL, false).await? {
        let text = hypereyes_outside::files::read(&partial.join(INDEX), MAX_SMALL).map_err(|error| io(&partial, error))?;
        let index: Index = serde_json::from_slice(&text).map_err(|error| fault(&format!("{INDEX}: {error}")))?;
        let shards: BTreeSet<&String> = index.weight_map.values().collect();
        if shards.len() > MAX_SHARDS || shards.iter().any(|shard| !shard.ends_with(".safetensors") || shard.contains(['/', '\\'])) {
            return Err(fault(&format!("{INDEX} names more than {MAX_SHARDS} files, or files that are none of a model")));
        }
        for shard in shards {
            get(shard, MAX_WEIGHTS, true).await?;
        }
    } else if !whole {
        return Err(fault(&format!("neither {WHOLE} nor {INDEX} is there")));
    }
    let _ = tokio::fs::remove_dir_all(&folder).await; // An older copy; a model that is loaded no longer reads its files.
    tokio::fs::rename(&partial, &folder).await.map_err(|error| io(&folder, error))?;
    Ok(folder)
}

/// The store of an address, and the folder in it. Only stores with a scheme of their own are asked with credentials: of an
/// `http` address the host is anybody's choice.
fn open(url: &Url, stores: Stores, options: impl Iterator<Item = (String, String)>) -> Result<(Box<dyn ObjectStore>, Key), String> {
    fn say(error: object_store::Error) -> String {
        error.to_string()
    }
    /// The builder with those options that it knows.
    macro_rules! with {
        ($builder:expr) => {
            options.fold($builder, |builder, (key, value)| match key.parse() {
                Ok(key) => builder.with_config(key, value),
                Err(_) => builder,
            })
        };
    }
    let root = match url.scheme() {
        "http" | "https" => Key::from_url_path(url.path()).map_err(|error| error.to_string())?,
        _ => ObjectStoreScheme::parse(url).map_err(|error| error.to_string())?.1,
    };
    let store: Box<dyn ObjectStore> = match url.scheme() {
        "s3" => Box::new(with!(AmazonS3Builder::new().with_url(url.as_str())).with_http_connector(stores).build().map_err(say)?),
        "gs" => Box::new(with!(GoogleCloudStorageBuilder::new().with_url(url.as_str())).with_http_connector(stores).build().map_err(say)?),
        "az" => {
            let account = with!(MicrosoftAzureBuilder::new().with_url(url.as_str())).with_http_connector(stores).build().map_err(say)?;
            Box::new(account)
        }
        _ => {
            let options = ClientOptions::new().with_allow_http(url.scheme() == "http");
            let host = url.origin().ascii_serialization();
            // What the settings do not allow is not allowed at the next attempt either.
            let retry = RetryConfig { max_retries: 2, retry_timeout: PART, ..RetryConfig::default() };
            let builder = HttpBuilder::new().with_url(host).with_client_options(options).with_retry(retry);
            Box::new(builder.with_http_connector(stores).build().map_err(say)?)
        }
    };
    Ok((store, root))
}

/// Fetches one file; how many bytes it has, if it was there.
async fn get(store: &dyn ObjectStore, root: &Key, name: &str, into: &Path, most: u64, needed: bool) -> Result<Option<u64>, String> {
    let fault = |what: &dyn std::fmt::Display| format!("{name}: {what}");
    let found = match timeout(PART, store.get(&root.child(name))).await.map_err(|_| fault(&"no answer of the store"))? {
        Err(object_store::Error::NotFound { .. }) if !needed => return Ok(None),
        found => found.map_err(|error| fault(&line_of(&error)))?,
    };
    if found.meta.size > most {
        return Err(fault(&format!("{} bytes, at most {most} are fetched", found.meta.size)));
    }
    let path = into.join(name);
    let mut file = tokio::fs::File::create(&path).await.map_err(|error| fault(&error))?;
    let (expected, mut written, mut parts) = (found.meta.size, 0u64, found.into_stream());
    let late = |_| fault(&format!("nothing came for {} s; see the store and the network", PART.as_secs()));
    while let Some(part) = timeout(PART, parts.next()).await.map_err(late)? {
        let part = part.map_err(|error| fault(&line_of(&error)))?;
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
    Ok(Some(written))
}
