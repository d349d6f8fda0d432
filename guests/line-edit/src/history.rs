//! Lines that were entered before.

use crate::line::Line;

/// How many are kept.
pub(crate) const LINES: usize = 16;

/// The last [`LINES`] lines, and which of them is being looked at.
pub(crate) struct History<const N: usize> {
    /// The latest first.
    lines: [Line<N>; LINES],
    count: usize,
    /// How far back one has gone; 0 is the line that is being written.
    age: usize,
    /// That line, while another one is looked at.
    draft: Line<N>,
}

impl<const N: usize> History<N> {
    pub const fn new() -> Self {
        Self { lines: [const { Line::new() }; LINES], count: 0, age: 0, draft: Line::new() }
    }

    /// A line was entered. One that is blank, or the same as the one before, isn't kept.
    pub fn push(&mut self, line: &Line<N>) {
        self.leave();
        let is_last = self.count > 0 && *self.lines[0] == **line;
        if line.trim().is_empty() || is_last {
            return;
        }
        self.lines.rotate_right(1);
        self.lines[0] = *line;
        self.count = (self.count + 1).min(LINES);
    }

    /// What was looked at is left.
    pub fn leave(&mut self) {
        self.age = 0;
    }

    /// The line before the one that is looked at, if there is one; `current` is what it has become.
    pub fn older(&mut self, current: &Line<N>) -> Option<Line<N>> {
        if self.age == self.count {
            return None;
        }
        if self.age == 0 {
            self.draft = *current;
        }
        self.age += 1;
        Some(self.lines[self.age - 1])
    }

    /// The line behind the one that is looked at; at last, the one that was being written.
    pub fn newer(&mut self) -> Option<Line<N>> {
        self.age = self.age.checked_sub(1)?;
        Some(if self.age == 0 { self.draft } else { self.lines[self.age - 1] })
    }
}
