//! The model against an independent implementation (see `data/README.md`).

use crate::fixture::{ALL, Case, cases, expected, folder};
use burn::module::{ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use hypereyes_domain::{Chunk, Generate, PolicyVersion, Sampling, Sequence};
use hypereyes_pictures::Patches;
use hypereyes_policy::backend::{Cpu, CpuTrain};
use hypereyes_policy::batch::Batch;
use hypereyes_policy::checkpoint::{self, HostTensor, ParamPath, StoredDtype};
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::engine::{Engine, EngineConfig};
use hypereyes_policy::models::{Model, VisualTokens, Vlm};
use hypereyes_policy::ops::Segments;
use hypereyes_policy::score::{self, Target};
use hypereyes_policy::tape;

fn logprobs<B: hypereyes_policy::ops::Kernels>(model: &Model<B>, config: &ModelConfig, case: &Case, device: &B::Device) -> Tensor<B, 1> {
    let mut batch = Batch::default();
    batch.push(config, &case.ids, &case.pictures).unwrap();
    let targets: Vec<Target> = case.ids[1..].iter().enumerate().map(|(row, token)| Target { row, token: *token }).collect();
    score::logprobs(model, score::hidden(model, config, &batch, device), &targets, 1.0)
}

#[track_caller]
fn logprobs_hold(name: &str, config: &ModelConfig, model: &Model<Cpu>) {
    for (index, case) in cases(name).iter().enumerate() {
        let ours = logprobs(model, config, case, &Default::default()).into_data().into_vec::<f32>().unwrap();
        let worst = ours.iter().zip(&case.next_logprobs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert_eq!(ours.len(), case.next_logprobs.len());
        println!("{name}, case {index}: next-token log-probs off by {worst:.1e}");
        assert!(worst < 2e-5, "{name}, case {index}: off by {worst}");
    }
}

#[test]
fn logprobs_equal_transformers() {
    for name in ALL {
        let (config, model) = checkpoint::load::<Cpu>(&folder(name), &Default::default()).unwrap();
        logprobs_hold(name, &config, &model);
    }
}

#[test]
fn hidden_states_equal_transformers_layer_by_layer() {
    let device = Default::default();
    for name in ALL {
        let (config, model) = checkpoint::load::<Cpu>(&folder(name), &device).unwrap();
        for (index, case) in cases(name).iter().enumerate() {
            let mut batch = Batch::default();
            batch.push(&config, &case.ids, &case.pictures).unwrap();
            let pictures: Vec<_> = batch.pictures.iter().map(AsRef::as_ref).collect();
            let visual = model.encode_images(&pictures, &device);
            let segments = Segments::of_lengths(&batch.lengths, true, config.text.num_attention_heads, config.text.num_key_value_heads);
            let last = |x: &Tensor<Cpu, 2>| x.clone().narrow(0, case.ids.len() - 1, 1).into_data().into_vec::<f32>().unwrap();
            let mut seen = vec![];
            let hidden =
                model.hidden_observed(&config, &batch.rows, visual.as_ref(), &mut &*segments, &device, &mut |x| seen.push(last(x)));
            seen.push(last(&hidden));
            assert_eq!(seen.len(), case.hidden.len());
            let mut worst = 0.0f32;
            for (layer, (ours, want)) in seen.iter().zip(&case.hidden).enumerate() {
                let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>().sqrt();
                let off = norm(&mut ours.iter().zip(want).map(|(a, b)| a - b)) / norm(&mut want.iter().copied());
                assert!(off < 2e-5, "{name}, case {index}, layer {layer}: off by {off} of its norm");
                worst = worst.max(off);
            }
            println!("{name}, case {index}: hidden states of {} layers off by {worst:.1e} of their norm", seen.len());
        }
    }
}

#[tokio::test]
async fn the_engine_continues_greedily_as_transformers_does() {
    for name in ALL {
        let expected = expected(name);
        let ids = |key: &str| -> Vec<u32> { serde_json::from_value(expected["greedy"][key].clone()).unwrap() };
        let (prompt, output) = (ids("prompt"), ids("output"));
        let sizes = EngineConfig { max_context: 64, ..EngineConfig::default() };
        let engine = Engine::load(&folder(name), sizes, PolicyVersion(0)).unwrap();
        let chunk = Chunk { tokens: prompt.clone(), pictures: vec![] };
        let mut sequence = engine.start(chunk, vec![1], Sampling::GREEDY).await.unwrap().remove(0);
        let sampled = sequence.advance(Chunk::default(), output.len() - prompt.len()).await.unwrap();
        assert_eq!(sampled.tokens, output[prompt.len()..], "{name}");
    }
}

#[tokio::test]
async fn the_engine_refuses_tokens_that_the_model_does_not_know_and_goes_on() {
    let engine = Engine::load(&folder(ALL[0]), EngineConfig::default(), PolicyVersion(0)).unwrap();
    let chunk = |tokens: Vec<u32>| Chunk { tokens, pictures: vec![] };
    let refused = engine.start(chunk(vec![5, 99_999]), vec![1], Sampling::GREEDY).await.unwrap_err();
    assert!(refused.message.contains("token 99999 at 1 is outside the vocabulary"), "{}", refused.message);
    let mut sequence = engine.start(chunk(vec![5, 9]), vec![1], Sampling::GREEDY).await.unwrap().remove(0);
    let refused = sequence.advance(chunk(vec![320]), 4).await.unwrap_err();
    assert!(refused.message.contains("token 320 at 0"), "{}", refused.message);
    assert_eq!(sequence.advance(chunk(vec![7]), 4).await.unwrap().tokens.len(), 4);
}

#[test]
fn gradient_norms_equal_torch() {
    struct Norms<'a, B: AutodiffBackend> {
        path: ParamPath,
        grads: &'a B::Gradients,
        norms: std::collections::BTreeMap<String, f64>,
    }
    impl<B: AutodiffBackend> ModuleVisitor<B> for Norms<'_, B> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            if let Some(grad) = param.val().grad(self.grads) {
                let square: f32 = grad.powi_scalar(2).sum().into_scalar().elem();
                self.norms.insert(self.path.name(), f64::from(square).sqrt());
            }
        }
    }
    let device = Default::default();
    for name in ALL {
        let (config, model) = checkpoint::load::<CpuTrain>(&folder(name), &device).unwrap();
        let mut compared = 0;
        for (case, expected) in cases(name).iter().zip(expected(name)["cases"].as_array().unwrap()) {
            let recording = tape::recording();
            let ours = logprobs(&model, &config, case, &device);
            let n = ours.dims()[0];
            let loss = ours.slice(n - 8..n).mean().neg();
            drop(recording);
            let turn = tape::backward();
            let value: f32 = loss.clone().into_scalar();
            let off = (f64::from(value) - expected["nll_last8"].as_f64().unwrap()).abs();
            assert!(off < 1e-5, "{name}: loss off by {off}");
            let mut norms = Norms::<CpuTrain> { path: ParamPath::default(), grads: &loss.backward(), norms: Default::default() };
            model.visit(&mut norms);
            drop(turn);
            let total: f64 = norms.norms.values().map(|norm| norm * norm).sum::<f64>().sqrt();
            let want = expected["grad_norm_total"].as_f64().unwrap();
            assert!((total - want).abs() / want < 1e-4, "{name}: total {total} for {want}");
            let mut worst = 0.0f64;
            for (parameter, want) in expected["grad_norms"].as_object().unwrap() {
                let (want, ours) = (want.as_f64().unwrap(), norms.norms[parameter]);
                let off = (ours - want).abs() / want.max(1e-3);
                assert!(off < 1e-3, "{name}, {parameter}: {ours} for {want}");
                (worst, compared) = (worst.max(off), compared + 1);
            }
            println!("{name}: loss off by {off:.1e}, gradient norms by {worst:.1e}");
        }
        assert!(compared > 10);
    }
}

#[test]
fn what_the_tower_says_of_a_picture_does_not_depend_on_its_neighbours() {
    for name in ALL {
        let (config, model) = checkpoint::load::<Cpu>(&folder(name), &Default::default()).unwrap();
        let merge = config.vision.spatial_merge_size;
        let picture = |(rows, columns): (usize, usize), salt: usize| Patches {
            grid: (rows, columns),
            values: (0..rows * columns * config.patch_values()).map(|at| ((at * 31 + salt * 7) % 101) as f32 / 50.0 - 1.0).collect(),
        };
        // Sizes that no number of lanes, of SIMD or of cores, divides evenly.
        let pictures: Vec<Patches> =
            [(2, 2), (4, 6), (10, 6), (2, 14), (8, 8)].into_iter().zip(1..).map(|(grid, salt)| picture(grid, salt)).collect();
        let bits = |tokens: &VisualTokens<Cpu>| -> Vec<u32> {
            let all = std::iter::once(&tokens.embeddings).chain(&tokens.deepstack);
            all.flat_map(|part| part.clone().into_data().into_vec::<f32>().unwrap()).map(f32::to_bits).collect()
        };
        let encode = |pictures: &[&Patches]| -> Vec<Vec<u32>> {
            let lengths: Vec<usize> = pictures.iter().map(|picture| picture.grid.0 * picture.grid.1 / (merge * merge)).collect();
            let encoded = model.encode_images(pictures, &Default::default()).unwrap();
            assert_eq!(encoded.rows(), lengths.iter().sum::<usize>());
            encoded.split(&lengths).iter().map(bits).collect()
        };
        let alone: Vec<Vec<u32>> = pictures.iter().flat_map(|picture| encode(&[picture])).collect();
        assert!(encode(&pictures.iter().collect::<Vec<_>>()) == alone, "{name}: together");
        let mut backwards = encode(&pictures.iter().rev().collect::<Vec<_>>());
        backwards.reverse();
        assert!(backwards == alone, "{name}: in another order");
    }
}

#[test]
fn both_published_config_styles_are_one_config() {
    for name in ALL {
        let read = |file: &str| -> ModelConfig {
            let text = std::fs::read_to_string(folder(name).join(file)).unwrap();
            ModelConfig::from_json(&serde_json::from_str(&text).unwrap()).unwrap()
        };
        assert_eq!(read("config.json"), read("config.published-style.json"));
    }
}

#[test]
fn parameters_are_counted_before_they_are_made() {
    for name in ALL {
        let (config, weights) = checkpoint::read(&folder(name)).unwrap();
        assert_eq!(config.parameters(), weights.values().map(|tensor| tensor.values.len() as u128).sum::<u128>(), "{name}");
    }
}

/// Experts as the published checkpoints store them: `[E, d, 2i]` and `[E, i, d]`.
fn transposed(tensor: &HostTensor) -> HostTensor {
    let [count, rows, columns] = tensor.shape[..] else { panic!("experts have three dimensions") };
    let values = (0..count * rows * columns)
        .map(|at| {
            let (expert, column, row) = (at / (rows * columns), at / rows % columns, at % rows);
            tensor.values[(expert * rows + row) * columns + column]
        })
        .collect();
    HostTensor { shape: vec![count, columns, rows], values }
}

#[test]
fn published_shards_with_transposed_experts_are_the_same_model() {
    let (config, mut weights) = checkpoint::read(&folder("qwen3vl-moe-tiny")).unwrap();
    for (name, tensor) in &mut weights {
        if name.contains(".experts.") {
            *tensor = transposed(tensor);
        }
    }
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(folder("qwen3vl-moe-tiny").join("config.published-style.json"), copy.path().join("config.json")).unwrap();
    let mut map = serde_json::Map::new();
    for shard in 0..3 {
        let file = format!("model-0000{}-of-00003.safetensors", shard + 1);
        let part: checkpoint::HostWeights = weights
            .iter()
            .enumerate()
            .filter(|(at, _)| at % 3 == shard)
            .map(|(_, (name, tensor))| (name.clone(), tensor.clone()))
            .collect();
        std::fs::write(copy.path().join(&file), checkpoint::serialise(&part, StoredDtype::F32).unwrap()).unwrap();
        map.extend(part.into_keys().map(|name| (name, file.clone().into())));
    }
    let index = |map: &serde_json::Map<String, serde_json::Value>| {
        let index = serde_json::json!({ "metadata": {"total_size": 1}, "weight_map": map });
        std::fs::write(copy.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    };
    index(&map);
    let (read, model) = checkpoint::load::<Cpu>(copy.path(), &Default::default()).unwrap();
    assert_eq!(read, config);
    logprobs_hold("qwen3vl-moe-tiny", &config, &model);

    // A tensor that the index leaves out is in its shard all the same: transformers reads it too.
    let mut short = map.clone();
    short.remove("lm_head.weight").unwrap();
    index(&short);
    let (_, model) = checkpoint::load::<Cpu>(copy.path(), &Default::default()).unwrap();
    logprobs_hold("qwen3vl-moe-tiny", &config, &model);

    // What the index says of its tensors is checked, and it reaches no file outside the folder.
    let refused = |change: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| {
        let mut wrong = map.clone();
        change(&mut wrong);
        index(&wrong);
        checkpoint::read(copy.path()).unwrap_err().to_string()
    };
    let name = "lm_head.weight";
    assert!(refused(&|map| drop(map.insert("x".into(), "model-00001-of-00003.safetensors".into()))).contains("tensor x is not in"));
    assert!(refused(&|map| drop(map.insert(name.into(), "../secret.safetensors".into()))).contains("no name of a safetensors file"));
    assert!(refused(&|map| drop(map.insert(name.into(), "model-00009-of-00003.safetensors".into()))).contains("model-00009"));
}

#[test]
fn what_is_saved_is_read_back_and_what_does_not_fit_is_named() {
    for name in ALL {
        let (config, weights) = checkpoint::read(&folder(name)).unwrap();
        let copy = tempfile::tempdir().unwrap();
        checkpoint::save(copy.path(), None, &config, &weights, StoredDtype::F32).unwrap();
        assert_eq!(checkpoint::read(copy.path()).unwrap(), (config.clone(), weights.clone()));
        let refused = |change: &dyn Fn(&mut checkpoint::HostWeights)| {
            let mut wrong = weights.clone();
            change(&mut wrong);
            std::fs::write(copy.path().join("model.safetensors"), checkpoint::serialise(&wrong, StoredDtype::F32).unwrap()).unwrap();
            let unsaved = checkpoint::save(&copy.path().join("other"), None, &config, &wrong, StoredDtype::F32).unwrap_err().to_string();
            assert!(unsaved.contains("was not saved"), "{unsaved}");
            checkpoint::load::<Cpu>(copy.path(), &Default::default()).unwrap_err().to_string()
        };
        let norm = "model.language_model.norm.weight";
        assert!(refused(&|weights| drop(weights.remove(norm))).contains("tensor model.language_model.norm.weight is missing"));
        // What is no part of the model is passed over in a folder, with one remark, and refused anywhere else.
        let extra = HostTensor { shape: vec![1], values: vec![0.0] };
        let mut more = weights.clone();
        more.insert("extra".into(), extra.clone());
        std::fs::write(copy.path().join("model.safetensors"), checkpoint::serialise(&more, StoredDtype::F32).unwrap()).unwrap();
        let (_, read, remarks) = checkpoint::read_with_remarks(copy.path()).unwrap();
        assert!(
            read == weights
                && remarks.len() == 1
                && remarks[0].contains("1 tensors are no part of the model")
                && remarks[0].contains("extra")
        );
        let model = Model::<Cpu>::init(&config, 0, &Default::default());
        assert!(checkpoint::from_host(model, &more).unwrap_err().to_string().contains("tensor extra is not part"));
        assert!(refused(&|weights| drop(weights.insert(norm.into(), extra.clone()))).contains("norm.weight has shape [1]"));
        assert!(refused(&|weights| weights.get_mut(norm).unwrap().values[3] = f32::NAN).contains("holds NaN at index 3"));
    }
}
