//! What a policy asks of the environment: one call of a tool, which may ground and search many things at once. Knows no tool but the
//! names of the two that every task has.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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

/// Name of the tool that searches for what areas of a picture show.
pub const IMAGE_SEARCH: &str = "image_search";
/// Name of the tool that searches documents for texts.
pub const TEXT_SEARCH: &str = "text_search";

/// One tool call of one assistant turn. All that it asks for is done concurrently: a call is a *round*.
///
/// Which tools there are and what their arguments mean is known to the environment alone. Here a call is a name, what it was called
/// with, and what it stands for in the reward.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Call {
    /// The tool's name, such as `text_search`.
    pub tool: String,
    /// A JSON object: the arguments as the tool understood them, defaults filled in and areas as ratios.
    pub arguments: Value,
    /// Searches that the call stands for: its areas (a whole picture counts 1), queries or pages.
    pub searches: u32,
}

impl Call {
    /// A search of areas of a registered picture; no area stands for the whole picture.
    pub fn image_search(image_id: &str, areas: &[Area]) -> Self {
        let area: Vec<[f64; 4]> = areas.iter().map(|area| (*area).into()).collect();
        Self { tool: IMAGE_SEARCH.into(), arguments: json!({"image_id": image_id, "area": area}), searches: count(areas.len().max(1)) }
    }

    /// A search of documents, one result list per query.
    pub fn text_search<T: AsRef<str>>(queries: &[T]) -> Self {
        let input: Vec<&str> = queries.iter().map(AsRef::as_ref).collect();
        Self { tool: TEXT_SEARCH.into(), arguments: json!({"input": input}), searches: count(input.len()) }
    }

    /// Whether so many searches of the call can have run: every query of a text search runs; of other calls some may not, such as
    /// areas that have no inside.
    pub(crate) fn fits(&self, searches: u32) -> bool {
        if self.tool == TEXT_SEARCH { self.searches == searches } else { self.searches >= searches }
    }
}

fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

/// A call as files have it: as [`Call`], or as they had it while the two searches were all the tools there were.
#[derive(Deserialize)]
struct Written {
    tool: String,
    arguments: Option<Value>,
    searches: Option<u32>,
    image_id: Option<String>,
    areas: Option<Vec<Area>>,
    queries: Option<Vec<String>>,
}

impl TryFrom<Written> for Call {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { tool, arguments, searches, image_id, areas, queries } = written;
        match (arguments, searches, image_id, queries) {
            (Some(arguments @ Value::Object(_)), Some(searches), None, None) => Ok(Self { tool, arguments, searches }),
            (None, None, Some(image_id), None) if tool == IMAGE_SEARCH => Ok(Self::image_search(&image_id, &areas.unwrap_or_default())),
            (None, None, None, Some(queries)) if tool == TEXT_SEARCH => Ok(Self::text_search(&queries)),
            _ => Err(format!("a call of {tool:?} has tool, arguments (an object) and searches")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_count_list_elements() {
        let whole = Call::image_search("img_0", &[]);
        let areas = Call::image_search("img_0", &[Area::WHOLE; 3]);
        let queries = Call::text_search(&["a", "b"]);
        assert_eq!([whole.searches, areas.searches, queries.searches], [1, 3, 2]);
    }

    #[test]
    fn calls_are_read_as_they_are_written_and_as_they_were() {
        let read = |value: Value| serde_json::from_value::<Call>(value);
        let area = Area::from([0.0, 0.25, 0.5, 1.0]);
        let visit = Call { tool: "visit".into(), arguments: json!({"pages": ["a"]}), searches: 1 };
        for call in [Call::image_search("img_1", &[area]), Call::text_search(&["a", "b"]), visit] {
            assert_eq!(read(serde_json::to_value(&call).expect("plain data")).expect("reads back"), call);
        }
        let old = json!({"tool": "image_search", "image_id": "img_1", "areas": [[0.0, 0.25, 0.5, 1.0]]});
        assert_eq!(read(old).expect("an older file"), Call::image_search("img_1", &[area]));
        let old = json!({"tool": "text_search", "queries": ["a", "b"]});
        assert_eq!(read(old).expect("an older file"), Call::text_search(&["a", "b"]));
        for bad in
            [json!({"tool": "text_search"}), json!({"tool": "visit", "queries": []}), json!({"tool": "x", "arguments": 1, "searches": 1})]
        {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn iou_is_shared_over_joined() {
        let left = Area::from([0.0, 0.0, 0.5, 1.0]);
        assert_eq!(left.iou(&Area::WHOLE), 0.5);
        assert_eq!(left.iou(&Area::from([0.5, 0.0, 1.0, 1.0])), 0.0);
    }
}
