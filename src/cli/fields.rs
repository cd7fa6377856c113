//! Reply lines taken apart: words, `key=value` pairs, and the sentence at the end.

/// A part of a reply line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// A word without `=`.
    Word(&'a str),
    /// `key=value`; a value in double quotes comes without them.
    Pair {
        key: &'a str,
        value: &'a str,
        /// Whether it stood in quotes: then it is text, whatever it looks like.
        quoted: bool,
    },
    /// What follows ` - `.
    Sentence(&'a str),
}

/// The parts of a line, in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    rest: &'a str,
}

impl<'a> Parts<'a> {
    pub(super) fn of(line: &'a str) -> Self {
        Parts { rest: line }
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        if let Some(sentence) = self.rest.strip_prefix("- ") {
            self.rest = "";
            return Some(Part::Sentence(sentence));
        }
        let (word, rest) = take_word(self.rest);
        self.rest = rest;
        Some(match word.split_once('=') {
            None => Part::Word(word),
            Some((key, value)) => {
                let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                Part::Pair { key, value: inner.unwrap_or(value), quoted: inner.is_some() }
            }
        })
    }
}

/// A word, which may have spaces in a value in double quotes, and what follows it.
pub(super) fn take_word(text: &str) -> (&str, &str) {
    let quoted = text
        .find("=\"")
        .filter(|at| !text[..*at].contains(' '))
        .and_then(|at| text[at + 2..].find('"').map(|len| at + 2 + len + 1));
    let end = quoted.or_else(|| text.find(' ')).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.strip_prefix(' ').unwrap_or(rest))
}

/// The value of `key` in a line, unless it is missing or `-`.
pub(super) fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    Parts::of(line).find_map(|part| match part {
        Part::Pair { key: found, value, quoted } if found == key => {
            (quoted || value != "-").then_some(value)
        }
        _ => None,
    })
}

/// The value of `key` as a number.
pub(super) fn number(line: &str, key: &str) -> Option<u64> {
    field(line, key)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_falls_apart_into_words_pairs_and_a_sentence() {
        let line = "REJECTED read-only need=2 error=\"a = b\" master=- - 1 of x=3 nodes";
        let pair = |key, value, quoted| Part::Pair { key, value, quoted };
        assert_eq!(
            Parts::of(line).collect::<Vec<_>>(),
            [
                Part::Word("REJECTED"),
                Part::Word("read-only"),
                pair("need", "2", false),
                pair("error", "a = b", true),
                pair("master", "-", false),
                Part::Sentence("1 of x=3 nodes"),
            ]
        );
        assert_eq!(number(line, "need"), Some(2));
        assert_eq!(field(line, "error"), Some("a = b"));
        assert_eq!((field(line, "master"), field(line, "x")), (None, None));
    }
}
