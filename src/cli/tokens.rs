//! Token ids: from the command line, checked against a model.

use std::str::FromStr;

use brain_blitz::formats::ModelConfig;

use super::failure::{Failure, Outcome};

/// Ids as `--tokens` takes them: `2,17,99`.
#[derive(Clone, Debug)]
pub struct TokenList(pub Vec<u32>);

impl FromStr for TokenList {
    type Err = String;

    fn from_str(text: &str) -> Result<TokenList, String> {
        if text.trim().is_empty() {
            return Ok(TokenList(Vec::new()));
        }
        let id = |part: &str| {
            let what = |_| format!("`{}` is not a token id", part.trim());
            part.trim().parse().map_err(what)
        };
        text.split(',')
            .map(id)
            .collect::<Result<_, _>>()
            .map(TokenList)
    }
}

/// Checks what is to be fed to a model before any of its weights are read.
///
/// # Errors
/// If there are no ids, too many for the model's context, or one is outside the vocabulary.
pub fn check(ids: &[u32], config: &ModelConfig) -> Outcome {
    if ids.is_empty() {
        return Err(Failure::new("there are no tokens; give at least one"));
    }
    let context = config.max_position_embeddings();
    if ids.len() > context {
        return Err(Failure::new(format!(
            "the prompt has {} tokens, the model's context (max_position_embeddings) holds {context}",
            ids.len()
        ))
        .hint("give a shorter prompt"));
    }
    match ids.iter().find(|&&id| id as usize >= config.vocab_size()) {
        None => Ok(()),
        Some(id) => Err(Failure::new(format!(
            "token id {id} is outside the model's vocabulary of {} (vocab_size)",
            config.vocab_size()
        ))),
    }
}
