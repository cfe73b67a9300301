"""HTML of a message: style sheets inlined, made into text, made of Markdown and MJML, made safe to show."""
