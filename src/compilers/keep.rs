//! What `compile` accepts as the values that must survive.

use crate::graph::{GraphTensor, Shape, ValueId};
use crate::nn::Parameters;

/// Handles, in any usual container.
pub trait Keep {
    /// Appends (graph, value) of every handle.
    fn collect(&self, out: &mut Vec<(u32, ValueId)>);
}

impl Keep for () {
    fn collect(&self, _: &mut Vec<(u32, ValueId)>) {}
}

impl<S: Shape> Keep for GraphTensor<S> {
    fn collect(&self, out: &mut Vec<(u32, ValueId)>) {
        out.push((self.graph, self.value));
    }
}

impl Keep for Parameters {
    fn collect(&self, out: &mut Vec<(u32, ValueId)>) {
        self.iter().for_each(|(_, tensor)| tensor.collect(out));
    }
}

impl<K: Keep + ?Sized> Keep for &K {
    fn collect(&self, out: &mut Vec<(u32, ValueId)>) {
        (**self).collect(out);
    }
}

impl<K: Keep + ?Sized> Keep for &mut K {
    fn collect(&self, out: &mut Vec<(u32, ValueId)>) {
        (**self).collect(out);
    }
}

impl<K: Keep> Keep for [K] {
    fn collect(&self, out: &mut Vec<(u32, ValueId)>) {
        self.iter().for_each(|keep| keep.collect(out));
    }
}

impl<K: Keep> Keep for Vec<K> {
    fn collect(&self, out: &mut Vec<(u32, ValueId)>) {
        self.as_slice().collect(out);
    }
}

impl<K: Keep, const N: usize> Keep for [K; N] {
    fn collect(&self, out: &mut Vec<(u32, ValueId)>) {
        self.as_slice().collect(out);
    }
}

impl<K: Keep> Keep for Option<K> {
    fn collect(&self, out: &mut Vec<(u32, ValueId)>) {
        self.iter().for_each(|keep| keep.collect(out));
    }
}

macro_rules! tuple_keep {
    ($($name:ident . $index:tt),+) => {
        impl<$($name: Keep),+> Keep for ($($name,)+) {
            fn collect(&self, out: &mut Vec<(u32, ValueId)>) {
                $(self.$index.collect(out);)+
            }
        }
    };
}

tuple_keep!(A.0);
tuple_keep!(A.0, B.1);
tuple_keep!(A.0, B.1, C.2);
tuple_keep!(A.0, B.1, C.2, D.3);
tuple_keep!(A.0, B.1, C.2, D.3, E.4);
tuple_keep!(A.0, B.1, C.2, D.3, E.4, F.5);
tuple_keep!(A.0, B.1, C.2, D.3, E.4, F.5, G.6);
tuple_keep!(A.0, B.1, C.2, D.3, E.4, F.5, G.6, H.7);
