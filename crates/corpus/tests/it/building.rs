//! From files to an index: formats, order, what is refused, what is the same twice.

use std::io::Write;
use std::sync::Arc;

use hypereyes_corpus::{Corpus, Error};
use hypereyes_environment::Query;
use parquet::basic::{Compression, ZstdLevel};

use crate::rig::{asked, built, file, names, parquet, picture, pictures, sight, texts};

const ROWS: [(i64, Option<&str>, &str); 5] = [
    (1, Some("Lima"), "Lima is the capital of Peru, on the coast."),
    (2, None, "Cusco was the capital of the Incas."),
    (3, Some("Potatoes"), "They come from the Andes, and grow in Peru."),
    (4, Some("Lima"), "The port of the city is Callao."),
    (5, Some("Tokyo"), "東京は日本の首都です。"),
];

#[test]
fn documents_of_every_format_are_found_and_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let json =
        ROWS.map(|(id, title, text)| serde_json::json!({"id": id, "title": title, "text": text, "more": [1]}).to_string()).join("\n");
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packed.write_all(json.as_bytes()).expect("packs");
    let files = [
        file(folder.path(), "rows.jsonl", &json),
        file(folder.path(), "rows.jsonl.gz", packed.finish().expect("packs")),
        parquet(folder.path(), &ROWS, Compression::UNCOMPRESSED),
        parquet(folder.path(), &ROWS, Compression::SNAPPY),
        parquet(folder.path(), &ROWS, Compression::ZSTD(ZstdLevel::try_new(3).expect("a level"))),
    ];
    let mut digests = vec![];
    for (at, path) in files.iter().enumerate() {
        let out = folder.path().join(format!("index-{at}"));
        let built = built(&[path], None, &out).expect("builds");
        assert_eq!((built.documents, built.pictures, built.refused.total()), (5, 0, 0), "{}", path.display());
        let corpus = Corpus::open(&out, sight).expect("opens");
        let hits = texts(&corpus, "capital of Peru");
        assert_eq!((hits[0].title.as_str(), hits[0].content.as_str()), ("Lima", ROWS[0].2));
        assert!(hits[0].score.is_some_and(|score| (0.5..=1.0).contains(&score)) && hits.len() == 4, "{hits:?}");
        assert_eq!(texts(&corpus, "首都")[0].title, "Tokyo");
        assert!(texts(&corpus, "nowhere").is_empty() && texts(&corpus, " ?").is_empty());
        // Passages of one title are one page, in the order of the corpus.
        let page = asked(&corpus, Query::Page(" LIMA".into())).expect("reads");
        assert_eq!((page.len(), page[0].content.clone()), (1, format!("{}\n{}", ROWS[0].2, ROWS[3].2)));
        assert_eq!(asked(&corpus, Query::Page("2".into())).expect("reads")[0].content, ROWS[1].2);
        assert!(asked(&corpus, Query::Page("Quito".into())).expect("reads").is_empty());
        digests.push(built.digest);
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "what is said counts, not how: {digests:?}");
}

#[test]
fn texts_are_documents_and_contents_are_read_as_search_r1_writes_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let wiki = file(folder.path(), "wiki.jsonl", "{\"id\": \"0\", \"contents\": \"\\\"Nazca\\\"\\nLines in the desert.\"}\n");
    let note = file(folder.path(), "My_notes.txt", "Condors fly high.\nSo do planes.");
    let named = file(folder.path(), "more.jsonl", r#"{"text": "A canyon", "url": "https://example.org/Colca"}"#);
    let out = folder.path().join("index");
    built(&[&wiki, &note, &named], None, &out).expect("builds");
    let corpus = Corpus::open(&out, sight).expect("opens");
    let hit = &texts(&corpus, "lines nazca")[0];
    assert_eq!((hit.title.as_str(), hit.content.as_str(), &hit.url), ("Nazca", "Lines in the desert.", &None));
    assert_eq!(texts(&corpus, "condors")[0].title, "My notes");
    let page = asked(&corpus, Query::Page("https://example.org/Colca".into())).expect("reads");
    assert_eq!((page[0].content.as_str(), page[0].url.as_deref()), ("A canyon", Some("https://example.org/Colca")));
    assert!(asked(&corpus, Query::Picture(Arc::new(picture(1)))).is_err_and(|error| error.reason.contains("no pictures")));
}

#[test]
fn a_name_is_looked_up_as_an_address_then_as_a_title_then_as_an_id() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut rows = vec![
        r#"{"id": "1984", "title": "Tea", "text": "of the year"}"#.to_owned(),
        r#"{"id": "7", "title": "1984", "text": "a novel"}"#.to_owned(),
        r#"{"id": "8", "title": "x", "text": "by title", "url": "y"}"#.to_owned(),
        r#"{"id": "9", "title": "z", "text": "by address", "url": "x"}"#.to_owned(),
    ];
    rows.extend((0..300).map(|at| format!(r#"{{"title": "long", "text": "passage {at}"}}"#)));
    let out = folder.path().join("index");
    built(&[&file(folder.path(), "rows.jsonl", rows.join("\n"))], None, &out).expect("builds");
    let corpus = Corpus::open(&out, sight).expect("opens");
    let page = |name: &str| asked(&corpus, Query::Page(name.into())).expect("reads").remove(0).content;
    assert_eq!([page("1984"), page("X"), page("7")], ["a novel", "by address", "a novel"]);
    let long = page("long");
    assert_eq!((long.lines().count(), long.lines().last()), (256, Some("passage 255")));
    for name in ["", "t:long", "long 2"] {
        assert!(asked(&corpus, Query::Page(name.into())).expect("reads").is_empty(), "{name}");
    }
}

#[test]
fn names_and_links_that_cannot_be_taken_are_refused_by_themselves() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pictures = pictures(folder.path(), 2);
    std::os::unix::fs::symlink(&pictures, pictures.join("odd/again")).expect("linked");
    // A sparse file: larger than any picture may be.
    std::fs::File::create(pictures.join("huge.png")).and_then(|file| file.set_len(33 << 20)).expect("made");
    let list = format!("{{\"file\": \"even/picture_0.png\", \"text\": \"{}\"}}\n{{\"{0}\": 1}}", "long ".repeat(5000));
    file(&pictures, "pictures.jsonl", list);
    // Some disks take no such name.
    let is_named = std::fs::write(pictures.join(std::ffi::OsStr::from_bytes(b"\xff.png")), "x").is_ok();
    let out = folder.path().join("index");
    let built = built(&[], Some(&pictures), &out).expect("builds");
    assert_eq!((built.pictures, built.refused.counts["bytes"], built.refused.counts["no_row"]), (2, 1, 1));
    assert_eq!(built.refused.counts["unreadable"], 1 + u64::from(is_named), "{:?}", built.refused);
    assert!(built.refused.first.iter().all(|line| line.message.chars().count() <= 301), "{:?}", built.refused);
    let corpus = Corpus::open(&out, sight).expect("opens");
    let hit = &asked(&corpus, Query::Picture(Arc::new(picture(0)))).expect("searches")[0];
    assert_eq!((hit.title.as_str(), hit.content.len()), ("picture 0", 16 << 10));
}

#[test]
fn what_is_refused_is_listed_with_file_row_and_reason_and_the_rest_is_taken() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let long = "x".repeat(1 << 20);
    let lines = [
        r#"{"text": "first"}"#.to_owned(),
        "{".into(),
        String::new(),
        r#"{"title": "no text"}"#.into(),
        r#"{"text": 7}"#.into(),
        format!("{{\"text\": \"{long}y\"}}"),
        format!("{{\"text\": \"{}\"}}", long.repeat(9)),
        r#"{"text": "last"}"#.into(),
    ];
    let documents = file(folder.path(), "rows.jsonl", lines.join("\n"));
    let latin = file(folder.path(), "latin.txt", [b'a', 0xe9]);
    let pictures = pictures(folder.path(), 3);
    file(&pictures, "broken.png", "no picture");
    file(&pictures, "notes.doc", "passed over");
    let about = [r#"{"file": "odd/picture_1.png", "title": "One", "url": "https://x.test/1"}"#, r#"{"file": "none.png"}"#, "["];
    file(&pictures, "pictures.jsonl", about.join("\n"));
    let out = folder.path().join("index");
    let built = built(&[&documents, &latin], Some(&pictures), &out).expect("builds");
    assert_eq!((built.documents, built.pictures), (2, 3));
    let listed = std::fs::read_to_string(out.join("refused.jsonl")).expect("is there");
    let listed: Vec<serde_json::Value> = listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let said: Vec<(String, Option<u64>, &str)> = listed
        .iter()
        .map(|line| {
            let file = line["file"].as_str().expect("a file").rsplit('/').next().expect("a name").to_owned();
            (file, line["row"].as_u64(), line["reason"].as_str().expect("a reason"))
        })
        .collect();
    let want = [
        ("rows.jsonl", Some(2), "no_row"),
        ("rows.jsonl", Some(4), "no_text"),
        ("rows.jsonl", Some(5), "no_row"),
        ("rows.jsonl", Some(6), "too_long"),
        ("rows.jsonl", Some(7), "too_long"),
        ("latin.txt", None, "no_row"),
        ("pictures.jsonl", Some(2), "unknown_file"),
        ("pictures.jsonl", Some(3), "no_row"),
        ("broken.png", None, "format"),
    ];
    assert_eq!(said, want.map(|(file, row, reason)| (file.to_owned(), row, reason)));
    assert_eq!(built.refused.total(), want.len() as u64);
    assert_eq!(built.refused.counts["no_row"], 4);
    assert_eq!(built.refused.first[0].row, Some(2));
    let corpus = Corpus::open(&out, sight).expect("opens");
    let hit = &asked(&corpus, Query::Picture(Arc::new(picture(1)))).expect("searches")[0];
    assert_eq!((hit.title.as_str(), hit.url.as_deref()), ("One", Some("https://x.test/1")));
    assert_eq!(asked(&corpus, Query::Picture(Arc::new(picture(2)))).expect("searches")[0].title, "picture 2");
}

#[test]
fn the_same_files_make_the_same_index_and_pictures_are_found_by_what_they_show() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rows: Vec<String> = (0..4000).map(|at| format!(r#"{{"id": {at}, "text": "word{} and word{} again"}}"#, at % 7, at % 11)).collect();
    let documents = file(folder.path(), "rows.jsonl", rows.join("\n"));
    let pictures = pictures(folder.path(), 40);
    let outs = ["one", "two"].map(|name| folder.path().join(name));
    let all = outs.each_ref().map(|out| built(&[&documents], Some(&pictures), out).expect("builds"));
    assert_eq!(all[0].digest, all[1].digest);
    let corpora = outs.each_ref().map(|out| Corpus::open(out, sight).expect("opens"));
    assert_eq!(corpora[0].digest(), all[0].digest);
    assert_eq!(corpora[0].vectors(), corpora[1].vectors());
    for query in ["word3 again", "and", "word6 word10"] {
        let [one, two] = corpora.each_ref().map(|corpus| texts(corpus, query));
        assert!(one == two && one.len() == 10, "{query}");
    }
    for number in 0..40 {
        let [one, two] = corpora.each_ref().map(|corpus| asked(corpus, Query::Picture(Arc::new(picture(number)))).expect("searches"));
        assert!(one == two && one.len() == 10);
        assert_eq!(one[0].title, format!("picture {number}"));
        assert!(one[0].score.is_some_and(|score| score > 0.9999) && one.windows(2).all(|pair| pair[0].score >= pair[1].score));
    }
    // Another document, another name.
    let other = file(folder.path(), "other.jsonl", rows.join("\n").replacen("again", "once", 1));
    assert_ne!(built(&[&other], Some(&pictures), &folder.path().join("three")).expect("builds").digest, all[0].digest);
}

#[test]
fn an_index_is_there_whole_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let good = file(folder.path(), "rows.jsonl", r#"{"text": "a text"}"#);
    let whole = std::fs::read(parquet(folder.path(), &ROWS, Compression::SNAPPY)).expect("is there");
    let mut pages = whole.clone();
    pages[30..90].fill(0xff);
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packed.write_all(format!("{{\"text\": \"{}\"}}\n", "Peru ".repeat(999)).repeat(50).as_bytes()).expect("packs");
    let packed = packed.finish().expect("packs");
    let cases = [
        (file(folder.path(), "cut.parquet", &whole[..whole.len() / 2]), "cut.parquet: cannot be read as parquet"),
        (file(folder.path(), "pages.parquet", &pages), "pages.parquet: "),
        (file(folder.path(), "cut.jsonl.gz", &packed[..packed.len() / 2]), "cut.jsonl.gz: "),
        (file(folder.path(), "plain.jsonl.gz", "{}"), "plain.jsonl.gz: "),
        (file(folder.path(), "rows.csv", "a,b"), "rows.csv: is of no kind that is read"),
        (folder.path().join("none.jsonl"), "none.jsonl: "),
        (file(folder.path(), "empty.jsonl", ""), "no document and no picture could be taken (0 refused)"),
        (file(folder.path(), "nothing.jsonl", "{}\n{}"), "(2 refused): "),
    ];
    let out = folder.path().join("out/index");
    for (path, says) in &cases {
        let inputs: Vec<_> = if says.contains("refused") { vec![path] } else { vec![&good, path] };
        let error = built(&inputs, None, &out).expect_err(says);
        assert!(matches!(error, Error::Input(_)) && error.to_string().contains(says), "{error}: {says}");
        assert!(names(&folder.path().join("out")).is_empty(), "{says}: something is left");
    }
    assert!(matches!(built(&[], None, &out), Err(Error::Input(_))));
    // What cannot be replaced is said before anything is done.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path(), &link).expect("linked");
    for (place, says) in [(link.as_path(), "is a link"), (std::path::Path::new("/proc"), "mounted")] {
        let error = built(&[&good], None, place).expect_err(says);
        assert!(matches!(error, Error::Input(_)) && error.to_string().contains(says), "{error}");
    }
    // An empty folder is as good as none; a full one stays as it is.
    std::fs::create_dir(&out).expect("made");
    built(&[&good], None, &out).expect("builds");
    let before = names(&out);
    let error = built(&[&good], None, &out).expect_err("it is there");
    assert!(error.to_string().contains("is there already"), "{error}");
    assert_eq!((names(&out), names(&folder.path().join("out"))), (before, vec!["index".to_owned()]));
}
