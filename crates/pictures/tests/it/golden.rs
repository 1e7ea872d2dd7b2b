//! Crops and patches against outputs of the reference functions (`tests/data`; each file names its origin).

use hypereyes_domain::Area;
use hypereyes_pictures::{Processor, RgbImage, crop};
use safetensors::SafeTensors;
use serde_json::Value;

#[test]
fn crops_have_the_reference_sizes() {
    let text = include_str!("../data/crop.json");
    let golden: Value = serde_json::from_str(text).expect("the file is JSON");
    let cases = golden["crop"].as_array().expect("a list of cases");
    assert_eq!(cases.len(), 48);
    for case in cases {
        let numbers = |key: &str| -> Vec<f64> { case[key].as_array().expect("a list").iter().filter_map(Value::as_f64).collect() };
        let (size, area) = (numbers("image_size"), numbers("area"));
        let picture = RgbImage::new(size[0] as u32, size[1] as u32);
        let got = crop(&picture, &Area::from([area[0], area[1], area[2], area[3]]));
        let got = got.map(|cut| vec![f64::from(cut.width()), f64::from(cut.height())]);
        let want = case["expected_size"].is_array().then(|| numbers("expected_size"));
        assert_eq!(got, want, "{case}");
    }
}

/// Worst difference in byte levels (of 255) of a case's patches, and how many values differ at all.
fn compare(name: &str) -> (u32, usize) {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/patches.safetensors")).expect("the file is there");
    let tensors = SafeTensors::deserialize(&bytes).expect("the file is sound");
    let rgb = tensors.tensor(&format!("{name}.rgb")).expect("the case has a picture");
    let picture = RgbImage::from_raw(rgb.shape()[1] as u32, rgb.shape()[0] as u32, rgb.data().to_vec()).expect("three bytes a pixel");
    let processor = Processor { min_pixels: 4096, max_pixels: 262_144, ..Processor::default() };
    let patches = processor.patches(&picture);

    let grid = tensors.tensor(&format!("{name}.grid")).expect("the case has a grid");
    let grid: Vec<i32> = grid.data().chunks(4).map(|word| i32::from_le_bytes(word.try_into().expect("4 bytes"))).collect();
    assert_eq!(grid, [1, patches.grid.0 as i32, patches.grid.1 as i32]);
    let levels = tensors.tensor("level_values").expect("the file has level values");
    let levels: Vec<f32> = levels.data().chunks(4).map(|word| f32::from_le_bytes(word.try_into().expect("4 bytes"))).collect();
    let want = tensors.tensor(&format!("{name}.levels")).expect("the case has patches");
    assert_eq!(want.data().len(), patches.values.len());

    let (mut worst, mut differing) = (0, 0);
    for (got, level) in patches.values.iter().zip(want.data()) {
        if *got != levels[usize::from(*level)] {
            let got_level = (got * 127.5 + 127.5).round() as i32;
            worst = worst.max(got_level.abs_diff(i32::from(*level)));
            differing += 1;
        }
    }
    (worst, differing)
}

#[test]
fn patches_are_exact_where_no_resize_is_needed() {
    assert_eq!(compare("exact_wide"), (0, 0));
    assert_eq!(compare("exact_tall"), (0, 0));
}

/// Bit for bit, because the resampler rounds as the reference's does.
#[test]
fn patches_are_exact_where_a_resize_is_needed() {
    assert_eq!(compare("resized_wide"), (0, 0));
    assert_eq!(compare("resized_tall"), (0, 0));
}
