//! The student as files that `brain-blitz generate` loads, and what it writes beside its teacher.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use brain_blitz::blocks::BlockType;
use brain_blitz::formats::gguf::{self, Options};
use brain_blitz::formats::{Bytes, LowBitLayer, StoredType, Tokenizer, low_bit};
use brain_blitz::formats::{TensorView, gguf::Converted};
use brain_blitz::generation::{self, Sampler, Sampling, Session};
use brain_blitz::prelude::*;
use brain_blitz::train::checkpoint::Arrays;

use crate::kind::Kind;
use crate::model::Teacher;

/// Writes into `out` a folder in the Hugging Face layout, whose binary layers are packed, and `student.gguf` with the embedding
/// in blocks of 8 bits. Returns what the latter holds.
pub fn write(
    (folder, out): (&Path, &Path),
    teacher: &Teacher,
    kind: Kind,
    taught: &Arrays,
) -> Result<Vec<Converted>> {
    let mut layers: BTreeMap<String, LowBitLayer> = BTreeMap::new();
    let tensor = |(name, array): (&String, &brain_blitz::array::Array)| {
        let layer = kind.layer(name);
        let array = match layer {
            Some(_) => array.clone(),
            None => array.cast(DType::BF16),
        };
        layers.extend(layer.map(|layer| (name.clone(), layer)));
        TensorView {
            name: name.clone(),
            dtype: StoredType::from(array.dtype()),
            shape: array.dims().to_vec(),
            bytes: Bytes::copy_of(array.bytes()),
        }
    };
    let tensors: Vec<TensorView> = taught.iter().map(tensor).collect();
    let failed = |source| Error::Io {
        path: out.to_path_buf(),
        source,
    };
    fs::create_dir_all(out).map_err(failed)?;
    low_bit::write_packed(out.join("model.safetensors"), &tensors, &layers)?;
    let mut config = teacher.config.clone();
    config.dtype = Some(DType::BF16);
    config.save(out)?;
    let tokenizer = "tokenizer.json";
    fs::copy(folder.join(tokenizer), out.join(tokenizer)).map_err(failed)?;
    let options = Options::new(BlockType::Q8_0);
    gguf::convert(out, &out.join("student.gguf"), &options, &mut |_, _| ())
}

/// Both texts, the teacher's and the student's, side by side.
pub fn samples(folder: &Path, out: &Path, prompt: &str, threads: Option<usize>) -> Result<String> {
    let texts = [folder.to_path_buf(), out.join("student.gguf")];
    let texts = texts.map(|path| sample(folder, &path, prompt, threads));
    let [teacher, student] = texts;
    let (teacher, student) = (teacher?, student?);
    let n = teacher.lines().count().max(student.lines().count());
    let line = |text: &str, at: usize| text.lines().nth(at).unwrap_or("").to_owned();
    let mut out = format!("{:<60} | {}\n", "teacher", "student");
    for at in 0..n {
        out.push_str(&format!(
            "{:<60} | {}\n",
            line(&teacher, at),
            line(&student, at)
        ));
    }
    Ok(out)
}

fn sample(folder: &Path, model: &Path, prompt: &str, threads: Option<usize>) -> Result<String> {
    let tokenizer = Tokenizer::open(folder)?;
    let options = generation::Options {
        threads,
        ..generation::Options::default()
    };
    let mut session = Session::load(model, &options, &mut |_| ())?;
    let mut sampler = Sampler::new(Sampling {
        temperature: 0.8,
        top_k: 50,
        seed: 2,
        ..Sampling::default()
    })?;
    let mut ids = tokenizer.encode(prompt, true)?;
    let mut next = sampler.sample(session.feed(&ids)?)?;
    for _ in 0..100 {
        if session.eos().contains(&next) {
            break;
        }
        ids.push(next);
        next = sampler.sample(session.feed(&[next])?)?;
    }
    let begin = usize::from(tokenizer.bos().is_some());
    tokenizer.decode(&ids[begin..])
}
