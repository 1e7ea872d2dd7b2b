//! `visit`: reads pages. In: addresses, or titles of hits. Out: the text of each page. Not among the default tools.

use hypereyes_domain::Call;
use serde_json::{Map, Value, json};

use super::text_search::{listed, texts};
use super::{Argument, Ran, RunFuture, Tool};
use crate::boxes::BoxUnits;
use crate::call::{Note, Refusal, capped};
use crate::config::EnvConfig;
use crate::observation::{self, Shown};
use crate::scene::Scene;
use crate::search::Query;

/// The tool's name.
pub const VISIT: &str = "visit";
/// Most pages of one call; the rest is dropped, said and counted. Pages are long.
pub const MAX_PAGES: usize = 16;

/// Reading of pages, as many as a call names at once.
#[derive(Clone, Copy, Debug)]
pub struct Visit;

const ARGUMENTS: &[Argument] = &[Argument {
    name: "pages",
    also: &["page", "url", "urls", "link", "links", "address", "addresses", "title", "titles", "website", "websites"],
}];

impl Tool for Visit {
    fn name(&self) -> &'static str {
        VISIT
    }

    fn description(&self) -> &'static str {
        "Reads whole pages. All pages of a call are read at once."
    }

    fn arguments(&self) -> &'static [Argument] {
        ARGUMENTS
    }

    fn schema(&self, _units: BoxUnits) -> Value {
        json!({"type": "object", "properties": {
            "pages": {"type": "array", "description": "Addresses of pages, or titles of hits.", "items": {"type": "string"}},
        }, "required": ["pages"]})
    }

    fn parse(&self, arguments: &Map<String, Value>, notes: &mut Vec<Note>) -> Result<Value, Refusal> {
        let pages = texts("pages", arguments.get("pages"), |text| vec![text], notes)?;
        Ok(json!({"pages": capped(pages, MAX_PAGES, "pages", notes)}))
    }

    fn cost(&self, arguments: &Value) -> u32 {
        u32::try_from(listed(arguments, "pages").count()).unwrap_or(u32::MAX)
    }

    fn run<'a>(&'a self, call: &'a Call, scene: &'a mut Scene) -> RunFuture<'a> {
        Box::pin(async move {
            let scene: &Scene = scene;
            let pages: Vec<Query> = listed(&call.arguments, "pages").map(|page| Query::Page(scene.meant(page))).collect();
            if pages.is_empty() {
                return Ran::nothing("no_page", observation::NO_PAGE);
            }
            let mut outcomes = scene.search(&pages).await;
            outcomes.iter_mut().flatten().for_each(|found| found.truncate(1));
            Ran { kind: "page", items: Ran::numbered(outcomes), ..Ran::default() }
        })
    }

    fn render(&self, ran: &Ran, config: &EnvConfig) -> String {
        observation::page_body(ran.searched(), Shown::of(config)) + &ran.said
    }
}
