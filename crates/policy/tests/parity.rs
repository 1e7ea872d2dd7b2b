//! The model against an independent implementation (see `data/README.md`).

use std::path::PathBuf;
use std::sync::Arc;

use burn::module::{ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use hypereyes_domain::Patches;
use hypereyes_policy::backend::{Cpu, CpuTrain};
use hypereyes_policy::batch::Batch;
use hypereyes_policy::checkpoint;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::model::Qwen3Vl;
use hypereyes_policy::score::{self, Target};
use safetensors::SafeTensors;

fn data() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/qwen3vl-tiny")
}

struct Case {
    ids: Vec<u32>,
    pictures: Vec<Arc<Patches>>,
    next_logprobs: Vec<f32>,
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn cases() -> Vec<Case> {
    let bytes = std::fs::read(data().join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut cases = vec![];
    while let Ok(ids) = file.tensor(&format!("case{}.input_ids", cases.len())) {
        let at = cases.len();
        let size = ids.data().len() / ids.shape().iter().product::<usize>();
        let ids = ids.data().chunks_exact(size).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let mut pictures = vec![];
        if let Ok(grids) = file.tensor(&format!("case{at}.image_grid_thw")) {
            let size = grids.data().len() / grids.shape().iter().product::<usize>();
            let grids: Vec<usize> =
                grids.data().chunks_exact(size).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();
            let pixels = file.tensor(&format!("case{at}.pixel_values")).unwrap();
            let width = pixels.shape()[1];
            let pixels = floats(pixels.data());
            let mut start = 0;
            for grid in grids.chunks(3) {
                let end = start + grid[1] * grid[2] * width;
                pictures.push(Arc::new(Patches { grid: (grid[1], grid[2]), values: pixels[start..end].to_vec() }));
                start = end;
            }
        }
        let next_logprobs = floats(file.tensor(&format!("case{at}.next_logprobs")).unwrap().data());
        cases.push(Case { ids, pictures, next_logprobs });
    }
    assert!(cases.len() >= 3, "the fixture has several cases");
    cases
}

fn logprobs<B: hypereyes_policy::ops::Kernels>(model: &Qwen3Vl<B>, config: &ModelConfig, case: &Case, device: &B::Device) -> Tensor<B, 1> {
    let mut batch = Batch::default();
    batch.push(config, &case.ids, &case.pictures).unwrap();
    let targets: Vec<Target> = case.ids[1..].iter().enumerate().map(|(row, token)| Target { row, token: *token }).collect();
    score::logprobs(model, score::hidden(model, config, &batch, device), &targets, 1.0)
}

#[test]
fn logprobs_equal_transformers() {
    let device = Default::default();
    let (config, model) = checkpoint::load::<Cpu>(&data(), &device).unwrap();
    for (index, case) in cases().iter().enumerate() {
        let ours = logprobs(&model, &config, case, &device).into_data().into_vec::<f32>().unwrap();
        let worst = ours.iter().zip(&case.next_logprobs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert_eq!(ours.len(), case.next_logprobs.len());
        assert!(worst < 2e-5, "case {index}: off by {worst}");
    }
}

#[test]
fn gradient_norms_equal_torch() {
    struct Norms<'a, B: AutodiffBackend> {
        path: Vec<String>,
        grads: &'a B::Gradients,
        norms: std::collections::BTreeMap<String, f64>,
    }
    impl<B: AutodiffBackend> ModuleVisitor<B> for Norms<'_, B> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            if let Some(grad) = param.val().grad(self.grads) {
                let square: f32 = grad.powi_scalar(2).sum().into_scalar().elem();
                self.norms.insert(self.path.join("."), f64::from(square).sqrt());
            }
        }
    }
    let device = Default::default();
    let (config, model) = checkpoint::load::<CpuTrain>(&data(), &device).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(data().join("expected.json")).unwrap()).unwrap();
    let mut compared = 0;
    for (case, expected) in cases().iter().zip(expected["cases"].as_array().unwrap()) {
        let ours = logprobs(&model, &config, case, &device);
        let n = ours.dims()[0];
        let loss = ours.slice([n - 8..n]).mean().neg();
        let value: f32 = loss.clone().into_scalar();
        assert!((f64::from(value) - expected["nll_last8"].as_f64().unwrap()).abs() < 1e-5);
        let mut norms = Norms::<CpuTrain> { path: vec![], grads: &loss.backward(), norms: Default::default() };
        model.visit(&mut norms);
        let total: f64 = norms.norms.values().map(|norm| norm * norm).sum::<f64>().sqrt();
        let want = expected["grad_norm_total"].as_f64().unwrap();
        assert!((total - want).abs() / want < 1e-4, "total {total} for {want}");
        for (name, want) in expected["grad_norms"].as_object().unwrap() {
            let (want, ours) = (want.as_f64().unwrap(), norms.norms[name]);
            assert!((ours - want).abs() / want.max(1e-3) < 1e-3, "{name}: {ours} for {want}");
            compared += 1;
        }
    }
    assert!(compared > 10);
}

#[test]
fn both_published_config_styles_are_one_config() {
    let read = |name: &str| -> ModelConfig {
        let text = std::fs::read_to_string(data().join(name)).unwrap();
        ModelConfig::from_json(&serde_json::from_str(&text).unwrap()).unwrap()
    };
    assert_eq!(read("config.json"), read("config.published-style.json"));
}
