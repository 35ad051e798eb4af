//! What a session that reuses its caches feeds, and that it computes the same.

use brain_blitz::generation::ReusingSession;
use brain_blitz::generation::session::{Rows, Session};

use crate::support::{session, tiny};

/// The largest difference of a logit that another order of the sums explains.
const TOLERANCE: f32 = 5e-4;

fn tiny_session() -> Session {
    session(&tiny(), Rows::Last, 64, None)
}

fn assert_same(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= TOLERANCE, "{a} and {b}");
    }
}

#[test]
fn only_what_differs_is_fed_and_the_logits_are_those_of_all() {
    let mut reusing = ReusingSession::new(tiny_session());
    let mut fresh = tiny_session();
    let first: Vec<u32> = (0..40).map(|i| i * 13 % 500 + 3).collect();
    // Far back, by more than a window of local attention; the same again; something else; a beginning; nothing in common.
    let mut second = first[..11].to_vec();
    second.extend((0..30).map(|i| i * 7 % 500 + 5));
    let longer = [first.clone(), vec![9, 8, 7]].concat();
    let other = [400, 3, 4];
    let turns = [
        (&first[..], 0),
        (&longer[..], 40),
        (&second[..], 11),
        (&second[..], 40),
        (&second[..20], 19),
        (&other[..], 0),
    ];
    let mut fed = 0;
    for (ids, common) in turns {
        assert_eq!(reusing.begin(ids).unwrap(), common);
        assert_eq!(reusing.session().position(), common);
        let logits = reusing.feed(&ids[common..]).unwrap().to_vec();
        fed += (ids.len() - common) as u64;
        assert_eq!(reusing.n_fed(), fed);
        assert_eq!(reusing.held(), ids);
        fresh.reset();
        assert_same(&logits, fresh.feed(ids).unwrap());
    }
}

#[test]
fn what_cannot_be_fed_changes_nothing() {
    let mut reusing = ReusingSession::new(tiny_session());
    reusing.begin(&[3, 4, 5]).unwrap();
    reusing.feed(&[3, 4, 5]).unwrap();
    assert!(reusing.begin(&[]).is_err());
    let error = reusing.begin(&[3; 65]).unwrap_err();
    assert!(error.to_string().contains("65 tokens"), "{error}");
    assert!(reusing.feed(&[99_999]).is_err());
    assert_eq!((reusing.held(), reusing.n_fed()), (&[3, 4, 5][..], 3));
}

#[test]
fn a_session_goes_back_and_not_forward() {
    let mut session = tiny_session();
    let expected = session.feed(&[3, 4, 9]).unwrap().to_vec();
    session.rewind(0).unwrap();
    session.feed(&[3, 4, 5, 6]).unwrap();
    let error = session.rewind(5).unwrap_err();
    assert!(error.to_string().contains("4 were fed"), "{error}");
    session.rewind(2).unwrap();
    assert_eq!(session.position(), 2);
    assert_same(session.feed(&[9]).unwrap(), &expected);
}
