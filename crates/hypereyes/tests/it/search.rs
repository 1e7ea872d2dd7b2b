//! `hypereyes search`, `search cache`, `index serve` and `doctor` as their users call them, at a service that counts.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Output};

use serde_json::{Value, json};

use crate::support::service::{Service, serpapi};
use crate::support::{hypereyes, run, signal};

const KEY: &str = "PLANTED-serpapi-k3y";

fn value(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// A search with settings on top.
fn search(words: &[&str], sets: &[String]) -> Output {
    let mut command = hypereyes(&["search", "--json"]);
    command.args(sets.iter().flat_map(|set| ["--set", set.as_str()])).args(words).env("SERPAPI_API_KEY", KEY);
    let output = command.output().unwrap();
    let said = [&output.stdout[..], &output.stderr].concat();
    assert!(!String::from_utf8_lossy(&said).contains(KEY));
    output
}

/// Settings that ask a service in SerpAPI's shape, and keep what it says.
fn asking(service: &Service, cache: &Path) -> Vec<String> {
    vec![
        "search.text.backend=serpapi".into(),
        format!("search.text.url={}", service.url),
        "search.text.usd_per_request=0.015".into(),
        "search.text.attempts=1".into(),
        format!("search.cache.path={}", cache.display()),
    ]
}

#[test]
fn a_search_says_who_answered_and_what_it_cost() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("search.redb");
    let service = Service::start(|first| match first {
        bad if bad.contains("q=refused") => (400, json!({"error": "Invalid parameter"})),
        empty if empty.contains("q=empty") => (200, json!({"search_metadata": {"status": "Success"}})),
        _ => serpapi(first),
    });
    let sets = asking(&service, &cache);
    let first = value(&search(&["capital of Peru"], &sets));
    let hit = &first["hits"][0];
    assert_eq!((hit["title"].as_str(), hit["url"].as_str()), (Some("capital of Peru"), Some("https://x.example/1")));
    assert!(hit["content"].as_str().unwrap().starts_with("all that is known") && hit["score"].is_null());
    assert_eq!((&first["service"], &first["cached"], &first["cost"]), (&json!("serpapi"), &json!(false), &json!(0.015)));
    let again = value(&search(&[" capital  of Peru"], &sets));
    assert_eq!((&again["hits"], &again["cached"], &again["cost"]), (&first["hits"], &json!(true), &json!(0.0)));
    // The word of a command is a word as well.
    assert_eq!(value(&search(&["--", "cache"], &sets))["hits"][0]["title"], "cache");
    assert_eq!(service.asked().len(), 2);
    let empty = search(&["empty"], &sets);
    assert_eq!((code(&empty), &value(&empty)["hits"]), (0, &json!([])));
    let refused = search(&["refused"], &sets);
    let told = value(&refused);
    assert_eq!((code(&refused), &told["failure"]), (1, &json!("refused")));
    assert!(told["message"].as_str().unwrap().contains("Invalid parameter"), "{told}");
    let spent: Vec<String> = [sets.clone(), vec!["search.budget.requests=1".into()]].concat();
    assert_eq!(value(&search(&["one"], &spent))["cost"], 0.015);
    let out = search(&["two"], &spent);
    assert_eq!((code(&out), &value(&out)["failure"]), (1, &json!("quota")));

    // What is kept, in a file that can be shared, and replayed where nobody answers.
    let at_cache = |words: &[&str], path: &Path| {
        let set = format!("search.cache.path={}", path.display());
        run(&[&["search", "cache"], words, &["--json", "--set", &set]].concat())
    };
    let stats = value(&at_cache(&["stats"], &cache));
    assert_eq!((&stats["entries"], &stats["services"]["serpapi"]["empty"]), (&json!(4), &json!(1)));
    assert_eq!(stats["spent"], json!({"requests": 1, "usd": 0.015}));
    let recording = folder.path().join("shared.jsonl");
    let exported = at_cache(&["export", recording.to_str().unwrap()], &cache);
    assert!(value(&exported)["services"]["serpapi"]["restricted"].as_bool().unwrap());
    assert!(String::from_utf8_lossy(&exported.stderr).contains("the terms of serpapi restrict"));
    let other = folder.path().join("other.redb");
    assert_eq!(value(&at_cache(&["import", recording.to_str().unwrap()], &other))["entries"], 4);
    assert_eq!(value(&at_cache(&["stats"], &recording))["entries"], 4);
    let asked = service.asked().len();
    for path in [&recording, &other] {
        let sets = [asking(&service, path), vec!["search.mode=replay".into()]].concat();
        assert_eq!(value(&search(&["capital of Peru"], &sets))["hits"], first["hits"]);
        let miss = search(&["never asked"], &sets);
        let told = value(&miss);
        assert_eq!((code(&miss), &told["failure"]), (1, &json!("miss")));
        assert!(told["message"].as_str().unwrap().contains("never asked"), "{told}");
    }
    assert_eq!(service.asked().len(), asked);
    for file in [&cache, &other, &recording] {
        let bytes = std::fs::read(file).unwrap();
        assert!(!bytes.windows(KEY.len()).any(|some| some == KEY.as_bytes()), "{}", file.display());
    }
}

#[test]
fn what_cannot_be_searched_for_is_bad_input() {
    let folder = tempfile::tempdir().unwrap();
    let (text, cut) = (folder.path().join("a.png"), folder.path().join("b.png"));
    std::fs::write(&text, "no picture").unwrap();
    hypereyes_pictures::RgbImage::new(8, 8).save(&cut).unwrap();
    let (text, cut) = (text.to_str().unwrap(), cut.to_str().unwrap());
    for words in [
        &["search"][..],
        &["search", ""],
        &["search", "--image", text],
        &["search", "--image", "/nowhere.png"],
        &["search", "--image", cut, "--box", "0,0,2,1"],
        &["search", "x", "--box", "0,0,1,1"],
        &["search", "x", "--set", "search.text.backend=bing"],
        &["search", "x", "--set", "search.text.backend=serper", "--set", "search.text.api_key_env=NOT_SET_ANYWHERE"],
        &["search", "cache", "stats"],
        &["search", "cache", "stats", "--set", "search.cache.path=/nowhere.redb"],
        &["search", "x", "cache", "stats"],
        &["index", "serve"],
        &["index", "serve", "--world", "--cache-only"],
        &["index", "serve", "--world", "/nowhere"],
    ] {
        let output = run(words);
        assert_eq!(code(&output), 2, "{words:?}: {output:?}");
    }
}

/// A server of `index serve`, stopped and waited for by [`Served::stop`].
struct Served {
    child: Child,
    url: String,
}

impl Served {
    fn start(words: &[&str]) -> Self {
        let mut child = hypereyes(&[&["index", "serve", "--listen", "127.0.0.1:0", "--json"], words].concat()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let url = serde_json::from_str::<Value>(&line).unwrap()["url"].as_str().unwrap().to_owned();
        Self { child, url }
    }

    fn stop(mut self) {
        signal("TERM", self.child.id().into());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Served {
    /// A test that fails leaves no process; one that was stopped is gone already.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_served_world_finds_what_is_found_in_process_and_a_served_cache_is_everybodys() {
    let folder = tempfile::tempdir().unwrap();
    let world = Served::start(&["--world"]);
    let through = |url: &str| vec!["search.text.backend=http".into(), format!("search.text.url={url}")];
    let layer = |words: &[&str], sets: &[String]| value(&search(words, sets))["hits"].clone();
    let sets = through(&world.url);
    for words in [&["Mexico currency"][..], &["Mexico currency", "--layer", "7"]] {
        let here = layer(words, &[]);
        assert!(here.as_array().is_some_and(|hits| !hits.is_empty()));
        assert_eq!(layer(words, &sets), here);
    }
    assert_ne!(layer(&["Mexico currency"], &sets), layer(&["Mexico currency", "--layer", "7"], &sets));
    let picture = folder.path().join("a.png");
    let shown = hypereyes_world::World::embedded().unwrap().picture(&"mx".into()).unwrap().clone();
    shown.save(&picture).unwrap();
    let image = ["search.image.backend=http".to_owned(), format!("search.image.url={}", world.url)];
    let words = ["--image", picture.to_str().unwrap()];
    assert_eq!(layer(&words, &image)[0]["title"], "Mexico");
    assert_eq!(layer(&[&words[..], &["--box", "0,0,1,0.9"]].concat(), &image), layer(&[&words[..], &["--box", "0,0,1,0.9"]].concat(), &[]));
    let both = value(&search(&[&words[..], &["Mexico currency"]].concat(), &image));
    assert_eq!((both["hits"][0]["title"].as_str(), both["service"].as_str()), (Some("Mexico"), Some("http, world")));
    world.stop();

    let service = Service::start(serpapi);
    let mut words: Vec<String> = ["--cache-only".to_owned()].into();
    let key = folder.path().join("key");
    std::fs::write(&key, KEY).unwrap();
    let more = [format!("search.text.api_key_file={}", key.display()), "search.text.per_second=50".into()];
    for set in asking(&service, &folder.path().join("search.redb")).into_iter().chain(more) {
        words.extend(["--set".to_owned(), set]);
    }
    let shared = Served::start(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let sets = through(&shared.url);
    let all: Vec<Value> = std::thread::scope(|scope| {
        let asks: Vec<_> = (0..3).map(|_| scope.spawn(|| layer(&["capital of Peru"], &sets))).collect();
        asks.into_iter().map(|ask| ask.join().unwrap()).collect()
    });
    assert!(all.iter().all(|hits| hits == &all[0] && hits[0]["title"] == "capital of Peru"));
    assert_eq!(service.asked().len(), 1, "asked once for all processes");
    shared.stop();
}

#[test]
fn the_doctor_asks_each_service_once_and_says_the_price() {
    let (paid, free) = (Service::start(serpapi), Service::start(|_| (200, json!({"results": []}))));
    let sets = [
        "search.text.backend=serpapi".to_owned(),
        format!("search.text.url={}", paid.url),
        "search.text.usd_per_request=0.015".into(),
        format!("search.text.fallbacks=[{{backend=\"searxng\", url=\"{}\"}}]", free.url),
        "rollout.env.text_min_relevance=0".into(),
    ];
    let doctor = |more: &[&str]| {
        let mut command = hypereyes(&["doctor", "--json"]);
        command.args(sets.iter().flat_map(|set| ["--set", set.as_str()])).args(more).env("SERPAPI_API_KEY", KEY);
        let checks = value(&command.output().unwrap());
        let of_search = checks.as_array().unwrap().iter().filter(|check| check["check"] == "search").cloned();
        of_search.collect::<Vec<_>>()
    };
    assert_eq!((doctor(&["--no-search"]), paid.asked().len()), (vec![], 0));
    let checks = doctor(&[]);
    let details: Vec<&str> = checks.iter().map(|check| check["detail"].as_str().unwrap()).collect();
    assert!(checks.iter().all(|check| check["verdict"] == "good") && checks.len() == 2, "{details:?}");
    assert!(details[0].starts_with("search.text: serpapi at ") && details[0].contains("this one request cost $0.0150"), "{details:?}");
    assert!(details[1].starts_with("search.text.fallbacks[0]: searxng at ") && details[1].ends_with("cost nothing"), "{details:?}");
    assert_eq!((paid.asked().len(), free.asked().len()), (1, 1));
    drop(free);
    let checks = doctor(&[]);
    assert_eq!((&checks[0]["verdict"], &checks[1]["verdict"]), (&json!("good"), &json!("bad")));
}
