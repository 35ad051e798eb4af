//! GGUF files of the new families.
