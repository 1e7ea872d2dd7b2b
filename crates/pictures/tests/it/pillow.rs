//! Whole files as Pillow 13 reads them (`data/pillow.safetensors`: files that it wrote, and what transformers' `load_image`, that is
//! `exif_transpose` and `convert("RGB")`, makes of them), and files cut short, which it refuses.

use hypereyes_pictures::{Limits, Picture, PictureError, RgbImage, decode};
use safetensors::SafeTensors;

/// JPEG decoders may round and smooth otherwise: largest difference, and on average.
const JPEG: (u8, f64) = (24, 1.6);

struct Case {
    name: String,
    file: Vec<u8>,
    rgb: RgbImage,
}

fn cases() -> Vec<Case> {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pillow.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<String> = tensors.names().into_iter().filter_map(|name| Some(name.strip_suffix(".file")?.to_owned())).collect();
    names.sort();
    assert_eq!(names.len(), 33);
    let case = |name: String| {
        let rgb = tensors.tensor(&format!("{name}.rgb")).unwrap();
        let (height, width) = (rgb.shape()[0] as u32, rgb.shape()[1] as u32);
        let file = tensors.tensor(&format!("{name}.file")).unwrap().data().to_vec();
        Case { name, file, rgb: RgbImage::from_raw(width, height, rgb.data().to_vec()).unwrap() }
    };
    names.into_iter().map(case).collect()
}

#[test]
fn every_kind_of_file_is_read_as_pillow_reads_it() {
    for case in cases() {
        let ours = decode(&case.file, &Limits::default()).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert_eq!(ours.dimensions(), case.rgb.dimensions(), "{}", case.name);
        let apart: Vec<u8> = ours.as_raw().iter().zip(case.rgb.as_raw()).map(|(one, other)| one.abs_diff(*other)).collect();
        let worst = apart.iter().copied().max().unwrap();
        let mean = apart.iter().map(|value| f64::from(*value)).sum::<f64>() / apart.len() as f64;
        let (most, average) = if case.name.starts_with("jpeg") { JPEG } else { (0, 0.0) };
        assert!(worst <= most && mean <= average, "{}: {worst} at most, {mean:.2} on average", case.name);
    }
}

#[test]
fn a_file_cut_anywhere_is_none_and_what_follows_a_whole_one_does_not_matter() {
    for case in cases() {
        for cut in 0..case.file.len() {
            assert!(decode(&case.file[..cut], &Limits::default()).is_err(), "{} with {cut} of {} bytes", case.name, case.file.len());
        }
        let more = [&case.file[..], b"\xFF\xD8 and more"].concat();
        assert_eq!(decode(&more, &Limits::default()).unwrap(), decode(&case.file, &Limits::default()).unwrap(), "{}", case.name);
    }
}

/// A download whose end is still empty. (A file that somebody closed with an end marker after too little data is read, and the rest
/// is grey, as in Pillow.)
#[test]
fn a_cut_that_hides_its_end_is_found_all_the_same() {
    for case in cases().iter().filter(|case| case.name.starts_with("jpeg")) {
        for share in [2, 4, 6, 9] {
            let rest = &case.file[..case.file.len() * share / 10];
            let empty = decode(&[rest, &[0; 3000]].concat(), &Limits::default());
            assert!(matches!(empty, Err(PictureError::Broken(_))), "{} with {share} tenths and zeros", case.name);
        }
    }
}

#[test]
fn servers_that_take_pixels_as_stored_get_them_upright() {
    for case in cases() {
        let picture = Picture::from_bytes(case.file.clone().into(), &Limits::default()).unwrap();
        let sent = picture.upright_bytes().unwrap();
        let turned =
            case.name.contains("turn") && !case.name.ends_with('1') || case.name.contains("xmp") || case.name.contains("raw_profile");
        assert_eq!(sent != picture.bytes, turned, "{}", case.name);
        assert_eq!(decode(&sent, &Limits::default()).unwrap(), *picture.image, "{}", case.name);
    }
}
