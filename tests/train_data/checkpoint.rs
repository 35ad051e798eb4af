//! Checkpoints: what is saved is what is loaded, whatever happens to the process or to the files in between.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use brain_blitz::array::{Array, Data};
use brain_blitz::formats;
use brain_blitz::hl_ops::Conv;
use brain_blitz::nn::{BatchNorm, Conv2d, Linear, Module, Visitor};
use brain_blitz::prelude::*;
use brain_blitz::train::checkpoint::{self, Checkpoint, Store, parameter_arrays, set_parameters};
use brain_blitz::train::data::Position;
use brain_blitz::train::optim::{Adam, Optimizer, States};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use tempfile::tempdir;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Meta {
    rate: f64,
    seed: u64,
    loader: Position,
}

/// A checkpoint in which every number says its step.
fn at(step: u64) -> Checkpoint<Meta> {
    let weight = Array::new(vec![256, 64], Data::F32(vec![step as f32; 256 * 64]));
    let bias = Array::new(vec![], Data::I32(vec![step as i32]));
    let moment = Array::new(vec![3], Data::F64(vec![step as f64 / 3.0; 3]));
    let batch = step as usize;
    Checkpoint {
        step,
        weights: [("w".to_owned(), weight), ("b".to_owned(), bias)].into(),
        state: [("w.moment".to_owned(), moment)].into(),
        meta: Meta {
            rate: 1.0 / (step as f64 + 3.0),
            seed: u64::MAX - step,
            loader: Position {
                epoch: step / 7,
                batch,
            },
        },
    }
}

fn store(folder: &Path, steps: impl IntoIterator<Item = u64>) -> Store {
    let store = Store::new(folder);
    for step in steps {
        store.save(&at(step)).unwrap();
    }
    store
}

fn steps(store: &Store) -> Vec<u64> {
    let entries = store.list().unwrap();
    entries.iter().map(|entry| entry.step).collect()
}

#[test]
fn what_is_saved_is_what_is_loaded() {
    let folder = tempdir().unwrap();
    let store = Store::new(folder.path().join("made/by/it"));
    assert!(store.load_latest::<Meta>().unwrap().is_none());
    let path = store.save(&at(41)).unwrap();
    let loaded = store.load_latest().unwrap().unwrap();
    assert_eq!(loaded.checkpoint, at(41));
    assert_eq!(loaded.folder, path);
    assert_eq!(path.file_name().unwrap(), "000001-step-41");
    // The weights are a model's file.
    let model = formats::Checkpoint::open(&path).unwrap();
    assert_eq!(model.names().collect::<Vec<_>>(), ["b", "w"]);
}

#[test]
fn arrays_of_every_type_and_none_at_all_are_saved() {
    use half::{bf16, f16};
    let folder = tempdir().unwrap();
    let arrays: BTreeMap<String, Array> = [
        ("f32", Data::F32(vec![f32::NAN, -0.0, f32::INFINITY])),
        ("f64", Data::F64(vec![0.1, f64::MIN_POSITIVE, -1.0])),
        (
            "f16",
            Data::F16(vec![f16::from_f32(1.5), f16::MAX, f16::NEG_ZERO]),
        ),
        (
            "bf16",
            Data::BF16(vec![bf16::from_f32(1.5), bf16::MAX, bf16::NEG_ZERO]),
        ),
        ("i32", Data::I32(vec![i32::MIN, 0, i32::MAX])),
        ("bool", Data::Bool(vec![0, 1, 1])),
    ]
    .map(|(name, data)| (name.to_owned(), Array::new(vec![3, 1], data)))
    .into();
    let saved = Checkpoint {
        step: 0,
        weights: arrays.clone(),
        state: BTreeMap::new(),
        meta: (),
    };
    let path = Store::new(folder.path()).save(&saved).unwrap();
    let loaded = checkpoint::load::<()>(&path).unwrap();
    assert!(loaded.state.is_empty());
    assert_eq!(loaded.weights.len(), 6);
    for (name, array) in &arrays {
        assert!(loaded.weights[name].same_bits(array), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn floats_of_the_metadata_keep_their_bits(bits in proptest::collection::vec(any::<u64>(), 100)) {
        let numbers: Vec<f64> = bits.into_iter().map(f64::from_bits).filter(|x| x.is_finite()).collect();
        let folder = tempdir().unwrap();
        let saved = Checkpoint { step: 1, weights: BTreeMap::new(), state: BTreeMap::new(), meta: numbers };
        let path = Store::new(folder.path()).save(&saved).unwrap();
        let loaded = checkpoint::load::<Vec<f64>>(&path).unwrap().meta;
        let bits = |numbers: &[f64]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&loaded), bits(&saved.meta));
    }
}

#[test]
fn metadata_that_json_cannot_hold_are_refused_when_they_are_saved() {
    let folder = tempdir().unwrap();
    let store = store(folder.path(), [1]);
    let mut bad = at(2);
    bad.meta.rate = f64::NAN;
    let error = store.save(&bad).unwrap_err().to_string();
    assert!(error.contains("checkpoint.json: meta: "), "{error}");
    assert_eq!(steps(&store), [1]);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing is left"
    );
}

#[test]
fn the_last_few_are_kept() {
    let folder = tempdir().unwrap();
    let store = store(folder.path(), 1..=4);
    assert_eq!(steps(&store), [1, 2, 3, 4]);
    let store = store.keep(2);
    store.save(&at(5)).unwrap();
    assert_eq!(steps(&store), [4, 5]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn the_latest_is_the_last_that_was_saved_also_after_going_back() {
    let folder = tempdir().unwrap();
    let store = store(folder.path(), [100, 200]).keep(2);
    let first = &store.list().unwrap()[0].folder;
    let mut again = checkpoint::load::<Meta>(first).unwrap();
    again.step = 150;
    store.save(&again).unwrap();
    assert_eq!(steps(&store), [200, 150]);
    assert_eq!(
        store
            .load_latest::<Meta>()
            .unwrap()
            .unwrap()
            .checkpoint
            .step,
        150
    );
    // The same step twice is two checkpoints.
    store.save(&again).unwrap();
    assert_eq!(steps(&store), [150, 150]);
}

#[test]
fn what_a_killed_process_left_is_no_checkpoint_and_goes_with_the_next_save() {
    let folder = tempdir().unwrap();
    let store = store(folder.path(), [1]);
    let left = folder.path().join(".unfinished-000002-step-2");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("model.safetensors"), "half").unwrap();
    fs::write(folder.path().join("notes.txt"), "not ours").unwrap();
    assert_eq!(steps(&store), [1]);
    store.save(&at(2)).unwrap();
    assert!(!left.exists());
    assert!(folder.path().join("notes.txt").exists());
    assert_eq!(steps(&store), [1, 2]);
}

/// Damages a file of the latest of two checkpoints; gives why it was passed over.
fn damaged(file: &str, damage: impl FnOnce(&Path)) -> String {
    let folder = tempdir().unwrap();
    let store = store(folder.path(), [1, 2]);
    let path = store.list().unwrap()[1].folder.join(file);
    damage(&path);
    let loaded = store.load_latest::<Meta>().unwrap().unwrap();
    assert_eq!(loaded.checkpoint, at(1), "the one before it is whole");
    assert_eq!(loaded.skipped.len(), 1);
    let message = loaded.skipped[0].to_string();
    assert!(
        message.starts_with(&path.display().to_string()),
        "{message}"
    );
    message
}

fn flip(at: usize) -> impl FnOnce(&Path) {
    move |path| {
        let mut bytes = fs::read(path).unwrap();
        let at = bytes.len() - 1 - at;
        bytes[at] ^= 4;
        fs::write(path, bytes).unwrap();
    }
}

fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_its_file_named() {
    for file in ["model.safetensors", "state.safetensors"] {
        assert!(damaged(file, flip(5)).contains("SHA-256: is "));
        assert!(damaged(file, cut).contains("file size: has "));
        assert!(damaged(file, |path| fs::remove_file(path).unwrap()).contains("No such file"));
    }
    let manifest = "checkpoint.json";
    assert!(damaged(manifest, cut).contains("json: EOF"));
    assert!(damaged(manifest, |path| fs::remove_file(path).unwrap()).contains("No such file"));
    let replace = |from: &'static str, to: &'static str| {
        move |path: &Path| {
            let text = fs::read_to_string(path).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(path, text.replace(from, to)).unwrap();
        }
    };
    let newer = damaged(manifest, replace("\"version\": 1", "\"version\": 2"));
    assert!(
        newer.ends_with("version: is 2; this program reads 1"),
        "{newer}"
    );
    let other = damaged(manifest, replace("\"seed\"", "\"sead\""));
    assert!(other.contains("missing field `seed`"), "{other}");
    let none = damaged(manifest, replace("state.safetensors", "skate.safetensors"));
    assert!(
        none.ends_with("files.state.safetensors: is missing"),
        "{none}"
    );
}

#[test]
fn without_a_whole_checkpoint_the_latest_ones_error_is_told() {
    let folder = tempdir().unwrap();
    let store = store(folder.path(), [1, 2]);
    for entry in store.list().unwrap() {
        cut(&entry.folder.join("model.safetensors"));
    }
    let error = store.load_latest::<Meta>().unwrap_err().to_string();
    assert!(error.contains("000002-step-2"), "{error}");
}

#[test]
fn a_models_parameters_go_to_arrays_and_back() {
    let mut cx = Graph::new();
    let (a, b) = (
        Linear::new(&mut cx, 3, 2, true),
        Linear::new(&mut cx, 3, 2, true),
    );
    a.init(1);
    b.init(2);
    let arrays = parameter_arrays(&a.parameters()).unwrap();
    assert_eq!(arrays.keys().collect::<Vec<_>>(), ["bias", "weight"]);
    assert_ne!(a.weight.data(), b.weight.data());
    set_parameters(&b.parameters(), &arrays).unwrap();
    assert_eq!(a.weight.data(), b.weight.data());

    let mut fewer = arrays.clone();
    let bias = fewer.remove("bias").unwrap();
    let error = set_parameters(&b.parameters(), &fewer)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "the checkpoint has no \"bias\"");
    let mut more = arrays.clone();
    more.insert("scale".to_owned(), bias);
    let error = set_parameters(&b.parameters(), &more)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "the checkpoint has \"scale\", which the model has not"
    );
}

#[test]
fn two_tensors_of_one_name_are_not_saved_as_one() {
    let mut cx = Graph::new();
    let layer = Linear::new(&mut cx, 3, 2, true);
    layer.init(1);
    let params = layer.parameters();
    let twice = parameter_arrays(params.iter().chain(params.iter()));
    let error = twice.unwrap_err().to_string();
    assert_eq!(error, "two tensors are called \"weight\"");
}

/// Two convolutions with a norm in between, trained on images that depend on the step.
struct Normed {
    cx: Graph,
    model: (Conv2d, BatchNorm, Conv2d),
    states: States,
    images: GraphTensor,
}

impl Module for Normed {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.module("first", &self.model.0);
        visitor.module("norm", &self.model.1);
        visitor.module("last", &self.model.2);
    }
}

impl Normed {
    fn new(compiled: bool) -> Normed {
        let mut cx = Graph::new();
        let images = cx.input((4, 2, 5, 5), DType::F32);
        let first = Conv2d::new(&mut cx, 2, 3, 3, Conv::default());
        let mut norm = BatchNorm::new(&mut cx, 3);
        norm.training = true;
        let last = Conv2d::new(&mut cx, 3, 1, 3, Conv::default());
        let hidden = norm.forward(first.forward(images)).relu();
        // So that the parameters depend on the running statistics too.
        let mean = norm.running_mean.reshape((1, 3, 1, 1)).expand((4, 3, 3, 3));
        let seen = hidden + mean;
        let loss = (last.forward(seen) - 1.0).square().mean(..);
        let model = (first, norm, last);
        let mut trained = Normed {
            cx,
            model,
            states: States::default(),
            images,
        };
        trained.init(5);
        let params = trained.parameters();
        let grads = trained.cx.compile(Autograd::new(&params, loss), ());
        trained.states = Adam::new(0.01).step(&mut trained.cx, &params, &grads);
        if compiled {
            trained.cx.compile(<(Generic, LlvmCpu)>::default(), ());
        }
        trained
    }

    fn run(&mut self, steps: std::ops::Range<usize>) {
        for step in steps {
            let image = |i: usize| ((i * 37 + step * 11) % 23) as f32 / 7.0 - 1.0;
            self.images.set((0..200).map(image).collect::<Vec<f32>>());
            self.cx.execute();
        }
    }

    fn checkpoint(&self, step: u64) -> Checkpoint<()> {
        let carried = self.state();
        Checkpoint {
            step,
            weights: parameter_arrays(&self.parameters()).unwrap(),
            state: parameter_arrays(self.states.iter().chain(carried.iter())).unwrap(),
            meta: (),
        }
    }
}

#[test]
fn a_model_with_running_statistics_goes_on_bit_by_bit() {
    for compiled in [false, true] {
        let folder = tempdir().unwrap();
        let store = Store::new(folder.path());
        let mut whole = Normed::new(compiled);
        whole.run(0..4);
        store.save(&whole.checkpoint(4)).unwrap();
        whole.run(4..8);

        let loaded = store.load_latest::<()>().unwrap().unwrap().checkpoint;
        let go_on = |forgets: bool| {
            let mut rest = Normed::new(compiled);
            let carried = rest.state();
            let all = rest.states.iter().chain(carried.iter());
            set_parameters(&rest.parameters(), &loaded.weights).unwrap();
            set_parameters(all, &loaded.state).unwrap();
            if forgets {
                carried.init(5);
            }
            rest.run(4..8);
            rest.checkpoint(8)
        };
        let whole = whole.checkpoint(8);
        assert!(whole.state.contains_key("norm.running_var"));
        assert_eq!(go_on(false), whole, "compiled: {compiled}");
        let forgetful = go_on(true);
        assert_ne!(
            forgetful.state["norm.running_mean"],
            whole.state["norm.running_mean"]
        );
        assert_ne!(forgetful.weights, whole.weights);
    }
}

/// Names the folder in which the child saves.
const FOLDER: &str = "CHECKPOINT_TEST_FOLDER";

#[test]
#[ignore = "not a test: the process that another test kills"]
fn child_that_saves_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        println!("skipped: {FOLDER} is not set");
        return;
    };
    let store = Store::new(PathBuf::from(folder)).keep(2);
    let latest = store.load_latest::<Meta>().unwrap();
    let mut step = latest.map_or(0, |loaded| loaded.checkpoint.step);
    loop {
        step += 1;
        store.save(&at(step)).unwrap();
        println!("saved {step}");
    }
}

/// Starts the child, lets it save at least once, kills it `wait` later; gives the last step that it said was saved.
fn save_and_kill(folder: &Path, wait: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "checkpoint::child_that_saves_until_it_is_killed"])
        .args(["--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The harness prints the test's name on the line of the first one.
    let step = |line: String| {
        line.rsplit_once("saved ")
            .map(|(_, step)| step.parse().unwrap())
    };
    let mut saved = lines.map_while(Result::ok).filter_map(step);
    let first: u64 = saved.next().expect("the child saves");
    std::thread::sleep(wait);
    child.kill().unwrap();
    child.wait().unwrap();
    saved.last().unwrap_or(first)
}

#[test]
fn a_killed_process_leaves_its_last_checkpoint_whole() {
    let folder = tempdir().unwrap();
    let store = Store::new(folder.path());
    let mut interrupted = 0;
    for round in 0..20u64 {
        // Moments all over a save, which takes some milliseconds.
        let wait = Duration::from_micros(round * 7_919 % 20_011);
        let said = save_and_kill(folder.path(), wait);
        let loaded = store.load_latest::<Meta>().unwrap().unwrap();
        assert!(loaded.skipped.is_empty(), "{:?}", loaded.skipped);
        // It may have been killed between saving and saying so.
        let step = loaded.checkpoint.step;
        assert!(
            step == said || step == said + 1,
            "{said} was saved, {step} is there"
        );
        assert_eq!(loaded.checkpoint, at(step));
        let names = fs::read_dir(folder.path()).unwrap();
        let unfinished = |name: &str| name.starts_with(".unfinished-");
        interrupted += names
            .filter(|entry| unfinished(entry.as_ref().unwrap().file_name().to_str().unwrap()))
            .count();
    }
    assert!(interrupted > 0, "no save was interrupted");
}
