//! Reads the cases: JSON for what is called with which arguments, safetensors for the numbers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use brain_blitz::array::{Array, Data};
use brain_blitz::hl_ops::Term;
use brain_blitz::prelude::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// One case as it stands in the file.
pub struct Case {
    pub id: String,
    pub op: String,
    pub family: String,
    /// The absolute tolerance, when the case has its own.
    pub atol: Option<f64>,
    pub input: Value,
    pub args: Value,
    pub kwargs: Value,
    pub out: Value,
    file: usize,
}

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

/// The arguments of a case as values of a graph.
pub struct Call<'a> {
    pub cx: &'a mut Graph,
    pub input: Arg,
    pub args: Vec<Arg>,
    pub kwargs: BTreeMap<String, Arg>,
}

struct Files {
    cases: Vec<Case>,
    tensors: Vec<BTreeMap<String, Array>>,
}

/// All cases of `ops` and `edge`.
pub fn cases() -> &'static [Case] {
    &files().cases
}

fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch");
        let (mut cases, mut tensors) = (Vec::new(), Vec::new());
        for (file, name) in ["ops", "edge"].into_iter().enumerate() {
            let text = fs::read_to_string(dir.join(format!("{name}.json"))).unwrap();
            let json: Value = serde_json::from_str(&text).unwrap();
            let list = json["cases"].as_array().unwrap();
            cases.extend(list.iter().map(|case| read_case(case, file)));
            let bytes = fs::read(dir.join(format!("{name}.safetensors"))).unwrap();
            let stored = SafeTensors::deserialize(&bytes).unwrap();
            let read = |(key, view): (String, _)| (key, read_array(&view));
            tensors.push(stored.tensors().into_iter().map(read).collect());
        }
        Files { cases, tensors }
    })
}

fn read_case(json: &Value, file: usize) -> Case {
    let text = |field: &str| json[field].as_str().unwrap().to_string();
    Case {
        id: text("id"),
        op: text("op"),
        family: text("family"),
        atol: json.get("atol").and_then(Value::as_f64),
        input: json["input"].clone(),
        args: json["args"].clone(),
        kwargs: json["kwargs"].clone(),
        out: json["out"].clone(),
        file,
    }
}

/// 64-bit integers are read as `I32`, the only integers here.
///
/// # Panics
/// If one does not fit.
fn read_array(view: &safetensors::tensor::TensorView<'_>) -> Array {
    let bytes = view.data();
    let dims = view.shape().to_vec();
    match view.dtype() {
        Dtype::F32 => Array::from_bytes(dims, DType::F32, bytes),
        Dtype::I32 => Array::from_bytes(dims, DType::I32, bytes),
        Dtype::BOOL => Array::from_bytes(dims, DType::Bool, bytes),
        Dtype::I64 => {
            let wide = bytes
                .chunks_exact(8)
                .map(|b| i64::from_le_bytes(b.try_into().unwrap()));
            // What does not fit is clipped here; cases with such numbers are excluded by name.
            let narrow = wide.map(|x| x.clamp(i32::MIN.into(), i32::MAX.into()) as i32);
            Array::new(dims, Data::I32(narrow.collect()))
        }
        other => panic!("golden tensors of {other:?}"),
    }
}

impl Case {
    /// Puts the case's tensors into the graph as inputs.
    pub fn call<'a>(&self, cx: &'a mut Graph) -> Call<'a> {
        let input = self.arg(cx, &self.input);
        let list = self.args.as_array().unwrap();
        let args = list.iter().map(|arg| self.arg(cx, arg)).collect();
        let map = self.kwargs.as_object().unwrap();
        let pairs = map
            .iter()
            .map(|(key, arg)| (key.clone(), self.arg(cx, arg)));
        let kwargs = pairs.collect();
        Call {
            cx,
            input,
            args,
            kwargs,
        }
    }

    /// The numbers that this stands for, if it is a tensor.
    fn stored(&self, json: &Value) -> Option<&'static Array> {
        let key = json.get("tensor")?.as_str().unwrap();
        Some(&files().tensors[self.file][key])
    }

    /// The expected results, in order.
    pub fn expected(&self) -> Vec<&'static Array> {
        match &self.out {
            Value::Array(list) => list.iter().map(|out| self.stored(out).unwrap()).collect(),
            out => vec![self.stored(out).unwrap()],
        }
    }

    fn arg(&self, cx: &mut Graph, json: &Value) -> Arg {
        match json {
            Value::Null => Arg::None,
            Value::Bool(b) => Arg::Bool(*b),
            Value::Number(n) => n
                .as_i64()
                .map_or_else(|| Arg::Float(n.as_f64().unwrap()), Arg::Int),
            Value::String(s) => Arg::Str(s.clone()),
            Value::Array(list) => Arg::List(list.iter().map(|arg| self.arg(cx, arg)).collect()),
            Value::Object(map) => {
                if let Some(array) = self.stored(json) {
                    let input = cx.input(array.dims(), array.dtype());
                    return Arg::Tensor(input.set(array.clone()));
                }
                let (kind, value) = map.iter().next().unwrap();
                match kind.as_str() {
                    "float" => Arg::Float(value.as_str().unwrap().parse().unwrap()),
                    "slice" => Arg::Slice([0, 1, 2].map(|i| value[i].as_i64())),
                    "ellipsis" => Arg::Ellipsis,
                    "dtype" => Arg::Format(read_format(value.as_str().unwrap())),
                    other => panic!("{}: an argument of kind {other}", self.id),
                }
            }
        }
    }
}

fn read_format(name: &str) -> DType {
    match name {
        "I64" => DType::I32,
        "BOOL" => DType::Bool,
        _ => name.to_lowercase().parse().unwrap(),
    }
}

impl Arg {
    pub fn tensor(&self) -> GraphTensor {
        match self {
            Arg::Tensor(tensor) => *tensor,
            other => panic!("{other:?} is no tensor"),
        }
    }

    pub fn int(&self) -> i64 {
        match self {
            Arg::Int(i) => *i,
            Arg::Bool(b) => i64::from(*b),
            other => panic!("{other:?} is no integer"),
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
            other => panic!("{other:?} is no boolean"),
        }
    }

    pub fn list(&self) -> &[Arg] {
        match self {
            Arg::List(list) => list,
            other => panic!("{other:?} is no list"),
        }
    }

    /// An integer, or a list of them.
    pub fn ints(&self) -> Vec<i64> {
        match self {
            Arg::List(list) => list.iter().map(Arg::int).collect(),
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
        let arg = self.args.get(i).or_else(|| self.kwargs.get(name));
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

    /// The number format asked for, `F32` by default.
    pub fn dtype(&self) -> DType {
        match self.kw("dtype") {
            Some(Arg::Format(dtype)) => *dtype,
            _ => DType::F32,
        }
    }
}
