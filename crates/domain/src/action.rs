//! The action space: Unified Grounded Search (docs/spec.md#grammar). One call grounds and searches many things at once.

use serde::{Deserialize, Serialize};

/// A box on a picture as ratios of its width and height, `x1 < x2` and `y1 < y2` for a box with an inside.
///
/// The environment gives 0..1, whichever units the policy wrote; from elsewhere values may lie outside, and cropping clamps them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f64; 4]", into = "[f64; 4]")]
pub struct Area {
    /// Left edge.
    pub x1: f64,
    /// Top edge.
    pub y1: f64,
    /// Right edge.
    pub x2: f64,
    /// Bottom edge.
    pub y2: f64,
}

impl Area {
    /// The whole picture.
    pub const WHOLE: Self = Self { x1: 0.0, y1: 0.0, x2: 1.0, y2: 1.0 };

    /// Intersection over union with `other`, 0..1; 0 when either is empty.
    pub fn iou(&self, other: &Area) -> f64 {
        let width = self.x2.min(other.x2) - self.x1.max(other.x1);
        let height = self.y2.min(other.y2) - self.y1.max(other.y1);
        if width <= 0.0 || height <= 0.0 {
            return 0.0;
        }
        let shared = width * height;
        shared / (self.size() + other.size() - shared)
    }

    fn size(&self) -> f64 {
        (self.x2 - self.x1).max(0.0) * (self.y2 - self.y1).max(0.0)
    }
}

impl From<[f64; 4]> for Area {
    fn from([x1, y1, x2, y2]: [f64; 4]) -> Self {
        Self { x1, y1, x2, y2 }
    }
}

impl From<Area> for [f64; 4] {
    fn from(area: Area) -> Self {
        [area.x1, area.y1, area.x2, area.y2]
    }
}

/// One tool call of one assistant turn. All areas or queries of a call are searched concurrently: a call is a *round*.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "tool", rename_all = "snake_case")]
pub enum Call {
    /// Reverse image search of areas of a registered picture.
    ImageSearch {
        /// Label in the episode's registry, such as `img_0`.
        image_id: String,
        /// Areas to crop and search; empty means the whole picture.
        areas: Vec<Area>,
    },
    /// Text search, one result list per query.
    TextSearch {
        /// Trimmed, non-blank queries in order.
        queries: Vec<String>,
    },
}

impl Call {
    /// Searches that the call stands for: areas (a whole picture counts 1) or queries (docs/spec.md#d1).
    pub fn searches(&self) -> u32 {
        let count = match self {
            Call::ImageSearch { areas, .. } => areas.len().max(1),
            Call::TextSearch { queries } => queries.len(),
        };
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_count_list_elements() {
        let whole = Call::ImageSearch { image_id: "img_0".into(), areas: vec![] };
        let areas = Call::ImageSearch { image_id: "img_0".into(), areas: vec![Area::WHOLE; 3] };
        let queries = Call::TextSearch { queries: vec!["a".into(), "b".into()] };
        assert_eq!([whole.searches(), areas.searches(), queries.searches()], [1, 3, 2]);
    }

    #[test]
    fn iou_is_shared_over_joined() {
        let left = Area::from([0.0, 0.0, 0.5, 1.0]);
        assert_eq!(left.iou(&Area::WHOLE), 0.5);
        assert_eq!(left.iou(&Area::from([0.5, 0.0, 1.0, 1.0])), 0.0);
    }
}
