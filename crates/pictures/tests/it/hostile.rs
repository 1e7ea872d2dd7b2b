//! Damaged and hostile pictures and settings: an error, never a panic, never more pixels than allowed.

use bytes::Bytes;
use hypereyes_pictures::{Limits, Picture, Processor, decode};
use image::{Rgb, RgbImage};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

fn limits() -> Limits {
    Limits { max_side: 200, max_pixels: 20_000, ..Limits::default() }
}

fn encoded() -> [Vec<u8>; 2] {
    let image = RgbImage::from_fn(40, 30, |x, y| Rgb([(x * 5) as u8, (y * 7) as u8, (x * y) as u8]));
    let mut jpeg = vec![];
    image.write_with_encoder(image::codecs::jpeg::JpegEncoder::new(&mut jpeg)).unwrap();
    [Picture::from_image(image).unwrap().bytes.to_vec(), jpeg]
}

#[test]
fn no_damage_to_a_picture_makes_the_decoder_panic_or_exceed_its_limits() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut decoded = 0;
    for whole in encoded() {
        for _ in 0..3000 {
            let mut bytes = whole.clone();
            match random.random_range(0..3) {
                0 => bytes.truncate(random.random_range(0..bytes.len())),
                // Headers are at the front: that is where sizes are claimed.
                1 => (0..random.random_range(1..6)).for_each(|_| bytes[random.random_range(0..64)] = random.random()),
                _ => (0..random.random_range(1..20)).for_each(|_| {
                    let at = random.random_range(0..bytes.len());
                    bytes[at] = random.random();
                }),
            }
            if let Ok(picture) = Picture::from_bytes(Bytes::from(bytes), &limits()) {
                decoded += 1;
                let (width, height) = picture.image.dimensions();
                assert!(width.max(height) <= 200 && width * height <= 20_000);
            }
        }
    }
    assert!(decoded > 10, "some damage does not matter: {decoded}");
}

#[test]
fn a_header_that_claims_a_huge_picture_is_refused_before_memory_is_taken() {
    let [mut png, _] = encoded();
    png[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]); // 100000 x 100000
    let crc = crc(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    let error = decode(&png, &Limits::default()).unwrap_err().to_string();
    assert!(error.contains("100000"), "{error}");
}

fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()));
    !bytes.iter().fold(!0, step)
}

#[test]
fn no_setting_of_a_processor_makes_resizing_panic() {
    let hostile =
        [json!(0), json!(1), json!(-3), json!(u64::MAX), json!(0.5), json!("x"), json!(null), json!([]), json!([0, 0, 0]), json!({})];
    let folder = tempfile::tempdir().unwrap();
    let whole = serde_json::to_value(Processor::default()).unwrap();
    let keys: Vec<String> = whole.as_object().unwrap().keys().cloned().collect();
    let mut accepted = 0;
    for (first, second) in keys.iter().flat_map(|first| keys.iter().map(move |second| (first, second))) {
        for (one, two) in hostile.iter().flat_map(|one| hostile.iter().map(move |two| (one, two))) {
            let mut damaged = whole.clone();
            damaged[first] = one.clone();
            damaged[second] = two.clone();
            std::fs::write(folder.path().join("preprocessor_config.json"), Value::to_string(&damaged)).unwrap();
            let Ok(processor) = Processor::load(folder.path()) else { continue };
            accepted += 1;
            for (height, width) in [(1, 1), (480, 640), (1, 100_000), (100_000, 3)] {
                let (high, wide) = processor.smart_resize(height, width);
                assert!(high > 0 && wide > 0 && high % processor.factor() == 0 && wide % processor.factor() == 0, "{damaged}");
            }
        }
    }
    assert!(accepted > 10, "{accepted}");
}
