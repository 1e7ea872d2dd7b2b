//! The `[search.publisher]` table. In: what a file says. Out: values with defaults. Opens nothing.

use std::net::SocketAddr;
use std::path::PathBuf;

use reqwest::Url;
use serde::{Deserialize, Serialize};

/// Who puts crops where services can fetch them.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PublisherConfig {
    /// Where crops go for services that take nothing but an address: `none`, `s3` (a bucket, by signed addresses) or `serve` (this process
    /// serves them, behind `url`). Default `none`: a picture is published only where somebody has said so.
    pub kind: PublisherKind,
    /// Where they are: of `s3` the bucket and a folder in it, `s3://bucket/folder`; of `serve` the public address that leads to `listen`.
    pub url: String,
    /// Server of an S3-compatible store. Default none: AWS's own.
    pub endpoint: String,
    /// Region of the bucket. Default none: `AWS_REGION`, or `us-east-1`.
    pub region: String,
    /// File with the store's keys, in the form of AWS's own (`aws_access_key_id = ..`, `aws_secret_access_key = ..`). Default none:
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or whatever else AWS's tools find.
    pub credentials_file: Option<PathBuf>,
    /// Where `serve` listens. Default none.
    pub listen: Option<SocketAddr>,
    /// Seconds that an address leads to its crop. Default 600: longer than a search takes.
    pub lifetime_s: u64,
}

/// Where crops go.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PublisherKind {
    /// Nowhere.
    #[default]
    None,
    /// Into a bucket.
    S3,
    /// Nowhere else: they are served from here.
    Serve,
}

impl Default for PublisherConfig {
    fn default() -> Self {
        Self {
            kind: PublisherKind::None,
            url: String::new(),
            endpoint: String::new(),
            region: String::new(),
            credentials_file: None,
            listen: None,
            lifetime_s: 600,
        }
    }
}

/// The longest lifetime, in seconds: that of a signature of S3.
const LONGEST_S: u64 = 7 * 86_400;

impl PublisherConfig {
    /// Refuses what cannot work and keys that nobody would read.
    ///
    /// # Errors
    /// A sentence that begins with the key within `search`.
    pub fn check(&self) -> Result<(), String> {
        let others = |kind: PublisherKind| {
            let (s3, serve) = (kind == PublisherKind::S3, kind == PublisherKind::Serve);
            let given = [
                ("url", self.url.is_empty() || s3 || serve),
                ("endpoint", self.endpoint.is_empty() || s3),
                ("region", self.region.is_empty() || s3),
                ("credentials_file", self.credentials_file.is_none() || s3),
                ("listen", self.listen.is_none() || serve),
                ("lifetime_s", self.lifetime_s == Self::default().lifetime_s || s3 || serve),
            ];
            given.into_iter().find(|(_, is_read)| !is_read).map(|(name, _)| name)
        };
        if let Some(name) = others(self.kind) {
            return Err(format!("publisher.{name} is of another publisher than publisher.kind names: nobody would read it"));
        }
        match self.kind {
            PublisherKind::None => return Ok(()),
            PublisherKind::S3 => drop(self.bucket()?),
            PublisherKind::Serve => {
                if self.listen.is_none() {
                    return Err("publisher.listen is not given: say where crops are served, such as 127.0.0.1:8095".to_owned());
                }
                drop(self.base()?);
            }
        }
        if !(10..=LONGEST_S).contains(&self.lifetime_s) {
            return Err(format!("publisher.lifetime_s is {}: give 10 to {LONGEST_S}", self.lifetime_s));
        }
        Ok(())
    }

    /// Bucket and folder of `s3`.
    pub(super) fn bucket(&self) -> Result<(String, String), String> {
        let parsed = Url::parse(&self.url).ok().filter(|url| url.scheme() == "s3" && url.query().is_none() && url.fragment().is_none());
        let parsed = parsed.filter(|url| url.username().is_empty() && url.password().is_none());
        let bucket = parsed.as_ref().and_then(Url::host_str).map(str::to_owned);
        // It is not quoted: it may hold a key.
        let (Some(url), Some(bucket)) = (parsed, bucket) else {
            return Err("publisher.url is no bucket: write s3://bucket/folder, and keys into credentials_file or the environment".into());
        };
        if !self.endpoint.is_empty() {
            plain("endpoint", &self.endpoint)?;
        }
        Ok((bucket, url.path().trim_matches('/').to_owned()))
    }

    /// The public address of `serve`, without a slash at its end.
    pub(super) fn base(&self) -> Result<String, String> {
        plain("url", &self.url)
    }
}

/// An http address without a password, a question mark and a slash at its end.
fn plain(name: &str, text: &str) -> Result<String, String> {
    let parsed = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    let url = parsed.ok_or_else(|| format!("publisher.{name} is no plain http address (no password, no ?, no #)"))?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_would_read_and_what_cannot_work_is_refused() {
        let refused = |change: fn(&mut PublisherConfig)| {
            let mut config = PublisherConfig::default();
            change(&mut config);
            config.check().expect_err("refused")
        };
        assert_eq!(PublisherConfig::default().check(), Ok(()));
        assert!(refused(|config| config.lifetime_s = 20).starts_with("publisher.lifetime_s is of another"));
        assert!(refused(|config| config.url = "s3://b".into()).starts_with("publisher.url is of another"));
        let s3 = |change: fn(&mut PublisherConfig)| {
            let mut config = PublisherConfig { kind: PublisherKind::S3, url: "s3://b/crops".into(), ..PublisherConfig::default() };
            change(&mut config);
            config.check()
        };
        assert_eq!(s3(|_| {}), Ok(()));
        assert!(s3(|config| config.url = "https://key:secret@b".into()).is_err_and(|why| !why.contains("secret")));
        assert!(s3(|config| config.endpoint = "minio:9000".into()).is_err_and(|why| why.starts_with("publisher.endpoint")));
        assert!(s3(|config| config.lifetime_s = 1).is_err_and(|why| why.starts_with("publisher.lifetime_s is 1")));
        assert!(s3(|config| config.listen = "127.0.0.1:1".parse().ok()).is_err_and(|why| why.starts_with("publisher.listen is of")));
        let serve = |url: &str, listen: Option<&str>| {
            let listen = listen.map(|listen| listen.parse().expect("an address"));
            PublisherConfig { kind: PublisherKind::Serve, url: url.into(), listen, ..PublisherConfig::default() }.check()
        };
        assert_eq!(serve("https://crops.example/x/", Some("0.0.0.0:8095")), Ok(()));
        assert!(serve("https://crops.example", None).is_err_and(|why| why.starts_with("publisher.listen is not given")));
        assert!(serve("crops.example", Some("0.0.0.0:8095")).is_err_and(|why| why.starts_with("publisher.url")));
    }
}
