//! What the settings allow to those who name models. In: the settings. Out: whether a source may be used, with which key, and
//! where one may connect to for it.
//!
//! The service's own `model` is a setting itself and may be anything. Every other source comes from a peer, or from a ledger
//! that a peer had written into: it is a stranger's, and gets nothing that the settings do not allow by name.

use std::fmt;
use std::path::{Path, PathBuf};

use hypereyes_chassis::secret::SecretText;
use hypereyes_chassis::{BadInput, Reach};
use hypereyes_outside::files::Roots;
use reqwest::Url;
use reqwest::header::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::source::{Server, Source};

/// An environment variable whose value may be sent, and to whom.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct KeyConfig {
    /// The variable's name. The key itself is in no setting.
    pub env: String,
    /// The servers that it is for: `https://api.example.com`, `http://vllm:8000`; without a scheme `https`, without a port the
    /// scheme's.
    pub hosts: Vec<String>,
}

/// What may be used.
#[derive(Debug)]
pub struct Access {
    /// The service's own model; `None` where it cannot be read, which is said elsewhere.
    own: Option<Source>,
    roots: Roots,
    reach: Reach,
    redirects: Reach,
    redirects_to: Vec<Origin>,
    keys: Vec<(String, Origin)>,
}

/// An API key. It is shown nowhere.
#[derive(Clone)]
pub struct Key {
    header: HeaderValue,
}

impl Key {
    /// What is sent.
    pub fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Scheme, host and port: what a key is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// That of an address; `None` where it has no host or a port is not known.
    pub fn of(url: &Url) -> Option<Self> {
        let host = url.host_str()?.trim_end_matches('.').to_lowercase();
        Some(Self { scheme: url.scheme().to_owned(), host, port: url.port_or_known_default()? })
    }

    fn read(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no server: write https://host, http://host:port, or host for https");
        let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = Url::parse(&whole).map_err(|_| bad())?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        if !bare || url.password().is_some() || !matches!(url.scheme(), "http" | "https") || whole.contains('*') {
            return Err(bad());
        }
        Self::of(&url).ok_or_else(bad)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

impl Access {
    /// Reads the settings `model`, `roots`, `hosts`, `redirects` and `keys`.
    ///
    /// # Errors
    /// [`BadInput`], which names the key.
    pub fn new(model: &str, roots: &[PathBuf], hosts: &[String], redirects: &[String], keys: &[KeyConfig]) -> Result<Self, BadInput> {
        let own: Option<Source> = model.parse().ok();
        let roots: Vec<PathBuf> = if roots.is_empty() { own.as_ref().and_then(beside).into_iter().collect() } else { roots.to_vec() };
        let roots = Roots::new(roots).map_err(|error| BadInput::new(format!("roots: {error}")))?;
        let reach = Reach::public_and(hosts).map_err(|error| BadInput::new(format!("hosts: {error}")))?;
        let mut allowed = Vec::new();
        for KeyConfig { env, hosts } in keys {
            if !is_variable(env) {
                return Err(BadInput::new("keys: env is the name of an environment variable (letters, digits, _), never the key itself"));
            }
            if hosts.is_empty() {
                return Err(BadInput::new(format!("keys: {env} has no hosts; name the servers that it is for")));
            }
            for host in hosts {
                let origin = Origin::read(host).map_err(|error| BadInput::new(format!("keys: {env}: {error}")))?;
                allowed.push((env.clone(), origin));
            }
        }
        // What the own model is asked with may be named for it again.
        if let Some(Source::Server(server)) = &own
            && !server.key_env.is_empty()
            && let Some(origin) = server.origin()
        {
            allowed.push((server.key_env.clone(), origin));
        }
        let redirects_to: Result<Vec<Origin>, String> = redirects.iter().map(|host| Origin::read(host)).collect();
        let redirects_to = redirects_to.map_err(|error| BadInput::new(format!("redirects: {error}")))?;
        let redirected = Reach::public_and(redirects_to.iter().map(|origin| format!("{}:{}", origin.host, origin.port)));
        let redirected = redirected.map_err(|error| BadInput::new(format!("redirects: {error}")))?;
        Ok(Self { own, roots, reach, redirects: redirected, redirects_to, keys: allowed })
    }

    /// Of a source that is the service's own, and of no other.
    pub fn of_own(own: Source) -> Self {
        let nothing = || Reach::public_and::<&str>([]).unwrap_or_default();
        Self { own: Some(own), roots: Roots::default(), reach: nothing(), redirects: nothing(), redirects_to: vec![], keys: vec![] }
    }

    /// Whether this is the service's own model.
    pub fn is_own(&self, source: &Source) -> bool {
        self.own.as_ref() == Some(source)
    }

    /// Where one may connect to for a source.
    pub fn reach(&self, source: &Source) -> Reach {
        if self.is_own(source) { Reach::anywhere() } else { self.reach.clone() }
    }

    /// Asks what a source's host means, so that one that may not be reached is refused in so many words. Who connects looks
    /// again.
    ///
    /// # Errors
    /// A text that names the host.
    pub async fn look(&self, source: &Source) -> Result<(), String> {
        self.resolved(source).await.map_err(|error| error.to_string())
    }

    /// What of the settings keeps a source from being used, if anything does: unlike a host that is away, no later try ends
    /// otherwise.
    pub async fn forbids(&self, source: &Source) -> Option<String> {
        if let Source::Server(server) = source
            && let Err(reason) = self.key(server)
        {
            return Some(reason);
        }
        let error = self.resolved(source).await.err()?;
        (error.kind() == std::io::ErrorKind::PermissionDenied).then(|| format!("{source}: {error}"))
    }

    async fn resolved(&self, source: &Source) -> std::io::Result<()> {
        let (host, port) = match source {
            _ if self.is_own(source) => return Ok(()),
            Source::Folder(_) => return Ok(()),
            Source::Peer(address) => match address.rsplit_once(':') {
                Some((host, port)) => (host.to_owned(), port.parse().unwrap_or(0)),
                None => (address.clone(), 0),
            },
            Source::Store(url) if !matches!(url.scheme(), "http" | "https") => return Ok(()),
            Source::Store(url) => hypereyes_engines::http::place(url),
            Source::Server(server) => {
                hypereyes_engines::http::place(&server.address().ok_or_else(|| std::io::Error::other("its address has no host"))?)
            }
        };
        let host = host.trim_matches(['[', ']']);
        self.reach.resolve(host, port).await.map(drop)
    }

    /// Whether a store may send one on to this address.
    pub fn redirects_to(&self, url: &Url) -> bool {
        Origin::of(url).is_some_and(|origin| self.redirects_to.contains(&origin))
    }

    /// The port of a host that a store may send one on to.
    pub fn redirect_port(&self, host: &str) -> Option<u16> {
        self.redirects_to.iter().find(|origin| origin.host.eq_ignore_ascii_case(host.trim_end_matches('.'))).map(|origin| origin.port)
    }

    /// Where one may connect to once one was sent on: hosts that are named there may be private.
    pub fn redirected(&self) -> Reach {
        self.redirects.clone()
    }

    /// Where a folder of a source leads to, if it may be read. It asks the disk, which may never answer.
    ///
    /// # Errors
    /// A text that names the folder.
    pub fn folder(&self, source: &Source, folder: &Path) -> Result<PathBuf, String> {
        if self.is_own(source) {
            return Ok(folder.to_owned());
        }
        self.roots.admit(folder).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!("no model at {}: cannot read config.json ({error})", folder.display()),
            _ => self.elsewhere(folder, &error),
        })
    }

    /// Whether a file of such a folder may be read: it may link to another place below the roots, as caches of models do.
    ///
    /// # Errors
    /// A text that names the file.
    pub fn file(&self, source: &Source, path: &Path) -> Result<(), String> {
        if self.is_own(source) { Ok(()) } else { self.roots.admit(path).map(drop).map_err(|error| self.elsewhere(path, &error)) }
    }

    fn elsewhere(&self, path: &Path, error: &std::io::Error) -> String {
        if error.kind() != std::io::ErrorKind::PermissionDenied {
            return format!("{}: {error}", path.display());
        }
        let roots: Vec<String> = self.roots.folders().iter().map(|root| root.display().to_string()).collect();
        let allowed = if roots.is_empty() { "none".to_owned() } else { roots.join(", ") };
        format!("{} {error}; the service's setting `roots` names them (now: {allowed})", path.display())
    }

    /// The key that a server is asked with; `None` where its source names none.
    ///
    /// # Errors
    /// A text that names the variable, and never what it holds. Whether a variable is set is not said of one that is not
    /// allowed.
    pub fn key(&self, server: &Server) -> Result<Option<Key>, String> {
        let name = server.key_env.as_str();
        if name.is_empty() {
            return Ok(None);
        }
        let origin = server.origin().ok_or("its address has no host")?;
        if !self.keys.iter().any(|(env, allowed)| env == name && *allowed == origin) {
            return Err(format!(
                "key_env names {name}, which the service's settings do not allow for {origin}; \
                 keys = [{{ env = \"{name}\", hosts = [\"{origin}\"] }}] would"
            ));
        }
        let key = SecretText::of_variable("key_env", name)?;
        Ok(key.map(|key| Key { header: key.header("Bearer ") }))
    }
}

/// Whether a text can be the name of an environment variable. What is none may be a key that was put in the wrong place, and is
/// not quoted.
pub fn is_variable(name: &str) -> bool {
    let sound = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.len() <= 256 && name.chars().all(sound) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// The folder beside whose models others may lie: the one that holds the service's own.
fn beside(own: &Source) -> Option<PathBuf> {
    let folder = match own {
        Source::Folder(folder) => folder,
        Source::Server(server) => &server.tokenizer,
        Source::Store(_) | Source::Peer(_) => return None,
    };
    let folder = std::path::absolute(folder).ok()?;
    // The root of everything is nobody's folder of models.
    let inner = |folder: &&Path| folder.parent().is_some();
    let Some(parent) = folder.parent().filter(inner) else { return Some(folder) };
    // A cache of Hugging Face: versions lie in `snapshots/<commit>`, and their files are links into `blobs` beside that.
    let cached = parent.file_name().is_some_and(|name| name == "snapshots");
    Some(parent.parent().filter(|_| cached).filter(inner).unwrap_or(parent).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(model: &str, keys: &[(&str, &[&str])]) -> Result<Access, BadInput> {
        let keys: Vec<KeyConfig> = keys
            .iter()
            .map(|(env, hosts)| KeyConfig { env: (*env).into(), hosts: hosts.iter().map(|host| (*host).into()).collect() })
            .collect();
        Access::new(model, &[], &[], &[], &keys)
    }

    fn server(text: &str) -> Server {
        match text.parse() {
            Ok(Source::Server(server)) => server,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_key_is_for_the_servers_that_the_settings_name() {
        // PATH is set everywhere, and what it holds must be in no message.
        let access = access("/models/a", &[("PATH", &["api.example.com", "http://vllm:8000"])]).expect("sound");
        let key = |url: &str, env: &str| access.key(&server(&format!("{url}?tokenizer=/t&model=m&key_env={env}")));
        for allowed in ["vllm+https://api.example.com", "vllm+https://API.example.com:443/v1", "vllm+http://vllm:8000"] {
            let key = key(allowed, "PATH").expect(allowed).expect("a key");
            assert!(key.header().is_sensitive() && !format!("{key:?}").contains('/'), "{key:?}");
        }
        for refused in [
            "vllm+http://api.example.com",
            "vllm+https://api.example.com:8443",
            "vllm+https://api.example.com.evil.org",
            "vllm+https://evil.org",
            "vllm+https://evil.org/api.example.com",
            "vllm+https://vllm:8000",
            "vllm+http://vllm:8001",
        ] {
            let error = key(refused, "PATH").expect_err(refused);
            assert!(error.contains("PATH") && error.contains("keys") && !error.contains("/bin"), "{error}");
        }
        assert!(key("vllm+https://api.example.com", "HOME").expect_err("another variable").contains("HOME"));
        assert!(access.key(&server("vllm+https://evil.org?tokenizer=/t&model=m")).expect("no key is sent").is_none());
    }

    #[test]
    fn the_own_models_key_is_for_its_own_server_only() {
        let own = "sglang+http://10.0.0.1:30000?tokenizer=/models/t&key_env=PATH";
        let access = access(own, &[]).expect("sound");
        assert!(access.is_own(&own.parse().expect("sound")));
        assert!(access.key(&server(own)).expect("its own").is_some());
        assert!(access.key(&server("sglang+http://10.0.0.2:30000?tokenizer=/models/t&key_env=PATH")).is_err());
    }

    #[test]
    fn settings_that_cannot_be_meant_are_named_and_not_quoted() {
        for (keys, part) in [
            (("sk-s3cr3t", &["https://h"][..]), "never the key itself"),
            (("TOKEN", &[][..]), "no hosts"),
            (("TOKEN", &["ftp://h"][..]), "no server"),
            (("TOKEN", &["https://h/path"][..]), "no server"),
            (("TOKEN", &["*"][..]), "no server"),
        ] {
            let error = access("/m/a", &[keys]).expect_err(part).to_string();
            assert!(error.starts_with("keys") && error.contains(part) && !error.contains("s3cr3t"), "{error}");
        }
        assert!(Access::new("/m/a", &[], &["*".into()], &[], &[]).expect_err("everybody").to_string().starts_with("hosts"));
        assert!(Access::new("/m/a", &[], &[], &["a b".into()], &[]).expect_err("nobody").to_string().starts_with("redirects"));
    }

    #[test]
    fn folders_lie_beside_the_own_model_or_where_the_settings_say() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (models, other) = (folder.path().join("models"), folder.path().join("other"));
        for each in ["models/a", "models/b", "other/c"] {
            std::fs::create_dir_all(folder.path().join(each)).expect("made");
        }
        let own = models.join("a").display().to_string();
        let asked = |path: &Path| Source::Folder(path.to_owned());
        let access = Access::new(&own, &[], &[], &[], &[]).expect("sound");
        assert!(access.folder(&asked(&models.join("b")), &models.join("b")).is_ok());
        let error = access.folder(&asked(&other.join("c")), &other.join("c")).expect_err("elsewhere");
        assert!(error.contains("roots") && error.contains("models"), "{error}");
        let wide = Access::new(&own, std::slice::from_ref(&other), &[], &[], &[]).expect("sound");
        assert!(wide.folder(&asked(&other.join("c")), &other.join("c")).is_ok());
        assert!(wide.folder(&asked(&models.join("b")), &models.join("b")).is_err(), "what is named replaces what is not");
        assert!(wide.folder(&own.parse().expect("sound"), &models.join("a")).is_ok(), "the own model is a setting itself");
        assert_eq!(beside(&asked(Path::new("/teacher"))), Some("/teacher".into()), "never everything");
        // Another version in the same cache, whose files are links.
        let cache = folder.path().join("models--of--somebody");
        for (version, blob) in [("one", "b1"), ("two", "b2")] {
            std::fs::create_dir_all(cache.join("snapshots").join(version)).expect("made");
            std::fs::create_dir_all(cache.join("blobs")).expect("made");
            std::fs::write(cache.join("blobs").join(blob), "{}").expect("written");
            let link = cache.join("snapshots").join(version).join("config.json");
            std::os::unix::fs::symlink(Path::new("../../blobs").join(blob), link).expect("linked");
        }
        let (one, two) = (cache.join("snapshots/one"), cache.join("snapshots/two"));
        let cached = Access::new(&one.display().to_string(), &[], &[], &[], &[]).expect("sound");
        assert!(cached.folder(&asked(&two), &two).is_ok() && cached.file(&asked(&two), &two.join("config.json")).is_ok());
        assert!(cached.folder(&asked(&models.join("b")), &models.join("b")).is_err(), "and nothing beside the cache");
    }
}
