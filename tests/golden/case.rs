//! Reads the cases: JSON for what is called with which arguments, safetensors for the numbers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use brain_blitz::array::{Array, Data};
use brain_blitz::prelude::*;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::call::{Arg, Args, Call, Kwargs};
use crate::outcome::unsupported;

/// The numbers of a file, or why this framework cannot hold them.
type Tensors = BTreeMap<String, Result<Array, String>>;

/// One case as it stands in the file.
#[derive(Deserialize)]
pub struct Case {
    pub id: String,
    pub op: String,
    #[serde(default)]
    pub family: String,
    /// The absolute tolerance, when the case has its own.
    #[serde(default)]
    pub atol: Option<f64>,
    input: Value,
    #[serde(default)]
    args: Vec<Value>,
    #[serde(default, deserialize_with = "in_order")]
    kwargs: Vec<(String, Value)>,
    out: Value,
    /// One entry for each input whose gradient was asked for, in order of appearance.
    #[serde(default)]
    #[allow(
        dead_code,
        reason = "not every test that includes this one looks at gradients"
    )]
    grads: Value,
    #[serde(skip)]
    tensors: Arc<Tensors>,
}

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

/// A JSON object with its keys in the file's order, in which gradients are listed.
fn in_order<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, Value)>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, Value)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    from.deserialize_map(Pairs)
}

/// The cases of `dir/name.json`, with the numbers of `dir/name.safetensors`.
///
/// # Panics
/// If a file is missing or broken.
pub fn read_cases(dir: &Path, name: &str) -> Vec<Case> {
    let path = |ending: &str| dir.join(format!("{name}.{ending}"));
    let read = |ending: &str| {
        let path = path(ending);
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let file: File = serde_json::from_slice(&read("json")).unwrap();
    let bytes = read("safetensors");
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = stored.tensors().into_iter();
    let tensors: Tensors = tensors
        .map(|(key, view)| (key, read_array(&view)))
        .collect();
    let tensors = Arc::new(tensors);
    let mut cases = file.cases;
    for case in &mut cases {
        case.tensors = tensors.clone();
    }
    cases
}

/// 64-bit integers are read as `I32`, the only integers here.
fn read_array(view: &safetensors::tensor::TensorView<'_>) -> Result<Array, String> {
    let bytes = view.data();
    let dims = view.shape().to_vec();
    Ok(match view.dtype() {
        Dtype::F32 => Array::from_bytes(dims, DType::F32, bytes),
        Dtype::F64 => Array::from_bytes(dims, DType::F64, bytes),
        Dtype::I32 => Array::from_bytes(dims, DType::I32, bytes),
        Dtype::BOOL => Array::from_bytes(dims, DType::Bool, bytes),
        Dtype::I64 => {
            let wide = bytes
                .chunks_exact(8)
                .map(|b| i64::from_le_bytes(b.try_into().unwrap()));
            let narrow: Result<Vec<i32>, _> = wide.map(i32::try_from).collect();
            let narrow = narrow.map_err(|_| "numbers that need 64-bit integers".to_string())?;
            Array::new(dims, Data::I32(narrow))
        }
        other => return Err(format!("tensors of {other:?}")),
    })
}

impl Case {
    /// Puts the case's tensors into the graph as inputs.
    pub fn call<'a>(&self, cx: &'a mut Graph) -> Call<'a> {
        let mut wanted = Vec::new();
        let input = self.arg(cx, &self.input, &mut wanted);
        let mut args = Vec::new();
        for arg in &self.args {
            args.push(self.arg(cx, arg, &mut wanted));
        }
        let mut kwargs = BTreeMap::new();
        for (key, arg) in &self.kwargs {
            kwargs.insert(key.clone(), self.arg(cx, arg, &mut wanted));
        }
        Call {
            cx,
            input,
            args: Args::new(args),
            kwargs: Kwargs::new(kwargs),
            wanted,
        }
    }

    /// The numbers that this stands for, if it is a tensor.
    fn stored(&self, json: &Value) -> Option<&Array> {
        let key = json.get("tensor")?.as_str().unwrap();
        let stored = self.tensors.get(key);
        let stored = stored.unwrap_or_else(|| panic!("{}: there is no tensor {key}", self.id));
        match stored {
            Ok(array) => Some(array),
            Err(why) => unsupported(why.clone()),
        }
    }

    /// The expected results, in order.
    pub fn expected(&self) -> Vec<&Array> {
        let array = |json: &Value| {
            let stored = self.stored(json);
            stored.unwrap_or_else(|| unsupported(format!("a result that is no tensor: {json}")))
        };
        self.results().iter().map(array).collect()
    }

    fn results(&self) -> &[Value] {
        match &self.out {
            Value::Array(list) => list,
            one => std::slice::from_ref(one),
        }
    }

    /// Which results gradients were taken of.
    #[allow(
        dead_code,
        reason = "not every test that includes this one looks at gradients"
    )]
    pub fn differentiable(&self) -> Vec<bool> {
        let is_marked = |json: &Value| json["grad"] == Value::Bool(true);
        self.results().iter().map(is_marked).collect()
    }

    /// Whether there are gradients to compare with.
    #[allow(
        dead_code,
        reason = "not every test that includes this one looks at gradients"
    )]
    pub fn has_gradients(&self) -> bool {
        self.grads.is_array()
    }

    /// The expected gradients, in order of the inputs that want one; `None` where torch gives none.
    #[allow(
        dead_code,
        reason = "not every test that includes this one looks at gradients"
    )]
    pub fn expected_gradients(&self) -> Vec<Option<&Array>> {
        let list = self.grads.as_array().into_iter().flatten();
        list.map(|grad| self.stored(grad)).collect()
    }

    fn arg(&self, cx: &mut Graph, json: &Value, wanted: &mut Vec<GraphTensor>) -> Arg {
        match json {
            Value::Null => Arg::None,
            Value::Bool(b) => Arg::Bool(*b),
            Value::Number(n) => n
                .as_i64()
                .map_or_else(|| Arg::Float(n.as_f64().unwrap()), Arg::Int),
            Value::String(s) => Arg::Str(s.clone()),
            Value::Array(list) => {
                let mut args = Vec::new();
                for arg in list {
                    args.push(self.arg(cx, arg, wanted));
                }
                Arg::List(args)
            }
            Value::Object(map) => {
                if let Some(array) = self.stored(json) {
                    let input = cx.input(array.dims(), array.dtype()).set(array.clone());
                    if json["grad"] == Value::Bool(true) {
                        wanted.push(input);
                    }
                    return Arg::Tensor(input);
                }
                let (kind, value) = map.iter().next().unwrap();
                match kind.as_str() {
                    "float" => Arg::Float(value.as_str().unwrap().parse().unwrap()),
                    "slice" => Arg::Slice([0, 1, 2].map(|i| value[i].as_i64())),
                    "ellipsis" => Arg::Ellipsis,
                    "dtype" => Arg::Format(read_format(value.as_str().unwrap())),
                    other => unsupported(format!("an argument of kind {other}")),
                }
            }
        }
    }
}

fn read_format(name: &str) -> DType {
    match name {
        "I64" => DType::I32,
        "BOOL" => DType::Bool,
        _ => {
            let format = name.to_lowercase().parse();
            format.unwrap_or_else(|_| unsupported(format!("the format {name}")))
        }
    }
}
