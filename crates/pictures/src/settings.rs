//! Picture settings as checkpoints record them. In: a model folder. Out: [`Processor`], and what the file leaves open.
//!
//! Follows transformers 5: `processor_config.json` counts where it has an `image_processor`, then `preprocessor_config.json`;
//! `min_pixels` and `max_pixels` go before `size`; a key that is not there has the value of its Qwen2VLImageProcessor.
//! `video_preprocessor_config.json` is not looked at.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::processor::{Loaded, Processor, ProcessorError};

/// The file of transformers 5, which holds the settings of tokenizer, pictures and videos.
pub(crate) const NESTED: &str = "processor_config.json";
/// The file of earlier versions, and of models as they were published.
pub(crate) const FLAT: &str = "preprocessor_config.json";
/// Largest file that is read; published ones have less than a kilobyte, those with a template in them some.
const MAX_BYTES: u64 = 4 << 20;
/// What transformers divides by, as it is written in files.
const RESCALE: f64 = 1.0 / 255.0;
/// Pillow's number of the bicubic filter.
const BICUBIC: u64 = 3;

/// Reads the settings of a folder.
pub(crate) fn load(dir: &Path) -> Result<Loaded, ProcessorError> {
    let nested = dir.join(NESTED);
    if let Some(whole) = read(&nested)?
        && let Some(settings) = whole.get("image_processor").filter(|settings| !settings.is_null())
    {
        return of(settings.clone(), nested, "image_processor.");
    }
    let flat = dir.join(FLAT);
    match read(&flat)? {
        Some(settings) => of(settings, flat, ""),
        None => Err(ProcessorError::Missing { folder: dir.to_owned() }),
    }
}

/// A file as JSON; `None` where there is none.
fn read(path: &Path) -> Result<Option<Value>, ProcessorError> {
    let text = match hypereyes_outside::files::read_to_string(path, MAX_BYTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ProcessorError::Read { path: path.to_owned(), source }),
        Ok(text) => text,
    };
    let parse = |error: serde_json::Error| ProcessorError::Parse { path: path.to_owned(), reason: error.to_string() };
    serde_json::from_str(&text).map(Some).map_err(parse)
}

fn of(settings: Value, path: PathBuf, under: &str) -> Result<Loaded, ProcessorError> {
    let parse = |reason: String| ProcessorError::Parse { path: path.clone(), reason: format!("{under}{reason}") };
    let recorded: Recorded = serde_json::from_value(settings).map_err(|error| parse(error.to_string()))?;
    let assumed = recorded.assumed(under);
    let processor = Processor::try_from(recorded).map_err(parse)?;
    Ok(Loaded { processor, path, assumed })
}

/// The file's keys that matter; checkpoints carry many others.
#[derive(Serialize, Deserialize, Clone, Default)]
pub(crate) struct Recorded {
    patch_size: Option<usize>,
    merge_size: Option<usize>,
    temporal_patch_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_pixels: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_pixels: Option<usize>,
    size: Option<Size>,
    image_mean: Option<Colours>,
    image_std: Option<Colours>,
    // These are never written: what is not written has the only value that is supported.
    #[serde(skip_serializing)]
    do_resize: Option<bool>,
    #[serde(skip_serializing)]
    do_rescale: Option<bool>,
    #[serde(skip_serializing)]
    do_normalize: Option<bool>,
    #[serde(skip_serializing)]
    rescale_factor: Option<f64>,
    #[serde(skip_serializing)]
    resample: Option<Value>,
}

/// Named after edges for historical reasons; both are numbers of pixels.
#[derive(Serialize, Deserialize, Clone, Default)]
struct Size {
    shortest_edge: Option<usize>,
    longest_edge: Option<usize>,
}

/// One number for all channels, or one for each.
#[derive(Serialize, Deserialize, Clone)]
#[serde(untagged)]
enum Colours {
    Same(f32),
    Each([f32; 3]),
}

impl Colours {
    fn each(&self) -> [f32; 3] {
        match self {
            Self::Same(value) => [*value; 3],
            Self::Each(values) => *values,
        }
    }
}

/// What transformers' Qwen2VLImageProcessor has where a file does not say it.
const ASSUMED: Processor = Processor {
    patch: 14,
    merge: 2,
    temporal: 2,
    min_pixels: 56 * 56,
    max_pixels: 28 * 28 * 1280,
    mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
    std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
};

impl Recorded {
    fn pixels(&self) -> (Option<usize>, Option<usize>) {
        let size = self.size.clone().unwrap_or_default();
        (self.min_pixels.or(size.shortest_edge), self.max_pixels.or(size.longest_edge))
    }

    /// Keys that are not there, with the values that are taken; `under` is what stands before a key.
    fn assumed(&self, under: &str) -> Option<String> {
        let (least, most) = self.pixels();
        let numbers = [
            ("patch_size", self.patch_size, ASSUMED.patch),
            ("merge_size", self.merge_size, ASSUMED.merge),
            ("temporal_patch_size", self.temporal_patch_size, ASSUMED.temporal),
            ("size.shortest_edge", least, ASSUMED.min_pixels),
            ("size.longest_edge", most, ASSUMED.max_pixels),
        ];
        let numbers = numbers.into_iter().filter(|(_, said, _)| said.is_none()).map(|(key, _, value)| format!("{under}{key} = {value}"));
        let colours = [("image_mean", &self.image_mean, ASSUMED.mean), ("image_std", &self.image_std, ASSUMED.std)];
        let colours = colours.into_iter().filter(|(_, said, _)| said.is_none()).map(|(key, _, value)| format!("{under}{key} = {value:?}"));
        let all: Vec<String> = numbers.chain(colours).collect();
        (!all.is_empty()).then(|| format!("it does not say everything; as transformers does, this is assumed: {}", all.join(", ")))
    }

    /// Refuses what would make other numbers of a picture than are made here.
    fn check(&self) -> Result<(), String> {
        for (key, value) in [("do_resize", self.do_resize), ("do_rescale", self.do_rescale), ("do_normalize", self.do_normalize)] {
            if value == Some(false) {
                return Err(format!("{key} is false; only true is supported"));
            }
        }
        if let Some(factor) = self.rescale_factor.filter(|factor| (factor / RESCALE - 1.0).abs() > 1e-4) {
            return Err(format!("rescale_factor is {factor}; only 1/255 is supported"));
        }
        match &self.resample {
            Some(filter) if !is_bicubic(filter) => Err(format!("resample is {filter}; only {BICUBIC} (bicubic) is supported")),
            _ => Ok(()),
        }
    }
}

fn is_bicubic(filter: &Value) -> bool {
    filter.is_null() || filter.as_u64() == Some(BICUBIC) || filter.as_str().is_some_and(|name| name.to_lowercase().ends_with("bicubic"))
}

impl TryFrom<Recorded> for Processor {
    type Error = String;

    fn try_from(recorded: Recorded) -> Result<Self, String> {
        recorded.check()?;
        let (least, most) = recorded.pixels();
        let processor = Processor {
            patch: recorded.patch_size.unwrap_or(ASSUMED.patch),
            merge: recorded.merge_size.unwrap_or(ASSUMED.merge),
            temporal: recorded.temporal_patch_size.unwrap_or(ASSUMED.temporal),
            min_pixels: least.unwrap_or(ASSUMED.min_pixels),
            max_pixels: most.unwrap_or(ASSUMED.max_pixels),
            mean: recorded.image_mean.map_or(ASSUMED.mean, |colours| colours.each()),
            std: recorded.image_std.map_or(ASSUMED.std, |colours| colours.each()),
        };
        for (what, value, most) in
            [("patch_size", processor.patch, 64), ("merge_size", processor.merge, 8), ("temporal_patch_size", processor.temporal, 8)]
        {
            if !(1..=most).contains(&value) {
                return Err(format!("{what} is {value}; it must lie in 1..={most}"));
            }
        }
        let one_token = processor.factor() * processor.factor();
        if processor.min_pixels > processor.max_pixels || processor.max_pixels < one_token || processor.max_pixels > 1 << 26 {
            return Err(format!(
                "pixels {}..={} are no usable range: at least one token ({one_token}), at most {}",
                processor.min_pixels,
                processor.max_pixels,
                1 << 26
            ));
        }
        if processor.std.iter().any(|value| !value.is_finite() || *value <= 0.0) || processor.mean.iter().any(|value| !value.is_finite()) {
            return Err(format!("image_mean {:?} and image_std {:?} must be finite, the latter positive", processor.mean, processor.std));
        }
        Ok(processor)
    }
}

impl From<Processor> for Recorded {
    fn from(processor: Processor) -> Self {
        Self {
            patch_size: Some(processor.patch),
            merge_size: Some(processor.merge),
            temporal_patch_size: Some(processor.temporal),
            size: Some(Size { shortest_edge: Some(processor.min_pixels), longest_edge: Some(processor.max_pixels) }),
            image_mean: Some(Colours::Each(processor.mean)),
            image_std: Some(Colours::Each(processor.std)),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, value) in files {
            std::fs::write(folder.path().join(name), value.to_string()).expect("writes");
        }
        folder
    }

    fn whole(patch: usize) -> Value {
        json!({"patch_size": patch, "merge_size": 2, "temporal_patch_size": 2, "image_mean": 0.5, "image_std": [0.5, 0.25, 0.5],
               "size": {"shortest_edge": 4096, "longest_edge": 65536}, "resample": 3, "rescale_factor": 0.00392156862745098})
    }

    #[test]
    fn the_nested_settings_go_before_the_flat_ones_as_in_transformers() {
        let video = json!({"patch_size": 4});
        for (files, patch) in [
            (vec![(NESTED, json!({"image_processor": whole(8), "video_processor": video}))], Some(8)),
            (vec![(FLAT, whole(16))], Some(16)),
            (vec![(NESTED, json!({"image_processor": whole(8)})), (FLAT, whole(16))], Some(8)),
            (vec![(NESTED, json!({"processor_class": "Qwen3VLProcessor"})), (FLAT, whole(16))], Some(16)),
            (vec![(NESTED, json!({"image_processor": null})), (FLAT, whole(16))], Some(16)),
            (vec![(NESTED, json!({"processor_class": "Qwen3VLProcessor"}))], None),
            (vec![("video_preprocessor_config.json", whole(4))], None),
            (vec![], None),
        ] {
            let folder = folder(&files);
            match (Processor::load_from(folder.path()), patch) {
                (Ok(loaded), Some(patch)) => {
                    assert_eq!((loaded.processor.patch, loaded.processor.mean, loaded.assumed), (patch, [0.5; 3], None));
                }
                (Err(ProcessorError::Missing { .. }), None) => {}
                (loaded, patch) => panic!("{files:?}: {loaded:?}, not {patch:?}"),
            }
        }
    }

    #[test]
    fn what_a_file_does_not_say_is_taken_from_transformers_and_said() {
        let folder = folder(&[(NESTED, json!({"image_processor": {"patch_size": 16, "image_mean": [0.5, 0.5, 0.5]}}))]);
        let loaded = Processor::load_from(folder.path()).expect("loads");
        assert_eq!(loaded.processor, Processor { patch: 16, mean: [0.5; 3], ..ASSUMED });
        let said = loaded.assumed.expect("most of it");
        for part in ["it does not say", "image_processor.merge_size = 2", "size.longest_edge = 1003520", "image_std = [0.2686"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains("image_processor.patch_size") && !said.contains("image_mean"), "{said}");
    }

    #[test]
    fn a_setting_that_makes_other_numbers_is_refused_by_its_name() {
        for (key, value) in [
            ("do_resize", json!(false)),
            ("do_rescale", json!(false)),
            ("do_normalize", json!(false)),
            ("rescale_factor", json!(1.0)),
            ("resample", json!(2)),
            ("image_std", json!([0.5, 0.0, 0.5])),
        ] {
            let mut settings = whole(16);
            settings[key] = value;
            let folder = folder(&[(NESTED, json!({"image_processor": settings}))]);
            let error = Processor::load(folder.path()).expect_err(key).to_string();
            assert!(error.contains(NESTED) && error.contains(key), "{error}");
        }
    }
}
