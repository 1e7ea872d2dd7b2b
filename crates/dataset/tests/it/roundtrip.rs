//! What was imported, exported and imported again is the same set, whichever layout it came in.

use std::path::Path;

use hypereyes_dataset::export::{Options, export};
use hypereyes_pictures::{Picture, RgbImage};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::layouts::{self, Wanted};
use crate::{data, imported, tasks};

/// Exports a set and imports it again.
fn again(set: &Path, folder: &Path) -> std::path::PathBuf {
    let (file, out) = (folder.join("out.parquet"), folder.join("again"));
    let exported = export(set, &file, &Options::default(), &mut |_, _| {}).expect("exports");
    let summary = imported(&[&file], &out).expect("reads what was exported");
    assert_eq!((summary.rows, summary.tasks, summary.refused_total), (exported.rows, exported.rows, 0), "{:?}", summary.refused);
    assert_eq!(summary.format, "hypereyes");
    out
}

#[test]
fn files_of_others_come_back_as_the_same_tasks() {
    for name in [
        "verl.parquet",
        "verl-pandas.parquet",
        "hypereyes.parquet",
        "mmsearch-r1.parquet",
        "slime.jsonl",
        "relax.parquet",
        "tasks.parquet",
        "plain.parquet",
        "plain.arrow",
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let set = folder.path().join("set");
        imported(&[&data(name)], &set).expect(name);
        let again = again(&set, folder.path());
        // Where marks are missing a picture, the published prompt cannot be written as it was; the tasks are the same all the same.
        assert_eq!(tasks(&again), tasks(&set), "{name}");
    }
}

#[test]
fn sets_that_chance_made_come_back_in_every_layout() {
    let seed = 20_261_130;
    let mut random = StdRng::seed_from_u64(seed);
    let pictures: Vec<Vec<u8>> = (0..6u8)
        .map(|shade| {
            let image = RgbImage::from_fn(9 + u32::from(shade), 7, |x, y| [shade * 40, x as u8 * 9, y as u8 * 9].into());
            Picture::from_image(image).expect("encodes").bytes.to_vec()
        })
        .collect();
    for layout in layouts::ALL {
        for round in 0..8 {
            let what = format!("{} round {round} of seed {seed}", layout.name);
            let folder = tempfile::tempdir().expect("a temporary folder");
            let wanted: Vec<Wanted> = (0..random.random_range(1..30)).map(|at| Wanted::random(at, pictures.len(), &mut random)).collect();
            let files = layouts::write(layout, folder.path(), &wanted, &pictures, &mut random);
            for file in files {
                let name = file.extension().expect("has one").to_string_lossy().into_owned();
                let (set, around) = (folder.path().join(format!("set-{name}")), folder.path().join(format!("around-{name}")));
                std::fs::create_dir(&around).expect("made");
                let summary = imported(&[&file], &set).unwrap_or_else(|error| panic!("{what}, {name}: {error}"));
                assert_eq!((summary.format.as_str(), summary.refused_total), (layout.name, 0), "{what}, {name}: {:?}", summary.refused);
                let first = tasks(&set);
                assert_eq!(first.len(), wanted.len(), "{what}, {name}");
                for ((task, shown), wanted) in first.iter().zip(&wanted) {
                    wanted.is_in(task, shown, &pictures, &layout, &format!("{what}, {name}"));
                }
                assert_eq!(tasks(&again(&set, &around)), first, "{what}, {name}");
            }
        }
    }
}
