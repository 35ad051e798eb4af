//! What a model's weights are multiplied by when it reads a text.

use super::evaluate::Windows;
use super::session::{Options, Progress, Rows, Session};
use crate::compilers::{Calibrate, Calibrator};
use crate::error::{Error, Result};
use crate::formats::{Calibration, ModelConfig, Weights};

/// Lets a model read the windows of a text, and gives what its weights were multiplied by: mean squares of all columns, and
/// with `how` saying so also mean products. `options` say where it runs; its `quant` and `logits` are not looked at.
/// `loading` is told how far loading is, `reading` how many windows of how many are read.
///
/// ```no_run
/// use brain_blitz::compilers::Calibrate;
/// use brain_blitz::dtype::DType;
/// use brain_blitz::formats::open_model;
/// use brain_blitz::generation::{Options, calibrate, evaluate::Windows};
/// let (config, weights) = open_model("models/gemma2-shakespeare".as_ref(), DType::F32)?;
/// let ids = [17, 99, 203];
/// let windows = Windows::new(&ids, config.bos_token_id(), 256, 256)?;
/// let how = Calibrate::default();
/// let found = calibrate(config, &*weights, &windows, how, &Options::default(), &mut |_| (), &mut |_, _| ())?;
/// found.save("shakespeare.calibration")?;
/// # Ok::<(), brain_blitz::Error>(())
/// ```
///
/// # Errors
/// If the model cannot be loaded, or a window is longer than its context.
pub fn calibrate(
    config: impl Into<ModelConfig>,
    weights: &dyn Weights,
    windows: &Windows<'_>,
    how: Calibrate,
    options: &Options,
    loading: &mut dyn FnMut(Progress<'_>),
    reading: &mut dyn FnMut(usize, usize),
) -> Result<Calibration> {
    let options = Options {
        logits: Rows::All,
        quant: None,
        ..options.clone()
    };
    let mut calibrator: Option<Calibrator> = None;
    let prepare = &mut |graph: &mut crate::graph::Graph| {
        calibrator = Some(how.clone().add_to(graph)?);
        Ok(())
    };
    let mut session = Session::prepared(config, weights, &options, loading, prepare)?;
    let mut calibrator = calibrator.ok_or_else(|| Error::msg("the graph was not prepared"))?;
    let n_windows = windows.clone().count();
    for (n, window) in windows.clone().enumerate() {
        reading(n, n_windows);
        session.reset();
        session.feed(&window.inputs)?;
        calibrator.observe(session.graph())?;
    }
    reading(n_windows, n_windows);
    calibrator.finish()
}
