//! Files of documents and pictures, small enough to be looked at.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hypereyes_corpus::{Built, Corpus, Error, Inputs, Sight, build};
use hypereyes_environment::{Hit, Outcome, Query, Search};
use hypereyes_pictures::{RgbImage, encode_png};
use hypereyes_policy::device::Device;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// The shipped policy's eyes.
pub fn sight() -> Result<Sight, Error> {
    Sight::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/policy"), Device::Cpu)
}

/// Writes a file and says where it is.
pub fn file(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("has one")).expect("made");
    std::fs::write(&path, content).expect("written");
    path
}

/// A parquet file of ids, titles and texts, some of them null, in row groups of two; another column beside.
pub fn parquet(folder: &Path, rows: &[(i64, Option<&str>, &str)], compression: Compression) -> PathBuf {
    let schema = "message rows { required int64 id; optional binary title (UTF8); required binary text (UTF8); required int64 views; }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let path = folder.join(format!("rows-{compression:?}.parquet").replace(['(', ')'], "-"));
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut writer = SerializedFileWriter::new(std::fs::File::create(&path).expect("made"), schema, properties).expect("begins");
    for group in rows.chunks(2) {
        let mut out = writer.next_row_group().expect("a group");
        let numbers: Vec<i64> = group.iter().map(|row| row.0).collect();
        let titles: Vec<ByteArray> = group.iter().filter_map(|row| row.1).map(ByteArray::from).collect();
        let levels: Vec<i16> = group.iter().map(|row| i16::from(row.1.is_some())).collect();
        let texts: Vec<ByteArray> = group.iter().map(|row| ByteArray::from(row.2)).collect();
        let mut column = out.next_column().expect("writes").expect("id");
        column.typed::<Int64Type>().write_batch(&numbers, None, None).expect("writes");
        column.close().expect("closes");
        let mut column = out.next_column().expect("writes").expect("title");
        column.typed::<ByteArrayType>().write_batch(&titles, Some(&levels), None).expect("writes");
        column.close().expect("closes");
        let mut column = out.next_column().expect("writes").expect("text");
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).expect("writes");
        column.close().expect("closes");
        let mut column = out.next_column().expect("writes").expect("views");
        column.typed::<Int64Type>().write_batch(&numbers, None, None).expect("writes");
        column.close().expect("closes");
        out.close().expect("closes");
    }
    writer.close().expect("closes");
    path
}

/// A picture of two colours that no other number has.
pub fn picture(number: u32) -> RgbImage {
    let colour = |seed: u32| [(seed * 97 % 256) as u8, (seed * 57 % 256) as u8, (seed * 193 % 256) as u8];
    RgbImage::from_fn(96, 64, |x, y| {
        if x * (number % 5 + 1) / 3 + y * (number % 3) < 60 { colour(number + 1).into() } else { colour(number * 31 + 7).into() }
    })
}

/// A folder of so many of them, in two folders.
pub fn pictures(folder: &Path, count: u32) -> PathBuf {
    for number in 0..count {
        let name = format!("pictures/{}/picture_{number}.png", if number % 2 == 0 { "even" } else { "odd" });
        file(folder, &name, encode_png(&picture(number)).expect("encodes"));
    }
    folder.join("pictures")
}

/// Builds without telling anybody.
pub fn built(documents: &[&PathBuf], pictures: Option<&PathBuf>, out: &Path) -> Result<Built, Error> {
    let inputs = Inputs { documents: documents.iter().map(|path| (*path).clone()).collect(), pictures: pictures.cloned() };
    let sight = pictures.map(|_| sight().expect("the policy is there"));
    build(&inputs, out, sight.as_ref(), &mut |_| {})
}

/// What one query gives.
pub fn asked(corpus: &Corpus, query: Query) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(corpus.search(0, &[query])).pop().expect("an outcome")
}

/// Hits of a text.
pub fn texts(corpus: &Corpus, text: &str) -> Vec<Hit> {
    asked(corpus, Query::Text(text.into())).expect("searches")
}

/// Names of what lies in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("is there")
        .map(|entry| entry.expect("reads").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
