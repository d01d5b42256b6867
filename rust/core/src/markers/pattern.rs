//! Patterns of labels: `content/*/2024-*`.
//!
//! Segments are what stands between slashes. In a segment `*` is any run of characters, the empty one too, and
//! `?` is one character; a segment `**` is any number of segments, none too. Neither crosses a slash otherwise.
//! Letters count as they are written, and nothing can be escaped.
//!
//! Of several wildcards only the last one met has to be tried again: if the part before it fits anywhere, its
//! first fit leaves the most room for the rest. So a judgement takes at most
//! `(characters of the label + 1) x (characters of the pattern + 1)` comparisons, and no memory.

/// Whether a label fits a pattern.
#[must_use]
pub fn matches(pattern: &str, label: &str) -> bool {
    matches_counted(pattern, label, &mut || ())
}

/// As [`matches`], calling `compared` for each comparison of two characters.
pub(crate) fn matches_counted(pattern: &str, label: &str, compared: &mut impl FnMut()) -> bool {
    fits(
        pattern.split('/'),
        label.split('/'),
        |segment| *segment == "**",
        &mut |wanted, segment| {
            fits(
                wanted.chars(),
                segment.chars(),
                |wanted| *wanted == '*',
                &mut |wanted, given| {
                    compared();
                    wanted == '?' || wanted == given
                },
            )
        },
    )
}

/// Whether all of `given` fits `wanted`, one by one, where a wildcard stands for any number of them.
fn fits<W, G>(
    mut wanted: W,
    mut given: G,
    is_wildcard: impl Fn(&W::Item) -> bool,
    same: &mut impl FnMut(W::Item, G::Item) -> bool,
) -> bool
where
    W: Iterator<Item: Copy> + Clone,
    G: Iterator<Item: Copy> + Clone,
{
    // What follows the last wildcard, and where it is tried now.
    let mut again: Option<(W, G)> = None;
    loop {
        let tried = given.clone();
        match (wanted.next(), given.next()) {
            (Some(next), _) if is_wildcard(&next) => {
                given = tried;
                again = Some((wanted.clone(), given.clone()));
                continue;
            }
            (None, None) => return true,
            // Further on there is even less left.
            (Some(_), None) => return false,
            (Some(next), Some(one)) if same(next, one) => continue,
            (_, Some(_)) => {}
        }
        let Some((after, from)) = &mut again else {
            return false;
        };
        from.next();
        (wanted, given) = (after.clone(), from.clone());
    }
}
