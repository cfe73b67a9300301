"""Lists of people: CSV, JSON, JSON lines and workbooks in, checked recipients out, one row at a time."""
