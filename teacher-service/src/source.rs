//! Where a model is. In: a text of a person or a ledger. Out: a [`Source`], or what is wrong with the text. Opens nothing.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

pub use hypereyes_engines::scoring::Dialect;
use hypereyes_outside::text::unprintable;
use reqwest::Url;

use crate::access::{Origin, is_variable};

/// Longest text that is taken.
const MAX_BYTES: usize = hypereyes_proto::limits::MAX_SOURCE_BYTES;

/// Where a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder in Hugging Face layout on this machine.
    Folder(PathBuf),
    /// The same in an object store: `s3://bucket/prefix`, `gs://`, `az://`, `http://`, `https://`.
    Store(Url),
    /// Another teacher service: `grpc://host:port`. Its active model answers.
    Peer(String),
    /// Somebody else's server.
    Server(Server),
}

/// Somebody else's server: `sglang+http://host:port?tokenizer=FOLDER`, `vllm+http://host:port?tokenizer=FOLDER&model=NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// How it is spoken to.
    pub dialect: Dialect,
    /// Scheme, host, port and path, without a slash at the end.
    pub url: String,
    /// Folder with the `tokenizer.json`, `config.json` and `preprocessor_config.json` of the model that it serves: such servers do
    /// not say what their token ids mean.
    pub tokenizer: PathBuf,
    /// The model's name at the server; vLLM wants one.
    pub model: String,
    /// Environment variable that holds the API key; empty sends none. The key itself is in no list and no ledger.
    pub key_env: String,
}

impl Server {
    /// Where it is, as far as keys are concerned.
    pub fn origin(&self) -> Option<Origin> {
        Origin::of(&self.address()?)
    }

    /// Its address.
    pub fn address(&self) -> Option<Url> {
        Url::parse(&self.url).ok()
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_BYTES || unprintable(text).is_some() {
            return Err(format!("a source has 1..={MAX_BYTES} bytes and no control or direction characters; this one has {}", text.len()));
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Self::Folder(PathBuf::from(text))) };
        // It is not quoted: what cannot be read may hold a password.
        let url = |text: &str| Url::parse(text).map_err(|error| format!("{scheme}://... is no address: {error}"));
        match scheme {
            "file" => Ok(Self::Folder(PathBuf::from(rest))),
            "grpc" => peer(rest.trim_end_matches('/')),
            "s3" | "gs" | "az" | "http" | "https" => {
                let url = url(text)?;
                if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
                    return Err(
                        "an address with a password or a signature would be written into lists and logs; use the environment".into()
                    );
                }
                if url.host_str().is_none_or(str::is_empty) {
                    return Err(format!("{scheme}:// needs a host or a bucket"));
                }
                Ok(Self::Store(url))
            }
            "sglang+http" | "sglang+https" => server(Dialect::Sglang, &url(text.trim_start_matches("sglang+"))?).map(Self::Server),
            "vllm+http" | "vllm+https" => server(Dialect::Vllm, &url(text.trim_start_matches("vllm+"))?).map(Self::Server),
            other => Err(format!(
                "{other}:// is not known; a model is a folder, s3://, gs://, az:// or http:// files, grpc://, sglang+http:// or vllm+http://"
            )),
        }
    }
}

impl Source {
    /// Whether it is on another machine, which may be away for a while.
    pub fn is_away(&self) -> bool {
        !matches!(self, Self::Folder(_))
    }
}

fn peer(address: &str) -> Result<Source, String> {
    if address.contains(['@', '/', '?', '#']) {
        return Err("grpc:// is followed by host:port and nothing else, least of all a password".into());
    }
    let (host, port) = address.rsplit_once(':').ok_or("grpc://host:port is needed")?;
    match port.parse::<u16>() {
        Ok(1..) if !host.is_empty() => Ok(Source::Peer(address.to_owned())),
        _ => Err("grpc://host:port is needed, with a port above 0".into()),
    }
}

fn server(dialect: Dialect, url: &Url) -> Result<Server, String> {
    let mut server = Server { dialect, url: String::new(), tokenizer: PathBuf::new(), model: String::new(), key_env: String::new() };
    for (key, value) in url.query_pairs() {
        match &*key {
            "tokenizer" => server.tokenizer = PathBuf::from(&*value),
            "model" => server.model = value.into_owned(),
            "key_env" => server.key_env = value.into_owned(),
            other => return Err(format!("?{other}= is not known; tokenizer, model and key_env are")),
        }
    }
    if !server.key_env.is_empty() && !is_variable(&server.key_env) {
        return Err("&key_env= is no name of an environment variable; the key itself belongs into one, and never here".into());
    }
    if server.tokenizer.as_os_str().is_empty() {
        return Err("?tokenizer=FOLDER is missing: such a server does not say what its token ids mean".into());
    }
    if dialect == Dialect::Vllm && server.model.is_empty() {
        return Err("&model=NAME is missing: this server wants the model's name".into());
    }
    if url.host_str().is_none_or(str::is_empty) || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err("a host is needed, and no password: name an environment variable with &key_env=".into());
    }
    let mut bare = url.clone();
    bare.set_query(None);
    server.url = bare.as_str().trim_end_matches('/').to_owned();
    Ok(server)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Store(url) => f.write_str(url.as_str()),
            Self::Peer(address) => write!(f, "grpc://{address}"),
            Self::Server(Server { dialect, url, tokenizer, model, key_env }) => {
                write!(f, "{dialect}+{url}?tokenizer={}", tokenizer.display())?;
                for (key, value) in [("model", model), ("key_env", key_env)].iter().filter(|(_, value)| !value.is_empty()) {
                    write!(f, "&{key}={value}")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_and_written_alike() {
        for text in [
            "/models/teacher",
            "models/teacher",
            "s3://bucket/teachers/v3",
            "grpc://teacher-green:7002",
            "sglang+http://host:30000?tokenizer=/models/t",
            "vllm+https://host/api?tokenizer=/models/t&model=big&key_env=TOKEN",
        ] {
            assert_eq!(text.parse::<Source>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        for (text, part) in [
            ("", "1..="),
            ("ftp://x/y", "ftp"),
            ("sglang+http://host:1", "tokenizer"),
            ("vllm+http://host:1?tokenizer=/t", "model"),
            ("vllm+http://host:1?tokenizer=/t&model=m&colour=red", "colour"),
            ("s3://user:secret@bucket/x", "password"),
            ("https://host/model?X-Amz-Signature=secret", "signature"),
            ("http://user:secret@host:99999/", "no address"),
            ("grpc://user:secret@host:1", "password"),
            ("grpc://host", "host:port"),
            ("grpc://host:0", "port above 0"),
            ("grpc://host:70000", "port above 0"),
            ("vllm+https://user:secret@host?tokenizer=/t&model=m", "password"),
            ("vllm+https://host?tokenizer=/t&model=m&key_env=sk-secret", "never here"),
            ("/models/\u{202e}a", "direction"),
            ("/models/a\nb", "control"),
        ] {
            let error = text.parse::<Source>().expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
