//! `hypereyes generate`: continuations of prompts by the engine that actors run.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use hypereyes_chassis::{BadInput, output};
use hypereyes_chat::{Dialogue, Renderer, Vocabulary, agreement, special};
use hypereyes_domain::{Chunk, Generate, PolicyVersion, Sampling, Sequence};
use hypereyes_pictures::{Limits, PatchCache, PatchSource, Picture, Store};
use hypereyes_policy::engine::{Engine, EngineConfig, Placeholders};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::cases::MAX_TOKENS;
use crate::sights::Sights;
use crate::{keys, lines, refusal};

/// Arguments of `generate`.
#[derive(Args, Debug)]
#[command(
    after_help = "A line of input is {\"id\": ..., \"input_ids\": [...]} or {\"id\": ..., \"messages\": [{\"role\": \"user\", \"content\": \"...\"}]};\n\
    content may be a list of {\"type\": \"text\", \"text\": ...} and {\"type\": \"image\", \"image\": \"file.png\"} in any order. The\n\
    model's chat template renders the dialogue as a whole. The answer is\n\
    {\"id\": ..., \"output_ids\": [...], \"text\": ...}, the continuation without the prompt; text is null where the model folder has\n\
    no tokenizer. Lines are answered in order; each has its own random stream, so an answer does not depend on the others.\n\n\
    Examples:\n  echo '{\"id\": 1, \"input_ids\": [5, 9, 11]}' | hypereyes generate --model DIR --greedy --max-new-tokens 24\n  \
    hypereyes generate --model DIR --temperature 0.8 --top-p 0.95 --set seed=3 prompts.jsonl"
)]
pub struct GenerateArgs {
    /// Policy folder (Hugging Face layout).
    #[arg(long)]
    pub model: PathBuf,
    /// Prompts, one JSON object each. Default: stdin.
    pub file: Option<PathBuf>,
    /// Always the most likely token.
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p"])]
    pub greedy: bool,
    /// Most tokens of a continuation; an end token ends it earlier.
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub max_new_tokens: usize,
    /// Logits are divided by this.
    #[arg(long, default_value_t = 1.0)]
    pub temperature: f32,
    /// Keep only this many of the most likely tokens; 0 keeps all.
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub top_k: usize,
    /// Keep the smallest set of tokens with this much probability; 1 keeps all.
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub top_p: f32,
    /// Keep tokens at least this much as likely as the most likely one; 0 keeps all.
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    pub min_p: f32,
}

/// Bytes of pictures cut into patches that are kept for the next prompt that shows them.
const PATCHES_BYTES: usize = 256 << 20;

/// A line of input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Value,
    input_ids: Option<Vec<u32>>,
    messages: Option<Value>,
}

/// A prompt ready for the engine.
struct Prompt {
    id: Value,
    chunk: Chunk,
    /// Those that the chunk names.
    pictures: Vec<Arc<Picture>>,
}

/// Prints continuations by an engine of these sizes; `seed` is that of the first prompt.
///
/// # Errors
/// A model or a prompt that cannot be used.
pub fn run(sizes: &EngineConfig, seed: u64, args: &GenerateArgs) -> Result<()> {
    let sampling = sampling(args)?;
    let reader = Reader::new(&args.model)?;
    let prompts = lines::all(args.file.as_deref(), |value| {
        keys::check(&value, "a line", &["id", "input_ids", "messages"])?;
        reader.prompt(serde_json::from_value(keys::strip(&value, &["id"]))?)
    })?;
    let shown = prompts.iter().any(|prompt| !prompt.pictures.is_empty());
    let processor = if shown { Some(reader.sights.processor()?.clone()) } else { None };
    let vocabulary = reader.vocabulary;
    let longest = prompts.iter().map(|prompt| prompt.chunk.tokens.len()).max().unwrap_or(0);
    let context = longest + args.max_new_tokens + 1;
    if args.max_new_tokens == 0 || context > MAX_TOKENS {
        return Err(BadInput::new(format!(
            "--max-new-tokens {}: prompt and continuation have 2 to {MAX_TOKENS} tokens",
            args.max_new_tokens
        ))
        .into());
    }
    let mut end_tokens = end_tokens(&args.model)?;
    if end_tokens.is_empty() {
        end_tokens.extend(vocabulary.as_ref().and_then(|vocabulary| vocabulary.id(special::IM_END)));
    }
    let sizes = EngineConfig { max_context: context, end_tokens, placeholders: Placeholders::Text, ..sizes.clone() };
    let at_once = Arc::new(Semaphore::new(sizes.max_sequences.max(1)));
    let engine = Engine::load(&args.model, sizes, PolicyVersion(0)).map_err(refusal)?;
    let store = Arc::new(Store::new(0, Limits::default()));
    let engine = match processor {
        Some(processor) => engine.seeing(PatchSource::new(store.clone(), Arc::new(PatchCache::new(processor, PATCHES_BYTES)))),
        None => engine,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")?;
    runtime.block_on(async {
        let limit = args.max_new_tokens;
        let running: Vec<_> = prompts
            .into_iter()
            .zip(seed..)
            .map(|(prompt, seed)| {
                let (engine, at_once, store) = (engine.clone(), at_once.clone(), store.clone());
                tokio::spawn(async move {
                    let _place = at_once.acquire().await?;
                    let _shown: Vec<_> = prompt.pictures.into_iter().map(|picture| store.lend(picture)).collect();
                    let mut sequence = engine.start(prompt.chunk, vec![seed], sampling).await?.remove(0);
                    anyhow::Ok((prompt.id, sequence.advance(Chunk::default(), limit).await?.tokens))
                })
            })
            .collect();
        for (number, one) in running.into_iter().enumerate() {
            let named = || format!("prompt {}", number + 1);
            let (id, tokens) = one.await.with_context(named)?.map_err(|error| BadInput::new(format!("{}: {error:#}", named())))?;
            let text = vocabulary.as_ref().map(|vocabulary| vocabulary.decode(&tokens));
            output::json(&json!({"id": id, "output_ids": tokens, "text": text}));
        }
        Ok(())
    })
}

fn sampling(args: &GenerateArgs) -> Result<Sampling, BadInput> {
    if args.greedy {
        return Ok(Sampling::GREEDY);
    }
    if args.temperature == 0.0 {
        return Err(BadInput::new("--temperature 0: give a positive number, or --greedy"));
    }
    let sampling = Sampling { temperature: args.temperature, top_k: args.top_k, top_p: args.top_p, min_p: args.min_p };
    sampling.check().map_err(BadInput::new)?;
    Ok(sampling)
}

/// Makes prompts of lines; what messages need of the model folder is read when the first of them comes.
struct Reader<'a> {
    model: &'a Path,
    vocabulary: Option<Arc<Vocabulary>>,
    renderer: OnceCell<Renderer>,
    sights: Sights,
}

impl<'a> Reader<'a> {
    fn new(model: &'a Path) -> Result<Self, BadInput> {
        let path = model.join("tokenizer.json");
        let vocabulary = path.exists().then(|| Vocabulary::load(&path).map(Arc::new)).transpose();
        let vocabulary = vocabulary.map_err(|error| BadInput::new(error.to_string()))?;
        Ok(Self { model, vocabulary, renderer: OnceCell::new(), sights: Sights::of(model) })
    }

    fn prompt(&self, line: Line) -> Result<Prompt> {
        let (tokens, pictures) = match (line.input_ids, line.messages) {
            (Some(tokens), None) => (tokens, vec![]),
            (None, Some(messages)) => self.conversation(&messages)?,
            _ => bail!("give either input_ids or messages"),
        };
        ensure!(!tokens.is_empty(), "is empty");
        let named = pictures.iter().map(|picture| picture.id.clone()).collect();
        Ok(Prompt { id: line.id, chunk: Chunk { tokens, pictures: named }, pictures })
    }

    /// A dialogue as the model's template renders it, up to where the model goes on.
    fn conversation(&self, messages: &Value) -> Result<(Vec<u32>, Vec<Arc<Picture>>)> {
        let dialogue = Dialogue::parse(messages).map_err(anyhow::Error::msg)?;
        let renderer = self.renderer()?;
        let pictures = dialogue.pictures().iter().map(|name| self.sights.named(name).map(Arc::new)).collect::<Result<Vec<_>>>()?;
        let sizes = match pictures.is_empty() {
            true => vec![],
            false => {
                let processor = self.sights.processor()?;
                pictures.iter().map(|picture| processor.tokens(processor.grid(picture.image.dimensions()))).collect()
            }
        };
        Ok((renderer.tokens(&dialogue, &sizes)?, pictures))
    }

    fn renderer(&self) -> Result<&Renderer> {
        if let Some(renderer) = self.renderer.get() {
            return Ok(renderer);
        }
        let vocabulary = self.vocabulary.clone().context("the model folder has no tokenizer.json; give input_ids")?;
        let mut remarks = agreement::tokens(self.model, &vocabulary)?;
        let (renderer, more) = Renderer::load(self.model, vocabulary)?;
        remarks.extend(more);
        for remark in remarks {
            tracing::warn!("{}: {remark}", self.model.display());
        }
        Ok(self.renderer.get_or_init(|| renderer))
    }
}

/// A larger file is no configuration of a model.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// The end tokens of a model folder: those of `generation_config.json`, or else of `config.json`, its text part first.
fn end_tokens(model: &Path) -> Result<Vec<u32>, BadInput> {
    let read = |name: &str| {
        let path = model.join(name);
        let text = match hypereyes_outside::files::read_to_string(&path, MAX_CONFIG_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Null),
            Err(error) => return Err(BadInput::new(format!("{}: {error}", path.display()))),
        };
        serde_json::from_str(&text).map_err(|error| BadInput::new(format!("{} is not JSON: {error}", path.display())))
    };
    let (generation, config) = (read("generation_config.json")?, read("config.json")?);
    let named = [&generation, &config["text_config"], &config].map(|part: &Value| ids(&part["eos_token_id"]));
    Ok(named.into_iter().find(|ids| !ids.is_empty()).unwrap_or_default())
}

/// One token or a list of them; nothing where there is none.
fn ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(ids) => ids.iter().filter_map(id).collect(),
        value => id(value).into_iter().collect(),
    }
}
