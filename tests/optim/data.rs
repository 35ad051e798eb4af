//! `tests/data/torch/optim.*`, and training graphs whose gradients are data.

use std::sync::LazyLock;

use brain_blitz::array::Array;
use brain_blitz::prelude::*;
use brain_blitz::train::optim::States;
use safetensors::SafeTensors;
use serde_json::Value;

/// What finishes a recorded graph.
pub type Finish = fn(&mut Graph);

/// All ways to run a graph.
pub const PIPELINES: &[(&str, Finish)] = &[
    ("reference", |_| {}),
    ("generic", |cx| drop(cx.compile(Generic, ()))),
    #[cfg(feature = "llvm-backend")]
    ("native", |cx| {
        drop(cx.compile((Generic, LlvmCpu::native()), ()))
    }),
    #[cfg(feature = "llvm-backend")]
    ("x86-64-v3", |cx| {
        drop(cx.compile((Generic, LlvmCpu::for_cpu("x86-64-v3")), ()))
    }),
];

pub const N_STEPS: usize = 10;
pub const RTOL: f64 = 1e-5;

fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/torch/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

static TENSORS: LazyLock<Vec<u8>> = LazyLock::new(|| file("optim.safetensors"));

/// The sizes and numbers of a tensor of the file.
pub fn tensor(name: &str) -> (Vec<usize>, Vec<f64>) {
    let all = SafeTensors::deserialize(&TENSORS).expect("a safetensors file");
    let view = all.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    let bytes = view.data();
    let numbers = match view.dtype() {
        safetensors::Dtype::F64 => bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| f64::from_le_bytes(*b))
            .collect(),
        _ => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f64::from(f32::from_le_bytes(*b)))
            .collect(),
    };
    (view.shape().to_vec(), numbers)
}

/// Names of the file's tensors that begin so.
pub fn names(prefix: &str) -> Vec<String> {
    let all = SafeTensors::deserialize(&TENSORS).expect("a safetensors file");
    let names = all.names().into_iter();
    names
        .filter(|name| name.starts_with(prefix))
        .map(|name| name.to_string())
        .collect()
}

/// The cases of the file.
pub fn cases() -> Vec<Value> {
    let text = file("optim.json");
    let mut json: Value = serde_json::from_slice(&text).expect("JSON");
    match json["cases"].take() {
        Value::Array(cases) => cases,
        other => panic!("no list of cases: {other}"),
    }
}

fn floats(numbers: &[f64]) -> Vec<f32> {
    numbers.iter().map(|&x| x as f32).collect()
}

/// Parameters with their first values, and inputs for their gradients.
pub struct Problem {
    pub cx: Graph,
    pub names: Vec<String>,
    pub params: Vec<GraphTensor>,
    pub grads: Vec<GraphTensor>,
    data: Vec<Vec<f64>>,
}

impl Problem {
    pub fn new(names: &[&str]) -> Problem {
        let mut cx = Graph::new();
        let (mut params, mut grads, mut data) = (Vec::new(), Vec::new(), Vec::new());
        for name in names {
            let (dims, first) = tensor(&format!("initial.{name}"));
            params.push(cx.input(dims.clone(), DType::F32).set(floats(&first)));
            grads.push(cx.input(dims, DType::F32));
            data.push(tensor(&format!("grads.{name}")).1);
        }
        Problem {
            names: names.iter().map(|name| name.to_string()).collect(),
            cx,
            params,
            grads,
            data,
        }
    }

    /// The parameters with their names.
    pub fn named(&self) -> Vec<(&str, GraphTensor)> {
        let names = self.names.iter().map(String::as_str);
        names.zip(self.params.iter().copied()).collect()
    }

    /// Sets the gradients of step `i` and executes.
    pub fn run(&mut self, i: usize) {
        for (grad, data) in self.grads.iter().zip(&self.data) {
            let n = data.len() / N_STEPS;
            grad.set(floats(&data[i * n..(i + 1) * n]));
        }
        self.cx.execute();
    }

    /// Runs all steps; after each, the parameters have to be those of torch.
    pub fn check(&mut self, id: &str, pipeline: &str) {
        for i in 0..N_STEPS {
            self.run(i);
            for (name, param) in self.names.iter().zip(&self.params) {
                let what = format!("{id} on {pipeline}, step {i}, {name}");
                check_row(&what, &param.array(), &tensor(&format!("{id}.{name}")).1, i);
            }
        }
    }
}

/// Compares with row `i` of a tensor that has one for each step.
pub fn check_row(what: &str, found: &Array, wanted: &[f64], i: usize) {
    let n = wanted.len() / N_STEPS;
    check(what, found, &wanted[i * n..(i + 1) * n]);
}

/// Compares every number; the few near 0 are sums of larger ones.
pub fn check(what: &str, found: &Array, wanted: &[f64]) {
    let found = found.to_f64();
    assert_eq!(found.len(), wanted.len(), "{what}");
    let size = wanted.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    for (a, b) in found.iter().zip(wanted) {
        let close = (a - b).abs() <= RTOL * b.abs().max(0.01 * size);
        assert!(close, "{what}: {a} instead of {b}");
    }
}

/// Compares the states of the last step with torch's, by name: all that torch has.
pub fn check_states(id: &str, states: &States) {
    for (name, state) in states.iter().filter(|(name, _)| *name != "step") {
        check(
            &format!("{id}, state {name}"),
            &state.array(),
            &tensor(&format!("{id}.{name}")).1,
        );
    }
    let n_torch = names(&format!("{id}."))
        .iter()
        .filter(|name| name.matches('.').count() == 2)
        .count();
    assert_eq!(states.iter().len(), n_torch + 1, "{id}: number of states");
}
