//! How words of people are written into lines.

/// A value with spaces in it stands in double quotes.
pub fn quoted(text: &str) -> String {
    if text.is_empty() || text.contains([' ', '"']) {
        format!("\"{}\"", text.replace('"', "'"))
    } else {
        text.to_owned()
    }
}
