//! An episode of the environment against the embedded world, opened as every process opens it.

use std::sync::Arc;

use hypereyes_domain::Ending;
use hypereyes_environment::{EnvConfig, Episode, Step};
use hypereyes_pictures::RgbImage;
use hypereyes_search::SearchConfig;
use hypereyes_world::World;

/// The whole of it: a picture of two flags, one image round, one text round, the answer; in a layer whose names and facts
/// are not the world's.
#[tokio::test]
async fn an_episode_in_the_embedded_world_finds_its_answer() {
    let world = Arc::new(World::embedded().expect("the embedded pack is sound"));
    let layer = world.layer(11);
    let mut picture = RgbImage::new(128, 48);
    for (left, id) in [(0, "mx"), (64, "jp")] {
        for (x, y, pixel) in world.picture(&id.into()).expect("has a picture").enumerate_pixels() {
            picture.put_pixel(left + x, y, *pixel);
        }
    }
    let search = hypereyes_search::open(&SearchConfig::default(), || Ok(world.clone())).expect("opens");
    let mut episode = Episode::new(EnvConfig::default(), search, 11, "Which currency?", vec![picture.into()]);
    let call = r#"<tool_call>{"name":"image_search","arguments":{"area":[[0,0,0.5,1],[0.5,0,1,1]]}}</tool_call>"#;
    let Step::Observed { text, pictures, .. } = episode.step(call).await else { panic!("a call") };
    let name = |id: &str| layer.name(&id.into()).expect("known").to_owned();
    assert_eq!(pictures.len(), 2);
    assert!(
        text.contains(&format!("img_1\n1. 1.00 {}\n", name("mx"))) && text.contains(&format!("img_2\n1. 1.00 {}\n", name("jp"))),
        "{text}"
    );
    let call = format!(r#"<tool_call>{{"name":"text_search","arguments":{{"input":["{} currency"]}}}}</tool_call>"#, name("jp"));
    let Step::Observed { text, round, .. } = episode.step(&call).await else { panic!("a call") };
    let currency = layer.fact(&"jp".into(), "currency").expect("known");
    assert!(text.contains(&format!(" currency: {currency} is {}'s currency\n", name("jp"))), "{text}");
    assert_eq!((round.searches, round.failed_searches), (1, 0));
    let end = episode.step(&format!("<answer>{currency}</answer><|im_end|>")).await;
    assert_eq!(end, Step::Done { ending: Ending::Answered, answer: Some(currency.to_owned()) });
}

/// A tool that ships off does not exist until settings name it; then it reads the page of an entity by its name in the layer.
#[tokio::test]
async fn pages_are_read_where_the_settings_name_the_tool() {
    let world = Arc::new(World::embedded().expect("the embedded pack is sound"));
    let search = hypereyes_search::open(&SearchConfig::default(), || Ok(world.clone())).expect("opens");
    let visit = r#"<tool_call>{"name":"visit","arguments":{"pages":["mexico","Atlantis",7]}}</tool_call>"#;
    let mut episode = Episode::new(EnvConfig::default(), search.clone(), 0, "Q?", vec![]);
    let Step::Observed { text, round, .. } = episode.step(visit).await else { panic!("a refusal") };
    assert_eq!(text, "Error: unknown tool \"visit\": there are image_search and text_search");
    assert_eq!((round.call, round.searches, round.found[0].note.as_deref()), (None, 0, Some(&*text)));

    let config = EnvConfig { tools: vec!["text_search".into(), "visit".into()], ..EnvConfig::default() };
    config.check().expect("both exist");
    let mut episode = Episode::new(config, search, 0, "Q?", vec![]);
    let Step::Observed { text, round, .. } = episode.step(visit).await else { panic!("a call") };
    let page = "<tool_response>1\nMexico\nMexico City is Mexico's capital\n";
    assert!(text.starts_with(page) && text.contains("\n2\nno relevant information\nnot searched, no text: 1 of pages\n"), "{text}");
    let call = round.call.expect("a call");
    assert_eq!((call.tool.as_str(), call.searches, round.searches, round.failed_searches), ("visit", 2, 2, 0));
    assert_eq!(call.arguments, serde_json::json!({"pages": ["mexico", "Atlantis"]}));
    let found: Vec<(&str, usize, Option<&str>)> =
        round.found.iter().map(|one| (one.label.as_str(), one.hits.len(), one.note.as_deref())).collect();
    assert_eq!(found, [("1", 1, None), ("2", 0, Some("no relevant information"))]);
    let wrong = r#"<tool_call>{"name":"visit","arguments":{"urls":["mexico"]}}</tool_call>"#;
    let Step::Observed { text, .. } = episode.step(wrong).await else { panic!("a refusal") };
    assert_eq!(text, "Error: visit has no argument \"urls\": did you mean pages?");
}
