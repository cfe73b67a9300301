"""The public side: links to unsubscribe by, and what sending services report."""
