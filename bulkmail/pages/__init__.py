"""One page kit: style, skeleton, policy, plots.  It knows no page; rooms that show something use it."""
