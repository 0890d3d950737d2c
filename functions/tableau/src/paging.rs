//! Lists of several pages, within their share of the memory.

use crate::{answer::Answer, body::LIST, error::TableauError};

/// The most pages of a list. Full pages exceed a site's share of the memory earlier.
const MAX_PAGES: usize = 100;

/// The memory that the next pages of a list may take, and the number of pages so far.
pub(crate) struct PageBudget {
    pages: usize,
    pub(crate) bytes: usize,
}

impl PageBudget {
    pub(crate) fn new() -> Self {
        Self { pages: 0, bytes: LIST }
    }

    /// Returns the number of the next page, counted from 1.
    pub(crate) fn next_page(&self) -> usize {
        self.pages + 1
    }

    /// Takes a page, whose items have these sizes in memory.
    pub(crate) fn take(&mut self, answer: &Answer, items: impl Iterator<Item = usize>) -> Result<(), TableauError> {
        if self.pages >= MAX_PAGES {
            return Err(answer.unreadable(format!("the list does not end within {MAX_PAGES} pages")));
        }
        self.pages += 1;
        let bytes = self.bytes.checked_sub(items.sum());
        self.bytes = bytes.ok_or_else(|| answer.unreadable("the list exceeds its share of the memory"))?;
        Ok(())
    }
}
