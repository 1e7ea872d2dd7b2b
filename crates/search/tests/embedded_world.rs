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
