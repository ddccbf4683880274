//! Text that people read.

/// Cuts a text to so many characters; `…` stands for the rest.
pub(crate) fn shorten(text: &mut String, characters: usize) {
    if let Some((end, _)) = text.char_indices().nth(characters) {
        text.truncate(end);
        text.push('…');
    }
}
