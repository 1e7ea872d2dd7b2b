//! `image_search`: crops areas of a registered picture and searches for what they show (docs/spec.md#crops, #calls). In: the label of a
//! picture and boxes on it. Out: hits per crop, and the crops, which can be searched and cropped again.

use std::sync::Arc;

use hypereyes_domain::{Area, Call, IMAGE_SEARCH};
use hypereyes_pictures::crop::MAX_SIDE;
use hypereyes_pictures::{RgbImage, crop};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Argument, Done, Ran, RunFuture, Tool};
use crate::boxes::BoxUnits;
use crate::call::{Note, Refusal, capped, shown_value};
use crate::config::EnvConfig;
use crate::json::no_number;
use crate::metrics::CROPS_FAILED;
use crate::observation::{self, Shown, Style};
use crate::scene::Scene;
use crate::search::{Outcome, Query};

/// Most areas of one call; the rest is dropped, said and counted. More than a picture has entities.
pub const MAX_AREAS: usize = 64;

/// Reverse image search of areas of one picture.
#[derive(Clone, Copy, Debug)]
pub struct ImageSearch;

/// What a call of [`ImageSearch`] holds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ImageArguments {
    /// Label of the picture, such as `img_0`.
    pub image_id: String,
    /// Boxes on it; none is the whole picture. As ratios, once the call is grounded.
    pub area: Vec<Area>,
}

impl ImageArguments {
    /// The arguments of a call; `None` where it is none of this tool's.
    pub fn of(call: &Call) -> Option<Self> {
        if call.tool == IMAGE_SEARCH { serde_json::from_value(call.arguments.clone()).ok() } else { None }
    }
}

const ARGUMENTS: &[Argument] = &[
    Argument { name: "image_id", also: &["img_id", "image", "img", "id", "imageid", "image_ids", "picture", "img_idx", "image_index"] },
    Argument {
        name: "area",
        also: &[
            "areas",
            "bbox",
            "bboxes",
            "bbox_2d",
            "box",
            "boxes",
            "box_2d",
            "crop",
            "region",
            "regions",
            "coordinate",
            "coordinates",
            "rect",
        ],
    },
];

impl Tool for ImageSearch {
    fn name(&self) -> &'static str {
        IMAGE_SEARCH
    }

    fn description(&self) -> &'static str {
        "Reverse image search: finds what areas of a picture show. All areas of a call are searched at once."
    }

    fn arguments(&self) -> &'static [Argument] {
        ARGUMENTS
    }

    fn schema(&self, units: BoxUnits) -> Value {
        let area = format!("Boxes to crop and search, each [x1,y1,x2,y2] in {}; none is the whole picture.", units.edges());
        json!({"type": "object", "properties": {
            "image_id": {"type": "string", "description": "Label of the picture. Crops get labels of their own.", "default": "img_0"},
            "area": {"type": "array", "description": area,
                "items": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}},
        }})
    }

    fn parse(&self, arguments: &Map<String, Value>, notes: &mut Vec<Note>) -> Result<Value, Refusal> {
        let image_id = match arguments.get("image_id") {
            None => "img_0",
            Some(value) => match value.as_str() {
                Some(text) => text.trim(),
                None => return Err(Refusal::new("value", "image_id must be text, such as \"img_0\"")),
            },
        };
        let areas = match arguments.get("area") {
            None | Some(Value::Null) => &[][..],
            Some(value) => match value.as_array() {
                Some(areas) if areas.iter().any(Value::is_number) => {
                    return Err(Refusal::new("area", format!("area is one box; {SHAPE}")));
                }
                Some(areas) => areas,
                None => return Err(Refusal::new("area", format!("area is no list; {SHAPE}"))),
            },
        };
        let areas = areas.iter().enumerate().map(|(at, area)| read_area(at, area)).collect::<Result<Vec<_>, _>>()?;
        Ok(Call::image_search(image_id, &capped(areas, MAX_AREAS, "areas", notes)).arguments)
    }

    fn cost(&self, arguments: &Value) -> u32 {
        let areas = arguments["area"].as_array().map_or(0, Vec::len);
        u32::try_from(areas.max(1)).unwrap_or(u32::MAX)
    }

    /// Areas as ratios, or what is wrong with one of them.
    fn ground(&self, call: Call, scene: &Scene) -> Result<Call, Refusal> {
        let Some(ImageArguments { image_id, mut area }) = ImageArguments::of(&call) else { return Ok(call) };
        let Some(size) = scene.seen_size(&image_id) else { return Ok(call) };
        for (at, area) in area.iter_mut().enumerate() {
            let read = scene.config().box_units.read(*area, size);
            *area = read.map_err(|said| Refusal::new("area", format!("area[{at}] {said}")))?;
        }
        Ok(Call::image_search(&image_id, &area))
    }

    fn run<'a>(&'a self, call: &'a Call, scene: &'a mut Scene) -> RunFuture<'a> {
        Box::pin(async move {
            let unknown = || Ran::nothing("unknown_id", observation::UNKNOWN_ID);
            let Some(ImageArguments { image_id, area: areas }) = ImageArguments::of(call) else { return unknown() };
            let Some(picture) = scene.picture(&image_id).cloned() else { return unknown() };
            if areas.is_empty() {
                // As large as a crop of all of it.
                let is_large = picture.width().max(picture.height()) > MAX_SIDE;
                let picture = if is_large { crop(&picture, &Area::WHOLE).map_or(picture, Arc::new) } else { picture };
                let items = search(scene, vec![(image_id, Ok(picture))]).await;
                return Ran { kind: "image", items, ..Ran::default() };
            }
            run_areas(scene, &picture, &areas).await
        })
    }

    fn render(&self, ran: &Ran, config: &EnvConfig) -> String {
        let searched: Vec<(&str, &Outcome)> = ran.searched().collect();
        if searched.is_empty() {
            return ran.said.clone();
        }
        let failed: Vec<&str> =
            ran.items.iter().filter(|(_, done)| matches!(done, Done::Not(_))).map(|(label, _)| label.as_str()).collect();
        observation::image_body(&searched, &failed, config.header, Shown::of(config)) + &ran.said
    }
}

const SHAPE: &str = "it must be a list of boxes, [[x1,y1,x2,y2]]";

fn read_area(at: usize, area: &Value) -> Result<Area, Refusal> {
    let refuse = |message: String| Err(Refusal { reason: "area", message });
    let Some(edges) = area.as_array() else { return refuse(format!("area[{at}] is no list; {SHAPE}")) };
    if edges.len() != 4 {
        return refuse(format!("area[{at}] has {} numbers; {SHAPE}", edges.len()));
    }
    let mut numbers = [0.0; 4];
    for (number, edge) in numbers.iter_mut().zip(edges) {
        *number = match (edge.as_f64(), no_number(edge)) {
            (Some(edge), _) => edge,
            (None, Some(text)) => return refuse(format!("area[{at}] has {text}, which is no place; {SHAPE}")),
            (None, None) => return refuse(format!("area[{at}] has {}, which is no number; {SHAPE}", shown_value(edge))),
        };
    }
    Ok(Area::from(numbers))
}

/// Crops all areas, then searches the crops that came out.
async fn run_areas(scene: &mut Scene, picture: &RgbImage, areas: &[Area]) -> Ran {
    let (mut crops, mut pictures, mut of_failed) = (Vec::new(), Vec::new(), Vec::new());
    for area in areas {
        // The label is taken before cropping: a crop that fails uses it up.
        let label = scene.next_label();
        match crop(picture, area) {
            Some(cut) => {
                let cut = Arc::new(cut);
                scene.register(label.clone(), cut.clone());
                pictures.push(cut.clone());
                crops.push((label, Ok(cut)));
            }
            None => {
                of_failed.push(*area);
                crops.push((label, Err(observation::CROP_FAILED)));
            }
        }
    }
    metrics::counter!(CROPS_FAILED).increment(of_failed.len() as u64);
    let reasons = observation::crop_reasons(&of_failed);
    let all_failed = pictures.is_empty();
    let items = search(scene, crops).await;
    if all_failed {
        return Ran { kind: "all_crops_failed", items, said: [observation::ALL_CROPS_FAILED, &reasons].concat(), ..Ran::default() };
    }
    Ran { kind: "image", items, pictures, said: reasons }
}

/// Searches pictures, all at once; what is none stays what it is.
async fn search(scene: &Scene, pictures: Vec<(String, Result<Arc<RgbImage>, &'static str>)>) -> Vec<(String, Done)> {
    let queries: Vec<Query> = pictures.iter().flat_map(|(_, picture)| picture.clone().map(Query::Picture)).collect();
    let mut outcomes = scene.search(&queries).await.into_iter();
    let done = |(label, picture): (String, Result<_, &'static str>)| {
        let done = match picture {
            Err(why) => Done::Not(why),
            Ok(_) => Done::Ran(outcomes.next().expect("one for each").map(|mut hits| {
                hits.sort_by(|a, b| Style::Image.relevance(b).total_cmp(&Style::Image.relevance(a)));
                hits.truncate(scene.config().image_hits);
                hits
            })),
        };
        (label, done)
    };
    pictures.into_iter().map(done).collect()
}
