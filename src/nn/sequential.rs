//! Layers of different kinds, one after the other.

use super::module::{Layer, Module, Visitor};
use crate::graph::GraphTensor;

/// A list of layers; each gets the result of the one before. Parameters are called `0.weight`, `0.bias`, `2.weight` ...
/// by the layer's place. A `Vec` of layers of one kind is a layer too.
#[derive(Default)]
pub struct Sequential {
    layers: Vec<Box<dyn Layer + Send + Sync>>,
}

impl Sequential {
    /// No layers: gives its input.
    pub fn new() -> Sequential {
        Sequential::default()
    }

    /// With one more layer at the end.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{Activation, Layer, Linear, Module, Sequential};
    /// let mut cx = Graph::new();
    /// let model = Sequential::new()
    ///     .then(Linear::new(&mut cx, 4, 8, true))
    ///     .then(Activation::Relu)
    ///     .then(Linear::new(&mut cx, 8, 2, false));
    /// let parameters = model.parameters();
    /// let names: Vec<_> = parameters.iter().map(|(name, _)| name).collect();
    /// assert_eq!(names, ["0.weight", "0.bias", "2.weight"]);
    /// model.init(1);
    /// let x = cx.tensor::<R2<3, 4>>().set([[0.5; 4]; 3]);
    /// let y = model.forward(x.dynamic()).typed::<R2<3, 2>>().retrieve();
    /// cx.execute();
    /// assert!(y.data().iter().all(|y| *y != 0.0));
    /// ```
    pub fn then(mut self, layer: impl Layer + Send + Sync + 'static) -> Sequential {
        self.layers.push(Box::new(layer));
        self
    }
}

impl Module for Sequential {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.modules("", self.layers.iter().map(|layer| &**layer as &dyn Module));
    }
}

impl Layer for Sequential {
    #[track_caller]
    fn forward(&self, x: GraphTensor) -> GraphTensor {
        let mut x = x;
        for layer in &self.layers {
            x = layer.forward(x);
        }
        x
    }
}
