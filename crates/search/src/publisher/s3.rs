//! Crops in a bucket of an S3-compatible store. In: crops. Out: signed addresses. Objects stay where they are put until the bucket's own
//! rule removes them; an address leads to one for its lifetime alone.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use hypereyes_chassis::exit::line_of;
use hypereyes_chassis::secret::SecretText;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path as Place;
use object_store::signer::Signer;
use object_store::{Attribute, Attributes, ClientOptions, ObjectStore, PutOptions, PutPayload, RetryConfig};
use parking_lot::Mutex;
use reqwest::Method;
use tokio::time::{Instant, timeout};

use super::{Crop, PublisherConfig, TYPE};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait until a crop is there.
const PUT: Duration = Duration::from_secs(20);
/// Names that are known to be there; beyond, all are forgotten, and put again.
const MOST_KNOWN: usize = 100_000;
/// Bytes of a file that holds keys.
const MOST_BYTES: u64 = 16 << 10;

/// A bucket.
pub(super) struct Bucket {
    store: AmazonS3,
    folder: Place,
    lifetime: Duration,
    /// When objects were put that need not be put again.
    known: Mutex<HashMap<String, Instant>>,
}

/// Connects to the store and to nobody else: no proxy, no redirect.
#[derive(Debug)]
struct Direct {
    is_plaintext: bool,
}

impl HttpConnector for Direct {
    /// Deadlines of the library's options are not taken over: a whole request has one elsewhere.
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = builder.https_only(!self.is_plaintext).connect_timeout(CONNECT).build();
        client.map(HttpClient::new).map_err(|error| object_store::Error::Generic { store: "S3", source: error.into() })
    }
}

impl Bucket {
    /// The bucket that settings name.
    ///
    /// # Errors
    /// A sentence that begins with a key of `search`.
    pub(super) fn open(config: &PublisherConfig) -> Result<Self, String> {
        let (bucket, folder) = config.bucket()?;
        let mut builder = AmazonS3Builder::new();
        match &config.credentials_file {
            None => {
                // As the store's own tools read them.
                let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
                for (name, value) in variables.filter(|(name, _)| name.starts_with("AWS_")) {
                    if let Ok(key) = name.to_lowercase().parse::<AmazonS3ConfigKey>() {
                        builder = builder.with_config(key, value);
                    }
                }
            }
            Some(path) => {
                for (key, secret) in credentials(path)? {
                    builder = builder.with_config(key, secret.expose());
                }
            }
        }
        let is_plaintext = config.endpoint.starts_with("http://");
        if !config.endpoint.is_empty() {
            builder = builder.with_endpoint(config.endpoint.trim_end_matches('/')).with_allow_http(is_plaintext);
        }
        if !config.region.is_empty() {
            builder = builder.with_region(&config.region);
        }
        let retry = RetryConfig { max_retries: 2, retry_timeout: PUT, ..RetryConfig::default() };
        let store = builder.with_bucket_name(bucket).with_retry(retry).with_http_connector(Direct { is_plaintext }).build();
        let store = store.map_err(|error| format!("publisher.url: {}", line_of(&error)))?;
        let lifetime = Duration::from_secs(config.lifetime_s);
        Ok(Self { store, folder: Place::from(folder), lifetime, known: Mutex::default() })
    }

    /// Puts a crop there, unless it is known to be, and signs its address.
    pub(super) async fn address(&self, crop: &Crop) -> Result<String, String> {
        let place = self.folder.child(crop.name.as_str());
        let is_known = self.known.lock().get(&crop.name).is_some_and(|put| put.elapsed() < self.lifetime);
        if !is_known {
            let attributes = Attributes::from_iter([(Attribute::ContentType, TYPE)]);
            let options = PutOptions { attributes, ..PutOptions::default() };
            let put = self.store.put_opts(&place, PutPayload::from_bytes(crop.bytes.clone()), options);
            let late = |_| format!("the store took more than {} s", PUT.as_secs());
            timeout(PUT, put).await.map_err(late)?.map_err(|error| line_of(&error))?;
            let mut known = self.known.lock();
            if known.len() >= MOST_KNOWN {
                known.clear();
            }
            known.insert(crop.name.clone(), Instant::now());
        }
        let signed = timeout(PUT, self.store.signed_url(Method::GET, &place, self.lifetime)).await;
        let signed = signed.map_err(|_| "nobody gave keys of the store".to_owned())?.map_err(|error| line_of(&error))?;
        Ok(signed.to_string())
    }
}

/// The keys of a file in the form of AWS's own; of several profiles the first.
fn credentials(path: &Path) -> Result<Vec<(AmazonS3ConfigKey, SecretText)>, String> {
    let named = |why: &dyn std::fmt::Display| format!("publisher.credentials_file: {}: {why}", path.display());
    let bytes = hypereyes_outside::files::read(path, MOST_BYTES).map_err(|error| named(&error))?;
    let text = String::from_utf8(bytes).map_err(|_| named(&"is no text"))?;
    let mut found: Vec<(AmazonS3ConfigKey, SecretText)> = vec![];
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        if line.starts_with('[') {
            if found.is_empty() {
                continue;
            }
            break;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| named(&"has a line that is no name = value"))?;
        let key = match name.trim() {
            "aws_access_key_id" => AmazonS3ConfigKey::AccessKeyId,
            "aws_secret_access_key" => AmazonS3ConfigKey::SecretAccessKey,
            "aws_session_token" => AmazonS3ConfigKey::Token,
            // Regions and the like, of other tools.
            _ => continue,
        };
        found.push((key, SecretText::new("publisher.credentials_file", &path.display().to_string(), value.trim().to_owned())?));
    }
    let has = |wanted: AmazonS3ConfigKey| found.iter().any(|(key, _)| *key == wanted);
    if !(has(AmazonS3ConfigKey::AccessKeyId) && has(AmazonS3ConfigKey::SecretAccessKey)) {
        return Err(named(&"has no aws_access_key_id and aws_secret_access_key"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_a_file_of_aws_and_quoted_nowhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("credentials");
        let of = |text: &str| {
            std::fs::write(&path, text).expect("written");
            credentials(&path)
        };
        let found = of(
            "# mine\n[default]\naws_access_key_id = AKIA1\naws_secret_access_key=s3cret/key\nregion = x\n[other]\naws_access_key_id = B\n",
        );
        let found = found.expect("keys");
        assert_eq!(found.iter().map(|(_, secret)| secret.expose()).collect::<Vec<_>>(), ["AKIA1", "s3cret/key"]);
        for bad in ["", "aws_access_key_id = A\n", "s3cret/key\n"] {
            let why = of(bad).map(|_| ()).expect_err("no keys");
            assert!(why.starts_with("publisher.credentials_file") && !why.contains("s3cret"), "{why}");
        }
    }
}
