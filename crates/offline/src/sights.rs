//! Pictures of commands that take a model folder: where they are, and what they are cut into.
//!
//! In: a model folder, and pictures as people name them (a file, base64, a `data:` address). Out: patches, or which picture
//! cannot be used and why. Settings are read when the first picture asks for them: a text needs none.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hypereyes_chat::agreement;
use hypereyes_pictures::{Limits, Loaded, Patches, Picture, Processor, ProcessorError};
use hypereyes_policy::config::ModelConfig;

/// Characters of a picture's name that an error repeats.
const SHOWN: usize = 80;

/// The picture settings of a model folder, read once.
pub struct Sights {
    model: PathBuf,
    /// Whether a folder without settings has the published ones.
    lenient: bool,
    processor: OnceCell<Processor>,
}

impl Sights {
    /// Of a folder that must hold its settings.
    pub fn of(model: &Path) -> Self {
        Self { model: model.to_owned(), lenient: false, processor: OnceCell::new() }
    }

    /// Of a folder that may hold weights alone; what is assumed then is said.
    pub fn assumed(model: &Path) -> Self {
        Self { lenient: true, ..Self::of(model) }
    }

    /// The settings.
    ///
    /// # Errors
    /// They are missing, broken, or do not fit the vision tower.
    pub fn processor(&self) -> Result<&Processor> {
        if let Some(processor) = self.processor.get() {
            return Ok(processor);
        }
        let processor = self.load()?;
        Ok(self.processor.get_or_init(|| processor))
    }

    fn load(&self) -> Result<Processor> {
        let loaded = match Processor::load_from(&self.model) {
            Err(ProcessorError::Missing { .. }) if self.lenient => self.published()?,
            loaded => loaded?,
        };
        for remark in agreement::pictures(&self.model, &loaded)? {
            tracing::warn!("{}: {remark}", self.model.display());
        }
        Ok(loaded.processor)
    }

    /// What published models have, for the patches of this one.
    fn published(&self) -> Result<Loaded> {
        let vision = ModelConfig::load(&self.model).map_err(|error| anyhow!("{error}"))?.vision;
        let (patch, merge, temporal) = (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size);
        let processor = Processor { patch, merge, temporal, ..Processor::default() };
        let assumed = format!(
            "it is not there; assumed: {} to {} pixels, image_mean {:?}, image_std {:?}, patches as in config.json",
            processor.min_pixels, processor.max_pixels, processor.mean, processor.std
        );
        Ok(Loaded { processor, path: self.model.join("preprocessor_config.json"), assumed: Some(assumed) })
    }

    /// A picture file as patches.
    ///
    /// # Errors
    /// Which file, and what is wrong with it.
    pub fn file(&self, path: &Path) -> Result<Arc<Patches>> {
        let picture = self.picture(path)?;
        Ok(Arc::new(self.processor().with_context(|| path.display().to_string())?.patches(&picture.image)))
    }

    /// A picture file.
    ///
    /// # Errors
    /// As [`Sights::file`].
    pub fn picture(&self, path: &Path) -> Result<Picture> {
        let named = || path.display().to_string();
        let bytes = hypereyes_outside::files::read(path, Limits::default().max_bytes as u64).with_context(named)?;
        Picture::from_bytes(bytes.into(), &Limits::default()).with_context(named)
    }

    /// A picture as transformers' `load_image` understands its name: a file, `data:image/...;base64,...`, or base64 by itself. What is
    /// on the network is not fetched.
    ///
    /// # Errors
    /// As [`Sights::file`].
    pub fn named(&self, name: &str) -> Result<Picture> {
        let shown = || name.chars().take(SHOWN).collect::<String>();
        if name.starts_with("http://") || name.starts_with("https://") {
            bail!("{}: pictures are not fetched; give a file, or base64 as data:image/png;base64,...", shown());
        }
        let path = Path::new(name.strip_prefix("file://").unwrap_or(name));
        let encoded = match name.strip_prefix("data:image/") {
            Some(rest) => Some(rest.split_once(',').with_context(|| format!("{}: there is no comma before its data", shown()))?.1),
            // What names no file, and begins as base64 of a PNG or JPEG does or is longer than a name can be, is the picture itself.
            None => (!path.exists() && (name.starts_with("iVBORw0KGgo") || name.starts_with("/9j/") || name.len() > 255)).then_some(name),
        };
        let Some(encoded) = encoded else { return self.picture(path) };
        let encoded: String = encoded.chars().filter(|character| !character.is_ascii_whitespace()).collect();
        let bytes = STANDARD.decode(encoded).with_context(|| format!("{}: it is no base64", shown()))?;
        Picture::from_bytes(bytes.into(), &Limits::default()).with_context(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shipped policy in a folder.
    fn shipped(folder: &Path) {
        let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/policy");
        for file in std::fs::read_dir(policy).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
    }

    #[test]
    fn a_picture_is_found_by_every_name_that_it_may_have() {
        let folder = tempfile::tempdir().unwrap();
        shipped(folder.path());
        let sights = Sights::of(folder.path());
        let image = hypereyes_pictures::RgbImage::from_fn(40, 40, |x, y| [(x * 6) as u8, (y * 6) as u8, 7].into());
        let bytes = Picture::from_image(image).unwrap().bytes;
        let path = folder.path().join("a.png");
        std::fs::write(&path, &bytes).unwrap();
        let want = sights.picture(&path).unwrap();
        let base64 = STANDARD.encode(&bytes);
        assert!(base64.len() > 255);
        for name in [path.display().to_string(), format!("file://{}", path.display()), format!("data:image/png;base64,{base64}"), base64] {
            assert_eq!(sights.named(&name).unwrap(), want, "{name}");
        }
        for (name, part) in [
            ("https://host/a.png".to_owned(), "not fetched"),
            ("nowhere.png".into(), "nowhere.png"),
            ("data:image/png;base64".into(), "comma"),
            ("data:image/png;base64,@@".into(), "no base64"),
            (folder.path().display().to_string(), folder.path().to_str().unwrap()),
        ] {
            let error = format!("{:#}", sights.named(&name).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_folder_without_settings_is_lenient_only_where_that_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        shipped(folder.path());
        std::fs::remove_file(folder.path().join("preprocessor_config.json")).unwrap();
        assert!(Sights::of(folder.path()).processor().unwrap_err().to_string().contains("preprocessor_config.json"));
        assert_eq!(Sights::assumed(folder.path()).processor().unwrap().mean, [0.5; 3]);
    }
}
