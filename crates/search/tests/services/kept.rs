//! What is asked once: caches, recordings, replays, budgets, rates; and a key that stands in none of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypereyes_environment::Fault;
use hypereyes_search::store::Store;
use hypereyes_search::{BudgetConfig, How, Mode, SearchConfig, Step, recording, serve};
use parking_lot::Mutex;
use serde_json::json;

use super::server::{Server, asking, find, open, reply, texts};
use super::shapes::{KEY, with_key};

fn found(asked: &super::server::Asked) -> serde_json::Value {
    let asks = asked.path.split("q=").nth(1).unwrap_or_default().split('&').next().unwrap_or_default().to_owned();
    json!({"results": [{"title": asks, "content": "c", "url": "https://x/?a=1&sig=2"}]})
}

fn cached(url: &str, folder: &std::path::Path) -> SearchConfig {
    let mut config = asking("searxng", url);
    config.cache.path = Some(folder.join("cache.redb"));
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_queries_are_asked_once_by_two_processes_and_by_many_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|asked, _| reply(200, found(asked))).await;
    let config = cached(&server.url, folder.path());
    let search = open(&config);
    let queries = texts(&["peru", "peru ", "chile"]);
    let all = futures::future::join_all((0..20).map(|_| search.search(0, &queries))).await;
    assert!(all.iter().all(|outcomes| outcomes.len() == 3 && outcomes == &all[0] && outcomes.iter().all(Result::is_ok)));
    assert_eq!(server.asked().len(), 2);
    // What this process opens again is the same file; another process cannot.
    assert_eq!(open(&config).search(0, &queries).await, all[0]);
    drop(search);
    let again = open(&config).search(0, &queries).await;
    assert_eq!((again == all[0], server.asked().len()), (true, 2), "the second process spends nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paid_for_is_kept_though_whoever_asked_went_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|asked, _| {
        std::thread::sleep(Duration::from_millis(300));
        reply(200, found(asked))
    })
    .await;
    // One server for all: those who ask it come and go.
    let shared = Server::of(serve::router(open(&cached(&server.url, folder.path()))), Arc::default()).await;
    let search = open(&asking("http", &shared.url));
    assert!(tokio::time::timeout(Duration::from_millis(100), find(&search, "peru")).await.is_err());
    assert!(find(&search, "peru").await.is_ok());
    assert_eq!(server.asked().len(), 1, "paid for once");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_found_is_good_for_less_long_and_failures_are_not_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|asked, number| match asked.path.contains("q=fails") {
        true if number == 1 => reply(400, "{}"),
        true => reply(200, found(asked)),
        false => reply(200, json!({"results": []})),
    })
    .await;
    let mut config = cached(&server.url, folder.path());
    config.cache.empty_hours = 0.0;
    let search = open(&config);
    assert!(find(&search, "fails").await.is_err() && find(&search, "fails").await.is_ok());
    assert_eq!(find(&search, "empty").await, Ok(vec![]));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(find(&search, "empty").await, Ok(vec![]));
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_replays_without_a_network_and_what_it_lacks_fails_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(
        |asked, _| if asked.path.contains("q=bad") { reply(400, json!({"message": "no"})) } else { reply(200, found(asked)) },
    )
    .await;
    let mut config = cached(&server.url, folder.path());
    config.mode = Mode::Record;
    let search = open(&config);
    let queries = texts(&["peru", "bad", "chile"]);
    let recorded = search.search(0, &queries).await;
    assert!(recorded[1].is_err());
    drop(search);
    drop(server);
    // From the cache, by two processes at once, and from the file that is shared.
    config.mode = Mode::Replay;
    let (one, two) = (open(&config), open(&config));
    assert_eq!((one.search(0, &queries).await, two.search(0, &queries).await), (recorded.clone(), recorded.clone()));
    drop((one, two));
    let shared = folder.path().join("shared.jsonl");
    recording::export(&Store::open(config.cache.path.as_deref().expect("given")).expect("opens"), &shared).expect("written");
    config.cache.path = Some(shared);
    let replay = open(&config);
    let replayed = replay.search(0, &queries).await;
    let told = replayed[0].as_ref().expect("hits")[0].url.clone().expect("an address");
    assert!(told.starts_with("https://x/?a=1&sig=blake3-"), "no signature is passed on, only which it was: {told}");
    assert_eq!(replayed[1], recorded[1]);
    let miss = find(&replay, "brazil").await.expect_err("not recorded");
    assert!(miss.fault == Fault::Miss && miss.reason.contains("brazil") && miss.reason.contains("searxng"), "{miss}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorder_that_was_killed_leaves_a_recording_and_the_next_asks_what_failed() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|asked, number| if number == 1 { reply(400, "{}") } else { reply(200, found(asked)) }).await;
    let mut config = cached(&server.url, folder.path());
    config.mode = Mode::Record;
    let search = open(&config);
    assert!(find(&search, "a").await.is_err() && find(&search, "a").await.is_err(), "as it went, it goes");
    assert!(find(&search, "b").await.is_ok());
    assert_eq!(server.asked().len(), 2);
    // What a killed process leaves is what is on disk at any moment.
    let left = folder.path().join("left.redb");
    std::fs::copy(config.cache.path.as_deref().expect("given"), &left).expect("copied");
    let replay = SearchConfig { mode: Mode::Replay, ..config.clone() };
    let mut of_left = replay.clone();
    of_left.cache.path = Some(left);
    let (one, two) = (open(&of_left), open(&of_left));
    assert_eq!(find(&one, "b").await, find(&two, "b").await);
    assert!(find(&one, "b").await.is_ok() && find(&one, "a").await.is_err());
    drop(search);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let search = open(&config);
    assert!(find(&search, "a").await.is_ok() && find(&search, "b").await.is_ok());
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_world_is_recorded_like_any_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = SearchConfig { mode: Mode::Record, ..SearchConfig::default() };
    config.cache.path = Some(folder.path().join("cache.redb"));
    let queries = texts(&["Mexico currency", "Japan capital"]);
    let recorded = open(&config).search(3, &queries).await;
    config.mode = Mode::Replay;
    let replay = open(&config);
    assert_eq!(replay.search(3, &queries).await, recorded);
    assert_eq!(replay.search(4, &queries).await[0].as_ref().expect_err("another layer").fault, Fault::Miss);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_never_passed_by_one_and_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|asked, _| reply(200, found(asked))).await;
    let mut config = cached(&server.url, folder.path());
    config.budget = BudgetConfig { requests: 7, usd: 0.0 };
    let ask = async |config: &SearchConfig, from: usize| {
        let search = open(config);
        let names: Vec<String> = (from..from + 20).map(|number| format!("q{number}")).collect();
        let outcomes = futures::future::join_all(names.iter().map(|name| find(&search, name))).await;
        let out = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        let out: Vec<_> =
            out.inspect(|error| assert!(error.fault == Fault::Quota && error.reason.contains("search.budget."), "{error}")).collect();
        20 - out.len()
    };
    assert_eq!((ask(&config, 0).await, server.asked().len()), (7, 7));
    assert_eq!((ask(&config, 100).await, server.asked().len()), (0, 7), "another process has no budget of its own");
    config.budget.requests = 9;
    assert_eq!((ask(&config, 200).await, server.asked().len()), (2, 9), "raised, it goes on");
    config.budget = BudgetConfig { requests: 0, usd: 0.01 };
    config.text.usd_per_request = 0.003;
    config.cache.path = Some(folder.path().join("other.redb"));
    assert_eq!(ask(&config, 300).await, 3, "three thousandths thrice");
}

/// Many who ask at once, at a service that counts: it allows so many within any second, and refuses the others.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_actors_at_a_service_that_allows_few_are_never_refused_and_lose_no_time() {
    const ALLOWED: usize = 40;
    const ASKED: usize = 160;
    let recent: Mutex<VecDeque<Instant>> = Mutex::default();
    let server = Server::start(move |asked, _| {
        let (mut recent, now) = (recent.lock(), Instant::now());
        while recent.front().is_some_and(|at| now - *at >= Duration::from_millis(950)) {
            recent.pop_front();
        }
        recent.push_back(now);
        if recent.len() > ALLOWED { reply(429, "{}") } else { reply(200, found(asked)) }
    })
    .await;
    let mut config = asking("searxng", &server.url);
    config.text.per_second = ALLOWED as f64;
    config.text.attempts = 1;
    config.concurrency = 1000;
    let (search, began) = (open(&config), Instant::now());
    let names: Vec<String> = (0..ASKED).map(|number| format!("q{number}")).collect();
    let outcomes = futures::future::join_all(names.iter().map(|name| find(&search, name))).await;
    let rate = (ASKED - 1) as f64 / began.elapsed().as_secs_f64();
    println!("{ASKED} requests at {rate:.2} a second, of {ALLOWED}");
    // The other side of the bound is a matter of the machine's pace: the figure is printed.
    assert!(rate <= ALLOWED as f64 * 1.001, "{rate} a second");
    assert!(outcomes.iter().all(Result::is_ok), "{:?}", outcomes.iter().find(|outcome| outcome.is_err()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_in_no_error_cache_or_recording() {
    let folder = tempfile::tempdir().expect("a folder");
    // One that says the key back, in everything.
    let server = Server::start(|_, number| match number {
        1 => reply(401, json!({"error": format!("Invalid API key {KEY}")})),
        2 => reply(200, json!({"search_metadata": {"status": "Error"}, "error": format!("{KEY} is wrong")})),
        _ => reply(200, json!({"search_metadata": {"status": "Success"}, "organic_results": [{"title": "t", "link": "https://x/l"}]})),
    })
    .await;
    let mut config = with_key(asking("serpapi", &server.url), folder.path());
    config.text.attempts = 1;
    config.mode = Mode::Record;
    config.cache.path = Some(folder.path().join("cache.redb"));
    let search = open(&config);
    for text in ["a", "b"] {
        let error = find(&search, text).await.expect_err("refused").to_string();
        assert!(error.contains("[key]") && !error.contains(KEY), "{error}");
    }
    assert!(find(&search, "c").await.is_ok());
    config.text.url = "http://127.0.0.1:9".into();
    config.cache.path = Some(folder.path().join("other.redb"));
    let error = find(&open(&config), "d").await.expect_err("gone").to_string();
    assert!(!error.contains(KEY), "{error}");
    drop(search);
    let store = Store::open(&folder.path().join("cache.redb")).expect("opens");
    assert_eq!(store.entries(), Ok(3));
    recording::export(&store, &folder.path().join("shared.jsonl")).expect("written");
    drop(store);
    for file in ["cache.redb", "other.redb", "shared.jsonl"] {
        let bytes = std::fs::read(folder.path().join(file)).expect("read");
        assert!(!bytes.windows(KEY.len()).any(|some| some == KEY.as_bytes()), "{file}");
    }
    assert!(!format!("{config:?}").contains(KEY));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_for_a_search_is_told_in_order_with_its_price() {
    let folder = tempfile::tempdir().expect("a folder");
    let (broken, whole) = (Server::start(|_, _| reply(500, "{}")).await, Server::start(|asked, _| reply(200, found(asked))).await);
    let mut config = cached(&whole.url, folder.path());
    config.text.usd_per_request = 0.002;
    let second = std::mem::replace(&mut config.text, asking("http", &broken.url).text);
    (config.text.attempts, config.text.usd_per_request, config.text.fallbacks) = (1, 0.001, vec![second]);
    let searcher = hypereyes_search::searcher(&config, || hypereyes_world::World::embedded().map(Arc::new)).expect("opens");
    let queries = texts(&["peru"]);
    let step = |service, how, usd, fault| Step { service, how, usd, fault };
    let failed = step("http", How::Asked, 0.001, Some(Fault::Unavailable));
    let (outcomes, steps) = searcher.told(0, &queries).await;
    assert!(outcomes[0].is_ok());
    assert_eq!(steps, [failed.clone(), step("searxng", How::Asked, 0.002, None)]);
    let (again, steps) = searcher.told(0, &queries).await;
    assert_eq!((again, steps), (outcomes, vec![failed, step("searxng", How::Kept, 0.0, None)]));
    assert_eq!(searcher.spent(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_deadline_cuts_off_is_told_with_its_price() {
    let server = Server::start(|asked, _| {
        std::thread::sleep(Duration::from_millis(800));
        reply(200, found(asked))
    })
    .await;
    let mut config = asking("searxng", &server.url);
    (config.deadline_s, config.text.usd_per_request) = (0.3, 0.002);
    let searcher = hypereyes_search::searcher(&config, || hypereyes_world::World::embedded().map(Arc::new)).expect("opens");
    let (outcomes, steps) = searcher.told(0, &texts(&["peru"])).await;
    let error = outcomes[0].as_ref().expect_err("late");
    assert!(error.fault == Fault::Timeout && error.reason.contains("search.deadline_s"), "{error}");
    assert_eq!(steps, [Step { service: "searxng", how: How::Asked, usd: 0.002, fault: Some(Fault::Timeout) }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_can_be_asked_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two) = (Server::start(|asked, _| reply(200, found(asked))).await, Server::start(|_, _| reply(503, "{}")).await);
    let mut config = cached(&one.url, folder.path());
    config.budget.requests = 2;
    config.text.fallbacks = vec![asking("http", &two.url).text];
    let apart = hypereyes_search::apart(&config, || hypereyes_world::World::embedded().map(Arc::new)).expect("opens");
    let asked: Vec<_> = apart.iter().map(|one| (one.key.as_str(), one.url.clone())).collect();
    assert_eq!(asked, [("text", one.url.clone()), ("text.fallbacks[0]", two.url.clone())], "the world answers here, and is no service");
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    let query = &texts(&["peru"])[0];
    assert!(apart[0].ask(query, until).await.is_ok() && apart[1].ask(query, until).await.is_err());
    assert_eq!((one.asked().len(), two.asked().len()), (1, 1), "once each");
    assert_eq!(apart[0].ask(query, until).await.expect_err("spent").fault, Fault::Quota);
}
