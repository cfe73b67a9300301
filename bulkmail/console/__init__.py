"""The console: a local web page that shows campaigns and runs, and starts the ordinary commands."""
