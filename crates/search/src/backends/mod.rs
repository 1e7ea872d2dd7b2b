//! Back ends by name. A back end is one file of this folder with a [`Kind`], and a line in [`ALL`].
//!
//! In: names from settings. Out: what opens them. It knows no bounds, no cache and no budget: those are around every back end alike.

pub mod brave;
pub mod fetch;
pub mod http;
pub mod mcp;
pub mod reader;
pub mod retriever;
pub mod searxng;
pub mod serpapi;
pub mod serpapi_lens;
pub mod serper;
pub mod serper_lens;
pub mod tavily;
pub mod world;

use std::sync::Arc;

use hypereyes_world::{World, WorldError};

use crate::OpenError;
use crate::asked::BackEnd;
use crate::budget::Budget;
use crate::config::BackEndConfig;
use crate::http::call::{KeyIn, Service};
use crate::rate::Rate;

/// Every back end there is.
const ALL: &[Kind] = &[
    world::KIND,
    http::KIND,
    retriever::KIND,
    mcp::KIND,
    searxng::KIND,
    serper::KIND,
    serpapi::KIND,
    brave::KIND,
    tavily::KIND,
    serper_lens::KIND,
    serpapi_lens::KIND,
    reader::KIND,
    fetch::KIND,
];

/// What is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Texts, and pages where nobody else reads them.
    Text,
    /// Pictures.
    Image,
    /// Pages.
    Page,
}

impl Side {
    /// What is searched, in a sentence.
    pub fn what(self) -> &'static str {
        match self {
            Self::Text => "texts",
            Self::Image => "pictures",
            Self::Page => "pages",
        }
    }
}

/// Something that can be searched, before it is opened.
pub struct Kind {
    /// What settings call it.
    pub name: &'static str,
    /// Whether it searches texts.
    pub text: bool,
    /// Whether it searches pictures.
    pub image: bool,
    /// Whether it reads pages.
    pub pages: bool,
    /// Whether it is told which counterfactual layer of a world is asked about.
    pub layers: bool,
    /// Whether its hits have a relevance.
    pub scores: bool,
    /// Whether it is told where a picture is, and not the picture.
    pub by_address: bool,
    /// Whether it answers without a key, where none is given.
    pub is_open: bool,
    /// Whether it is asked over a network.
    pub is_service: bool,
    /// Whether its requests are paid for.
    pub is_paid: bool,
    /// Whether its terms restrict passing on what it answered.
    pub is_restricted: bool,
    /// Its address, where it has one of its own.
    pub url: &'static str,
    /// How its key is sent and in which variable it usually is; a service without one takes a key where settings name it.
    pub key: Option<(KeyIn, &'static str)>,
    /// What else it can be told; `name.*` is any name that begins so.
    pub parameters: &'static [&'static str],
    /// Refuses what it cannot be told, in a sentence that begins with the key.
    pub check: fn(&BackEndConfig) -> Result<(), String>,
    /// Opens it. It calls nobody: a service that is away makes searches fail, not starts.
    pub open: Open,
}

/// What is particular of a service, as settings say.
type Particular = fn(&BackEndConfig) -> Box<dyn Service>;

impl Kind {
    /// Whose rate its requests are within: one account of a service answers in several ways.
    pub fn account(&self) -> &'static str {
        self.name.strip_suffix("_lens").unwrap_or(self.name)
    }

    /// A service of somebody else's that searches texts for money, with its address, and its key's place and usual variable.
    const fn paid(
        name: &'static str,
        url: &'static str,
        key: (KeyIn, &'static str),
        parameters: &'static [&'static str],
        open: Particular,
    ) -> Self {
        Self { url, key: Some(key), is_paid: true, is_restricted: true, ..Self::own(name, parameters, open) }
    }

    /// A server of one's own that searches texts.
    const fn own(name: &'static str, parameters: &'static [&'static str], open: Particular) -> Self {
        let open = Open::Service(open);
        Self {
            name,
            text: true,
            image: false,
            pages: false,
            layers: false,
            scores: false,
            by_address: false,
            is_open: false,
            is_service: true,
            is_paid: false,
            is_restricted: false,
            url: "",
            key: None,
            parameters,
            check: |_| Ok(()),
            open,
        }
    }

    /// Whether it can be told something of this name.
    pub fn takes(&self, name: &str) -> bool {
        let is = |known: &&str| match known.strip_suffix('*') {
            Some(start) => name.len() > start.len() && name.starts_with(start),
            None => *known == name,
        };
        self.parameters.iter().any(is)
    }
}

/// Opens a back end within a rate and what may be spent; a sentence that begins with a key where it cannot.
type Within = fn(&BackEndConfig, Arc<Rate>, Arc<Budget>) -> Result<Box<dyn BackEnd>, String>;

/// How a back end is opened.
pub enum Open {
    /// From what this process has.
    Here(fn(&Here<'_>) -> Result<Box<dyn BackEnd>, OpenError>),
    /// As a service, of which this is what is particular.
    Service(Particular),
    /// From the net itself, within the rate and what may be spent.
    Net(Within),
}

/// What this process has.
pub struct Here<'a> {
    /// Reads the world pack.
    pub world: &'a dyn Fn() -> Result<Arc<World>, WorldError>,
}

/// The back end of a name.
pub fn named(name: &str) -> Option<&'static Kind> {
    ALL.iter().find(|kind| kind.name == name)
}

/// The back end of a name that searches a side, or a sentence that begins with the key.
pub fn of(side: Side, key: &str, name: &str) -> Result<&'static Kind, String> {
    let can = |kind: &&Kind| match side {
        Side::Text => kind.text,
        Side::Image => kind.image,
        Side::Page => kind.pages,
    };
    named(name).filter(can).ok_or_else(|| {
        let names: Vec<&str> = ALL.iter().filter(can).map(|kind| kind.name).collect();
        format!("{key}.backend is {name:?}: there is no such back end for {}; there are {}", side.what(), names.join(", "))
    })
}
