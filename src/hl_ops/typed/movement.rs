//! Static shapes of movement.

use crate::graph::{Dyn, GraphTensor, R0, R1, R2, R3, R4, R5, R6, Shape};

/// A shape that is known when rustc runs.
pub trait Static: Shape {
    /// The dimensions, outermost first.
    const DIMS: &'static [usize];
}

macro_rules! static_shapes {
    ($($name:ident<$($dim:ident),*>;)*) => {
        $(impl<$(const $dim: usize),*> Static for $name<$($dim),*> {
            const DIMS: &'static [usize] = &[$($dim),*];
        })*
    };
}

static_shapes! {
    R0<>;
    R1<A>;
    R2<A, B>;
    R3<A, B, C>;
    R4<A, B, C, D>;
    R5<A, B, C, D, E>;
    R6<A, B, C, D, E, F>;
}

const fn numel(dims: &[usize]) -> usize {
    let (mut n, mut axis) = (1, 0);
    while axis < dims.len() {
        n *= dims[axis];
        axis += 1;
    }
    n
}

/// Whether dims broadcast to others: aligned at the right, equal or 1.
const fn broadcasts(from: &[usize], to: &[usize]) -> bool {
    if from.len() > to.len() {
        return false;
    }
    let n_new = to.len() - from.len();
    let mut axis = 0;
    while axis < from.len() {
        if from[axis] != 1 && from[axis] != to[n_new + axis] {
            return false;
        }
        axis += 1;
    }
    true
}

/// Shapes whose last two axes can be exchanged.
#[diagnostic::on_unimplemented(message = "`{Self}` has no two axes to exchange")]
pub trait Transposed: Shape {
    /// The shape with its last two axes exchanged.
    type Output: Shape;
}

/// Shapes whose axes `I` and `J` (`I < J`) can be exchanged.
#[diagnostic::on_unimplemented(message = "`{Self}` has no axes `{I}` and `{J}`, in this order")]
pub trait SwapAxes<const I: usize, const J: usize>: Shape {
    /// The shape with these axes exchanged.
    type Output: Shape;
}

impl Transposed for Dyn {
    type Output = Dyn;
}

impl<const I: usize, const J: usize> SwapAxes<I, J> for Dyn {
    type Output = Dyn;
}

macro_rules! exchanged {
    ($([$($dim:ident),*] $from:ty, last => $to:ty;)*) => {
        $(impl<$(const $dim: usize),*> Transposed for $from {
            type Output = $to;
        })*
    };
    ($([$($dim:ident),*] $from:ty, $i:literal, $j:literal => $to:ty;)*) => {
        $(impl<$(const $dim: usize),*> SwapAxes<$i, $j> for $from {
            type Output = $to;
        })*
    };
}

exchanged! {
    [A, B] R2<A, B>, last => R2<B, A>;
    [A, B, C] R3<A, B, C>, last => R3<A, C, B>;
    [A, B, C, D] R4<A, B, C, D>, last => R4<A, B, D, C>;
    [A, B, C, D, E] R5<A, B, C, D, E>, last => R5<A, B, C, E, D>;
    [A, B, C, D, E, F] R6<A, B, C, D, E, F>, last => R6<A, B, C, D, F, E>;
}

exchanged! {
    [A, B] R2<A, B>, 0, 1 => R2<B, A>;
    [A, B, C] R3<A, B, C>, 0, 1 => R3<B, A, C>;
    [A, B, C] R3<A, B, C>, 0, 2 => R3<C, B, A>;
    [A, B, C] R3<A, B, C>, 1, 2 => R3<A, C, B>;
    [A, B, C, D] R4<A, B, C, D>, 0, 1 => R4<B, A, C, D>;
    [A, B, C, D] R4<A, B, C, D>, 0, 2 => R4<C, B, A, D>;
    [A, B, C, D] R4<A, B, C, D>, 0, 3 => R4<D, B, C, A>;
    [A, B, C, D] R4<A, B, C, D>, 1, 2 => R4<A, C, B, D>;
    [A, B, C, D] R4<A, B, C, D>, 1, 3 => R4<A, D, C, B>;
    [A, B, C, D] R4<A, B, C, D>, 2, 3 => R4<A, B, D, C>;
}

impl<S: Shape> GraphTensor<S> {
    /// The last two axes exchanged.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x: GraphTensor<R2<3, 2>> = cx.tensor::<R2<2, 3>>().t();
    /// assert_eq!(x.ty().to_string(), "f32[3, 2]");
    /// ```
    /// ```compile_fail
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// cx.tensor::<R1<2>>().t();
    /// ```
    ///
    /// # Panics
    /// If there are not two axes.
    #[track_caller]
    pub fn t(self) -> GraphTensor<S::Output>
    where
        S: Transposed,
    {
        self.transpose(-2, -1).retag()
    }

    /// Axes `I` and `J` exchanged.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x: GraphTensor<R3<4, 3, 2>> = cx.tensor::<R3<2, 3, 4>>().swap_axes::<0, 2>();
    /// assert_eq!(x.ty().to_string(), "f32[4, 3, 2]");
    /// ```
    ///
    /// # Panics
    /// If there are no such axes.
    #[track_caller]
    pub fn swap_axes<const I: usize, const J: usize>(self) -> GraphTensor<S::Output>
    where
        S: SwapAxes<I, J>,
    {
        self.transpose(I, J).retag()
    }

    /// The elements in row-major order under another static shape of as many.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 3>>().reshape_to::<R1<6>>();
    /// assert_eq!(x.ty().to_string(), "f32[6]");
    /// ```
    /// ```compile_fail
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// cx.tensor::<R2<2, 3>>().reshape_to::<R1<7>>();
    /// ```
    #[track_caller]
    pub fn reshape_to<T: Static>(self) -> GraphTensor<T>
    where
        S: Static,
    {
        const {
            assert!(
                numel(S::DIMS) == numel(T::DIMS),
                "`reshape_to` another number of elements"
            )
        };
        self.reshape(T::DIMS).retag()
    }

    /// Broadcast to another static shape: aligned at the right, axes of size 1 repeat.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<3, 1>>().expand_to::<R3<2, 3, 4>>();
    /// assert_eq!(x.ty().to_string(), "f32[2, 3, 4]");
    /// ```
    /// ```compile_fail
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// cx.tensor::<R2<3, 2>>().expand_to::<R2<3, 4>>();
    /// ```
    #[track_caller]
    pub fn expand_to<T: Static>(self) -> GraphTensor<T>
    where
        S: Static,
    {
        const {
            assert!(
                broadcasts(S::DIMS, T::DIMS),
                "`expand_to` a shape that this one does not broadcast to"
            )
        };
        self.expand(T::DIMS).retag()
    }
}
