//! A loaded model with its caches: tokens in, logits out.
//!
//! Weights are mapped, not copied: a parameter stored in a format that graphs have is read where the file lies.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::blocks::BlockType;
use crate::compilers::{Math, Report};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::exec::profile::Profile;
use crate::formats::{Calibration, ModelConfig, ModelFiles, Weights as StoredWeights};
use crate::graph::state::Stats;
use crate::graph::{Graph, GraphTensor};
use crate::nn::Parameters;
use crate::nn::attention::CacheConfig;
use crate::nn::models::{NEW_TOKENS, PAST_TOKENS};

use super::blocks;
use super::compile::compile;
use super::low_bit;
use super::quant::Quant;
use super::weights::Weights;
pub use crate::nn::attention::CacheType;
pub use crate::nn::models::Rows;

/// Context when nobody asks for one, unless the model's own limit is lower.
const DEFAULT_CONTEXT: usize = 4096;

/// How a model is loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// The machine to compile for: `native`, `scalar`, `x86-64-v3` or any that [`LlvmCpu`] knows, or `reference`, which
    /// compiles nothing.
    ///
    /// [`LlvmCpu`]: crate::compilers
    pub cpu: String,
    /// Threads that an execution may use; as many as the machine has cores when absent.
    pub threads: Option<usize>,
    /// The most tokens that the caches hold; by default the model's limit, at most 4096.
    pub context: Option<usize>,
    /// The format that the caches keep keys and values in.
    pub cache: CacheType,
    /// Stores weights that do not have few bits already in this way.
    pub quant: Option<Quant>,
    /// The blocks of embedding and output layer then, if not those of files of this type; see [`Quant`].
    pub embedding: Option<BlockType>,
    /// What chooses the scales of such blocks; see [`calibrate`](super::calibrate()).
    pub calibration: Arc<Calibration>,
    /// Which logits [`Session::feed`] gives.
    pub logits: Rows,
    /// A folder for weights in the order that kernels read them, by default that of `BB_PACK_DIR`: files in it are mapped the
    /// next time, so nothing has to be packed. They take as much room as the model, and nobody removes them.
    pub packed: Option<PathBuf>,
    /// Whether compiling for `native` measures how to compute products that there are no records of, which takes a while.
    pub tune: bool,
    /// How functions are computed; the reference executor knows [`Math::Exact`] only.
    pub math: Math,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cpu: "native".into(),
            threads: None,
            context: None,
            cache: CacheType::default(),
            quant: None,
            embedding: None,
            calibration: Arc::default(),
            logits: Rows::Last,
            packed: None,
            tune: false,
            math: Math::Exact,
        }
    }
}

/// What loading is at.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// Parameters are given their data.
    Loading {
        /// Bytes of the parameters done.
        done_bytes: u64,
        /// Bytes of all parameters.
        total_bytes: u64,
    },
    /// A group of passes rewrites the graph.
    Compiling {
        /// Which.
        pass: &'a str,
    },
    /// Products are measured.
    Tuning {
        /// How many are done.
        done: usize,
        /// How many there are.
        total: usize,
    },
    /// Tokens can be fed.
    Ready,
}

/// What loading did.
#[derive(Clone, Debug, Default)]
pub struct Info {
    /// Seconds to record the graph and give it the weights.
    pub load_s: f64,
    /// Seconds to compile.
    pub compile_s: f64,
    /// Seconds of [`Session::pack`]; 0 if nobody called it.
    pub pack_s: f64,
    /// Nodes of the graph as recorded.
    pub nodes_recorded: usize,
    /// Nodes of the compiled graph.
    pub nodes_compiled: usize,
    /// Kernels that have machine code.
    pub kernels: usize,
    /// Different machine codes among them.
    pub distinct_kernels: usize,
    /// Numbers in all parameters.
    pub parameters: u64,
    /// Bytes of all parameters as stored.
    pub weight_bytes: u64,
    /// What each pass did; empty for the reference executor.
    pub report: Report,
}

impl Info {
    /// Counts weights that take other bytes now.
    pub(super) fn replaced(&mut self, before: usize, after: usize) {
        self.weight_bytes = self.weight_bytes - before as u64 + after as u64;
    }
}

/// A loaded model.
pub struct Session {
    graph: Graph,
    config: ModelConfig,
    tokens: GraphTensor,
    logits: GraphTensor,
    out: Vec<f32>,
    position: usize,
    cache: CacheConfig,
    info: Info,
    parameters: Parameters,
}

/// What is told how far loading is, and what is done to the graph before it is compiled.
type Hooks<'a> = (
    &'a mut dyn FnMut(Progress<'_>),
    &'a mut dyn FnMut(&mut Graph) -> Result<()>,
);

impl Session {
    /// Loads a checkpoint folder in the Hugging Face layout (`config.json` and safetensors files), or a GGUF file, and
    /// compiles it. Weights that a GGUF file stores in blocks stay in them, and layers that a file declares to be
    /// [of few bits](crate::formats::low_bit) are computed with those.
    ///
    /// ```no_run
    /// use brain_blitz::generation::{Options, Session};
    /// let folder = std::path::Path::new("models/gemma2-shakespeare");
    /// let mut session = Session::load(folder, &Options::default(), &mut |_| ())?;
    /// let bos = session.bos().unwrap_or(0);
    /// assert_eq!(session.feed(&[bos])?.len(), session.vocab_size());
    /// # Ok::<(), brain_blitz::Error>(())
    /// ```
    ///
    /// # Errors
    /// If a file cannot be read, does not fit the configuration, or cannot be compiled for the machine asked for.
    pub fn load(
        dir: &Path,
        options: &Options,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Session> {
        Session::of_model(&ModelFiles::open(dir)?, options, progress)
    }

    /// As [`Session::load`], from files that are open.
    ///
    /// # Errors
    /// As [`Session::load`].
    pub fn of_model(
        files: &ModelFiles,
        options: &Options,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Session> {
        let weights = files.weights(DType::F32)?;
        Session::new(files.config()?, &*weights, options, progress)
    }

    /// A session of a model with this configuration and these weights.
    ///
    /// # Errors
    /// If the weights do not fit the configuration, or cannot be compiled for the machine asked for.
    pub fn new(
        config: impl Into<ModelConfig>,
        weights: &dyn StoredWeights,
        options: &Options,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Session> {
        let weights = Weights::Stored(weights);
        Session::build(config.into(), weights, options, (progress, &mut |_| Ok(())))
    }

    /// A session of a model with this configuration whose weights are random numbers in the format `dtype`; see
    /// [`synthetic`](super::synthetic).
    ///
    /// # Errors
    /// If `dtype` is not a floating-point format of at most 32 bits, memory is short, or the model cannot be compiled.
    pub fn random(
        config: impl Into<ModelConfig>,
        dtype: DType,
        seed: u64,
        options: &Options,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Session> {
        Session::build(
            config.into(),
            Weights::Random { dtype, seed },
            options,
            (progress, &mut |_| Ok(())),
        )
    }

    /// A session of a model whose weights have the format `dtype` and no data: it can be compiled and looked at, but
    /// not fed.
    ///
    /// # Errors
    /// If the model cannot be compiled.
    pub fn without_weights(
        config: impl Into<ModelConfig>,
        dtype: DType,
        options: &Options,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Session> {
        let weights = Weights::Absent { dtype };
        Session::build(config.into(), weights, options, (progress, &mut |_| Ok(())))
    }

    /// [`Session::new`] with something done to the graph before it is compiled; its parameters have their names and their
    /// data.
    ///
    /// # Errors
    /// As [`Session::new`], and those of `prepare`.
    pub fn prepared(
        config: impl Into<ModelConfig>,
        weights: &dyn StoredWeights,
        options: &Options,
        progress: &mut dyn FnMut(Progress<'_>),
        prepare: &mut dyn FnMut(&mut Graph) -> Result<()>,
    ) -> Result<Session> {
        let weights = Weights::Stored(weights);
        Session::build(config.into(), weights, options, (progress, prepare))
    }

    fn build(
        config: ModelConfig,
        weights: Weights<'_>,
        options: &Options,
        (progress, prepare): Hooks<'_>,
    ) -> Result<Session> {
        let start = Instant::now();
        let cache = CacheConfig {
            capacity: capacity_of(&config, options)?,
            ty: options.cache,
        };
        let mut graph = new_graph(options)?;
        let model = config.build(&mut graph, cache, &|name| weights.dtype(name));
        let tokens = graph.input(NEW_TOKENS, DType::I32).set_name("tokens");
        let logits = model.forward(tokens, options.logits).retrieve();
        let nodes_recorded = graph.n_nodes();
        let named = model.parameters();
        let sizes = named.iter().filter_map(|(name, parameter)| {
            parameter.set_name(name);
            parameter.ty().numel().as_usize()
        });
        let parameters = sizes.sum::<usize>() as u64;
        if let Weights::Stored(file) = weights {
            blocks::keep(&mut graph, &*model, file)?;
        }
        let weight_bytes = weights.load(&*model, options, progress)?;
        prepare(&mut graph)?;
        let mut info = Info {
            load_s: start.elapsed().as_secs_f64(),
            nodes_recorded,
            parameters,
            weight_bytes,
            ..Info::default()
        };
        if let Weights::Stored(file) = weights {
            low_bit::store(&mut graph, &*model, file, &mut info)?;
        }
        let start = Instant::now();
        compile(&mut graph, options, &mut info, progress)?;
        info.compile_s = start.elapsed().as_secs_f64();
        progress(Progress::Ready);
        Ok(Session {
            graph,
            config,
            tokens,
            logits,
            out: Vec::new(),
            position: 0,
            cache,
            info,
            parameters: named,
        })
    }

    /// Brings the weights into the order that kernels read them in: now, not while the first tokens are fed.
    ///
    /// # Errors
    /// If there is no memory, or the parameters have no data.
    pub fn pack(&mut self) -> Result<()> {
        self.prepare(Graph::try_prepare)
    }

    /// As [`Session::pack`], as far as feeding the first tokens needs it: what can wait is done while the next ones are fed, so that
    /// the first come sooner.
    ///
    /// # Errors
    /// As there.
    pub fn pack_first(&mut self) -> Result<()> {
        self.prepare(Graph::try_prepare_first)
    }

    fn prepare(&mut self, how: fn(&mut Graph) -> Result<()>) -> Result<()> {
        let start = Instant::now();
        self.set_tokens(&[0])?;
        how(&mut self.graph)?;
        self.info.pack_s += start.elapsed().as_secs_f64();
        Ok(())
    }

    /// Gives the graph tokens to be fed.
    fn set_tokens(&mut self, tokens: &[u32]) -> Result<()> {
        let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
        self.tokens.try_set(ids)?;
        self.graph.set_dim(NEW_TOKENS, tokens.len());
        self.graph.set_dim(PAST_TOKENS, self.position);
        Ok(())
    }

    /// The model's parameters, which can be given other data.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The number of logits of a position.
    pub fn vocab_size(&self) -> usize {
        self.config.vocab_size()
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The tokens that end a text.
    pub fn eos(&self) -> &[u32] {
        self.config.eos_token_ids()
    }

    /// The token that starts a text.
    pub fn bos(&self) -> Option<u32> {
        self.config.bos_token_id()
    }

    /// The number of tokens fed since the start or the last reset.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The most tokens that can be fed without a reset.
    pub fn capacity(&self) -> usize {
        self.cache.capacity
    }

    /// The format that the caches keep keys and values in.
    pub fn cache_type(&self) -> CacheType {
        self.cache.ty
    }

    /// Bytes of the caches of all layers, filled or not.
    pub fn cache_bytes(&self) -> usize {
        let heads = self.config.num_hidden_layers() * self.config.num_key_value_heads();
        let rows = 2 * heads * self.cache.capacity;
        rows * self.cache.ty.row_bytes(self.config.head_dim())
    }

    /// Forgets all tokens.
    pub fn reset(&mut self) {
        self.position = 0;
    }

    /// Forgets all tokens but the first `position`: the next ones are fed after those.
    ///
    /// # Errors
    /// If fewer were fed.
    pub fn rewind(&mut self, position: usize) -> Result<()> {
        let fed = self.position;
        if position > fed {
            return Err(Error::msg(format!(
                "cannot go back to token {position}: {fed} were fed"
            )));
        }
        // What the caches hold from here on is written over before it is read.
        self.position = position;
        Ok(())
    }

    /// Feeds tokens after those fed before, and gives logits `[rows, vocabulary]`: one row for each token with
    /// [`Rows::All`], the last token's with [`Rows::Last`].
    ///
    /// # Errors
    /// If there is no token, one is not in the vocabulary, or there are more than fit the context. The session is then
    /// as it was before.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        self.check_tokens(tokens)?;
        self.set_tokens(tokens)?;
        self.graph.try_execute()?;
        self.logits.try_data_into(&mut self.out)?;
        self.position += tokens.len();
        Ok(&self.out)
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::msg("no tokens to feed"));
        }
        let vocab = self.vocab_size();
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab) {
            return Err(Error::msg(format!(
                "token {token} is not in the vocabulary of {vocab}"
            )));
        }
        let (needed, capacity) = (self.position + tokens.len(), self.capacity());
        if needed > capacity {
            return Err(Error::msg(format!(
                "{needed} tokens do not fit the context of {capacity}"
            )));
        }
        Ok(())
    }

    /// What loading did.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// What the last feed did.
    pub fn stats(&self) -> Stats {
        self.graph.stats()
    }

    /// Begins or ends to time every step of a feed; see [`Graph::set_profiling`].
    pub fn set_profiling(&mut self, on: bool) {
        self.graph.set_profiling(on);
    }

    /// What was timed since the last call, if anything is.
    pub fn profile(&mut self) -> Option<Profile> {
        self.graph.profile()
    }

    /// The model's graph, to look at.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
}

/// A graph that runs on as many threads as the options say.
pub(crate) fn new_graph(options: &Options) -> Result<Graph> {
    let mut graph = Graph::new();
    match options.threads {
        Some(0) => return Err(Error::msg("at least one thread is needed")),
        Some(n) => graph.set_threads(n),
        None => {}
    }
    Ok(graph)
}

fn capacity_of(config: &ModelConfig, options: &Options) -> Result<usize> {
    let limit = config.max_position_embeddings();
    match options.context {
        None => Ok(limit.min(DEFAULT_CONTEXT)),
        Some(0) => Err(Error::msg("a context of 0 tokens holds nothing")),
        Some(n) if n > limit => Err(Error::msg(format!(
            "a context of {n} tokens is more than the model's limit of {limit}"
        ))),
        Some(n) => Ok(n),
    }
}
