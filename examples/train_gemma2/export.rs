//! The trained model as a folder in the Hugging Face layout.

use brain_blitz::Result;
use brain_blitz::dtype::DType;
use brain_blitz::formats::{Bytes, StoredType, TensorView, safetensors};

use crate::Args;
use crate::run::Trained;

/// Writes `config.json`, `generation_config.json` and `model.safetensors` (bf16) beside the tokenizer.
pub fn write(args: &Args, trained: &Trained) -> Result<()> {
    let tensors: Vec<TensorView> = trained
        .weights
        .iter()
        .map(|(name, array)| {
            let array = array.cast(DType::BF16);
            TensorView {
                name: name.clone(),
                dtype: StoredType::from(array.dtype()),
                shape: array.dims().to_vec(),
                bytes: Bytes::copy_of(array.bytes()),
            }
        })
        .collect();
    let metadata = [("format".to_string(), "pt".to_string())].into();
    let file = args.out.join("model.safetensors");
    safetensors::write_with_metadata(file, &tensors, &metadata)?;
    let mut config = trained.config.clone();
    config.dtype = Some(DType::BF16);
    config.save(&args.out)
}
