//! What the released reward sees in a tool call. In: its text. Out: the name, and how many searches it asks for.
//!
//! A call in the usual layout is read by [`plain`], several times faster, and any other as JSON; both give the same parts.

use super::call::{Call, Name};
use super::plain;

/// Name and searches of a call; `None` when the name is neither text nor a collection, which ends the whole parse.
pub(super) fn asks(call: &str) -> Option<(Name<'_>, u64)> {
    let Call { name, arguments } = plain::call(call).unwrap_or_else(|| Call::of_any(call));
    let Some(name) = name else { return Some((Name::Text(""), 0)) };
    let text_search = name.has("text_search")?;
    let searches = if text_search {
        arguments.input
    } else if name.has("image_search")? {
        arguments.image_id.or(arguments.img_id)
    } else {
        None
    };
    Some((name, searches.unwrap_or(0)))
}
