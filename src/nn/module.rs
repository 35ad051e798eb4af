//! Parameters by dotted name.
//!
//! A [`Module`] says which parameters it has and how they are called; a module inside another has that one's name in
//! front: `model.layers.0.mlp.up_proj.weight`. The order is that of the `visit` methods, the same in every run.

use super::init::Init;
use crate::error::{Error, Result};
use crate::graph::{GraphTensor, IntoData};

/// Something with parameters.
pub trait Module {
    /// Names every parameter once, with the rule for its first values.
    fn visit(&self, visitor: &mut Visitor<'_>);

    /// All parameters with their names.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{Linear, Module};
    /// let mut cx = Graph::new();
    /// let layer = Linear::new(&mut cx, 3, 2, true);
    /// let names: Vec<_> = layer.parameters().iter().map(|(name, _)| name.to_string()).collect();
    /// assert_eq!(names, ["weight", "bias"]);
    /// ```
    fn parameters(&self) -> Parameters {
        collected(self, Kind::Parameter)
    }

    /// What the module carries from one execution to the next beside its parameters, by name: running statistics. It is
    /// not trained.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{BatchNorm, Module};
    /// let mut cx = Graph::new();
    /// let state = BatchNorm::new(&mut cx, 3).state();
    /// let names: Vec<_> = state.iter().map(|(name, _)| name.to_string()).collect();
    /// assert_eq!(names, ["running_mean", "running_var"]);
    /// ```
    fn state(&self) -> Parameters {
        collected(self, Kind::State)
    }

    /// Gives every parameter, and the state, their first values.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{Linear, Module};
    /// let mut cx = Graph::new();
    /// let layer = Linear::new(&mut cx, 4, 2, false);
    /// layer.init(7);
    /// assert!(layer.weight.data().iter().all(|w| w.abs() <= 0.5 && *w != 0.0));
    /// ```
    ///
    /// # Panics
    /// If a parameter's size is symbolic.
    #[track_caller]
    fn init(&self, seed: u64) {
        self.parameters().init(seed);
        self.state().init(seed);
    }
}

/// What a module names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is trained.
    Parameter,
    /// The graph assigns to it.
    State,
}

/// All that a module names of one kind.
fn collected(module: &(impl Module + ?Sized), wanted: Kind) -> Parameters {
    let mut entries = Vec::new();
    module.visit(&mut Visitor {
        path: String::new(),
        found: &mut |kind, name, tensor, init| {
            if kind == wanted {
                entries.push(Parameter {
                    name: name.to_string(),
                    tensor,
                    init,
                });
            }
        },
    });
    Parameters { entries }
}

/// A module that takes a tensor and gives one.
pub trait Layer: Module {
    /// Records the layer's computation on `x`.
    ///
    /// # Panics
    /// At the caller's line, if `x` does not fit.
    #[track_caller]
    fn forward(&self, x: GraphTensor) -> GraphTensor;
}

/// Methods of the same name that take any static shape, as the trait's method.
macro_rules! layers {
    ($($layer:ty),* $(,)?) => {
        $(impl Layer for $layer {
            #[track_caller]
            fn forward(&self, x: GraphTensor) -> GraphTensor {
                <$layer>::forward(self, x)
            }
        })*
    };
}

layers!(
    super::Activation,
    super::AdaptiveAvgPool,
    super::AdaptiveMaxPool,
    super::AvgPool,
    super::BatchNorm,
    super::BinaryConv2d,
    super::BinaryLinear,
    super::Cfc,
    super::Conv1d,
    super::Conv2d,
    super::Conv3d,
    super::ConvTranspose1d,
    super::ConvTranspose2d,
    super::ConvTranspose3d,
    super::Dropout,
    super::Embedding,
    super::GatedMlp,
    super::GroupNorm,
    super::Gru,
    super::InstanceNorm,
    super::LayerNorm,
    super::Linear,
    super::Lstm,
    super::MaxPool,
    super::Mlp,
    super::MultiHeadAttention,
    super::RmsNorm,
    super::Rnn,
    super::TransformerBlock,
    super::TransformerEncoder,
    super::TransformerEncoderLayer,
);

/// Layers of one kind, one after the other: `0.weight`, `1.weight` ...
impl<L: Layer> Layer for Vec<L> {
    #[track_caller]
    fn forward(&self, x: GraphTensor) -> GraphTensor {
        let mut x = x;
        for layer in self {
            x = layer.forward(x);
        }
        x
    }
}

/// Walks modules and remembers where it is.
pub struct Visitor<'a> {
    path: String,
    found: &'a mut dyn FnMut(Kind, &str, GraphTensor, Init),
}

impl Visitor<'_> {
    fn within(&mut self, name: &str, f: impl FnOnce(&mut Self)) {
        let len = self.path.len();
        if len > 0 && !name.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
        f(self);
        self.path.truncate(len);
    }

    /// A parameter of the module that is visited, and how it is initialized.
    pub fn parameter(&mut self, name: &str, tensor: GraphTensor, init: Init) {
        self.within(name, |visitor| {
            (visitor.found)(Kind::Parameter, &visitor.path, tensor, init);
        });
    }

    /// State of the module that is visited, and how it is initialized.
    pub fn state(&mut self, name: &str, tensor: GraphTensor, init: Init) {
        self.within(name, |visitor| {
            (visitor.found)(Kind::State, &visitor.path, tensor, init);
        });
    }

    /// A module inside the one that is visited; an empty name adds nothing to the path.
    pub fn module(&mut self, name: &str, module: &(impl Module + ?Sized)) {
        self.within(name, |visitor| module.visit(visitor));
    }

    /// Modules that are numbered: `name.0`, `name.1` ...
    pub fn modules<'m, M: Module + ?Sized + 'm>(
        &mut self,
        name: &str,
        modules: impl IntoIterator<Item = &'m M>,
    ) {
        self.within(name, |visitor| {
            for (i, module) in modules.into_iter().enumerate() {
                visitor.module(&i.to_string(), module);
            }
        });
    }
}

impl<M: Module> Module for Vec<M> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.modules("", self);
    }
}

impl<M: Module> Module for Option<M> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        if let Some(module) = self {
            module.visit(visitor);
        }
    }
}

#[derive(Clone, Debug)]
struct Parameter {
    name: String,
    tensor: GraphTensor,
    init: Init,
}

/// Parameters with their names, in a fixed order.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    entries: Vec<Parameter>,
}

impl<'a> IntoIterator for &'a Parameters {
    type Item = (&'a str, GraphTensor);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter().collect::<Vec<_>>().into_iter()
    }
}

impl Parameters {
    /// Name and tensor of each parameter.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, GraphTensor)> {
        self.entries
            .iter()
            .map(|entry| (entry.name.as_str(), entry.tensor))
    }

    /// The parameter of this name.
    pub fn get(&self, name: &str) -> Option<GraphTensor> {
        let found = self.entries.iter().find(|entry| entry.name == name);
        found.map(|entry| entry.tensor)
    }

    /// Gives the parameter of this name its data.
    ///
    /// # Errors
    /// If there is no such parameter, or the shape does not fit.
    pub fn try_set(&self, name: &str, data: impl IntoData) -> Result<()> {
        let parameter = self.get(name);
        let missing = || Error::msg(format!("there is no parameter {name:?}"));
        parameter.ok_or_else(missing)?.try_set(data)
    }

    /// Gives every parameter its first values.
    ///
    /// # Panics
    /// If a parameter's size is symbolic.
    #[track_caller]
    pub fn init(&self, seed: u64) {
        for (stream, Parameter { name, tensor, init }) in self.entries.iter().enumerate() {
            let size = |dim: &crate::shape::Expr| {
                let symbolic = || Error::msg(format!("the size of parameter {name:?} is symbolic"));
                dim.as_usize().unwrap_or_else(|| symbolic().raise())
            };
            let dims: Vec<usize> = tensor.dims().iter().map(size).collect();
            tensor.set(init.numbers(&dims, seed, stream as u64));
        }
    }

    /// The number of parameter tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of numbers in all of them; symbolic sizes do not count.
    pub fn n_elements(&self) -> usize {
        let sizes = self.iter().map(|(_, tensor)| tensor.ty().numel());
        sizes.filter_map(|size| size.as_usize()).sum()
    }
}
