//! Tools by name. A tool is one file of this folder with a [`Tool`], and a line in [`Tools::all`].
//!
//! In: names from settings. Out: what reads their arguments, runs their calls and words what came of them. The crates below and beside
//! this one (the vocabulary, the wire, the reward) know a call as a name with arguments and a number of searches.

mod image_search;
mod ran;
mod text_search;
mod visit;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hypereyes_domain::Call;
use serde_json::{Map, Value, json};

use crate::boxes::BoxUnits;
use crate::call::{Note, Refusal, shown};
use crate::config::EnvConfig;
use crate::scene::Scene;

pub use image_search::{ImageArguments, ImageSearch, MAX_AREAS};
pub use ran::{Done, Ran};
pub use text_search::{MAX_QUERIES, TextSearch};
pub use visit::{MAX_PAGES, VISIT, Visit};

/// An argument of a tool.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// Its name.
    pub name: &'static str,
    /// What other action spaces call it, in lower case: a policy that writes one of these is told the right name.
    pub also: &'static [&'static str],
}

/// A call that runs.
pub type RunFuture<'a> = Pin<Box<dyn Future<Output = Ran> + Send + 'a>>;

/// Something that a policy may call.
///
/// A call goes through [`Tool::parse`] and [`Tool::cost`] when its turn is read, through [`Tool::ground`] when it is to be executed, then
/// through [`Tool::run`] and [`Tool::render`]. What `parse` or `ground` refuse is an error observation, which costs a round.
pub trait Tool: Send + Sync {
    /// What calls name it by.
    fn name(&self) -> &'static str;

    /// One or two sentences for the policy.
    fn description(&self) -> &'static str;

    /// Its arguments in order. Others are refused by name before [`Tool::parse`].
    fn arguments(&self) -> &'static [Argument];

    /// The JSON schema of its arguments, for prompts; `units` are those in which the policy writes boxes.
    fn schema(&self, units: BoxUnits) -> Value;

    /// The arguments as they are kept and run (a JSON object, defaults filled in), or why they are refused. What of them is left undone
    /// is added to `notes`.
    ///
    /// # Errors
    /// What the policy is told.
    fn parse(&self, arguments: &Map<String, Value>, notes: &mut Vec<Note>) -> Result<Value, Refusal>;

    /// Searches that a call with these arguments stands for: what the reward pays for beside rounds.
    fn cost(&self, arguments: &Value) -> u32;

    /// The call as it is meant on the pictures of this episode. Default: as it is.
    ///
    /// # Errors
    /// What the policy is told.
    fn ground(&self, call: Call, _scene: &Scene) -> Result<Call, Refusal> {
        Ok(call)
    }

    /// Does what the call asks for, all of it at once. What fails is part of what it gives.
    fn run<'a>(&'a self, call: &'a Call, scene: &'a mut Scene) -> RunFuture<'a>;

    /// The body of the observation.
    fn render(&self, ran: &Ran, config: &EnvConfig) -> String;
}

/// The tools of an episode. Cheap to clone.
#[derive(Clone)]
pub struct Tools(Arc<[Arc<dyn Tool>]>);

impl Default for Tools {
    /// The tools of the default settings.
    fn default() -> Self {
        Self::of(&EnvConfig::default().tools)
    }
}

impl Tools {
    /// Every tool there is.
    pub fn all() -> Self {
        Self::new(vec![Arc::new(ImageSearch), Arc::new(TextSearch), Arc::new(Visit)])
    }

    /// These tools, such as some of one's own.
    pub fn new(tools: Vec<Arc<dyn Tool>>) -> Self {
        Self(tools.into())
    }

    /// The tools of these names, in this order.
    ///
    /// # Errors
    /// A sentence that begins with the key `tools`: there are none, one does not exist, or one is named twice.
    pub fn named(names: &[String]) -> Result<Self, String> {
        let all = Self::all();
        if names.is_empty() {
            return Err(format!("tools is empty: a policy could only guess; there are {}", all.listed()));
        }
        for (at, name) in names.iter().enumerate() {
            if all.find(name).is_none() {
                return Err(format!("tools names {name:?}, which does not exist: there are {}", all.listed()));
            }
            if names[..at].contains(name) {
                return Err(format!("tools names {name:?} twice"));
            }
        }
        Ok(Self::of(names))
    }

    /// The tools of these names, in this order; names that there are not are passed over.
    pub fn of(names: &[String]) -> Self {
        let all = Self::all();
        Self(names.iter().filter_map(|name| all.find(name).cloned()).collect())
    }

    /// The tool of a name.
    ///
    /// # Errors
    /// What the policy is told where there is none.
    pub fn get(&self, name: &str) -> Result<&dyn Tool, Refusal> {
        let unknown = || Refusal::new("tool", format!("unknown tool {}: there are {}", shown(name), self.listed()));
        self.find(name).map(|tool| &**tool).ok_or_else(unknown)
    }

    /// The tools as chat templates take them: a list of functions, each with its JSON schema.
    pub fn offered(&self, units: BoxUnits) -> Vec<Value> {
        let function = |tool: &Arc<dyn Tool>| {
            let inside = json!({"name": tool.name(), "description": tool.description(), "parameters": tool.schema(units)});
            json!({"type": "function", "function": inside})
        };
        self.0.iter().map(function).collect()
    }

    fn find(&self, name: &str) -> Option<&Arc<dyn Tool>> {
        self.0.iter().find(|tool| tool.name() == name)
    }

    /// Their names as a sentence lists them.
    fn listed(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|tool| tool.name()).collect();
        match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
            Some((last, _)) => (*last).to_owned(),
            None => "none".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn tools_are_named_by_settings_and_others_refused_with_the_choices() {
        let tools = Tools::named(&names(&["text_search", "visit"])).expect("both exist");
        assert_eq!(tools.listed(), "text_search and visit");
        assert!(tools.get("image_search").map(|_| ()).expect_err("not among them").message.ends_with("there are text_search and visit"));
        let refused = |list: &[&str]| Tools::named(&names(list)).map(|_| ()).expect_err("refused");
        assert_eq!(refused(&["fly"]), "tools names \"fly\", which does not exist: there are image_search, text_search and visit");
        assert!(refused(&[]).starts_with("tools is empty"));
        assert!(refused(&["visit", "visit"]).contains("twice"));
    }

    #[test]
    fn schemas_name_exactly_the_arguments_and_the_units_of_boxes() {
        for units in [BoxUnits::Ratio, BoxUnits::Thousandths, BoxUnits::Pixels] {
            let (all, offered) = (Tools::all(), Tools::all().offered(units));
            for (tool, offered) in all.0.iter().zip(&offered) {
                let function = &offered["function"];
                assert_eq!((offered["type"].as_str(), function["name"].as_str()), (Some("function"), Some(tool.name())));
                let properties = function["parameters"]["properties"].as_object().expect("an object");
                let known: Vec<&str> = tool.arguments().iter().map(|argument| argument.name).collect();
                assert_eq!(properties.keys().map(String::as_str).collect::<Vec<_>>(), known, "{}", tool.name());
            }
            assert!(offered[0].to_string().contains(units.edges()), "{units:?}");
        }
    }
}
