//! A line of words and `key=value` pairs, taken apart.

/// A reply line, a STATUS line or a ready line: leading words, then `key=value` pairs, then
/// perhaps ` - ` and a sentence. `payload=` takes the rest of the line.
#[derive(Debug, Clone)]
pub struct Fields {
    line: String,
    words: Vec<String>,
    pairs: Vec<(String, String)>,
    sentence: Option<String>,
}

impl Fields {
    /// Takes `line` apart. Values with spaces in them stand in double quotes, which are taken off.
    pub fn of(line: &str) -> Fields {
        let mut fields =
            Fields { line: line.to_owned(), words: vec![], pairs: vec![], sentence: None };
        let mut rest = line;
        while !rest.is_empty() {
            if let Some(sentence) = rest.strip_prefix("- ") {
                fields.sentence = Some(sentence.to_owned());
                break;
            }
            if let Some(payload) = rest.strip_prefix("payload=") {
                fields.pairs.push(("payload".to_owned(), payload.to_owned()));
                break;
            }
            let (word, after) = split_word(rest);
            rest = after;
            match word.split_once('=') {
                Some((key, value)) => {
                    fields.pairs.push((key.to_owned(), value.trim_matches('"').to_owned()));
                }
                None => fields.words.push(word.to_owned()),
            }
        }
        fields
    }

    /// The whole line as it came.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// The first word: the class of a reply.
    #[track_caller]
    pub fn class(&self) -> &str {
        self.words.first().unwrap_or_else(|| panic!("no first word in: {}", self.line))
    }

    /// The second word: the code of a REJECTED or ERR reply.
    #[track_caller]
    pub fn code(&self) -> &str {
        self.words.get(1).unwrap_or_else(|| panic!("no second word in: {}", self.line))
    }

    /// The value of `key`, which must be there.
    #[track_caller]
    pub fn get(&self, key: &str) -> &str {
        self.find(key).unwrap_or_else(|| panic!("no {key}= in: {}", self.line))
    }

    /// The value of `key`, if it is there.
    pub fn find(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The value of `key` as a number.
    #[track_caller]
    pub fn number(&self, key: &str) -> u64 {
        let value = self.get(key);
        value.parse().unwrap_or_else(|_| panic!("{key}={value} is no number in: {}", self.line))
    }

    /// The keys in the order they came.
    pub fn keys(&self) -> Vec<&str> {
        self.pairs.iter().map(|(key, _)| key.as_str()).collect()
    }

    /// What follows ` - `, for people.
    pub fn sentence(&self) -> Option<&str> {
        self.sentence.as_deref()
    }
}

/// Splits the first word off, keeping a quoted value in one piece.
fn split_word(text: &str) -> (&str, &str) {
    let mut in_quotes = false;
    for (at, letter) in text.char_indices() {
        match letter {
            '"' => in_quotes = !in_quotes,
            ' ' if !in_quotes => return (&text[..at], &text[at + 1..]),
            _ => {}
        }
    }
    (text, "")
}
