//! `hypereyes search`: one search through whatever `[search]` names, as an agent's would go, with who answered and what it cost; and what
//! is kept of earlier ones.
//!
//! In: settings, a text or a picture. Out: hits, or the way in which there are none. It spends what a search costs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};
use hypereyes_chassis::BadInput;
use hypereyes_domain::Area;
use hypereyes_environment::{Hit, Query};
use hypereyes_outside::text::escaped;
use hypereyes_pictures::{Limits, crop, decode};
use hypereyes_search::{How, Step};
use serde::Serialize;

use crate::config::Config;
use crate::{output, parts};

pub mod cache;

/// Arguments of `search`.
#[derive(Args, Debug)]
#[command(subcommand_negates_reqs = true, disable_help_subcommand = true)]
#[command(after_help = "Examples:\n  hypereyes search \"capital of Peru\"\n  \
    hypereyes search \"capital of Peru\" --set search.text.backend=serper       the key is in SERPER_API_KEY\n  \
    hypereyes search --image mosaic.png --box 0,0,0.5,1                       what the left half shows\n  \
    hypereyes search -- cache                                                 the word, not the command\n  \
    hypereyes search cache stats\n\n\
    Nothing found is exit code 0, a search that failed 1.")]
pub struct SearchArgs {
    /// The text that is searched for. Beside --image it may be left out; with both, what the picture shows is found first.
    #[arg(required_unless_present = "image")]
    pub query: Option<String>,
    /// A PNG or JPEG picture, of which is searched what it shows.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Of the picture, this area: left, top, right and bottom edge as shares of its width and height, such as 0,0,0.5,1.
    #[arg(long = "box", value_name = "X1,Y1,X2,Y2", value_parser = area, requires = "image", allow_hyphen_values = true)]
    pub area: Option<Area>,
    /// Counterfactual layer of the world that answers; 0 is the world as it is. Services have none.
    #[arg(long, default_value_t = 0)]
    pub layer: u64,
    /// What is kept.
    #[command(subcommand)]
    pub command: Option<SearchCommand>,
}

/// What can be done beside searching.
#[derive(Subcommand, Debug)]
pub enum SearchCommand {
    /// What `search.cache.path` keeps: how much of whom, what it cost, and what was spent.
    Cache(cache::CacheArgs),
}

/// What is printed of a search that came to an end.
#[derive(Debug, Serialize)]
struct Found<'a> {
    hits: Vec<Shown<'a>>,
    service: String,
    cached: bool,
    cost: f64,
    /// What was done for it, in order: retries and fallbacks, too.
    steps: &'a [Step],
}

/// A hit; what a service does not give is null.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    title: &'a str,
    content: &'a str,
    url: Option<&'a str>,
    score: Option<f64>,
    source: Option<&'a str>,
    date: Option<&'a str>,
}

/// What is printed of one that failed.
#[derive(Debug, Serialize)]
struct Failed<'a> {
    failure: &'a str,
    message: &'a str,
    service: String,
    cost: f64,
    steps: &'a [Step],
}

fn area(text: &str) -> Result<Area, String> {
    let edges: Vec<f64> =
        text.split(',').map(|edge| edge.trim().parse::<f64>()).collect::<Result<_, _>>().map_err(|error| format!("{error}"))?;
    let [x1, y1, x2, y2] = edges[..] else { return Err(format!("has {} numbers: give four, as 0,0,0.5,1", edges.len())) };
    if !edges.iter().all(|edge| (0.0..=1.0).contains(edge)) || x1 >= x2 || y1 >= y2 {
        return Err("edges are shares between 0 and 1, left before right and top before bottom, as 0,0,0.5,1".into());
    }
    Ok(Area { x1, y1, x2, y2 })
}

/// Searches and prints.
///
/// # Errors
/// [`BadInput`] where there is nothing to search for or with; otherwise the search failed.
pub fn run(config: &Config, args: &SearchArgs, json: bool) -> Result<()> {
    if let Some(SearchCommand::Cache(cache)) = &args.command {
        if args.query.is_some() || args.image.is_some() || args.layer != 0 {
            return Err(
                BadInput::new("`cache` is a command here, and takes no query; to search for the word, write `search -- cache`").into()
            );
        }
        return cache::run(config, cache, json);
    }
    parts::telemetry()?;
    hypereyes_search::metrics::describe();
    let queries = queries(args)?;
    config.search.check().map_err(|why| BadInput::new(format!("search.{why}")))?;
    let world = parts::world(config)?;
    let search = parts::searcher(config, &world)?;
    let runtime = parts::runtime()?;
    let mut told = Told { hits: vec![], services: vec![], cached: true, cost: 0.0, steps: vec![] };
    for query in &queries {
        let (mut outcomes, steps) = runtime.block_on(search.told(args.layer, std::slice::from_ref(query)));
        let side = if matches!(query, Query::Picture(_)) { &config.search.image } else { &config.search.text };
        told.add(&side.backend, &steps);
        match outcomes.pop().expect("one outcome of one query") {
            Ok(hits) => told.hits.extend(hits),
            Err(error) => {
                if json {
                    let (service, cost, steps) = (told.services.join(", "), told.cost, &told.steps);
                    output::json(&Failed { failure: error.fault.label(), message: &error.reason, service, cost, steps });
                }
                return Err(anyhow!("{error}"));
            }
        }
    }
    if json {
        let Told { hits, services, cached, cost, steps } = &told;
        output::json(&Found { hits: hits.iter().map(shown).collect(), service: services.join(", "), cached: *cached, cost: *cost, steps });
    } else {
        told.hits.iter().enumerate().for_each(|(at, hit)| lines(at, hit).iter().for_each(|line| output::say(line)));
        output::say(&told.summary());
    }
    Ok(())
}

/// What came of one or two searches.
struct Told {
    hits: Vec<Hit>,
    services: Vec<String>,
    cached: bool,
    cost: f64,
    steps: Vec<Step>,
}

impl Told {
    /// What was done for one. Whoever answered is who had the last part in it; `first` is whose turn was first.
    fn add(&mut self, first: &str, steps: &[Step]) {
        let service = steps.last().map_or(first, |step| step.service).to_owned();
        if !self.services.contains(&service) {
            self.services.push(service);
        }
        self.cached &= steps.last().is_some_and(|step| step.how == How::Kept);
        self.cost += steps.iter().map(|step| step.usd).sum::<f64>();
        self.steps.extend_from_slice(steps);
    }

    /// How many, from whom, for how much.
    fn summary(&self) -> String {
        let found = match self.hits.len() {
            0 => "nothing found".to_owned(),
            1 => "1 hit".to_owned(),
            hits => format!("{hits} hits"),
        };
        let how = if self.cached { "kept from earlier" } else { "asked now" };
        let cost = if self.cost > 0.0 { format!("${:.4}", self.cost) } else { "nothing spent".to_owned() };
        let failed: Vec<&str> = self.steps.iter().filter(|step| step.fault.is_some()).map(|step| step.service).collect();
        let failed = if failed.is_empty() { String::new() } else { format!("; before it failed: {}", failed.join(", ")) };
        format!("{found} from {}, {how}, {cost}{failed}", self.services.join(", "))
    }
}

/// What is searched for: what a picture shows, a text, or both.
fn queries(args: &SearchArgs) -> Result<Vec<Query>> {
    let mut queries = vec![];
    if let Some(path) = &args.image {
        let picture = picture(path)?;
        // The whole picture is searched as it is, as an agent's is.
        let picture = match &args.area {
            Some(area) => crop(&picture, area).ok_or_else(|| BadInput::new(format!("--box: nothing of {} is inside", path.display())))?,
            None => picture,
        };
        queries.push(Query::Picture(Arc::new(picture)));
    }
    if let Some(text) = &args.query {
        if text.trim().is_empty() {
            return Err(BadInput::new("the query is empty").into());
        }
        queries.push(Query::Text(text.trim().to_owned()));
    }
    Ok(queries)
}

fn picture(path: &Path) -> Result<hypereyes_pictures::RgbImage> {
    let bad = |error: &dyn std::fmt::Display| BadInput::new(format!("{}: {error}", path.display()));
    let limits = Limits::default();
    let bytes = hypereyes_outside::files::read(path, limits.max_bytes as u64).map_err(|error| bad(&error))?;
    Ok(decode(&bytes, &limits).map_err(|error| bad(&error))?)
}

fn shown(hit: &Hit) -> Shown<'_> {
    Shown {
        title: &hit.title,
        content: &hit.content,
        url: hit.url.as_deref(),
        score: hit.score,
        source: hit.source.as_deref(),
        date: hit.date.as_deref(),
    }
}

/// Letters of a hit's content that people are shown.
const SNIPPET: usize = 300;

/// A hit for people: a line with its title, one with where it is from, one with what it says. It may hold anything: nothing in it moves
/// the cursor.
fn lines(at: usize, hit: &Hit) -> Vec<String> {
    let one_line = |text: &str| escaped(&text.split_whitespace().collect::<Vec<_>>().join(" "), &[]).into_owned();
    let title = if hit.title.is_empty() { "(no title)".to_owned() } else { one_line(&hit.title) };
    let score = hit.score.map(|score| format!("  {score:.2}")).unwrap_or_default();
    let from: Vec<String> = [&hit.url, &hit.source, &hit.date].into_iter().flatten().map(|text| one_line(text)).collect();
    let content = one_line(&hit.content);
    let snippet: String = content.chars().take(SNIPPET).collect();
    let more = if snippet.len() < content.len() { " .." } else { "" };
    let mut lines = vec![format!("{:>2}. {title}{score}", at + 1)];
    lines.extend(Some(from.join("  ")).filter(|from| !from.is_empty()).map(|from| format!("    {from}")));
    lines.extend(Some(snippet).filter(|snippet| !snippet.is_empty()).map(|snippet| format!("    {snippet}{more}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_read_or_explained() {
        assert_eq!(area("0, 0,0.5,1"), Ok(Area { x1: 0.0, y1: 0.0, x2: 0.5, y2: 1.0 }));
        for wrong in ["0,0,1", "0,0,1,2", "0.5,0,0.5,1", "a,0,1,1", "-1,0,1,1", "nan,0,1,1"] {
            assert!(area(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hits_are_lines_that_move_no_cursor() {
        let hit = Hit { title: "A\u{1b}[2J\nB".into(), content: "x ".repeat(400), score: Some(0.5), ..Hit::default() };
        let lines = lines(0, &hit);
        assert!(lines.len() == 2 && lines.iter().all(|line| !line.contains('\u{1b}') && !line.contains('\n')), "{lines:?}");
        assert!(lines[0].ends_with("  0.50") && lines[1].ends_with(" .."), "{lines:?}");
        let steps = [Step { service: "serper", how: How::Asked, usd: 0.001, fault: Some(hypereyes_environment::Fault::Timeout) }];
        let mut told = Told { hits: vec![], services: vec![], cached: true, cost: 0.0, steps: vec![] };
        told.add("serper", &[steps, [Step { service: "searxng", how: How::Kept, usd: 0.0, fault: None }]].concat());
        assert_eq!(told.summary(), "nothing found from searxng, kept from earlier, $0.0010; before it failed: serper");
    }
}
