//! Token sequences with pictures, as `logprobs` reads them.
//!
//! In: a safetensors file of cases (`caseN.input_ids`, and `caseN.pixel_values` with `caseN.image_grid_thw`, or
//! `caseN.imageK.rgb`), or JSON lines. Out: [`Case`]s, or an error that names the tensor or the line.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use hypereyes_chassis::BadInput;
use hypereyes_pictures::{Patches, RgbImage};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;

use crate::keys;
use crate::sights::Sights;

/// Largest file of cases.
const MAX_BYTES: u64 = 4 << 30;
/// Longest sequence.
pub const MAX_TOKENS: usize = 1 << 18;

/// One sequence.
#[derive(Clone, Debug)]
pub struct Case {
    /// What the answer calls it: the number of the case, or the line's `id`.
    pub id: Value,
    /// Token ids.
    pub ids: Vec<u32>,
    /// Pictures in order of their placeholders.
    pub pictures: Vec<Arc<Patches>>,
    /// What the file says of its log-probs (`caseN.next_logprobs`), if it says anything.
    pub expected: Option<Vec<f32>>,
}

/// A line of JSON input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Value,
    input_ids: Vec<u32>,
    /// Picture files, in order of their placeholders.
    #[serde(default)]
    images: Vec<std::path::PathBuf>,
}

/// Reads one JSON object: `{"id", "input_ids", "images"?}`.
///
/// # Errors
/// What is wrong with it.
pub fn line(value: &Value, sights: &Sights) -> Result<Case> {
    keys::check(value, "a line", &["id", "input_ids", "images"])?;
    let line: Line = serde_json::from_value(keys::strip(value, &["id"]))?;
    ensure!(line.input_ids.len() <= MAX_TOKENS, "{} tokens; at most {MAX_TOKENS}", line.input_ids.len());
    let pictures = line.images.iter().map(|path| sights.file(path)).collect::<Result<_>>()?;
    Ok(Case { id: line.id, ids: line.input_ids, pictures, expected: None })
}

/// Reads a safetensors file of cases. With `from_images`, pictures are made from `caseN.imageK.rgb`.
///
/// # Errors
/// [`BadInput`] that names the tensor.
pub fn file(path: &Path, sights: &Sights, from_images: bool) -> Result<Vec<Case>> {
    let bad = |why: String| BadInput::new(format!("{}: {why}", path.display()));
    let bytes = hypereyes_outside::files::read(path, MAX_BYTES).map_err(|error| bad(error.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| bad(format!("not a sound safetensors file: {error}")))?;
    let mut cases = vec![];
    while let Ok(ids) = file.tensor(&format!("case{}.input_ids", cases.len())) {
        let number = cases.len();
        cases.push(case(&file, number, &ids, sights, from_images).map_err(|error| bad(format!("case {number}: {error:#}")))?);
    }
    if cases.is_empty() {
        return Err(bad("holds no case0.input_ids".into()).into());
    }
    Ok(cases)
}

fn case(file: &SafeTensors<'_>, number: usize, ids: &TensorView<'_>, sights: &Sights, from_images: bool) -> Result<Case> {
    let ids: Vec<u32> = whole(ids)?;
    ensure!(ids.len() <= MAX_TOKENS, "{} tokens; at most {MAX_TOKENS}", ids.len());
    let mut pictures = vec![];
    if from_images {
        for at in 0.. {
            let Ok(view) = file.tensor(&format!("case{number}.image{at}.rgb")) else { break };
            let [height, width, 3] = view.shape()[..] else { bail!("image{at}.rgb has shape {:?}, not [H, W, 3]", view.shape()) };
            ensure!(view.dtype() == Dtype::U8 && height * width > 0, "image{at}.rgb is {:?}, not bytes", view.dtype());
            let image = RgbImage::from_raw(u32::try_from(width)?, u32::try_from(height)?, view.data().to_vec());
            pictures.push(Arc::new(sights.processor()?.patches(&image.context("image of another size than its shape")?)));
        }
    } else if let Ok(grids) = file.tensor(&format!("case{number}.image_grid_thw")) {
        let view = file.tensor(&format!("case{number}.pixel_values")).context("has image_grid_thw but no pixel_values")?;
        let [_, width] = view.shape()[..] else { bail!("pixel_values has shape {:?}, not [patches, values]", view.shape()) };
        let mut values = floats(&view)?;
        for grid in whole(&grids)?.chunks(3) {
            let [1, rows, columns] = grid else { bail!("image_grid_thw holds {grid:?}; pictures have one frame") };
            let (rows, columns) = (*rows as usize, *columns as usize);
            let count = rows.saturating_mul(columns).saturating_mul(width);
            ensure!(count <= values.len(), "a picture of {rows}x{columns} patches has more values than pixel_values holds");
            let rest = values.split_off(count);
            pictures.push(Arc::new(Patches { grid: (rows, columns), values }));
            values = rest;
        }
        ensure!(values.is_empty(), "pixel_values holds {} values more than image_grid_thw says", values.len());
    }
    let expected = file.tensor(&format!("case{number}.next_logprobs")).ok().map(|view| floats(&view)).transpose()?;
    Ok(Case { id: number.into(), ids, pictures, expected })
}

fn whole(view: &TensorView<'_>) -> Result<Vec<u32>> {
    let number = |value: i64| u32::try_from(value).with_context(|| format!("{value} is no count or token"));
    let data = view.data();
    match view.dtype() {
        Dtype::I32 => data.chunks_exact(4).map(|b| number(i32::from_le_bytes([b[0], b[1], b[2], b[3]]).into())).collect(),
        Dtype::I64 => data.chunks_exact(8).map(|b| number(i64::from_le_bytes(b.try_into().expect("eight bytes")))).collect(),
        other => bail!("whole numbers are stored as {other:?}; I32 and I64 are read"),
    }
}

fn floats(view: &TensorView<'_>) -> Result<Vec<f32>> {
    ensure!(view.dtype() == Dtype::F32, "values are stored as {:?}; F32 is read", view.dtype());
    Ok(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}
