//! A conversation with a chat model, and the tokens that it is for the model.
//!
//! ```text
//! system: "Be brief."   user: "Hi"   assistant: "Hello."   user: "Why?"   ->   <bos><start_of_turn>user\nBe brief. ...
//! ```
//!
//! Invariants: messages are of a user and the assistant in turn, a user's first; the system's text is kept beside them
//! and survives when turns are dropped.
//!
//! A template that refuses a system message, or leaves it out, gets its text at the front of the first user's message, as
//! the makers of such models advise.
//!
//! Deliberately absent: generating, terminals, files.

use super::chat::{ChatTemplate, Message, encode_rendered};
use crate::error::{Error, Result};
use crate::formats::Tokenizer;

/// A text that is looked for in what a template made of it.
const MARKER: &str = "a marker that no template has";

/// What was said, and the form in which a model reads it.
///
/// ```
/// use brain_blitz::generation::{ChatTemplate, Conversation};
/// let text = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}";
/// let mut said = Conversation::new(ChatTemplate::new(text, "<bos>", "<eos>")?);
/// said.set_system(Some("Be brief.".into()));
/// said.ask("Hi");
/// assert_eq!(said.render()?, "[system] Be brief.\n[user] Hi\n");
/// # Ok::<(), brain_blitz::Error>(())
/// ```
#[derive(Debug)]
pub struct Conversation {
    template: ChatTemplate,
    takes_system: bool,
    system: Option<String>,
    messages: Vec<Message>,
}

impl Conversation {
    /// A conversation in the form of this template, in which nothing was said.
    pub fn new(template: ChatTemplate) -> Conversation {
        let probe = [Message::new("system", MARKER), Message::new("user", "Hi")];
        let rendered = template.render(&probe, true);
        Conversation {
            takes_system: rendered.is_ok_and(|text| text.contains(MARKER)),
            template,
            system: None,
            messages: Vec::new(),
        }
    }

    /// Whether the template has a place for the system's text; else it goes to the front of the first user's message.
    pub fn takes_system(&self) -> bool {
        self.takes_system
    }

    /// What the model is told beside the messages.
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Tells the model something beside the messages, or no longer.
    pub fn set_system(&mut self, text: Option<String>) {
        self.system = text;
    }

    /// What was said, without the system's text.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Puts a whole conversation in the place of this one; a system message at its front becomes the system's text.
    ///
    /// # Errors
    /// If messages are not of a user and the assistant in turn, or the last is not the assistant's. The conversation is then
    /// as it was.
    pub fn set_messages(&mut self, mut messages: Vec<Message>) -> Result<()> {
        let system = match messages.first() {
            Some(first) if first.role == "system" => Some(messages.remove(0).content),
            _ => None,
        };
        for (n, message) in messages.iter().enumerate() {
            let expected = ["user", "assistant"][n % 2];
            if message.role != expected {
                return Err(Error::msg(format!(
                    "message {} is of `{}` where one of `{expected}` is due",
                    n + 1,
                    message.role
                )));
            }
        }
        if messages.len() % 2 == 1 {
            return Err(Error::msg("the last message has no answer"));
        }
        self.system = system;
        self.messages = messages;
        Ok(())
    }

    /// The system's text, if there is one, and all messages: what [`Conversation::set_messages`] takes.
    pub fn all_messages(&self) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::new("system", text));
        system.chain(self.messages.iter().cloned()).collect()
    }

    /// The user says something. What was said before and not answered goes.
    pub fn ask(&mut self, text: impl Into<String>) {
        self.messages.truncate(self.messages.len() / 2 * 2);
        self.messages.push(Message::new("user", text));
    }

    /// The assistant answers what the user said last.
    ///
    /// # Panics
    /// If there is nothing to answer.
    #[track_caller]
    pub fn answer(&mut self, text: impl Into<String>) {
        assert!(self.messages.len() % 2 == 1, "there is nothing to answer");
        self.messages.push(Message::new("assistant", text));
    }

    /// Takes the last thing that the user said back, and the answer if there is one; returns what it was.
    pub fn undo(&mut self) -> Option<String> {
        let at = self.messages.len().checked_sub(1)? / 2 * 2;
        self.messages.drain(at..).next().map(|user| user.content)
    }

    /// Forgets all messages, but not the system's text.
    pub fn clear(&mut self) {
        self.messages.clear();
    }

    /// The conversation as the model reads it, up to where it is to answer.
    ///
    /// # Errors
    /// If the template refuses the conversation, or fails.
    pub fn render(&self) -> Result<String> {
        let mut messages = match self.takes_system {
            true => self.all_messages(),
            false => self.messages.clone(),
        };
        if let (false, Some(system), Some(first)) =
            (self.takes_system, &self.system, messages.first_mut())
        {
            first.content = format!("{system}\n\n{}", first.content);
        }
        self.template.render(&messages, true)
    }

    /// The ids of [`Conversation::render`].
    ///
    /// # Errors
    /// If the template refuses the conversation, or the tokenizer cannot encode it.
    pub fn ids(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        encode_rendered(tokenizer, &self.render()?)
    }

    /// As [`Conversation::ids`], after dropping the oldest turns, a user's message with its answer each, until at most
    /// `room` ids are left; also how many were dropped.
    ///
    /// # Errors
    /// If not even the last message has room, or as [`Conversation::ids`]. Nothing is dropped then.
    pub fn fit(&mut self, tokenizer: &Tokenizer, room: usize) -> Result<(Vec<u32>, usize)> {
        let all = self.messages.clone();
        let fitted = self.drop_to_fit(tokenizer, room);
        if fitted.is_err() {
            self.messages = all;
        }
        fitted
    }

    fn drop_to_fit(&mut self, tokenizer: &Tokenizer, room: usize) -> Result<(Vec<u32>, usize)> {
        let mut ids = self.ids(tokenizer)?;
        let mut dropped = 0;
        while ids.len() > room {
            if self.messages.len() <= 2 {
                return Err(Error::msg(format!(
                    "the message has {} tokens with what the template adds; there is room for {room}",
                    ids.len()
                )));
            }
            self.messages.drain(..2);
            dropped += 1;
            ids = self.ids(tokenizer)?;
        }
        Ok((ids, dropped))
    }

    /// The control token that the template writes after an answer, if there is one: the model writes it too when it has
    /// finished.
    pub fn end_of_turn(&self, tokenizer: &Tokenizer) -> Option<u32> {
        let said = [
            Message::new("user", "Hi"),
            Message::new("assistant", MARKER),
        ];
        let text = self.template.render(&said, false).ok()?;
        let (_, rest) = text.rsplit_once(MARKER)?;
        let first = tokenizer.encode(rest, false).ok()?.first().copied()?;
        tokenizer.is_special(first).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}";
    const NO_SYSTEM: &str = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}\
        {% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}";
    const SILENT: &str = "{% for m in messages %}{% if m.role != 'system' %}[{{ m.role }}] {{ m.content }}\n{% endif %}{% endfor %}";

    fn conversation(template: &str) -> Conversation {
        Conversation::new(ChatTemplate::new(template, "<bos>", "<eos>").unwrap())
    }

    #[test]
    fn a_template_without_a_system_gets_its_text_in_the_first_message() {
        for (template, takes, expected) in [
            (
                PLAIN,
                true,
                "[system] Brief.\n[user] a\n[assistant] b\n[user] c\n",
            ),
            (
                NO_SYSTEM,
                false,
                "[user] Brief.\n\na\n[assistant] b\n[user] c\n",
            ),
            (
                SILENT,
                false,
                "[user] Brief.\n\na\n[assistant] b\n[user] c\n",
            ),
        ] {
            let mut said = conversation(template);
            said.set_system(Some("Brief.".into()));
            said.ask("a");
            said.answer("b");
            said.ask("c");
            assert_eq!(said.takes_system(), takes, "{template}");
            assert_eq!(said.render().unwrap(), expected);
        }
    }

    #[test]
    fn undoing_takes_turns_back() {
        let mut said = conversation(PLAIN);
        assert_eq!(said.undo(), None);
        said.ask("a");
        said.answer("b");
        said.ask("never answered");
        said.ask("c");
        assert_eq!(
            said.render().unwrap(),
            "[user] a\n[assistant] b\n[user] c\n"
        );
        assert_eq!(said.undo().as_deref(), Some("c"));
        assert_eq!(said.undo().as_deref(), Some("a"));
        assert!(said.messages().is_empty());
    }

    #[test]
    fn saved_messages_come_back_and_wrong_ones_change_nothing() {
        let mut said = conversation(PLAIN);
        said.set_system(Some("Brief.".into()));
        said.ask("a");
        said.answer("b");
        let saved = said.all_messages();
        let mut other = conversation(PLAIN);
        other.set_messages(saved.clone()).unwrap();
        assert_eq!(
            (other.system(), other.messages()),
            (said.system(), said.messages())
        );
        let (user, assistant) = (Message::new("user", "x"), Message::new("assistant", "y"));
        for wrong in [
            vec![assistant.clone()],
            vec![user.clone()],
            vec![user.clone(), user.clone()],
            vec![user, assistant, Message::new("system", "late")],
        ] {
            assert!(other.set_messages(wrong).is_err());
            assert_eq!(other.all_messages(), saved);
        }
    }
}
