//! Areas, calls and rounds.
//!
//! In: what a policy called. Out: its message, and back. Which tools there are is not known here: arguments are any JSON object. Calls of
//! the two searches are also read as older peers wrote them.

use hypereyes_domain::{Area, Call, Round};

use serde_json::Value;

use super::{Invalid, at_most, each, finite, present};
use crate::limits::{MAX_ARGUMENTS_BYTES, MAX_ID_BYTES, MAX_QUERY_BYTES, MAX_SEARCHES_PER_CALL};
use crate::v1;

impl From<Area> for v1::Area {
    fn from(Area { x1, y1, x2, y2 }: Area) -> Self {
        Self { x1, y1, x2, y2 }
    }
}

impl TryFrom<v1::Area> for Area {
    type Error = Invalid;

    fn try_from(area: v1::Area) -> Result<Self, Invalid> {
        Ok(Self { x1: finite("x1", area.x1)?, y1: finite("y1", area.y1)?, x2: finite("x2", area.x2)?, y2: finite("y2", area.y2)? })
    }
}

impl From<Call> for v1::Call {
    fn from(call: Call) -> Self {
        let Call { tool, arguments, searches } = call;
        Self { tool: Some(v1::call::Tool::ToolCall(v1::ToolCall { tool, arguments: arguments.to_string(), searches })) }
    }
}

impl TryFrom<v1::Call> for Call {
    type Error = Invalid;

    fn try_from(call: v1::Call) -> Result<Self, Invalid> {
        match present("tool", call.tool)? {
            v1::call::Tool::ImageSearch(search) => {
                at_most("image_id", search.image_id.len(), MAX_ID_BYTES)?;
                Ok(Self::image_search(&search.image_id, &each("areas", search.areas, MAX_SEARCHES_PER_CALL, Area::try_from)?))
            }
            v1::call::Tool::TextSearch(search) => {
                let query = |query: String| at_most("query", query.len(), MAX_QUERY_BYTES).map(|()| query);
                Ok(Self::text_search(&each("queries", search.queries, MAX_SEARCHES_PER_CALL, query)?))
            }
            v1::call::Tool::ToolCall(v1::ToolCall { tool, arguments, searches }) => {
                at_most("tool", tool.len(), MAX_ID_BYTES)?;
                at_most("arguments", arguments.len(), MAX_ARGUMENTS_BYTES)?;
                at_most("searches", searches as usize, MAX_SEARCHES_PER_CALL)?;
                if tool.is_empty() {
                    return Err(Invalid::new("tool", "is empty"));
                }
                match serde_json::from_str(&arguments) {
                    Ok(arguments @ Value::Object(_)) => Ok(Self { tool, arguments, searches }),
                    Ok(_) => Err(Invalid::new("arguments", "are no JSON object")),
                    Err(error) => Err(Invalid::new("arguments", format!("are no JSON: {error}"))),
                }
            }
        }
    }
}

impl From<Round> for v1::Round {
    fn from(round: Round) -> Self {
        Self { call: round.call.map(|call| (*call).into()), searches: round.searches, failed_searches: round.failed_searches }
    }
}

impl TryFrom<v1::Round> for Round {
    type Error = Invalid;

    fn try_from(round: v1::Round) -> Result<Self, Invalid> {
        // Counts are summed over rounds; the bound keeps the sum from overflowing.
        at_most("searches", round.searches as usize, MAX_SEARCHES_PER_CALL)?;
        at_most("failed_searches", round.failed_searches as usize, MAX_SEARCHES_PER_CALL)?;
        let call = round.call.map(|call| Call::try_from(call).map(Box::new).map_err(|invalid| invalid.within("call"))).transpose()?;
        Ok(Self { call, ..Self::counted(round.searches, round.failed_searches) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_images(search: v1::ImageSearch) -> v1::Call {
        v1::Call { tool: Some(v1::call::Tool::ImageSearch(search)) }
    }

    fn of_texts(queries: Vec<String>) -> v1::Call {
        v1::Call { tool: Some(v1::call::Tool::TextSearch(v1::TextSearch { queries })) }
    }

    #[test]
    fn what_older_peers_send_is_read() {
        let areas = vec![Area::WHOLE, Area::from([-0.1, 0.0, 1.2, 0.5])];
        let of_area = v1::ImageSearch { image_id: "img_1".into(), areas: areas.iter().copied().map(Into::into).collect() };
        assert_eq!(Call::try_from(of_images(of_area)), Ok(Call::image_search("img_1", &areas)));
        assert_eq!(Call::try_from(of_texts(vec!["a".into(), "b".into()])), Ok(Call::text_search(&["a", "b"])));
    }

    #[test]
    fn calls_and_rounds_survive_the_wire() {
        let calls = [
            None,
            Some(Call::image_search("img_0", &[])),
            Some(Call::image_search("img_1", &[Area::WHOLE, Area::from([-0.1, 0.0, 1.2, 0.5])])),
            Some(Call::text_search(&["capital of Chad", "Ñandú"])),
            Some(Call { tool: "visit".into(), arguments: serde_json::json!({"pages": ["a\n\"b\""], "deep": {"er": null}}), searches: 1 }),
        ];
        let found = vec![hypereyes_domain::Found::said("no relevant information")];
        let local = Round { found: found.into(), ..Round::counted(1, 0) };
        assert_eq!(Round::try_from(v1::Round::from(local)), Ok(Round::counted(1, 0)), "what was found stays where it was");
        for call in calls {
            let round = Round { call: call.map(Box::new), ..Round::counted(2, 1) };
            assert_eq!(Round::try_from(v1::Round::from(round.clone())), Ok(round));
        }
    }

    #[test]
    fn broken_calls_are_rejected_by_name() {
        let areas = vec![Area::WHOLE.into(), Area::from([0.0, 0.0, f64::NAN, 1.0]).into()];
        assert_eq!(
            Call::try_from(of_images(v1::ImageSearch { image_id: "img_0".into(), areas })),
            Err(Invalid::new("areas[1].x2", "is NaN"))
        );
        assert_eq!(Call::try_from(v1::Call { tool: None }), Err(Invalid::new("tool", "is missing")));
        let many = vec!["q".to_owned(); MAX_SEARCHES_PER_CALL + 1];
        assert!(Call::try_from(of_texts(many.clone())).is_err() && Call::try_from(v1::Call::from(Call::text_search(&many))).is_err());
        let long = vec!["q".repeat(MAX_QUERY_BYTES + 1)];
        assert!(Call::try_from(of_texts(long)).is_err());
        let general = |tool: &str, arguments: &str, searches| {
            let call = v1::ToolCall { tool: tool.into(), arguments: arguments.into(), searches };
            Call::try_from(v1::Call { tool: Some(v1::call::Tool::ToolCall(call)) }).map_err(|invalid| invalid.what)
        };
        assert!(general("visit", "{}", 1).is_ok());
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_ARGUMENTS_BYTES));
        for (tool, arguments, searches, what) in [
            ("", "{}", 1, "tool"),
            ("visit", "", 1, "arguments"),
            ("visit", "[1]", 1, "arguments"),
            ("visit", &*"[".repeat(100_000), 1, "arguments"),
            ("visit", &*large, 1, "arguments"),
            ("visit", "{}", u32::MAX, "searches"),
        ] {
            assert_eq!(general(tool, arguments, searches), Err(what.to_owned()), "{tool} {searches}");
        }
        assert!(Round::try_from(v1::Round { call: None, searches: u32::MAX, failed_searches: 0 }).is_err());
    }
}
