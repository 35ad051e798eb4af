//! The arguments of a call, as a mapping reads them.
//!
//! What a mapping does not expect (a tensor where a number should be, an argument that is missing) is
//! [`unsupported`], not a failure. Which arguments were read is noted, so that a case that differs because of one that
//! its mapping does not know can say so.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Index;

use brain_blitz::hl_ops::Term;
use brain_blitz::prelude::*;

use crate::outcome::unsupported;

/// An argument of a call.
#[derive(Clone, Debug)]
pub enum Arg {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Tensor(GraphTensor),
    List(Vec<Arg>),
    Slice([Option<i64>; 3]),
    Ellipsis,
    Format(DType),
}

/// Positional arguments.
pub struct Args {
    list: Vec<Arg>,
    /// How many are known to be read, from the first on.
    read: Cell<usize>,
}

impl Args {
    pub fn new(list: Vec<Arg>) -> Args {
        let read = Cell::new(0);
        Args { list, read }
    }

    pub fn get(&self, i: usize) -> Option<&Arg> {
        self.read.set(self.read.get().max(i.saturating_add(1)));
        self.list.get(i)
    }

    pub fn first(&self) -> Option<&Arg> {
        self.get(0)
    }

    pub fn as_slice(&self) -> &[Arg] {
        self.read.set(self.list.len());
        &self.list
    }
}

impl Index<usize> for Args {
    type Output = Arg;

    fn index(&self, i: usize) -> &Arg {
        let arg = self.get(i);
        arg.unwrap_or_else(|| unsupported(format!("positional argument {i} is missing")))
    }
}

/// Arguments by name.
pub struct Kwargs {
    map: BTreeMap<String, Arg>,
    read: RefCell<BTreeSet<String>>,
}

impl Kwargs {
    pub fn new(map: BTreeMap<String, Arg>) -> Kwargs {
        let read = RefCell::default();
        Kwargs { map, read }
    }

    pub fn get(&self, name: &str) -> Option<&Arg> {
        let arg = self.map.get(name)?;
        self.read.borrow_mut().insert(name.to_string());
        Some(arg)
    }

    /// Whatever argument there is.
    pub fn any(&self) -> Option<&Arg> {
        let name = self.map.keys().next()?;
        self.get(name)
    }
}

/// The arguments of a case as values of a graph.
pub struct Call<'a> {
    pub cx: &'a mut Graph,
    pub input: Arg,
    pub args: Args,
    pub kwargs: Kwargs,
    /// The tensors whose gradients were asked for, in order of appearance.
    #[allow(
        dead_code,
        reason = "not every test that includes this one looks at gradients"
    )]
    pub wanted: Vec<GraphTensor>,
}

impl Arg {
    pub fn tensor(&self) -> GraphTensor {
        match self {
            Arg::Tensor(tensor) => *tensor,
            other => unsupported(format!("{other:?} where a tensor is expected")),
        }
    }

    /// An integer. One that torch takes as a tensor is part of the graph here, and read from the case.
    pub fn int(&self) -> i64 {
        match self {
            Arg::Int(i) => *i,
            Arg::Bool(b) => i64::from(*b),
            Arg::Tensor(tensor) if tensor.rank() == 0 && tensor.dtype() == DType::I32 => {
                self.ints()[0]
            }
            other => unsupported(format!("{other:?} where an integer is expected")),
        }
    }

    pub fn float(&self) -> f64 {
        match self {
            Arg::Float(x) => *x,
            other => other.int() as f64,
        }
    }

    pub fn bool(&self) -> bool {
        match self {
            Arg::Bool(b) => *b,
            other => unsupported(format!("{other:?} where a boolean is expected")),
        }
    }

    pub fn str(&self) -> &str {
        match self {
            Arg::Str(text) => text,
            other => unsupported(format!("{other:?} where a text is expected")),
        }
    }

    pub fn list(&self) -> &[Arg] {
        match self {
            Arg::List(list) => list,
            other => unsupported(format!("{other:?} where a list is expected")),
        }
    }

    /// An integer, or a list of them.
    pub fn ints(&self) -> Vec<i64> {
        match self {
            Arg::List(list) => list.iter().map(Arg::int).collect(),
            Arg::Tensor(tensor) if tensor.dtype() == DType::I32 => {
                let numbers = tensor.array().to_i32();
                numbers.into_iter().map(i64::from).collect()
            }
            one => vec![one.int()],
        }
    }

    /// A list of tensors.
    pub fn tensors(&self) -> Vec<GraphTensor> {
        self.list().iter().map(Arg::tensor).collect()
    }

    /// A tensor or a number.
    pub fn term(&self) -> Term {
        match self {
            Arg::Tensor(tensor) => Term::Tensor(*tensor),
            number => Term::Number(number.float()),
        }
    }
}

impl Call<'_> {
    /// The input tensor.
    pub fn x(&self) -> GraphTensor {
        self.input.tensor()
    }

    /// Positional argument `i`, or the keyword `name`; `None` if it is neither given nor other than null.
    pub fn get(&self, i: usize, name: &str) -> Option<&Arg> {
        let place = (i != usize::MAX).then(|| self.args.get(i)).flatten();
        let arg = place.or_else(|| self.kwargs.get(name));
        arg.filter(|arg| !matches!(arg, Arg::None))
    }

    /// Keyword `name`.
    pub fn kw(&self, name: &str) -> Option<&Arg> {
        self.get(usize::MAX, name)
    }

    /// Positional argument `i` as a tensor.
    pub fn t(&self, i: usize) -> GraphTensor {
        self.args[i].tensor()
    }

    /// Positional argument `i` as a tensor or number.
    pub fn term(&self, i: usize) -> Term {
        self.args[i].term()
    }

    pub fn int(&self, i: usize, name: &str, default: i64) -> i64 {
        self.get(i, name).map_or(default, Arg::int)
    }

    pub fn float(&self, i: usize, name: &str, default: f64) -> f64 {
        self.get(i, name).map_or(default, Arg::float)
    }

    pub fn bool(&self, i: usize, name: &str, default: bool) -> bool {
        self.get(i, name).map_or(default, Arg::bool)
    }

    pub fn ints(&self, i: usize, name: &str) -> Option<Vec<i64>> {
        self.get(i, name).map(Arg::ints)
    }

    /// The tensor at `i` or of this name, if there is one.
    pub fn tensor(&self, i: usize, name: &str) -> Option<GraphTensor> {
        self.get(i, name).map(Arg::tensor)
    }

    /// The number format asked for, `F32` by default.
    pub fn dtype(&self) -> DType {
        match self.kw("dtype") {
            Some(Arg::Format(dtype)) => *dtype,
            _ => DType::F32,
        }
    }

    /// The arguments that were given, are not null, and that nobody read.
    pub fn unread(&self) -> Vec<String> {
        let is_given = |arg: &&Arg| !matches!(arg, Arg::None);
        let places = self.args.list.iter().enumerate().skip(self.args.read.get());
        let places = places.filter(|(_, arg)| is_given(arg));
        let read = self.kwargs.read.borrow();
        let names = self.kwargs.map.iter();
        let names = names.filter(|(name, arg)| is_given(arg) && !read.contains(*name));
        let places = places.map(|(i, _)| format!("argument {i}"));
        places.chain(names.map(|(name, _)| name.clone())).collect()
    }
}
