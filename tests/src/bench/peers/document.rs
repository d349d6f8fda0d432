//! The part of a document that a program writes: what stands between two lines that are comments in Markdown.

use crate::{Failure, Outcome};

/// The document with `part` between the lines that begin and end the part of this name, whatever stood there.
///
/// # Errors
/// When the two lines aren't there, once each and in this order.
pub fn replace(document: &str, name: &str, part: &str) -> Outcome<String> {
    let [begin, end] = ["begin", "end"].map(|which| format!("<!-- {name}: {which} -->\n"));
    let wrong = || Failure::Wrong(format!("the document has no {}...{}", begin.trim_end(), end.trim_end()));
    let (before, rest) = document.split_once(&begin).ok_or_else(wrong)?;
    let (_, after) = rest.split_once(&end).ok_or_else(wrong)?;
    if before.contains(&end) || after.contains(&begin) || after.contains(&end) {
        return Err(wrong());
    }
    Ok(format!("{before}{begin}\n{}\n\n{end}{after}", part.trim()))
}

#[cfg(test)]
mod tests {
    use super::replace;

    #[test]
    fn only_what_is_between_the_lines_changes() {
        let document = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n";
        let once = replace(document, "x", "new\n").expect("both lines are there");
        assert_eq!(once, "a\n<!-- x: begin -->\n\nnew\n\n<!-- x: end -->\nb\n");
        assert_eq!(replace(&once, "x", "new").expect("both lines are there"), once);
    }

    #[test]
    fn lines_that_are_missing_or_twice_there_are_an_error() {
        let begin = "<!-- x: begin -->\n";
        let end = "<!-- x: end -->\n";
        for wrong in ["", begin, end, &[end, begin].concat(), &[begin, end, end].concat()] {
            assert!(replace(wrong, "x", "new").is_err(), "{wrong}");
        }
        assert!(replace(&[begin, end].concat(), "y", "new").is_err());
    }
}
