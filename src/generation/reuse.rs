//! A session that is not fed twice what it knows.
//!
//! ```text
//! fed:     <bos> user Hi model Hello
//! wanted:  <bos> user Hi model Hello user Why? model      ->   only `user Why? model` is fed
//! ```
//!
//! A turn of a conversation begins with all turns before it. The caches of keys and values hold them already, so the session
//! goes back to where both begin to differ and goes on from there. At least the last token is fed again, since its logits
//! are what is asked for.
//!
//! Deliberately absent: several sequences, keeping caches on disk, moving what is cached to other positions. When the front
//! of a conversation is dropped, all that follows is fed again.

use super::session::Session;
use crate::error::{Error, Result};

/// A session, and which tokens its caches hold.
pub struct ReusingSession {
    session: Session,
    held: Vec<u32>,
    n_fed: u64,
}

impl ReusingSession {
    /// Reuses what this session is fed from now on; what it was fed before is forgotten.
    pub fn new(mut session: Session) -> ReusingSession {
        session.reset();
        ReusingSession {
            session,
            held: Vec::new(),
            n_fed: 0,
        }
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The tokens that are fed and not forgotten.
    pub fn held(&self) -> &[u32] {
        &self.held
    }

    /// How many tokens were fed in all, those included that are forgotten.
    pub fn n_fed(&self) -> u64 {
        self.n_fed
    }

    /// Goes back to the longest beginning of `ids` that is fed, all of them but the last at most; returns its length. What is
    /// left of `ids` can then be fed.
    ///
    /// # Errors
    /// If there are no ids, or more than the session has room for. It is then as it was.
    pub fn begin(&mut self, ids: &[u32]) -> Result<usize> {
        let Some(last) = ids.len().checked_sub(1) else {
            return Err(Error::msg("no tokens to feed"));
        };
        let capacity = self.session.capacity();
        if ids.len() > capacity {
            return Err(Error::msg(format!(
                "{} tokens do not fit the context of {capacity}",
                ids.len()
            )));
        }
        let pairs = self.held.iter().zip(ids);
        let common = pairs.take_while(|(held, id)| held == id).count().min(last);
        self.session.rewind(common)?;
        self.held.truncate(common);
        Ok(common)
    }

    /// As [`Session::feed`].
    ///
    /// # Errors
    /// As [`Session::feed`].
    pub fn feed(&mut self, ids: &[u32]) -> Result<&[f32]> {
        let ReusingSession {
            session,
            held,
            n_fed,
        } = self;
        let logits = session.feed(ids)?;
        held.extend_from_slice(ids);
        *n_fed += ids.len() as u64;
        Ok(logits)
    }
}
