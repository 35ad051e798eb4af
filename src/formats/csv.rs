//! Tables of numbers in text: one row a line, one column a comma.
//!
//! Every cell must be a number (`nan` and `inf` are), and every row must have as many as the first: a cell that is
//! empty or a word is an error that names row and column, never a silent zero. Whether the first row has the columns'
//! names is said by the caller, since a guess would swallow a damaged first row. Quotes are as in RFC 4180.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ::csv::{ByteRecord, ReaderBuilder};

use super::bytes::Bytes;
use super::suggest::did_you_mean;
use super::{format_error, quote};
use crate::array::{Array, Data};
use crate::error::{Error, Result};

/// How a file is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Whether the first row has the columns' names; else they are called `0`, `1` ...
    pub header: bool,
    /// What stands between two cells.
    pub delimiter: u8,
}

impl Default for Options {
    /// A first row of names, commas.
    fn default() -> Options {
        Options {
            header: true,
            delimiter: b',',
        }
    }
}

/// A table of numbers with named columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    file: PathBuf,
    names: Vec<String>,
    n_rows: usize,
    /// Row-major.
    cells: Vec<f64>,
}

impl Table {
    /// Reads the table at `path`.
    ///
    /// # Errors
    /// If the file cannot be opened, a row has another number of cells than the first, a cell is not a number, or two
    /// columns have one name.
    pub fn read(path: impl AsRef<Path>, options: Options) -> Result<Table> {
        let path = path.as_ref();
        Table::from_bytes(path, &Bytes::map(path)?, options)
    }

    /// The table in `text`, the contents of such a file; messages call it `file`.
    ///
    /// ```
    /// use brain_blitz::formats::csv::{Options, Table};
    /// let text = b"width,height,area\n2,3,6\n4,0.5,2\n";
    /// let table = Table::from_bytes("areas.csv".as_ref(), text, Options::default())?;
    /// assert_eq!(table.column("height")?, [3.0, 0.5]);
    /// let (features, targets) = table.split(&["area"])?;
    /// assert_eq!(features.to_f32(), [2.0, 3.0, 4.0, 0.5]);
    /// assert_eq!(targets.dims(), [2, 1]);
    /// # Ok::<(), brain_blitz::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Table::read`].
    pub fn from_bytes(file: &Path, text: &[u8], options: Options) -> Result<Table> {
        let mut reader = ReaderBuilder::new()
            .has_headers(options.header)
            .delimiter(options.delimiter)
            .from_reader(text);
        let mut names = Vec::new();
        if options.header {
            let header = reader.byte_headers();
            let header = header.map_err(|error| parse_error(file, &error))?;
            let name = |cell: &[u8]| String::from_utf8_lossy(cell).trim().to_owned();
            names = header.iter().map(name).collect();
            let mut seen = BTreeSet::new();
            if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
                let field = format!("column {}", quote(twice));
                return Err(format_error(file, field, None, "occurs twice"));
            }
        }
        let (mut cells, mut n_rows, mut row) = (Vec::new(), 0, ByteRecord::new());
        while reader
            .read_byte_record(&mut row)
            .map_err(|error| parse_error(file, &error))?
        {
            if n_rows == 0 && !options.header {
                names = (0..row.len()).map(|column| column.to_string()).collect();
            }
            for (column, cell) in row.iter().enumerate() {
                let what = |what| cell_error(file, &row, n_rows, &names[column], what);
                cells.push(number(cell).map_err(what)?);
            }
            n_rows += 1;
        }
        Ok(Table {
            file: file.to_path_buf(),
            names,
            n_rows,
            cells,
        })
    }

    /// The columns' names, in the file's order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The number of rows, without the one of names.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// The numbers of one column.
    ///
    /// # Errors
    /// If there is no such column; the message has the nearest names.
    pub fn column(&self, name: &str) -> Result<Vec<f64>> {
        let column = self.index(name)?;
        let rows = self.cells.chunks_exact(self.names.len());
        Ok(rows.map(|row| row[column]).collect())
    }

    /// The columns that are not among `targets` as `[rows, columns]`, and those that are, in the order given; rounded
    /// to `f32`.
    ///
    /// # Errors
    /// If one of `targets` is not a column.
    pub fn split(&self, targets: &[&str]) -> Result<(Array, Array)> {
        let targets = targets.iter().map(|name| self.index(name));
        let targets = targets.collect::<Result<Vec<usize>>>()?;
        let all = 0..self.names.len();
        let features: Vec<usize> = all.filter(|column| !targets.contains(column)).collect();
        Ok((self.take(&features), self.take(&targets)))
    }

    fn take(&self, columns: &[usize]) -> Array {
        let rows = self.cells.chunks_exact(self.names.len().max(1));
        let cells = rows.flat_map(|row| columns.iter().map(|&column| row[column] as f32));
        Array::new(vec![self.n_rows, columns.len()], Data::F32(cells.collect()))
    }

    fn index(&self, name: &str) -> Result<usize> {
        let found = self.names.iter().position(|column| column == name);
        found.ok_or_else(|| {
            let near = did_you_mean(name, self.names.iter().map(String::as_str));
            let what = format!("is not among the {}{near}", self.names.len());
            format_error(&self.file, format!("column {}", quote(name)), None, what)
        })
    }
}

fn number(cell: &[u8]) -> Result<f64, String> {
    let text = String::from_utf8_lossy(cell);
    match text.trim() {
        "" => Err("is empty".to_owned()),
        text => text
            .parse()
            .map_err(|_| format!("{} is not a number", quote(text))),
    }
}

fn cell_error(file: &Path, row: &ByteRecord, n_rows: usize, column: &str, what: String) -> Error {
    let at = row.position().map(|position| position.byte());
    let field = format!("row {} of column {}", n_rows + 1, quote(column));
    format_error(file, field, at, what)
}

/// The only errors of a reader of bytes in memory are rows of unequal lengths.
fn parse_error(file: &Path, error: &::csv::Error) -> Error {
    let at = error.position().map(|position| position.byte());
    let what = match error.kind() {
        ::csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("has {len} cells, the first row has {expected_len}"),
        _ => error.to_string(),
    };
    let line = error.position().map_or(0, |position| position.line());
    format_error(file, format!("line {line}"), at, what)
}
