//! What of a list of containers is shown: the filter as typed, the order, the columns. Pure.

use berth_web::containers::Column;

use super::shown::{self, Class};
use crate::service::containers::view::ContainerView;
use crate::service::history::Used;

/// A filter as typed: words, and `state:`, `image:`, `owner:`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    words: Vec<String>,
    states: Vec<String>,
    images: Vec<String>,
    owners: Vec<String>,
    /// Everybody's but that of the one named here.
    others_than: Option<String>,
}

/// The order of a list: by what, and whether the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Order {
    /// By which column; none is the order in which people are needed.
    pub by: Option<Column>,
    /// From the greatest to the least.
    pub down: bool,
}

impl Wanted {
    /// Reads a filter; `me` stands for the one who types.
    pub(super) fn read(text: &str, me: &str) -> Self {
        let mut wanted = Self::default();
        for word in text.split_whitespace() {
            let word = word.to_lowercase();
            let (list, word) = match word.split_once(':') {
                Some(("state", word)) => (&mut wanted.states, word),
                Some(("image", word)) => (&mut wanted.images, word),
                Some(("owner", "me")) => (&mut wanted.owners, me),
                Some(("owner", "others")) => {
                    wanted.others_than = Some(me.to_owned());
                    continue;
                }
                Some(("owner", word)) => (&mut wanted.owners, word),
                _ => (&mut wanted.words, word.as_str()),
            };
            list.push(word.to_owned());
        }
        wanted
    }

    /// Whether a container is shown. Words and images must all fit; of states and owners one.
    pub(super) fn fits(&self, view: &ContainerView) -> bool {
        let class = match shown::class(view) {
            Class::Running => "running",
            Class::Stopped => "stopped",
            Class::Failed => "failed",
        };
        let state = |word: &String| word == class || word == view.status.as_str();
        let name = view.name.to_lowercase();
        let image = view.image.reference.to_lowercase();
        let words = |word: &String| {
            name.contains(word)
                || image.contains(word)
                || view.id.as_str().starts_with(word.as_str())
        };
        self.words.iter().all(words)
            && self.images.iter().all(|word| image.contains(word))
            && (self.states.is_empty() || self.states.iter().any(state))
            && (self.owners.is_empty() || self.owners.contains(&view.owner.name))
            && self.others_than.as_ref().is_none_or(|me| view.owner.name != *me)
    }
}

impl Order {
    /// Of a link's `sort`: a column's name, `-` before it for the other way round.
    pub(super) fn read(text: &str) -> Self {
        let (name, down) = match text.strip_prefix('-') {
            Some(name) => (name, true),
            None => (text, false),
        };
        let by = Column::read(name);
        Self { by, down: down && by.is_some() }
    }

    /// The link's `sort` that a click on the head of `column` leads to.
    pub(super) fn after_click(self, column: Column) -> String {
        let again = self.by == Some(column);
        // Figures are asked for from the greatest.
        let down = if again { !self.down } else { column.is_figure() };
        format!("{}{}", if down { "-" } else { "" }, column.name())
    }

    /// Puts a list in order; equals stay as they are, newest first.
    pub(super) fn sort<'a>(
        self,
        list: &mut [&'a ContainerView],
        used: impl Fn(&'a ContainerView) -> Option<Used>,
    ) {
        let Some(by) = self.by else {
            // What needs somebody comes first, then what runs.
            list.sort_by_key(|view| match shown::class(view) {
                Class::Failed => 0,
                Class::Running => 1,
                Class::Stopped => 2,
            });
            return;
        };
        let text = |view: &ContainerView| match by {
            Column::Name => view.name.clone(),
            Column::Owner => view.owner.name.clone(),
            Column::State => view.status.as_str().to_owned(),
            Column::Image => view.image.reference.clone(),
            Column::Restart => shown::restart_word(view).to_owned(),
            _ => String::new(),
        };
        let number = |view: &'a ContainerView| {
            let figure = |of: fn(&Used) -> u64| used(view).map_or(-1, |used| signed(of(&used)));
            match by {
                Column::Cpu => figure(|used| used.cpu_millis.unwrap_or(0)),
                Column::Memory => figure(|used| used.sample.memory.used_bytes),
                Column::Pids => figure(|used| used.sample.pids),
                Column::Address => view.address.map_or(-1, |address| i64::from(u32::from(address))),
                Column::Created => view.created_at.0,
                Column::Since => shown::since(view).map_or(0, |at| at.0),
                _ => 0,
            }
        };
        list.sort_by_cached_key(|view| (text(view), number(view)));
        if self.down {
            list.reverse();
        }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_words_and_keys() {
        let wanted = Wanted::read("Train state:running image:alpine:3 owner:anna owner:me", "kim");
        assert_eq!(wanted.words, ["train"]);
        assert_eq!(wanted.states, ["running"]);
        assert_eq!(wanted.images, ["alpine:3"]);
        assert_eq!(wanted.owners, ["anna", "kim"]);
        assert_eq!(Wanted::read("owner:others", "kim").others_than.as_deref(), Some("kim"));
        assert_eq!(Wanted::read("  ", "kim"), Wanted::default());
    }

    #[test]
    fn a_click_turns_an_order_around_and_figures_begin_with_the_greatest() {
        let order = Order::read("name");
        assert_eq!((order.by, order.down), (Some(Column::Name), false));
        assert_eq!(order.after_click(Column::Name), "-name");
        assert_eq!(order.after_click(Column::Memory), "-memory");
        assert_eq!(Order::read("-memory").after_click(Column::Memory), "memory");
        assert_eq!(Order::read("nonsense"), Order::default());
        assert_eq!(Order::read("-"), Order::default());
    }
}
