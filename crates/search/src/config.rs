//! The `[search]` table. In: what a file says. Out: values with defaults. Opens nothing.

use std::path::PathBuf;

use hypereyes_chassis::secret::check_name;
use serde::{Deserialize, Serialize};

use crate::backends::{self, Open, Side};
use crate::publisher::{PublisherConfig, PublisherKind};

/// What `page.backend` is called where pages are read by whoever searches texts.
pub(crate) const AS_TEXT: &str = "text";

/// Where searches go, and within which bounds.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct SearchConfig {
    /// Searches at once; the others wait. Default 64: a service's usual quota, and plenty for the embedded world.
    pub concurrency: usize,
    /// Seconds that one search may take, waiting included. Default 300, as the reference's tools have it (docs/spec.md#search-services).
    pub deadline_s: f64,
    /// Whether somebody is asked: `live`, `record` (asked once, and everything is kept, failures too) or `replay` (nobody is asked; what
    /// is not kept fails by name). Default `live`.
    pub mode: Mode,
    /// Where texts are searched.
    pub text: BackEndConfig,
    /// Where pictures are searched.
    pub image: BackEndConfig,
    /// Where pages are read. Default `backend = "text"`: by whoever of `text` reads pages.
    pub page: BackEndConfig,
    /// Who puts crops where services that are told addresses can fetch them.
    pub publisher: PublisherConfig,
    /// What is kept of what services answered.
    pub cache: CacheConfig,
    /// What may be asked and spent.
    pub budget: BudgetConfig,
}

/// Whether somebody is asked.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// What is not kept is asked.
    #[default]
    Live,
    /// The same, and everything is kept.
    Record,
    /// Nobody is asked.
    Replay,
}

/// One side of searching.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct BackEndConfig {
    /// Which back end answers. Default `world`: the world pack of `world` answers by itself, without any service.
    pub backend: String,
    /// Where the service is. Default none: its own address, where it has one.
    pub url: String,
    /// Environment variable that holds the key. Default none: the service's usual one, such as `SERPER_API_KEY`, where it needs a key.
    pub api_key_env: String,
    /// File that holds the key, as Kubernetes mounts secrets. Default none; with it there is no `api_key_env`.
    pub api_key_file: Option<PathBuf>,
    /// What else the service is told, each as `name=value`, such as `hl=en`. Default nothing.
    pub parameters: Vec<String>,
    /// Hits that are asked for. Default 10, as the reference asks (docs/spec.md#search-services).
    pub hits: u32,
    /// Requests a second that the service allows. Default 0: no limit.
    pub per_second: f64,
    /// What a request costs, in dollars. Default 0. Needed where `search.budget.usd` bounds a service that is paid for.
    pub usd_per_request: f64,
    /// How often one request is made, before its query fails. Default 3.
    pub attempts: u32,
    /// Seconds that one of them may take. Default 30.
    pub attempt_s: f64,
    /// Who is asked where this one fails for a reason that passes, or has run out: tables like this one, in order. Default nobody. Each
    /// time is counted: a weaker service answers other things.
    pub fallbacks: Vec<BackEndConfig>,
}

/// What is kept.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// File that keeps what services answered, and what was spent. Default none: nothing is kept. In a replay it may be a recording (JSON lines).
    pub path: Option<PathBuf>,
    /// Days that hits are good. Default 30.
    pub days: f64,
    /// Hours that it is good that nothing was found. Default 24: the next day there may be something.
    pub empty_hours: f64,
}

/// What may be asked and spent.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetConfig {
    /// Requests to services, as long as `search.cache.path` lives, failed ones included. Default 0: no bound.
    pub requests: u64,
    /// Dollars, likewise. Default 0: no bound.
    pub usd: f64,
}

impl Default for BackEndConfig {
    fn default() -> Self {
        Self {
            backend: backends::world::NAME.into(),
            url: String::new(),
            api_key_env: String::new(),
            api_key_file: None,
            parameters: vec![],
            hits: 10,
            per_second: 0.0,
            usd_per_request: 0.0,
            attempts: 3,
            attempt_s: 30.0,
            fallbacks: vec![],
        }
    }
}

/// Pages are read where texts are searched.
fn as_text() -> BackEndConfig {
    BackEndConfig { backend: AS_TEXT.into(), ..BackEndConfig::default() }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { path: None, days: 30.0, empty_hours: 24.0 }
    }
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self {
            concurrency: 64,
            deadline_s: 300.0,
            mode: Mode::Live,
            text: BackEndConfig::default(),
            image: BackEndConfig::default(),
            page: as_text(),
            publisher: PublisherConfig::default(),
            cache: CacheConfig::default(),
            budget: BudgetConfig::default(),
        }
    }
}

/// The longest time that a search can be given, in seconds.
const LONGEST_S: f64 = 3600.0;
/// What a server's answer takes beyond its own deadline, in seconds, at most.
const ANSWERS_S: f64 = 5.0;
/// The longest time that anything is kept, in days.
const LONGEST_DAYS: f64 = 36_500.0;

impl SearchConfig {
    /// Refuses back ends that do not exist, bounds that no search fits in, and keys that nobody would read, naming the key.
    ///
    /// # Errors
    /// A sentence for whoever wrote the settings.
    pub fn check(&self) -> Result<(), String> {
        if self.concurrency == 0 {
            return Err("concurrency is 0: no search could be made; give at least 1".to_owned());
        }
        if !(self.deadline_s > 0.0 && self.deadline_s <= LONGEST_S) {
            return Err(format!("deadline_s is {}: give more than 0 and at most {LONGEST_S}", self.deadline_s));
        }
        for (key, value, most) in
            [("cache.days", self.cache.days, LONGEST_DAYS), ("cache.empty_hours", self.cache.empty_hours, LONGEST_DAYS * 24.0)]
        {
            if !(0.0..=most).contains(&value) {
                return Err(format!("{key} is {value}: give 0 to {most}"));
            }
        }
        let usd = self.budget.usd;
        if !(0.0..=1e9).contains(&usd) {
            return Err(format!("budget.usd is {usd}: give 0 (no bound) or more"));
        }
        self.text.check(Side::Text, "text")?;
        self.image.check(Side::Image, "image")?;
        if self.page.backend != AS_TEXT {
            self.page.check(Side::Page, "page")?;
        } else if self.page != as_text() {
            let name = self.page.differs_from(&as_text()).unwrap_or("fallbacks");
            return Err(format!(
                "page.{name} is of who reads pages, and page.backend is text: whoever searches texts, with settings of their own"
            ));
        }
        self.publisher.check()?;
        let by_address = self.all().find(|(_, side)| backends::named(&side.backend).is_some_and(|kind| kind.by_address));
        match (by_address, self.publisher.kind) {
            (Some((key, side)), PublisherKind::None) if self.mode != Mode::Replay => {
                return Err(format!(
                    "{key}.backend is {}, which is told where a picture is: publisher.kind is none, and nobody puts it there (docs/search.md)",
                    side.backend
                ));
            }
            (None, PublisherKind::S3 | PublisherKind::Serve) => {
                return Err(
                    "publisher.kind is set, and no back end of search.image is told where pictures are: nothing would be published"
                        .to_owned(),
                );
            }
            _ => {}
        }
        if self.cache.path.is_none() {
            let why = "give cache.path, the file that keeps it";
            match self.mode {
                Mode::Live => {}
                Mode::Record => return Err(format!("mode is record, and nothing would be kept: {why}")),
                Mode::Replay => return Err(format!("mode is replay, of what? {why}")),
            }
            let bounds = [("requests", self.budget.requests > 0), ("usd", usd > 0.0)];
            if let Some((name, _)) = bounds.into_iter().find(|(_, is_bound)| *is_bound) {
                return Err(format!("budget.{name} bounds what is spent, which must outlive the process: {why}"));
            }
        }
        for (key, side) in self.all() {
            let back_end = backends::named(&side.backend).ok_or_else(|| format!("{key}.backend"))?;
            // One that answers without a key does so for nothing.
            let has_key = !side.api_key_env.is_empty() || side.api_key_file.is_some();
            let is_paid = back_end.is_paid && (!back_end.is_open || has_key);
            if usd > 0.0 && is_paid && side.usd_per_request == 0.0 {
                return Err(format!(
                    "{key}.usd_per_request is 0, and budget.usd bounds what is spent: say what a request to {} costs",
                    side.backend
                ));
            }
        }
        Ok(())
    }

    /// Every back end, with its key within the table.
    pub fn all(&self) -> impl Iterator<Item = (String, &BackEndConfig)> {
        let page = (self.page.backend != AS_TEXT).then_some(("page", &self.page));
        let sides = [("text", &self.text), ("image", &self.image)].into_iter().chain(page);
        sides.flat_map(|(key, side)| std::iter::once((key.to_owned(), side)).chain(side.named_fallbacks(key)))
    }

    /// Whether processes that search with these settings at the same time must ask one server that does: a file is open in one process
    /// at a time, a rate is one service's, and one process listens for those who fetch what was published.
    pub fn wants_one_server(&self) -> bool {
        let is_shared = self.cache.path.is_some() || self.publisher.kind == PublisherKind::Serve;
        self.mode != Mode::Replay && (is_shared || self.all().any(|(_, side)| side.per_second > 0.0))
    }

    /// What such a process searches with where a server at `url` has these settings. What the process itself answers, and nobody
    /// records, needs no server.
    pub fn through(&self, url: &str) -> Self {
        // Whoever asks waits longer than the server does: at its deadline it still says what it knows.
        let deadline_s = (self.deadline_s + ANSWERS_S).min(LONGEST_S);
        let side = |side: &BackEndConfig| {
            let all = || std::iter::once(side).chain(&side.fallbacks);
            let is_here = |one: &BackEndConfig| backends::named(&one.backend).is_some_and(|kind| !kind.is_service);
            if self.mode == Mode::Live && all().all(is_here) {
                return side.clone();
            }
            BackEndConfig {
                backend: backends::http::NAME.into(),
                url: url.to_owned(),
                hits: all().map(|one| one.hits).max().unwrap_or(side.hits),
                // Its answers may take as long as a search may, and it may have to be started again.
                attempts: 100,
                attempt_s: deadline_s,
                ..BackEndConfig::default()
            }
        };
        let page = if self.page.backend == AS_TEXT { as_text() } else { side(&self.page) };
        Self { concurrency: self.concurrency, deadline_s, text: side(&self.text), image: side(&self.image), page, ..Self::default() }
    }

    /// With the files that it names where they are, seen from anywhere. Paths that cannot be made out stay as they are.
    pub fn absolute(mut self) -> Self {
        let sides = [&mut self.text, &mut self.image, &mut self.page].into_iter();
        let keys = sides
            .flat_map(|side| std::iter::once(&mut side.api_key_file).chain(side.fallbacks.iter_mut().map(|one| &mut one.api_key_file)));
        for path in keys.chain([&mut self.cache.path, &mut self.publisher.credentials_file]).flatten() {
            *path = std::path::absolute(&*path).unwrap_or_else(|_| path.clone());
        }
        self
    }

    /// Whether somebody reads pages.
    pub fn reads_pages(&self) -> bool {
        self.page.backend != AS_TEXT
            || std::iter::once(&self.text)
                .chain(&self.text.fallbacks)
                .any(|side| backends::named(&side.backend).is_some_and(|kind| kind.pages))
    }

    /// A back end for texts or pictures that is told nothing of layers, with its key within the table.
    pub fn layerless(&self) -> Option<(String, &str)> {
        let sides = self.all().filter(|(key, _)| !key.starts_with("page")).map(|(key, side)| (key, side.backend.as_str()));
        sides.into_iter().find(|(_, name)| backends::named(name).is_some_and(|kind| !kind.layers))
    }

    /// A back end for texts whose hits have no relevance.
    pub fn unscored(&self) -> Option<&str> {
        let names = std::iter::once(&self.text).chain(&self.text.fallbacks).map(|side| side.backend.as_str());
        names.into_iter().find(|name| backends::named(name).is_some_and(|kind| !kind.scores))
    }
}

impl BackEndConfig {
    fn named_fallbacks<'a>(&'a self, key: &str) -> impl Iterator<Item = (String, &'a Self)> {
        let key = key.to_owned();
        self.fallbacks.iter().enumerate().map(move |(at, fallback)| (format!("{key}.fallbacks[{at}]"), fallback))
    }

    fn check(&self, side: Side, key: &str) -> Result<(), String> {
        let back_end = backends::of(side, key, &self.backend)?;
        if !back_end.is_service {
            let plain = Self { backend: self.backend.clone(), fallbacks: self.fallbacks.clone(), ..Self::default() };
            if let Some(name) = self.differs_from(&plain) {
                return Err(format!("{key}.{name} is of services, and {} is none: nobody would read it", self.backend));
            }
        }
        if matches!(back_end.open, Open::Net(_)) {
            let plain = Self {
                parameters: self.parameters.clone(),
                per_second: self.per_second,
                attempts: self.attempts,
                attempt_s: self.attempt_s,
                ..Self::default()
            };
            if let Some(name) = self.differs_from(&plain) {
                return Err(format!("{key}.{name} is of services, and {} asks pages themselves: nobody would read it", self.backend));
            }
        }
        if self.hits == 0 || self.hits > 100 {
            return Err(format!("{key}.hits is {}: give 1 to 100", self.hits));
        }
        if !(0.0..=1e6).contains(&self.per_second) {
            return Err(format!("{key}.per_second is {}: give 0 (no limit) to 1000000", self.per_second));
        }
        if !(0.0..=1e6).contains(&self.usd_per_request) {
            return Err(format!("{key}.usd_per_request is {}: give 0 or more dollars", self.usd_per_request));
        }
        if !(1..=100).contains(&self.attempts) {
            return Err(format!("{key}.attempts is {}: give 1 to 100", self.attempts));
        }
        if !(self.attempt_s > 0.0 && self.attempt_s <= LONGEST_S) {
            return Err(format!("{key}.attempt_s is {}: give more than 0 and at most {LONGEST_S}", self.attempt_s));
        }
        if matches!(back_end.open, Open::Service(_)) && self.url.is_empty() && back_end.url.is_empty() {
            return Err(format!("{key}.url is empty: say where your {} is", self.backend));
        }
        check_name("api_key_env", &self.api_key_env).map_err(|why| format!("{key}.{why}"))?;
        for said in &self.parameters {
            let name = said.split_once('=').map(|(name, _)| name);
            match name {
                None => return Err(format!("{key}.parameters has {said:?}: write name=value")),
                Some(name) if !back_end.takes(name) => {
                    let known = if back_end.parameters.is_empty() { "takes none".into() } else { back_end.parameters.join(", ") };
                    return Err(format!("{key}.parameters has {name:?}, which {} is not told here: {known}", self.backend));
                }
                Some(_) => {}
            }
        }
        (back_end.check)(self).map_err(|why| format!("{key}.{why}"))?;
        for (name, fallback) in self.named_fallbacks(key) {
            if !fallback.fallbacks.is_empty() {
                return Err(format!("{name}.fallbacks: a fallback has none of its own; write them in one list"));
            }
            fallback.check(side, &name)?;
        }
        Ok(())
    }

    /// A key that differs.
    fn differs_from(&self, other: &Self) -> Option<&'static str> {
        let keys = [
            ("url", self.url != other.url),
            ("api_key_env", self.api_key_env != other.api_key_env),
            ("api_key_file", self.api_key_file != other.api_key_file),
            ("parameters", self.parameters != other.parameters),
            ("hits", self.hits != other.hits),
            ("per_second", self.per_second != other.per_second),
            ("usd_per_request", self.usd_per_request != other.usd_per_request),
            ("attempts", self.attempts != other.attempts),
            ("attempt_s", self.attempt_s != other.attempt_s),
        ];
        keys.into_iter().find(|(_, differs)| *differs).map(|(name, _)| name)
    }

    /// What else is said, as pairs.
    pub fn said(&self) -> Vec<(String, String)> {
        let pairs = self.parameters.iter().filter_map(|said| said.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut SearchConfig)) -> String {
        let mut config = SearchConfig::default();
        change(&mut config);
        config.check().expect_err("refused")
    }

    #[test]
    fn an_unknown_back_end_is_refused_with_the_key_and_the_choices() {
        assert_eq!(SearchConfig::default().check(), Ok(()));
        let error = refused(|config| config.text.backend = "bing".into());
        assert!(error.starts_with("text.backend is \"bing\": there is no such back end for texts; there are ") && error.contains("serper"));
        assert!(refused(|config| config.image.backend = String::new()).starts_with("image.backend is \"\""));
        let error = refused(|config| config.image.backend = "brave".into());
        assert!(error.starts_with("image.backend is \"brave\": there is no such back end for pictures"), "{error}");
    }

    #[test]
    fn what_nobody_would_read_and_what_cannot_work_is_refused() {
        assert!(refused(|config| config.text.per_second = 3.0).starts_with("text.per_second is of services"));
        assert!(refused(|config| config.mode = Mode::Record).starts_with("mode is record"));
        assert!(refused(|config| config.mode = Mode::Replay).starts_with("mode is replay"));
        assert!(refused(|config| config.budget.requests = 3).starts_with("budget.requests bounds"));
        assert!(refused(|config| config.cache.days = -1.0).starts_with("cache.days is -1"));
        assert!(refused(|config| config.text.backend = "retriever".into()).starts_with("text.url is empty"));
        let serper = |change: fn(&mut BackEndConfig)| {
            refused(move |config| {
                config.text.backend = "serper".into();
                change(&mut config.text);
            })
        };
        assert!(serper(|text| text.parameters = vec!["gl".into()]).contains("write name=value"));
        assert!(serper(|text| text.parameters = vec!["api_key=x".into()]).starts_with("text.parameters has \"api_key\""));
        assert!(refused(|config| config.page.url = "http://x".into()).starts_with("page.url is of who reads pages"));
        assert!(refused(|config| config.page.backend = "serper".into()).contains("no such back end for pages"));
        let fetch = |change: fn(&mut BackEndConfig)| {
            refused(move |config| {
                config.page = BackEndConfig { backend: "fetch".into(), ..BackEndConfig::default() };
                change(&mut config.page);
            })
        };
        assert!(fetch(|page| page.url = "http://x".into()).starts_with("page.url is of services"));
        assert!(fetch(|page| page.hits = 3).starts_with("page.hits is of services"));
        assert!(refused(|config| config.publisher.kind = PublisherKind::S3).starts_with("publisher.url is no bucket"));
        assert!(refused(|config| config.image.backend = "serper_lens".into()).contains("publisher.kind is none"));
        let unread = refused(|config| {
            config.publisher = PublisherConfig { kind: PublisherKind::S3, url: "s3://b".into(), ..PublisherConfig::default() };
        });
        assert!(unread.starts_with("publisher.kind is set, and no back end"), "{unread}");
        assert!(serper(|text| text.attempts = 0).starts_with("text.attempts is 0"));
        assert!(serper(|text| text.fallbacks = vec![BackEndConfig { hits: 0, ..BackEndConfig::default() }]).contains("fallbacks[0]"));
        let error = refused(|config| {
            config.text.backend = "serper".into();
            config.cache.path = Some("x".into());
            config.budget.usd = 5.0;
        });
        assert!(error.starts_with("text.usd_per_request is 0"), "{error}");
    }

    #[test]
    fn files_are_found_from_anywhere() {
        let one = |path: &str| BackEndConfig { api_key_file: Some(path.into()), ..BackEndConfig::default() };
        let text = BackEndConfig { fallbacks: vec![one("c"), BackEndConfig::default()], ..one("b") };
        let cache = CacheConfig { path: Some("a".into()), ..CacheConfig::default() };
        let config = SearchConfig { text, image: one("/d"), cache, ..SearchConfig::default() }.absolute();
        let here = std::env::current_dir().expect("a folder");
        assert_eq!((config.cache.path, config.text.api_key_file), (Some(here.join("a")), Some(here.join("b"))));
        assert_eq!(
            (config.text.fallbacks[0].api_key_file.clone(), config.text.fallbacks[1].api_key_file.clone()),
            (Some(here.join("c")), None)
        );
        assert_eq!(config.image.api_key_file, Some("/d".into()));
    }

    #[test]
    fn who_must_share_asks_one_server_and_the_others_search_by_themselves() {
        let of = |change: fn(&mut SearchConfig)| {
            let mut config = SearchConfig::default();
            change(&mut config);
            config
        };
        assert!(!of(|_| {}).wants_one_server(), "a world is in every process");
        let rated = of(|config| config.text = BackEndConfig { backend: "serper".into(), per_second: 2.0, ..BackEndConfig::default() });
        let cached = of(|config| config.cache.path = Some("x".into()));
        assert!(rated.wants_one_server() && cached.wants_one_server());
        let replayed = SearchConfig { mode: Mode::Replay, ..cached.clone() };
        assert!(!replayed.wants_one_server(), "any number of processes read one recording");
        let through = rated.through("http://h:1");
        assert_eq!(through.check(), Ok(()));
        assert_eq!((through.text.backend.as_str(), through.text.url.as_str(), through.text.per_second), ("http", "http://h:1", 0.0));
        assert_eq!(through.image, BackEndConfig::default(), "what each process knows by itself");
        assert!(!through.wants_one_server());
        assert_eq!((through.deadline_s, through.text.attempt_s), (rated.deadline_s + 5.0, rated.deadline_s + 5.0));
        assert_eq!(SearchConfig { deadline_s: LONGEST_S, ..rated.clone() }.through("http://h:1").check(), Ok(()));
        let recorded = SearchConfig { mode: Mode::Record, ..cached }.through("http://h:1");
        assert_eq!((recorded.text.backend.as_str(), recorded.image.backend.as_str(), recorded.mode), ("http", "http", Mode::Live));
    }
}
