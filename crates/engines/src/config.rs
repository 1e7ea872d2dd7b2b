//! The `engine` settings: which kind of engine, where it is, and its sizes. In: what a file says. Out: values with defaults, or which
//! key cannot be used. Opens nothing.

use std::path::PathBuf;
use std::time::Duration;

use hypereyes_chassis::secret::check_name;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::Device;
use hypereyes_policy::engine as local;
use reqwest::Url;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{command, kinds};

/// Servers above this are a slip.
const MOST_SERVERS: usize = 1024;
/// A wait above this is a slip: a week.
const MOST_SECONDS: u64 = 7 * 24 * 3600;

/// Where clients of chat completions look for a key that nobody named.
const OPENAI_KEY: &str = "OPENAI_API_KEY";

/// Settings of an engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Who samples: `local`, in this process, servers that speak as `vllm` or `sglang` do, or `openai`: any server of chat completions, with
    /// which tasks of `eval`, `ask` and `synth` are played in text, and which is never trained. Default `local`.
    pub kind: String,
    /// Roots of the servers, such as `http://127.0.0.1:8000`; one, or a list of them. All hold the same weights. Of `openai`
    /// the base of one API, such as `http://127.0.0.1:8000/v1`. Default none.
    #[serde(deserialize_with = "one_or_many")]
    pub url: Vec<String>,
    /// A server of this process's own, in the place of `url`: a program and its arguments, in which `{port}` stands for a free port and
    /// `{model}` for the policy's folder. It is started without a shell, again when it dies, and ends with this process. Not for `openai`,
    /// which is always somebody else's. Default none.
    pub command: Vec<String>,
    /// File to which that server's output is appended. Default `engine.log`; the servers of actors under `up` write into the run folder.
    pub log: PathBuf,
    /// The model's name at the servers. Default empty: the first that they serve.
    pub model: String,
    /// Folder in which policies are written for the servers to read, under the same path there. Default none; servers need one, and
    /// no two processes may share it.
    pub policy_folder: PathBuf,
    /// Environment variable that holds the servers' API key; empty sends none, and with `openai` the one in
    /// `OPENAI_API_KEY` if that is set. The key itself is in no file and no log.
    pub api_key_env: String,
    /// Seconds to wait for one answer of a server. Default 300. A turn has twice as long, with all its repeats at other servers; the
    /// time for which a server stands still for other weights comes on top, within `rollout.turn_timeout_s`.
    pub request_timeout_s: u64,
    /// Seconds that a server may take to put other weights in. Default 600: tens of gigabytes from a disk.
    pub reload_timeout_s: u64,
    /// Seconds to wait for servers at the start. Default 600: a large model loads for a while.
    pub start_timeout_s: u64,
    /// Seconds between looks at whether each server is well. Default 5.
    pub health_interval_s: u64,
    /// Sequences held at once, prompts that are being read included; further groups wait. Of servers: requests under way at each, fewer
    /// where the server says that it takes fewer.
    pub max_sequences: usize,
    /// Tokens of one sequence, prompt included; at most what a server takes.
    pub max_context: usize,
    /// Most bytes of keys and values; fewer sequences are held if they would need more. Default 4 GiB.
    pub cache_bytes: u64,
    /// Where the model computes: `cpu`, `cuda` or `cuda-bf16`. Default `cpu`.
    pub device: Device,
    /// Rows in one pass: bounds the memory of a pass and how long decoding waits for a long prompt.
    pub max_rows: usize,
    /// Bytes of pictures cut into patches that are kept for the next who shows them. Default 256 MiB; 0 keeps none.
    pub patches_bytes: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        let local::EngineConfig { max_sequences, max_context, cache_bytes, device, max_rows, .. } = local::EngineConfig::default();
        Self {
            kind: kinds::LOCAL.into(),
            url: vec![],
            command: vec![],
            log: PathBuf::from("engine.log"),
            model: String::new(),
            policy_folder: PathBuf::new(),
            api_key_env: String::new(),
            request_timeout_s: 300,
            reload_timeout_s: 600,
            start_timeout_s: 600,
            health_interval_s: 5,
            max_sequences,
            max_context,
            cache_bytes,
            device,
            max_rows,
            patches_bytes: 256 << 20,
        }
    }
}

impl EngineConfig {
    /// What the engine of this process is made with; it ends a turn at no token.
    pub fn sizes(&self) -> local::EngineConfig {
        let Self { max_sequences, max_context, cache_bytes, device, max_rows, .. } = *self;
        local::EngineConfig { max_sequences, max_context, cache_bytes, device, max_rows, ..local::EngineConfig::default() }
    }

    /// Whether a policy is reached that speaks text: what it says can be measured, and not trained.
    pub fn speaks_text(&self) -> bool {
        self.kind == kinds::OPENAI
    }

    /// The environment variable whose key is sent; empty for none.
    pub fn key_variable(&self) -> &str {
        let usual = self.api_key_env.is_empty() && self.speaks_text() && std::env::var_os(OPENAI_KEY).is_some_and(|key| !key.is_empty());
        if usual { OPENAI_KEY } else { &self.api_key_env }
    }

    /// Whether servers sample, and nothing is computed in this process.
    pub fn is_remote(&self) -> bool {
        self.kind != kinds::LOCAL
    }

    /// Refuses a kind that there is not, keys of another kind than this one, and sizes with which nothing could ever be computed, naming
    /// the key.
    ///
    /// # Errors
    /// A sentence for whoever wrote the settings; it begins with the key.
    pub fn check(&self) -> Result<(), String> {
        kinds::check(&self.kind)?;
        self.check_other_kinds()?;
        self.sizes().check()?;
        if self.is_remote() { self.check_servers() } else { Ok(()) }
    }

    /// Keys that say nothing to this kind, and were said.
    fn check_other_kinds(&self) -> Result<(), String> {
        let usual = Self::default();
        let of_servers = [
            ("url", self.url != usual.url),
            ("command", self.command != usual.command),
            ("log", self.log != usual.log),
            ("model", self.model != usual.model),
            ("policy_folder", self.policy_folder != usual.policy_folder),
            ("api_key_env", self.api_key_env != usual.api_key_env),
            ("request_timeout_s", self.request_timeout_s != usual.request_timeout_s),
            ("reload_timeout_s", self.reload_timeout_s != usual.reload_timeout_s),
            ("start_timeout_s", self.start_timeout_s != usual.start_timeout_s),
            ("health_interval_s", self.health_interval_s != usual.health_interval_s),
        ];
        let of_this_process = [
            ("cache_bytes", self.cache_bytes != usual.cache_bytes),
            ("device", self.device != usual.device),
            ("max_rows", self.max_rows != usual.max_rows),
            ("patches_bytes", self.patches_bytes != usual.patches_bytes),
        ];
        let of_weights = [
            ("command", self.command != usual.command),
            ("log", self.log != usual.log),
            ("policy_folder", self.policy_folder != usual.policy_folder),
            ("reload_timeout_s", self.reload_timeout_s != usual.reload_timeout_s),
            ("start_timeout_s", self.start_timeout_s != usual.start_timeout_s),
            ("health_interval_s", self.health_interval_s != usual.health_interval_s),
            ("max_context", self.max_context != usual.max_context),
        ];
        let kind = &self.kind;
        let (others, instead) = if self.speaks_text() {
            ([&of_this_process[..], &of_weights].concat(), "a chat endpoint is asked at url and nothing else: leave it out")
        } else if self.is_remote() {
            (of_this_process.to_vec(), "the servers' own settings say that: leave it out")
        } else {
            (of_servers.to_vec(), "nobody is called: set kind to vllm, sglang or openai, or leave it out")
        };
        match others.iter().find(|(_, said)| *said) {
            Some((key, _)) => Err(format!("{key} is set, but kind is {kind:?}: {instead}")),
            None => Ok(()),
        }
    }

    fn check_servers(&self) -> Result<(), String> {
        command::check(&self.command)?;
        match (self.url.is_empty(), self.command.is_empty()) {
            (true, true) => {
                let kind = &self.kind;
                return Err(format!(
                    "url is empty, but kind is {kind:?}: name the servers, such as http://127.0.0.1:8000, or give command"
                ));
            }
            (false, false) => return Err("url and command are both set: a server is at an address, or is started here; give one".into()),
            _ => {}
        }
        if !self.command.is_empty() && self.log.as_os_str().is_empty() {
            return Err("log is empty: name a file for what the server of command says".into());
        }
        if self.url.len() > MOST_SERVERS {
            return Err(format!("url names {} servers: give at most {MOST_SERVERS}", self.url.len()));
        }
        for (at, url) in self.url.iter().enumerate() {
            server_root(url).map_err(|reason| format!("url {reason}"))?;
            if self.url[..at].iter().any(|other| other.trim_end_matches('/') == url.trim_end_matches('/')) {
                return Err(format!("url names {url} twice"));
            }
        }
        if self.speaks_text() && self.url.len() > 1 {
            return Err(format!("url names {} servers, but kind is {:?}: give one", self.url.len(), self.kind));
        }
        if self.policy_folder.as_os_str().is_empty() && !self.speaks_text() {
            return Err("policy_folder is empty: name a folder that the servers see under the same path; policies are written there".into());
        }
        check_name("api_key_env", &self.api_key_env)?;
        let times = [
            ("request_timeout_s", self.request_timeout_s),
            ("reload_timeout_s", self.reload_timeout_s),
            ("start_timeout_s", self.start_timeout_s),
            ("health_interval_s", self.health_interval_s),
        ];
        match times.iter().find(|(_, seconds)| !(1..=MOST_SECONDS).contains(seconds)) {
            Some((key, seconds)) => Err(format!("{key} is {seconds}: give 1 to {MOST_SECONDS}")),
            None => Ok(()),
        }
    }

    /// Longest wait for one answer of a server.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_s)
    }

    /// Longest time for other weights.
    pub(crate) fn reload_timeout(&self) -> Duration {
        Duration::from_secs(self.reload_timeout_s)
    }

    /// Longest wait for servers at the start.
    pub(crate) fn start_timeout(&self) -> Duration {
        Duration::from_secs(self.start_timeout_s)
    }

    /// Pause between looks at a server.
    pub(crate) fn health_interval(&self) -> Duration {
        Duration::from_secs(self.health_interval_s)
    }

    /// What keeps a group of `siblings` out of such an engine, and what would let it in; `group` is the key that asks for it.
    /// Without a model only the number of sequences can be told.
    ///
    /// # Errors
    /// A sentence that follows `group` and names the other key, whose table is `table`.
    pub fn holds_group(&self, table: &str, siblings: usize, model: Option<&ModelConfig>) -> Result<(), String> {
        if self.is_remote() {
            // Turns of a group that have no place at a server wait for one.
            return Ok(());
        }
        self.sizes().holds_group(table, siblings, model)
    }

    /// Sequences that such an engine holds of a model: as many as `max_sequences` allows and `cache_bytes` has room for.
    pub fn slots(&self, model: &ModelConfig) -> usize {
        if self.is_remote() { self.max_sequences.saturating_mul(self.url.len().max(1)) } else { self.sizes().slots(model) }
    }
}

/// The root of a server as an address.
///
/// # Errors
/// A text that follows the key. It does not quote what may hold a password.
pub(crate) fn server_root(text: &str) -> Result<Url, String> {
    let example = "give a server's root, such as http://127.0.0.1:8000";
    let url = Url::parse(text).map_err(|error| format!("is no address ({error}): {example}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("is no address of a server: {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("is no plain address (no password, no ?, no #): a key goes into the variable that api_key_env names".into());
    }
    Ok(url)
}

/// One text, or a list of them.
fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Said {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Said::deserialize(from)? {
        Said::One(one) => vec![one],
        Said::Many(many) => many,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_there_is_not_is_refused_with_those_that_there_are() {
        assert_eq!(EngineConfig::default().check(), Ok(()));
        let error = EngineConfig { kind: "vlm".into(), ..EngineConfig::default() }.check().expect_err("no such kind");
        assert!(error.starts_with("kind is \"vlm\"") && error.contains("local"), "{error}");
        let error = EngineConfig { max_rows: 0, ..EngineConfig::default() }.check().expect_err("no rows");
        assert!(error.starts_with("max_rows is 0"), "{error}");
    }

    fn servers() -> EngineConfig {
        let url = vec!["http://127.0.0.1:8000".into(), "https://host/api".into()];
        EngineConfig { kind: "vllm".into(), url, policy_folder: "/shared/policies".into(), ..EngineConfig::default() }
    }

    #[test]
    fn servers_are_named_by_their_roots_and_need_a_folder() {
        assert_eq!(servers().check(), Ok(()));
        type Spoil = fn(&mut EngineConfig);
        let cases: [(&str, Spoil); 9] = [
            ("url is empty", |config| config.url.clear()),
            ("url is no address", |config| config.url[0] = "127.0.0.1:8000".into()),
            ("url is no plain address", |config| config.url[0] = "http://user:secret@host:1".into()),
            ("url names http://127.0.0.1:8000/ twice", |config| config.url[1] = "http://127.0.0.1:8000/".into()),
            ("policy_folder is empty", |config| config.policy_folder.clear()),
            ("api_key_env is no name", |config| config.api_key_env = "sk-secret".into()),
            ("request_timeout_s is 0", |config| config.request_timeout_s = 0),
            ("max_context is 0", |config| config.max_context = 0),
            ("cache_bytes is set, but kind is \"vllm\"", |config| config.cache_bytes = 1),
        ];
        for (begins, spoil) in cases {
            let mut config = servers();
            spoil(&mut config);
            let error = config.check().expect_err(begins);
            assert!(error.starts_with(begins) && !error.contains("secret"), "{error}");
        }
        let command = ["vllm", "serve", "{model}", "--port", "{port}"].map(str::to_owned).to_vec();
        let both = EngineConfig { command: command.clone(), ..servers() }.check().expect_err("one of them");
        assert!(both.starts_with("url and command are both set"), "{both}");
        assert_eq!(EngineConfig { command: command.clone(), url: vec![], ..servers() }.check(), Ok(()));
        let deaf = EngineConfig { command: command[..3].to_vec(), url: vec![], ..servers() }.check().expect_err("no port");
        assert!(deaf.starts_with("command has no {port}"), "{deaf}");
        let error = EngineConfig { kind: "local".into(), ..servers() }.check().expect_err("nobody is called");
        assert!(error.starts_with("url is set, but kind is \"local\""), "{error}");
    }

    #[test]
    fn a_chat_endpoint_is_one_address_and_takes_no_weights() {
        let endpoint = EngineConfig { kind: "openai".into(), url: vec!["http://127.0.0.1:8000/v1".into()], ..EngineConfig::default() };
        assert_eq!(endpoint.check(), Ok(()));
        assert!(endpoint.speaks_text() && endpoint.is_remote() && !servers().speaks_text());
        assert_eq!(EngineConfig { api_key_env: "MINE".into(), ..endpoint.clone() }.key_variable(), "MINE");
        assert_eq!(servers().key_variable(), "");
        type Spoil = fn(&mut EngineConfig);
        let cases: [(&str, Spoil); 6] = [
            ("url is empty", |config| config.url.clear()),
            ("url names 2 servers", |config| config.url.push("http://b:1".into())),
            ("policy_folder is set, but kind is \"openai\"", |config| config.policy_folder = "p".into()),
            ("max_context is set", |config| config.max_context += 1),
            ("command is set", |config| config.command = vec!["vllm".into(), "{port}".into()]),
            ("cache_bytes is set", |config| config.cache_bytes += 1),
        ];
        for (begins, spoil) in cases {
            let mut config = endpoint.clone();
            spoil(&mut config);
            let error = config.check().expect_err(begins);
            assert!(error.starts_with(begins), "{error}");
        }
    }

    #[test]
    fn one_server_needs_no_list() {
        let read = |text: &str| serde_json::from_str::<EngineConfig>(text).map(|config| config.url);
        assert_eq!(read(r#"{"url":"http://a:1"}"#).expect("one"), ["http://a:1"]);
        assert_eq!(read(r#"{"url":["http://a:1","http://b:1"]}"#).expect("two"), ["http://a:1", "http://b:1"]);
        assert!(read(r#"{"url":7}"#).is_err());
    }

    #[test]
    fn settings_survive_json_and_unknown_keys_are_refused() {
        let text = serde_json::to_string(&EngineConfig::default()).expect("plain data");
        assert_eq!(serde_json::from_str::<EngineConfig>(&text).expect("reads back"), EngineConfig::default());
        assert!(serde_json::from_str::<EngineConfig>(r#"{"max_row":1}"#).is_err());
    }
}
