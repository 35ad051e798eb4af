//! Views against an index-by-index oracle, and chains that must stay in one layer.

mod chains;
mod oracle;
mod random;
mod text;
