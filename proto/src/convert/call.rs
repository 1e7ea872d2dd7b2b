//! Areas, calls and rounds.
//!
//! In: what a policy called. Out: its message, and back. Areas outside the picture pass: cropping clamps them.

use hypereyes_domain::{Area, Call, Round};

use super::{Invalid, at_most, each, finite, present};
use crate::limits::{MAX_ID_BYTES, MAX_QUERY_BYTES, MAX_SEARCHES_PER_CALL};
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
        let tool = match call {
            Call::ImageSearch { image_id, areas } => {
                v1::call::Tool::ImageSearch(v1::ImageSearch { image_id, areas: areas.into_iter().map(Into::into).collect() })
            }
            Call::TextSearch { queries } => v1::call::Tool::TextSearch(v1::TextSearch { queries }),
        };
        Self { tool: Some(tool) }
    }
}

impl TryFrom<v1::Call> for Call {
    type Error = Invalid;

    fn try_from(call: v1::Call) -> Result<Self, Invalid> {
        match present("tool", call.tool)? {
            v1::call::Tool::ImageSearch(search) => {
                at_most("image_id", search.image_id.len(), MAX_ID_BYTES)?;
                Ok(Self::ImageSearch {
                    image_id: search.image_id,
                    areas: each("areas", search.areas, MAX_SEARCHES_PER_CALL, Area::try_from)?,
                })
            }
            v1::call::Tool::TextSearch(search) => {
                let query = |query: String| at_most("query", query.len(), MAX_QUERY_BYTES).map(|()| query);
                Ok(Self::TextSearch { queries: each("queries", search.queries, MAX_SEARCHES_PER_CALL, query)? })
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
        Ok(Self { call, searches: round.searches, failed_searches: round.failed_searches })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_rounds_survive_the_wire() {
        let calls = [
            None,
            Some(Call::ImageSearch { image_id: "img_0".into(), areas: vec![] }),
            Some(Call::ImageSearch { image_id: "img_1".into(), areas: vec![Area::WHOLE, Area::from([-0.1, 0.0, 1.2, 0.5])] }),
            Some(Call::TextSearch { queries: vec!["capital of Chad".into(), "Ñandú".into()] }),
        ];
        for call in calls {
            let round = Round { call: call.map(Box::new), searches: 2, failed_searches: 1 };
            assert_eq!(Round::try_from(v1::Round::from(round.clone())), Ok(round));
        }
    }

    #[test]
    fn broken_calls_are_rejected_by_name() {
        let nan = Call::ImageSearch { image_id: "img_0".into(), areas: vec![Area::WHOLE, Area::from([0.0, 0.0, f64::NAN, 1.0])] };
        assert_eq!(Call::try_from(v1::Call::from(nan)), Err(Invalid::new("areas[1].x2", "is NaN")));
        assert_eq!(Call::try_from(v1::Call { tool: None }), Err(Invalid::new("tool", "is missing")));
        let many = Call::TextSearch { queries: vec!["q".into(); MAX_SEARCHES_PER_CALL + 1] };
        assert!(Call::try_from(v1::Call::from(many)).is_err());
        let long = Call::TextSearch { queries: vec!["q".repeat(MAX_QUERY_BYTES + 1)] };
        assert!(Call::try_from(v1::Call::from(long)).is_err());
        assert!(Round::try_from(v1::Round { call: None, searches: u32::MAX, failed_searches: 0 }).is_err());
    }
}
