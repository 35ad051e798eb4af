//! Text form of expressions: `p + 2*s`, `(s + 3)/4`, `s % 4`, `min(p, s)`.
//!
//! `/` rounds toward minus infinity; a leading `-` negates the whole product that follows it, so
//! `-s/4` is `-(s/4)`. Parsing what is displayed gives back the same expression.

use super::arith::is_symbol;
use super::node::{Atom, Term};
use super::{Expr, Repr};
use crate::shape::ParseError;
use std::fmt;
use std::str::FromStr;

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = match self.0 {
            Repr::Const(value) => return write!(f, "{value}"),
            Repr::Node(node) => node,
        };
        for (at, term) in node.terms.iter().enumerate() {
            f.write_str(match (at, term.coeff < 0) {
                (0, false) => "",
                (0, true) => "-",
                (_, false) => " + ",
                (_, true) => " - ",
            })?;
            write_term(f, term)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A term without its sign.
fn write_term(f: &mut fmt::Formatter<'_>, term: &Term) -> fmt::Result {
    let coeff = term.coeff.unsigned_abs();
    if term.atoms.is_empty() {
        return write!(f, "{coeff}");
    }
    let alone = coeff == 1 && term.atoms.len() == 1;
    if coeff != 1 {
        write!(f, "{coeff}*")?;
    }
    for (at, atom) in term.atoms.iter().enumerate() {
        if at > 0 {
            f.write_str("*")?;
        }
        match (atom, alone) {
            (Atom::FloorDiv(..) | Atom::Mod(..), false) => write!(f, "({atom})")?,
            _ => write!(f, "{atom}")?,
        }
    }
    Ok(())
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Atom::Symbol(symbol) => write!(f, "{symbol}"),
            Atom::FloorDiv(a, b) => write!(f, "{}/{}", Operand(a), Operand(b)),
            Atom::Mod(a, b) => write!(f, "{} % {}", Operand(a), Operand(b)),
            Atom::Min(a, b) => write!(f, "min({a}, {b})"),
            Atom::Max(a, b) => write!(f, "max({a}, {b})"),
        }
    }
}

/// An operand of a division: in parentheses unless it is a single word.
struct Operand(Expr);

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let single = match self.0.0 {
            Repr::Const(value) => value >= 0,
            Repr::Node(node) => match &*node.terms {
                [Term { atoms, coeff: 1 }] => matches!(
                    atoms.as_slice(),
                    [Atom::Symbol(_) | Atom::Min(..) | Atom::Max(..)]
                ),
                _ => false,
            },
        };
        match single {
            true => write!(f, "{}", self.0),
            false => write!(f, "({})", self.0),
        }
    }
}

/// Nesting that a text may have, and terms that a product may have.
const MAX_DEPTH: usize = 64;
const MAX_TERMS: usize = 4096;

impl FromStr for Expr {
    type Err = ParseError;

    /// Parses what [`Display`](fmt::Display) writes, with free white space.
    fn from_str(text: &str) -> Result<Expr, ParseError> {
        let mut parser = Parser {
            text,
            at: 0,
            depth: 0,
        };
        let expr = parser.sum()?;
        match parser.peek() {
            None => Ok(expr),
            Some(_) => Err(parser.error("expected the end of the expression")),
        }
    }
}

/// A recursive-descent parser; every method starts by skipping white space.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn error(&self, message: &str) -> ParseError {
        ParseError {
            at: self.at,
            message: message.to_string(),
        }
    }

    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn eat(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        if found {
            self.at += expected.len_utf8();
        }
        found
    }

    fn expect(&mut self, expected: char) -> Result<(), ParseError> {
        match self.eat(expected) {
            true => Ok(()),
            false => Err(self.error(&format!("expected '{expected}'"))),
        }
    }

    fn sum(&mut self) -> Result<Expr, ParseError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        self.depth += 1;
        let negative = self.eat('-');
        let mut sum = self.product()?;
        if negative {
            sum = -sum;
        }
        loop {
            if self.eat('+') {
                sum += self.product()?;
            } else if self.eat('-') {
                sum -= self.product()?;
            } else {
                self.depth -= 1;
                return Ok(sum);
            }
        }
    }

    fn product(&mut self) -> Result<Expr, ParseError> {
        let mut product = self.primary()?;
        loop {
            if self.eat('*') {
                let factor = self.primary()?;
                let n_terms = product.terms().len().max(1) * factor.terms().len().max(1);
                if n_terms > MAX_TERMS {
                    return Err(self.error("a product with too many terms"));
                }
                product *= factor;
            } else if self.eat('/') {
                product = product.floor_div(self.primary()?);
            } else if self.eat('%') {
                product = product.rem(self.primary()?);
            } else {
                return Ok(product);
            }
        }
    }

    fn primary(&mut self) -> Result<Expr, ParseError> {
        let Some(first) = self.peek() else {
            return Err(self.error("expected a number, a symbol or '('"));
        };
        if first.is_ascii_digit() {
            return self.number();
        }
        if self.eat('(') {
            let inner = self.sum()?;
            self.expect(')')?;
            return Ok(inner);
        }
        let rest = &self.text[self.at..];
        for (name, choose) in [
            ("min(", Expr::min as fn(Expr, Expr) -> Expr),
            ("max(", Expr::max),
        ] {
            if rest.starts_with(name) {
                self.at += name.len();
                let a = self.sum()?;
                self.expect(',')?;
                let b = self.sum()?;
                self.expect(')')?;
                return Ok(choose(a, b));
            }
        }
        if !is_symbol(first) {
            return Err(self.error("expected a number, a symbol or '('"));
        }
        self.at += first.len_utf8();
        match self.text[self.at..].chars().next() {
            Some(next) if is_symbol(next) => Err(self.error("a symbol is a single letter")),
            _ => Ok(Expr::from(first)),
        }
    }

    fn number(&mut self) -> Result<Expr, ParseError> {
        let rest = &self.text[self.at..];
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let value: i64 = rest[..end]
            .parse()
            .map_err(|_| self.error("a number that is too large"))?;
        self.at += end;
        Ok(Expr::from(value))
    }
}
