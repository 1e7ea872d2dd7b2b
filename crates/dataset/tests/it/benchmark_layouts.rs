//! Rows in the published layouts: what they come to, and what is said of those that are in another.

use hypereyes_dataset::loaders::{Benchmark, Rows};
use hypereyes_domain::Reference;
use hypereyes_scoring::Metric;
use hypereyes_tables::Cell;
use serde_json::{Value, json};

use crate::benchmark_files::{ALL, Published, at, lose};

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

/// Reads what stands beside the tests, of which no row is refused.
#[track_caller]
fn read(benchmark: &str, folder: &str) -> Rows {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder);
    let rows = Benchmark::named(benchmark).expect("there is one").read(&path, &Default::default()).expect("reads");
    assert_eq!(rows.refused, [], "{benchmark}");
    for task in &rows.tasks {
        for id in &task.pictures {
            assert_eq!(&rows.pictures.load(id).expect("its picture").id, id);
        }
    }
    rows
}

/// What a task is in a few words: id, kind, question, answers, number of pictures.
type Expected = (&'static str, &'static str, &'static str, &'static [&'static str], usize);

/// Reads what stands beside the tests, and gives what stands beside the tasks.
#[track_caller]
fn tasks(benchmark: &str, folder: &str, expected: &[Expected]) -> Vec<Value> {
    let Rows { tasks, .. } = read(benchmark, folder);
    let found: Vec<_> = tasks
        .iter()
        .map(|task| {
            let answers: Vec<&str> = task.answers.iter().map(String::as_str).collect();
            (task.id.as_str(), task.kind.as_str(), task.question.as_str(), answers, task.pictures.len())
        })
        .collect();
    let expected: Vec<_> =
        expected.iter().map(|(id, kind, question, answers, pictures)| (*id, *kind, *question, answers.to_vec(), *pictures)).collect();
    assert_eq!(found, expected, "{benchmark}");
    assert!(tasks.iter().all(|task| task.layer.is_none() && task.shown.is_empty()));
    tasks.into_iter().map(|task| task.metadata.into()).collect()
}

#[test]
fn mmsearch_gives_all_questions_or_those_with_a_picture() {
    let all: [Expected; 4] = [
        ("mmsearch/news_finance_0", "news", "When does the new tariff of Lunaria begin?", &["12 June 2031", "June 12, 2031"], 0),
        ("mmsearch/news_sports_1", "news", "Who won the race on this poster?", &["Ada Lind", "A. Lind", "Lind"], 1),
        ("mmsearch/knowledge_architecture_2", "knowledge", "In which year was this tower finished?", &["1931"], 1),
        ("mmsearch/knowledge_anime_3", "knowledge", "How many episodes has the third season of Tin Moon?", &["24"], 0),
    ];
    let metadata = tasks("mmsearch", "mmsearch", &all);
    let kept = json!({"subfield": "sports", "timestamp": "2031-06-12", "gt_requery": "Who won the race on this poster? search"});
    assert_eq!(metadata[1], kept);
    tasks("mmsearch@300", "mmsearch", &all);
    tasks("mmsearch@171", "mmsearch", &all[1..3]);
}

#[test]
fn files_of_mmsearch_r1_give_the_true_answer_before_the_candidates() {
    let dish = "What is the country of origin of this dish?";
    let spain: &[&str] = &["Spain", "Kingdom of Spain", "ESP", "\u{1f1ea}\u{1f1f8}"];
    let metadata = tasks(
        "fvqa",
        "fvqa",
        &[
            ("fvqa/fvqa_test_0", "mmsearch_r1/fvqa_test", dish, spain, 1),
            ("fvqa/fvqa_test_1", "mmsearch_r1/fvqa_test", "Who designed this bridge?", &["Mira Holt"], 1),
            ("fvqa/fvqa_test_2", "mmsearch_r1/fvqa_test", "What is this garden named after?", &["the tile kilns", "tile kilns"], 1),
        ],
    );
    assert_eq!(metadata[0], json!({"data_source": "mmsearch_r1/fvqa_test", "reward_model": {"style": "rule"}}));
    tasks(
        "fvqa@test",
        "fvqa",
        &[
            ("fvqa/fvqa_test_0", "mmsearch_r1/fvqa_test", dish, spain, 1),
            ("fvqa/fvqa_test_1", "mmsearch_r1/fvqa_test", "Who designed this bridge?", &["Mira Holt"], 1),
            ("fvqa/fvqa_test_2", "mmsearch_r1/fvqa_test", "What is this garden named after?", &["the tile kilns", "tile kilns"], 1),
        ],
    );
    tasks(
        "fvqa@train",
        "fvqa",
        &[
            ("fvqa/fvqa_train_0", "search_free", dish, spain, 1),
            ("fvqa/fvqa_train_1", "search_required", "Who designed this bridge?", &["Mira Holt"], 1),
            ("fvqa/fvqa_train_2", "search_free", "What is this garden named after?", &["the tile kilns", "tile kilns"], 1),
        ],
    );
    let kind = "mmsearch_r1/infoseek_val_split";
    let metadata = tasks(
        "infoseek",
        "infoseek",
        &[
            ("infoseek/0", kind, "Who commissioned this building?", &["Order of the Lantern", "Lantern Order"], 1),
            ("infoseek/1", kind, "How many metres high is this hill?", &["142"], 1),
        ],
    );
    assert_eq!(metadata[1]["candidates_no_text"], json!([142, {"wikidata": 142, "range": [127.8, 156.2]}]));
}

#[test]
fn webwatchers_lines_find_their_pictures_by_either_name() {
    let place = "Where does this celebration take place?\nYou can choose among these Choices:\nA. Fern Hill Links\nB. Port Royal\nC. Old Mill\nD. Gull Bay\nE. Ash Park";
    let bridge = "Why was the bridge closed?\nYou can choose among these Choices:\nA. a storm\nB. repairs\nC. a race\nD. a film";
    let person = "Who is shown?\nYou can choose among these Choices:\nA. Ola Berg\nB. Kit Moss\nC. Ines Vale\nD. Per Lund\nE. Yu Tan";
    let metadata = tasks(
        "livevqa",
        "livevqa",
        &[
            ("livevqa/1", "livevqa", place, &["Fern Hill Links", "Fern Hill"], 1),
            ("livevqa/2", "livevqa", bridge, &["repairs"], 1),
            ("livevqa/3", "livevqa", person, &["Ines Vale", "Vale", "Dr. Vale"], 1),
        ],
    );
    let file = "http://store.example/team%2Frft%2Fimage%2Fp0.jpeg";
    assert_eq!(metadata[0], json!({"task": "hle/Other", "tags": "rag,core,en", "lang": "en", "source": "HLE", "file_path": file}));
    tasks(
        "simplevqa",
        "simplevqa",
        &[
            ("simplevqa/1012", "simplevqa", "Who won the prize on this picture?", &["Toma Reyes"], 1),
            ("simplevqa/1013", "simplevqa", "How many euros did this stamp cost in 2005?", &["120000"], 1),
        ],
    );
    let metadata = tasks(
        "hle-vl",
        "hle-vl",
        &[
            ("hle-vl/0", "Other", "White to move. Which two moves mate?", &["Qa8, then Kc6#"], 1),
            ("hle-vl/1", "Chemistry", "What is the half-life of the compound shown, in hours?", &["3.7"], 1),
        ],
    );
    assert_eq!(metadata[1]["rationale"], "By the tables.");
}

#[test]
fn mmsearch_plus_is_read_from_all_its_parts_and_its_texts_are_revealed() {
    let metadata = tasks(
        "mmsearch-plus",
        "mmsearch-plus",
        &[
            ("mmsearch-plus/0", "Performance", "In which year was the concert of the first picture given?", &["2014", "in 2014"], 1),
            ("mmsearch-plus/1", "Academic Research", "Which figure of the paper has this plot?", &["Figure 4"], 5),
            ("mmsearch-plus/2", "Vlog", "Wie heißt der Ort auf dem zweiten Bild?", &["Zürich", "Zuerich"], 2),
        ],
    );
    assert_eq!(
        metadata,
        [
            json!({"difficulty": "easy", "subtask": "Performance: details"}),
            json!({"difficulty": "difficult", "subtask": "Academic Research: details", "arxiv_id": "2101.00001"}),
            json!({"difficulty": "easy", "subtask": "Vlog: details", "video_url": "https://video.example/v"}),
        ]
    );
    let published = Published::of("mmsearch-plus");
    let copy = published.with_rows(|_, _| {});
    std::fs::copy(published.here().join("data-00001-of-00002.arrow"), copy.path().join("data-00001-of-00003.arrow")).expect("copied");
    let error = published.read(copy.path()).map(|_| ()).expect_err("one too many").to_string();
    assert!(error.contains("data-00001-of-00003.arrow: ") && error.contains("two data sets"), "{error}");
    for lost in ["data-00001-of-00003.arrow", "data-00001-of-00002.arrow", "data-00000-of-00002.arrow"] {
        std::fs::remove_file(copy.path().join(lost)).expect("removed");
        let read = published.read(copy.path());
        match lost {
            "data-00001-of-00003.arrow" => assert_eq!(read.expect("whole again").tasks.len(), 3),
            lost => {
                let error = read.map(|_| ()).expect_err("a part is missing").to_string();
                assert!(
                    error.contains("-of-00002.arrow: there is no such file") && error.contains("Cie1/MMSearch-Plus"),
                    "{lost}: {error}"
                );
            }
        }
    }
    // By another name, all that is Arrow is read.
    std::fs::copy(published.here().join("data-00001-of-00002.arrow"), copy.path().join("train.arrow")).expect("copied");
    assert_eq!(published.read(copy.path()).expect("reads").tasks[0].id.as_str(), "mmsearch-plus/0");
}

#[test]
fn imeb_is_read_by_the_columns_that_the_released_code_reads() {
    let metadata = tasks(
        "imeb",
        "imeb",
        &[
            ("imeb/imeb_0", "imeb", "Which of these teams was founded last?", &["Harbour FC"], 1),
            ("imeb/imeb_1", "imeb", "Who of them was born in the oldest of the cities?", &["Ines Vale"], 1),
        ],
    );
    assert_eq!(metadata[0]["extra_info"], json!({"type": "only_acc", "domain": "Sports"}));
    let Rows { tasks, .. } = read("imeb", "imeb");
    assert_eq!(tasks.iter().map(|task| task.reference).collect::<Vec<_>>(), [Some(Reference { rounds: 2, searches: 3 }), None]);
    // Without a question of its own a row asks what the user says; without a name it has its number.
    let published = Published::of("imeb");
    let copy = published.with_rows(|_, row| {
        *at(row, "extra_info") = Cell::Null;
    });
    let Rows { tasks, refused, .. } = published.read(copy.path()).expect("reads");
    assert_eq!(refused, []);
    assert_eq!((tasks[1].id.as_str(), tasks[1].question.as_str()), ("imeb/1", "Who of them was born in the oldest of the cities?"));
}

#[test]
fn every_benchmark_has_the_metric_of_its_authors() {
    let metrics: Vec<_> = Benchmark::all().map(|benchmark| (benchmark.name(), benchmark.metric())).collect();
    assert_eq!(
        metrics,
        [
            ("browsecomp-vl", Metric::Accuracy),
            ("fvqa", Metric::Em),
            ("hle-vl", Metric::Accuracy),
            ("imeb", Metric::Accuracy),
            ("infoseek", Metric::Em),
            ("livevqa", Metric::Option),
            ("mmsearch", Metric::TokenF1),
            ("mmsearch-plus", Metric::Accuracy),
            ("simplevqa", Metric::Accuracy),
        ]
    );
    assert!(metrics.iter().all(|(name, _)| ALL.iter().any(|one| one.benchmark.split('@').next() == Some(*name))), "a layout of each");
}

#[test]
fn answers_are_measured_as_the_authors_measure_them() {
    let value = |benchmark: &str, at: usize, prediction: &str| {
        let published = Published::of(benchmark);
        let task = published.read(&published.here()).expect("reads").tasks.swap_remove(at);
        published.named().metric().value(&task.question, prediction, &task.answers)
    };
    // One of two words of the true answer, none more; the alternative "Lind" whole.
    assert_eq!((value("mmsearch", 1, "Ada"), value("mmsearch", 1, "lind!"), value("mmsearch", 1, "Ola")), (2.0 / 3.0, 1.0, 0.0));
    // Three words, of which one is the answer's only one.
    assert_eq!(value("mmsearch", 3, "24 episodes long"), 0.5);
    assert_eq!((value("fvqa", 0, "the kingdom of Spain"), value("fvqa", 0, "Spain and Portugal")), (1.0, 0.0));
    assert_eq!((value("infoseek", 0, "Lantern Order."), value("infoseek", 1, "156")), (1.0, 0.0));
    for (at, letter, other) in [(0, "A", "B"), (1, "(B)", "C"), (2, "the answer is C", "A. Ola Berg")] {
        assert_eq!((value("livevqa", at, letter), value("livevqa", at, other)), (1.0, 0.0), "{at}");
    }
    assert_eq!((value("livevqa", 0, "Fern Hill"), value("livevqa", 0, "Port Royal")), (1.0, 0.0));
}

/// A file that says its columns is refused as a whole; of one that does not, every row is.
#[test]
fn one_column_renamed_or_dropped_is_refused_by_its_name() {
    for published in ALL {
        let train = (published.benchmark == "fvqa@train").then_some("category");
        let columns: Vec<&str> = published.named().columns().iter().copied().chain(train).collect();
        for column in columns {
            for renamed in [false, true] {
                let copy = published.with_rows(|_, row| lose(row, column, renamed));
                let read = published.read(copy.path());
                let context = format!("{published:?} without {column}, renamed: {renamed}");
                let name = format!("`{column}`");
                if published.has_schema() {
                    let error = read.map(|_| ()).expect_err(&context).to_string();
                    assert!(error.contains(published.file) && error.contains(&name), "{context}: {error}");
                    let named = error.split([' ', ',']).any(|word| word.strip_suffix('_') == Some(column));
                    assert_eq!(named, renamed, "{context}: {error}");
                } else {
                    let rows = read.expect(&context);
                    assert!(rows.tasks.is_empty() && !rows.refused.is_empty(), "{context}: {:?}", rows.tasks);
                    assert!(rows.refused.iter().all(|one| one.reason.contains(&name)), "{context}: {:?}", rows.refused);
                }
            }
        }
    }
}

/// The first row is spoilt, the others stay. A reason names the column.
#[test]
fn rows_that_are_none_are_refused_with_their_number_and_the_others_kept() {
    type Spoil = (&'static str, &'static str, fn(&mut Cell), &'static str);
    let spoils: [Spoil; 34] = [
        ("fvqa", "prompt", |cell| *cell = Cell::List(vec![]), "prompt has no message of the user"),
        ("fvqa", "prompt.0.role", |cell| *cell = text("system"), "prompt has no message of the user"),
        ("fvqa", "prompt.0.content", |cell| *cell = Cell::Null, "prompt[0].content: "),
        ("fvqa", "prompt.0.content", |cell| *cell = text(" <image> "), "no question"),
        ("fvqa", "images", |cell| *cell = Cell::List(vec![]), "images has no picture"),
        ("fvqa", "images", |cell| *cell = Cell::Null, "images: "),
        ("fvqa", "images.0.bytes", |cell| *cell = Cell::Null, "images[0]"),
        ("fvqa", "images.0.bytes", cut, "cut short"),
        ("fvqa", "images.0.bytes", |cell| *cell = Cell::Bytes(b"GIF89a".to_vec()), "neither PNG nor JPEG"),
        ("fvqa", "reward_model", |cell| *cell = Cell::Null, "reward_model: "),
        ("fvqa", "reward_model.ground_truth", |cell| *cell = text(""), "reward_model.ground_truth has no answer"),
        ("fvqa", "reward_model.candidate_answers", |cell| *cell = text("['Spain']"), "reward_model.candidate_answers is no JSON list"),
        ("fvqa", "data_source", |cell| *cell = text(""), "kind is empty"),
        ("fvqa", "data_id", |cell| *cell = text("fvqa_test_1"), "was there before"),
        ("infoseek", "reward_model.ground_truth", |cell| *cell = Cell::Null, "reward_model.ground_truth has no answer"),
        ("mmsearch", "query", |cell| *cell = Cell::Null, "query: "),
        ("mmsearch", "gt_answer", |cell| *cell = Cell::Null, "gt_answer: "),
        ("mmsearch", "sample_id", |cell| *cell = Cell::Null, "sample_id: null is no name"),
        ("mmsearch", "area", |cell| *cell = text(&"x".repeat(1000)), "kind is too long"),
        (
            "imeb",
            "images",
            |cell| *cell = Cell::List([0, 0].map(|_| Cell::Struct(vec![])).into()),
            "prompt has 1 <image>, but images has 2 pictures",
        ),
        ("imeb", "extra_info.parallel", |cell| *cell = text("[2,"), "extra_info.parallel is no JSON list"),
        ("imeb", "extra_info.tool_call", |cell| *cell = Cell::Int(-1), "extra_info.tool_call: "),
        ("mmsearch-plus", "question", |cell| *cell = text("Where was this filmed?"), "question is not as it is published"),
        ("mmsearch-plus", "question", |cell| *cell = text(""), "no question"),
        ("mmsearch-plus", "answer", |cell| *cell = Cell::List(vec![text("gA==")]), "answer is no text behind the canary"),
        ("mmsearch-plus", "answer", |cell| *cell = Cell::List(vec![Cell::Null]), "no answer"),
        ("mmsearch-plus", "num_images", |cell| *cell = Cell::Int(2), "num_images is 2, but there is no img_2"),
        ("mmsearch-plus", "num_images", |cell| *cell = Cell::Int(0), "num_images is 0, but there is img_1"),
        ("mmsearch-plus", "num_images", |cell| *cell = Cell::Int(-1), "num_images: "),
        ("mmsearch-plus", "img_1.bytes", cut, "cut short"),
        (
            "livevqa",
            "file_path",
            |cell| *cell = text("http://store.example/p9.jpeg"),
            r#"there is no "p9.jpeg" in infer/scripts_eval/images/livevqa"#,
        ),
        ("livevqa", "answers", |cell| *cell = Cell::List(vec![]), "no answer"),
        ("livevqa", "question_id", |cell| *cell = Cell::List(vec![]), "question_id: a list is no name"),
        ("hle-vl", "file_path", |cell| *cell = text("../../../../etc/hostname"), "no path below the folder"),
    ];
    for (benchmark, place, spoil, reason) in spoils {
        let published = Published::of(benchmark);
        let whole = published.read(&published.here()).expect("reads").tasks;
        let copy = published.with_rows(|number, row| {
            if number == 0 {
                spoil(at(row, place));
            }
        });
        let Rows { tasks, refused, .. } = published.read(copy.path()).expect(benchmark);
        let context = format!("{benchmark}: {place}: {reason:?}: {refused:?}");
        assert_eq!((refused.len(), tasks.len()), (1, whole.len() - 1), "{context}");
        assert!(published.file.ends_with(&refused[0].file) && refused[0].reason.contains(reason), "{context}");
    }
}

fn cut(cell: &mut Cell) {
    let Cell::Bytes(bytes) = cell else { panic!("a picture") };
    bytes.truncate(bytes.len() / 2);
}
