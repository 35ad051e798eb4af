//! The definition of every movement: tensors of buffer indices, moved element by element.

/// A row-major tensor whose elements are buffer indices, or `None` for padding.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Naive {
    pub(super) dims: Vec<usize>,
    pub(super) elements: Vec<Option<usize>>,
}

impl Naive {
    /// The tensor of the given dims whose element at each coordinate is `element(coordinate)`.
    fn build(dims: Vec<usize>, mut element: impl FnMut(&[usize]) -> Option<usize>) -> Naive {
        let n: usize = dims.iter().product();
        let elements = (0..n)
            .map(|at| {
                let mut coordinate = vec![0; dims.len()];
                let mut rest = at;
                for axis in (0..dims.len()).rev() {
                    coordinate[axis] = rest % dims[axis];
                    rest /= dims[axis];
                }
                element(&coordinate)
            })
            .collect();
        Naive { dims, elements }
    }

    fn at(&self, coordinate: &[usize]) -> Option<usize> {
        assert_eq!(coordinate.len(), self.dims.len());
        let mut linear = 0;
        for (&c, &dim) in coordinate.iter().zip(&self.dims) {
            assert!(c < dim);
            linear = linear * dim + c;
        }
        self.elements[linear]
    }

    /// The buffer itself.
    pub(super) fn buffer(dims: &[usize]) -> Naive {
        let n: usize = dims.iter().product();
        Naive {
            dims: dims.to_vec(),
            elements: (0..n).map(Some).collect(),
        }
    }

    pub(super) fn permute(&self, order: &[usize]) -> Naive {
        let dims = order.iter().map(|&axis| self.dims[axis]).collect();
        Naive::build(dims, |c| {
            let mut source = vec![0; c.len()];
            for (new, &old) in order.iter().enumerate() {
                source[old] = c[new];
            }
            self.at(&source)
        })
    }

    pub(super) fn insert(&self, axis: usize, size: usize) -> Naive {
        let mut dims = self.dims.clone();
        dims.insert(axis, size);
        Naive::build(dims, |c| {
            let mut source = c.to_vec();
            source.remove(axis);
            self.at(&source)
        })
    }

    pub(super) fn squeeze(&self, axis: usize) -> Naive {
        assert_eq!(self.dims[axis], 1);
        let mut dims = self.dims.clone();
        dims.remove(axis);
        self.reshape(&dims)
    }

    pub(super) fn expand(&self, axis: usize, size: usize) -> Naive {
        assert_eq!(self.dims[axis], 1);
        self.along(axis, size, |_| Some(0))
    }

    /// Replaces an axis by one of `size`, whose coordinate `c` shows what was at `source(c)`.
    fn along(&self, axis: usize, size: usize, source: impl Fn(usize) -> Option<usize>) -> Naive {
        let mut dims = self.dims.clone();
        dims[axis] = size;
        Naive::build(dims, |c| {
            let mut from = c.to_vec();
            from[axis] = source(c[axis])?;
            self.at(&from)
        })
    }

    pub(super) fn slice(&self, axis: usize, start: i64, end: i64, step: i64) -> Naive {
        let mut picked = Vec::new();
        let mut at = start;
        while (step > 0 && at < end) || (step < 0 && at > end) {
            picked.push(at as usize);
            at += step;
        }
        self.along(axis, picked.len(), |c| Some(picked[c]))
    }

    pub(super) fn pad(&self, axis: usize, before: usize, after: usize) -> Naive {
        let n = self.dims[axis];
        self.along(axis, before + n + after, |c| {
            c.checked_sub(before).filter(|&at| at < n)
        })
    }

    pub(super) fn flip(&self, axis: usize) -> Naive {
        let n = self.dims[axis];
        self.along(axis, n, |c| Some(n - 1 - c))
    }

    pub(super) fn repeat(&self, axis: usize, times: usize) -> Naive {
        let n = self.dims[axis];
        self.along(axis, n * times, |c| Some(c % n))
    }

    pub(super) fn repeat_each(&self, axis: usize, times: usize) -> Naive {
        self.along(axis, self.dims[axis] * times, |c| Some(c / times))
    }

    pub(super) fn reshape(&self, dims: &[usize]) -> Naive {
        assert_eq!(dims.iter().product::<usize>(), self.elements.len());
        Naive {
            dims: dims.to_vec(),
            elements: self.elements.clone(),
        }
    }

    pub(super) fn unfold(&self, axis: usize, size: usize, step: usize, dilation: usize) -> Naive {
        let mut dims = self.dims.clone();
        dims[axis] = (0..)
            .take_while(|w| w * step + (size - 1) * dilation < self.dims[axis])
            .count();
        dims.push(size);
        Naive::build(dims, |c| {
            let (inside, window) = c.split_last().expect("there is a window axis");
            let mut source = window.to_vec();
            source[axis] = window[axis] * step + inside * dilation;
            self.at(&source)
        })
    }

    pub(super) fn diagonal(&self, first: usize, second: usize, offset: i64) -> Naive {
        let (rows, columns) = (self.dims[first] as i64, self.dims[second] as i64);
        let pairs: Vec<(usize, usize)> = (0..rows)
            .map(|row| (row, row + offset))
            .filter(|&(_, column)| (0..columns).contains(&column))
            .map(|(row, column)| (row as usize, column as usize))
            .collect();
        let kept: Vec<usize> = (0..self.dims.len())
            .filter(|&axis| axis != first && axis != second)
            .collect();
        let mut dims: Vec<usize> = kept.iter().map(|&axis| self.dims[axis]).collect();
        dims.push(pairs.len());
        Naive::build(dims, |c| {
            let mut source = vec![0; self.dims.len()];
            for (new, &old) in kept.iter().enumerate() {
                source[old] = c[new];
            }
            (source[first], source[second]) = pairs[c[kept.len()]];
            self.at(&source)
        })
    }

    /// `outer`, a tensor of indices into `self`, looked up.
    pub(super) fn compose(&self, outer: &Naive) -> Naive {
        let look_up = |&at: &Option<usize>| self.elements[at?];
        Naive {
            dims: outer.dims.clone(),
            elements: outer.elements.iter().map(look_up).collect(),
        }
    }
}
