//! Whole models, written like their papers.

pub mod gemma2;
