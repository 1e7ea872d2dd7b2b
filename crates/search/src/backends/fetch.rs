//! Pages, fetched by ourselves (`search.page`). What is particular of it is in `pages`.

use super::{Kind, Open};
use crate::pages::{NAME, Pages};

/// Fetching as a back end.
pub(super) const KIND: Kind = Kind {
    name: NAME,
    text: false,
    image: false,
    pages: true,
    layers: false,
    scores: false,
    by_address: false,
    is_open: true,
    is_service: true,
    is_paid: false,
    // Pages belong to who wrote them.
    is_restricted: true,
    url: "",
    key: None,
    parameters: &["allow", "user_agent"],
    check: |_| Ok(()),
    open: Open::Net(Pages::open),
};
