//! The two flags that say who samples. In: a command line. Out: settings of the `engine` table, which win over all others.

use clap::Args;

/// Who samples, and where.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineArgs {
    /// Kind of engine: short for `--set engine.kind=KIND`.
    #[arg(long, value_name = "KIND")]
    pub engine: Option<String>,
    /// Address of the engine's server: short for `--set engine.url=URL`. May be repeated where the kind takes several.
    #[arg(long, value_name = "URL")]
    pub url: Vec<String>,
}

impl EngineArgs {
    /// The same as `--set` says it.
    pub fn sets(&self) -> Vec<String> {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let mut sets: Vec<String> = self.engine.iter().map(|kind| format!("engine.kind={}", quoted(kind))).collect();
        if !self.url.is_empty() {
            let urls: Vec<String> = self.url.iter().map(|url| quoted(url)).collect();
            sets.push(format!("engine.url=[{}]", urls.join(", ")));
        }
        sets
    }
}
